"""Attachments over real nodes: who has the disk, who takes it over, and what the others see meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.errors import AlreadyAttached, DiskFenced, Outcome
from tests.processes.cluster import POLL_S, ROOT, TIMEOUT_S, Cluster, until
from tests.processes.history import History, now, stamp, value_of
from tests.processes.proxy import Network
from tests.processes.raw import RawClient

FIRST, SECOND, THIEF = Attach(name="host a"), Attach(name="host b"), Attach(take_over=True, name="host c")
# Attaches, says so, and holds the disk until it is killed.
HOLDER = """
import sys, trio
from pathlib import Path
from dsreg.client import Attach, Client
from dsreg.config import load_config
async def main():
    async with Client(load_config(Path(sys.argv[1])), attach=Attach(name="holder")) as client:
        print(await client.attached(), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
# A PUT that two nodes have is done, whatever becomes of the third: all that a write may wait for is a busy machine.
LONGEST_GAP_S = 5.0


async def attached(cluster: Cluster, attach: Attach) -> int:
    """The epoch in which a client attaches the disk now; it is closed at once."""
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config, attach=attach) as client:
            return await client.attached()


@pytest.fixture
def holder(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the disk attached, in epoch 1."""
    command = [sys.executable, "-c", HOLDER, str(cluster.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"1\n"
            yield process
        finally:
            process.kill()


async def test_the_second_one_is_refused_with_the_name_of_the_first(cluster: Cluster) -> None:
    async with Client(cluster.config, attach=FIRST) as first:
        await first.attached()
        with pytest.raises(AlreadyAttached, match="attached by host a, which is alive"):
            await attached(cluster, SECOND)
        await first.write(1, stamp(1))
        assert value_of(await first.read(1)) == 1


async def test_who_is_taken_over_from_is_fenced_within_one_request(cluster: Cluster) -> None:
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as first:
            await first.write(1, stamp(1))
            epoch = await first.attached()
            async with Client(cluster.config, attach=THIEF) as thief:
                assert await thief.attached() == epoch + 1
                with pytest.raises(DiskFenced) as fenced:
                    await first.write(1, stamp(2))
                with pytest.raises(DiskFenced):
                    await first.read(1)
                assert isinstance(await first.lost(), DiskFenced)
                # A node that has not heard of the take-over yet may have taken it.
                possible = (1,) if fenced.value.outcome is Outcome.DID_NOT_HAPPEN else (1, 2)
                assert value_of(await thief.read(1)) in possible
                await thief.write(1, stamp(3))
            async with Client(cluster.config) as plain:
                assert value_of(await plain.read(1)) == 3


async def test_a_holder_that_is_killed_is_in_nobodys_way(cluster: Cluster, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(AlreadyAttached, match="holder"):
        await attached(cluster, SECOND)
    holder.kill()
    await trio.to_thread.run_sync(holder.wait)
    assert await attached(cluster, SECOND) == 2


async def test_an_attachment_outlives_a_restart_of_all_nodes(cluster: Cluster) -> None:
    with trio.fail_after(2 * TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as client:
            await client.write(1, stamp(1))
            epoch = await client.attached()
            await trio.to_thread.run_sync(cluster.kill)
            await trio.to_thread.run_sync(cluster.start)
            await client.write(2, stamp(2))
            assert [value_of(await client.read(sector)) for sector in (1, 2)] == [1, 2]
            assert await client.attached() == epoch
            # The nodes have learned again whose it is, and that it is alive.
            with pytest.raises(AlreadyAttached, match="host a"):
                await attached(cluster, SECOND)


async def test_what_an_attachment_wrote_is_there_after_it(cluster: Cluster, rng: random.Random) -> None:
    data = rng.randbytes(300 * 4096)
    async with Client(cluster.config, attach=FIRST) as client:
        await client.write(100, data)
    await trio.to_thread.run_sync(cluster.kill)
    await trio.to_thread.run_sync(cluster.start, 1, 3)
    for attach in (None, SECOND):
        async with Client(cluster.config, attach=attach) as client:
            assert await client.read(100, 300) == data


async def test_a_node_that_was_down_is_no_way_around_the_take_over(cluster: Cluster) -> None:
    """The first holder reaches the node that has missed the take-over: that alone lets nothing through."""
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as first:
            await first.write(1, stamp(1))
            await trio.to_thread.run_sync(cluster.kill, 3)
            async with Client(cluster.config, attach=THIEF) as thief:
                await thief.write(1, stamp(2))
            await trio.to_thread.run_sync(cluster.start, 3)
            with pytest.raises(DiskFenced):
                await first.write(1, stamp(3))
            async with Client(cluster.config) as plain:
                assert value_of(await plain.read(1)) == 2


async def test_a_write_that_one_node_stored_before_its_connection_broke_may_have_happened(cluster: Cluster) -> None:
    """The two others answer Fenced. Node 1 has the write, and a read that goes through it brings it up."""
    with trio.fail_after(TIMEOUT_S), Network(7) as network:
        links = {rank: network.link(cluster.address(rank)) for rank in cluster.ranks}
        seen = cluster.seen_at({rank: link.address for rank, link in links.items()})
        async with Client(seen, attach=FIRST) as first, Client(cluster.only(1)) as plain:
            await first.attached()
            await trio.to_thread.run_sync(until, lambda: len(first.connected_ranks) == 3, "all connected")
            async with Client(cluster.only(2, 3), attach=THIEF) as thief:
                await thief.attached()
            cluster.pause(2)
            cluster.pause(3)
            links[1].change_next(to_target=False)  # the answer: it ends the connection
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write_and_be_fenced, first)
                await _written(plain, 1)
                links[1].cut()
                cluster.resume(2)
                cluster.resume(3)
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        assert value_of(await trio.to_thread.run_sync(client.read, 1)) == 5


async def _written(client: Client, rank: int) -> None:
    """Until the node has stored something."""
    while True:
        if (await client.status(rank, TIMEOUT_S))["sectors_written"]:
            return
        await trio.sleep(POLL_S)


async def _write_and_be_fenced(client: Client) -> None:
    with pytest.raises(DiskFenced) as caught:
        await client.write(1, stamp(5))
    assert caught.value.outcome is Outcome.MAY_HAVE_HAPPENED


async def test_contract_clients_beside_an_attached_one(cluster: Cluster, rng: random.Random) -> None:
    """The register stays atomic for everybody, whoever has it attached."""
    history, sectors = History(), range(6)

    def contract(rank: int) -> None:
        with RawClient(cluster.address(rank), cluster.config.client_key) as client:
            for _ in range(40):
                sector, start = rng.choice(sectors), now()
                if rng.random() < 0.5:
                    value = history.new_value()
                    client.write(sector, stamp(value))
                    history.wrote(sector, value, start, now(), f"contract {rank}")
                else:
                    value = value_of(client.read(sector))
                    history.read(sector, value, start, now(), f"contract {rank}")

    async def holder(client: Client, name: str) -> None:
        for _ in range(60):
            sector, start = rng.choice(sectors), now()
            if rng.random() < 0.5:
                value = history.new_value()
                await client.write(sector, stamp(value))
                history.wrote(sector, value, start, now(), name)
            else:
                value = value_of(await client.read(sector))
                history.read(sector, value, start, now(), name)

    with trio.fail_after(2 * TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as client, Client(cluster.config, force=True) as plain:
            await client.attached()
            async with trio.open_nursery() as nursery:
                for rank in cluster.ranks:
                    nursery.start_soon(trio.to_thread.run_sync, contract, rank)
                for number in range(3):
                    nursery.start_soon(holder, client, f"attached {number}")
                nursery.start_soon(holder, plain, "plain")
    history.check()


@pytest.mark.parametrize("victim", [1, 2, 3])
async def test_a_node_that_is_killed_under_load_costs_a_moment(
    make_cluster: Callable[..., Cluster], rng: random.Random, victim: int
) -> None:
    cluster = make_cluster()
    cluster.start()
    gaps: list[float] = []
    written: dict[int, int] = {}

    async def write(client: Client, lane: int) -> None:
        for value in range(1, 10**6):
            sector, start = lane * 256 + value % 7, now()
            await client.write(sector, stamp(value))
            gaps.append(now() - start)
            written[sector] = value
            if len(gaps) == 100:
                loaded.set()
            if killed_at and len(gaps) >= killed_at[0] + 100:
                return

    loaded, killed_at = trio.Event(), list[int]()
    with trio.fail_after(2 * TIMEOUT_S):
        async with Client(cluster.config, attach=FIRST) as client:
            await client.attached()
            async with trio.open_nursery() as nursery:
                for lane in range(4):
                    nursery.start_soon(write, client, lane)
                await loaded.wait()
                await trio.to_thread.run_sync(cluster.kill, victim)
                killed_at.append(len(gaps))
            print(f"longest write {max(gaps):.3f} s of {len(gaps)}; {client.counters}")
            for sector, value in written.items():
                assert value_of(await client.read(sector)) == value
    assert max(gaps) < LONGEST_GAP_S
