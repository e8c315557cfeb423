"""The log of slow requests, in edges and nodes: what it says they have waited for, and how often."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.block_device import BlockDevice
from dsreg.client import Attach, Client
from dsreg.config import create_cluster, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Command, CommandKind
from dsreg.slow import INTERVAL_S, SlowLog, covered_s
from dsreg.store import Flush, Read, Write
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume, VolumeOptions, open_volume
from dsreg.volume.slow import SlowRequests
from tests.fuse.tools import wait_until
from tests.node_processes import Nodes
from tests.processes.cluster import free_addresses
from tests.test_volume import ask

LIMIT_S = 0.2
HELD_S = 0.6  # below the time after which a client leaves a PUT to a node


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fields_of(record: logging.LogRecord, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name, None) for name in names)


def test_time_that_is_covered_is_counted_once() -> None:
    assert covered_s([], 0, 10) == 0
    assert covered_s([(4, 6), (1, 2), (5, 7)], 0, 10) == 4
    assert covered_s([(-5, 1), (9, 20), (3, 4), (3, 4)], 0, 10) == 3
    assert covered_s([(-5, 20), (1, 2)], 0, 10) == 10
    assert covered_s([(-5, -1), (20, 21)], 0, 10) == 0


@pytest.mark.allow_logs("first", "slow", "last")
def test_one_line_a_second_and_the_number_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    slow = SlowLog(LIMIT_S, clock)
    assert slow.is_due(0.3)
    slow.say("first", {"took_ms": 300.0})
    for took_s in (0.2, 0.9, 0.4):
        assert not slow.is_due(took_s)
    slow.tick()
    assert len(caplog.records) == 1
    clock.now_s += INTERVAL_S
    slow.tick()
    slow.tick()
    clock.now_s += INTERVAL_S
    assert slow.is_due(0.3)
    slow.say("last", {})
    assert [record.getMessage() for record in caplog.records] == [
        "first", "slow (3 more since the last line, the longest 900.0 ms)", "last"]
    told = [fields_of(record, "suppressed", "took_ms") for record in caplog.records]
    assert told == [(0, 300.0), (3, None), (0, None)]


@pytest.mark.allow_logs("took")
def test_what_a_request_has_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    slow = SlowRequests(LIMIT_S, clock)

    def step(first: int, count: int, took_s: float, rank: int) -> None:
        slow.answered(Command(CommandKind.PUT, 1, first, count, b"", b"", True, 1), rank, took_s)

    step(1, 2, 5.0, 3)  # before it began
    clock.now_s += 0.4
    step(2, 1, 0.1, 1)
    step(9, 1, 0.4, 3)  # of another one
    clock.now_s += 0.1
    step(1, 1, 0.1, 2)
    slow.ended(Write(SECTOR_SIZE + 5, b"." * SECTOR_SIZE), 0.45, is_cached=False)
    clock.now_s += 2
    slow.ended(Read(0, 1), 0.3, is_cached=False)
    clock.now_s += 2
    step(700, 1, 0.2, 2)
    slow.ended(Flush(), 0.3, is_cached=True)
    names = ("operation", "offset", "bytes", "took_ms", "queue_ms", "quorum_ms", "last_node")
    assert [fields_of(record, *names) for record in caplog.records] == [
        ("write", SECTOR_SIZE + 5, SECTOR_SIZE, 450.0, 250.0, 200.0, 2), ("read", 0, 1, 300.0, 300.0, 0.0, None),
        ("flush", None, None, 300.0, 100.0, 200.0, 2)]
    assert caplog.messages[0] == (
        f"a write of {SECTOR_SIZE} bytes at {SECTOR_SIZE + 5} took 450.0 ms: 250.0 ms until it was sent, 200.0 ms for "
        "a majority, of which node 2 was the last")
    assert caplog.messages[1].endswith("0.0 ms for a majority")


@pytest.mark.allow_logs("took")
def test_requests_below_the_limit_are_not_slow(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = Clock(), MemoryStore(4, holds=True)
    volume = Volume(BlockDevice(store), slow=SlowRequests(LIMIT_S, clock))
    volume.stall_watch.clock = clock
    for took_s in (LIMIT_S - 0.01, LIMIT_S + 0.01):
        volume.submit(Read(0, SECTOR_SIZE), lambda data, code: None)
        clock.now_s += took_s
        volume.end_turn()
    assert [fields_of(record, "operation", "took_ms") for record in caplog.records] == [("read", 210.0)]


@pytest.mark.allow_logs("took", "out of reach", "in reach again")
async def test_the_node_that_was_waited_for_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of three nodes one is dead and one is stopped for a while: that one completes each majority."""
    addresses = [f"{host}:{port}" for host, port in free_addresses(3)]
    file = create_cluster(tmp_path / "cluster", 1 << 20, addresses)
    file.write_text(file.read_text().replace("[cluster]", f"[cluster]\nslow_ms = {int(LIMIT_S * 1000)}", 1))
    config, log = load_config(file), tmp_path / "nodes.log"
    with contextlib.closing(Nodes(config, log)) as nodes:
        nodes.start(1, 2, 3)
        async with open_volume(VolumeOptions(config, attach=Attach(name="edge"), slow_s=LIMIT_S)) as opening:
            await opening.attached()
            async with opening.volume() as (volume, _), trio.open_nursery() as nursery:
                await ask(volume, Write(0, bytes(SECTOR_SIZE)))
                nodes.kill(3)
                caplog.clear()
                nodes.signal(signal.SIGSTOP, 2)
                nursery.start_soon(ask, volume, Write(8 * SECTOR_SIZE, b"." * SECTOR_SIZE))
                await trio.sleep(HELD_S)
                nodes.signal(signal.SIGCONT, 2)
        [slow] = [record for record in caplog.records if record.name == "dsreg.slow"]
        assert fields_of(slow, "operation", "last_node", "offset") == ("write", 2, 8 * SECTOR_SIZE)
        quorum_ms, queue_ms = fields_of(slow, "quorum_ms", "queue_ms")
        assert quorum_ms >= 1000 * (HELD_S - LIMIT_S) and queue_ms < quorum_ms
        # A client that has not attached the disk leaves the majority to a node, which says what it waits for.
        async with Client(config, force=True) as client:
            await client.read(8)
            nodes.signal(signal.SIGSTOP, 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, 8, bytes(SECTOR_SIZE))
                await trio.sleep(3 * HELD_S)
                nodes.signal(signal.SIGCONT, 2)
        line = re.compile(r"node-1 dsreg\.slow: (tag|store) of sector 8 by \S+ took [\d.]+ ms: [\d.]+ ms in syncs of "
                          r"this node, the rest for a majority, of which node 2 was the last")
        wait_until(lambda: line.search(log.read_text()) is not None, "the node has said so")
