"""The metrics of a real node, read by prometheus_client's own parsers over HTTP."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from dsreg.constants import SECTOR_SIZE
from dsreg.health.checks import CHECKS
from dsreg.metrics.of_node import REASONS, _reached
from dsreg.node.figures import serve_metrics
from dsreg.node.metering import MeteredInterpreter
from dsreg.protocol.messages import Command, Response, Status, owner_of
from dsreg.register.quorum import ranks_in
from tests.metrics.scraping import check_formats, get, samples
from tests.node.test_process import ENCODER, PATIENCE_S, Client, Served, config_of


class Scraped:
    """A node, a client of it, and its metrics."""

    def __init__(self, node: Served, client: Client, port: int) -> None:
        self.node, self.client, self.port = node, client, port

    async def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        return await get(self.port, path, accept)

    async def samples(self) -> dict[str, float]:
        return await samples(self.port)


@asynccontextmanager
async def scraped(tmp_path: Path) -> AsyncIterator[Scraped]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            node = Served(dataclasses.replace(config_of(tmp_path), metrics=("127.0.0.1", 0)))
            nursery.start_soon(node.run)
            port = await nursery.start(serve_metrics, node.node, ("127.0.0.1", 0))
            yield Scraped(node, await node.connect(), port)
            node.stop.set()
            await node.ended.wait()
            nursery.cancel_scope.cancel()


async def test_what_a_client_does_is_counted(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        before = await seen.samples()
        assert before["dsreg_request_duration_seconds_count{operation=write}"] == 0
        for number in range(3):
            done = await seen.client.ask(Command.write(number, number, bytes(range(256)) * (SECTOR_SIZE // 256)))
            assert done.status is Status.OK
        assert (await seen.client.ask(Command.read(9, 0))).status is Status.OK
        after = await seen.samples()
        assert after["dsreg_request_duration_seconds_count{operation=write}"] == 3
        assert 0 < after["dsreg_request_duration_seconds_sum{operation=write}"] < PATIENCE_S
        assert after["dsreg_request_bytes_total{operation=write}"] == 3 * SECTOR_SIZE
        assert after["dsreg_request_duration_seconds_count{operation=read}"] == 1
        assert after["dsreg_request_duration_seconds_bucket{le=+Inf,operation=write}"] == 3
        commits = after["dsreg_sync_duration_seconds_count"] - before["dsreg_sync_duration_seconds_count"]
        assert 1 <= commits <= 3
        assert after["dsreg_commit_size_bytes_sum"] - before["dsreg_commit_size_bytes_sum"] > 3 * SECTOR_SIZE
        assert after["dsreg_disk_written_bytes"] == after["dsreg_values_bytes"] == 3 * SECTOR_SIZE
        assert after["dsreg_connections{sealed=false}"] == 1 and after["dsreg_requests_unfinished"] == 0
        assert after["dsreg_attached"] == 0 and after["dsreg_quorum_needed"] == 1
        interpreter = seen.node.node.interpreter
        assert isinstance(interpreter, MeteredInterpreter) and not interpreter.began_s, "each was ended"


async def test_who_leaves_in_the_middle_is_not_remembered(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        owner = await seen.node.connect()
        assert (await owner.ask(Command.attach(1, 1, owner_of(bytes(range(16)), "x")))).status is Status.OK
        assert (await seen.samples())["dsreg_attached"] == 1
        for number in range(8):
            await owner.send(Command.write(10 + number, number, bytes(SECTOR_SIZE)))
        await owner.stream.aclose()
        interpreter = seen.node.node.interpreter
        assert isinstance(interpreter, MeteredInterpreter)
        while len(seen.node.node.server.connections) > 1:
            await trio.lowlevel.checkpoint()
        while interpreter.unfinished:
            await trio.lowlevel.checkpoint()
        assert not interpreter.began_s


async def test_both_formats_are_read_by_strict_parsers(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        await check_formats(seen.port)


async def test_health_by_name(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        samples = await seen.samples()
        assert {name for name in samples if name.startswith("dsreg_health{")} == {
            f"dsreg_health{{check={check.name}}}" for check in CHECKS}
        assert not [name for name, value in samples.items() if name.startswith("dsreg_health{") and value]
        assert await seen.get("/healthz") == (200, "well\n")
        assert (await seen.get("/nothing"))[0] == 404


@pytest.mark.allow_logs("sends frames with a wrong HMAC")
async def test_what_is_not_taken_is_counted_while_it_comes(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        before = await seen.samples()
        assert {name for name in before if name.startswith("dsreg_rejected_frames")} == {
            f"dsreg_rejected_frames_total{{reason={reason}}}" for reason in REASONS}
        assert before["dsreg_rejected_frames_total{reason=bad_mac}"] == before["dsreg_skipped_bytes_total"] == 0
        frame = b"".join(ENCODER.encode(Command.read(1, 0)))
        await seen.client.stream.send_all(b"garbage" + frame[:-1] + bytes([frame[-1] ^ 1]))
        answer = await seen.client.message()
        assert isinstance(answer, Response) and answer.status is Status.AUTH_FAILURE
        for _ in range(2):  # as long as the connection is there, and when it is over
            found = await seen.samples()
            assert found["dsreg_rejected_frames_total{reason=bad_mac}"] == 1
            assert found["dsreg_skipped_bytes_total"] == len(b"garbage")
            assert not [name for name in found if name.startswith("dsreg_events") and "bad_mac" in name]
            await seen.client.stream.aclose()
            while seen.node.node.server.connections:
                await trio.lowlevel.checkpoint()


async def test_what_the_process_takes(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        found = await seen.samples()
        assert found["dsreg_cpu_seconds_total"] > 0 and found["dsreg_resident_memory_bytes"] > 1 << 20
        assert abs(found["dsreg_start_time_seconds"] - time.time()) < PATIENCE_S
        assert found["dsreg_spare_nodes"] == 0, "it is the only one"


async def test_checkpoints_are_timed(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        assert (await seen.client.ask(Command.write(1, 0, bytes(range(256)) * 16))).status is Status.OK
        while not seen.node.node.storage.checkpoints:  # of a node that is idle: IDLE_CHECKPOINT_S
            await trio.lowlevel.checkpoint()
        found = await seen.samples()
        assert found["dsreg_checkpoint_duration_seconds_count"] == 1
        assert 0 < found["dsreg_checkpoint_duration_seconds_sum"] < PATIENCE_S


def test_whom_a_node_reaches() -> None:
    def reached(own: int | None, **links: str) -> list[int]:
        peers = {name[1:]: link for name, link in links.items()}
        return [*ranks_in(_reached({"rank": own, "peers": peers, "lives": {"waits_for": [] if own else [1]}}))]

    assert reached(2, n1="sealed", n3="extension") == [1, 2, 3]
    assert reached(2, n1="down", n3="contract", n4="silent", n5="waiting", n6="unsealed") == [2, 3]
    assert reached(None, n1="sealed") == [1]
