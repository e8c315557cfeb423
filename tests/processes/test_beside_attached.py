"""Clients that have not attached the disk, beside one that has: real nodes, every way to write."""

from __future__ import annotations

import queue

import pytest
import trio
import trio.testing

from dsreg.client import Attach, BlockingClient, Client
from dsreg.errors import AlreadyAttached, ClientError, Outcome
from dsreg.protocol.messages import Buffer
from tests.processes.cluster import TIMEOUT_S, Cluster
from tests.processes.history import stamp, value_of

FIRST = Attach(name="host a")
DATA = bytes(4096)


async def submitted(client: Client, sector: int, data: bytes) -> ClientError | None:
    """What a write that is submitted comes to."""
    over: queue.SimpleQueue[ClientError | None] = queue.SimpleQueue()

    def done(nothing: Buffer, error: ClientError | None) -> None:
        over.put(error)
        event.set()

    event = trio.Event()
    client.submit(sector, 1, data, done)
    client.end_turn()
    await event.wait()
    return over.get_nowait()


async def test_nothing_is_written_beside_it_but_by_force(cluster: Cluster) -> None:
    """Those that were there before the attachment too, and what is refused certainly did not happen."""
    with trio.fail_after(TIMEOUT_S):
        async with Client(cluster.config) as plain:
            await plain.write(1, stamp(1))
            async with Client(cluster.config, attach=FIRST) as first:
                await first.attached()
                for sectors in (1, 600):
                    with pytest.raises(AlreadyAttached, match="attached by host a, which is alive") as caught:
                        await plain.write(1, DATA * sectors)
                    assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
                assert isinstance(await submitted(plain, 1, DATA), AlreadyAttached)
                assert value_of(await first.read(1)) == value_of(await plain.read(1)) == 1
                await plain.write(1, stamp(2), force=True)
                assert value_of(await first.read(1)) == 2
                async with Client(cluster.config, force=True) as forcing:
                    assert await submitted(forcing, 1, stamp(3)) is None
                    await forcing.write(2, stamp(4))
                assert value_of(await first.read(1)) == 3
            while True:  # until the nodes have seen that the first is closed
                try:
                    await plain.write(1, stamp(5))
                    break
                except AlreadyAttached:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert value_of(await plain.read(1)) == 5


async def test_threads_are_refused_as_well(cluster: Cluster) -> None:
    def write(force: bool) -> None:
        with BlockingClient(cluster.config, TIMEOUT_S) as client:
            client.write(1, stamp(7), force=force)

    async with Client(cluster.config, attach=FIRST) as first:
        await first.attached()
        with pytest.raises(AlreadyAttached):
            await trio.to_thread.run_sync(write, False)
        await trio.to_thread.run_sync(write, True)
        assert value_of(await first.read(1)) == 7


async def test_a_minority_that_is_down_is_no_way_around_it(cluster: Cluster) -> None:
    """The node asked first was down when the disk was attached."""
    with trio.fail_after(TIMEOUT_S):
        await trio.to_thread.run_sync(cluster.kill, 1)
        async with Client(cluster.config, attach=FIRST) as first:
            await first.attached()
            await trio.to_thread.run_sync(cluster.start, 1)
            async with Client(cluster.config) as plain:
                for sector in (0, 256, 512):
                    with pytest.raises(AlreadyAttached):
                        await plain.write(sector, DATA)
