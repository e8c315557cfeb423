"""The client under trio, against real sockets: answers, fail-over, errors, cancelling, order."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.client import Client
from dsreg.client.events import Disconnected
from dsreg.client.limits import GET_ATTEMPT_S, MAX_OPERATIONS, TICK_S
from dsreg.constants import MAX_SECTORS, SECTOR_SIZE
from dsreg.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClientError,
    OperationTimeout,
    Outcome,
    OutOfRange,
    WrongDisk,
)
from dsreg.protocol.codec import Keys
from dsreg.protocol.messages import CommandKind, Status
from dsreg.store import split
from tests.client.clock import StoppedClock
from tests.client.fake_node import FakeCluster, cluster

GET, READ, TAG, STORE = CommandKind.GET, CommandKind.READ, CommandKind.TAG, CommandKind.STORE
PUT, ATTACH = CommandKind.PUT, CommandKind.ATTACH
EVERYTHING = frozenset(CommandKind)


def sectors(count: int, fill: int = 1) -> bytes:
    return bytes([fill]) * (count * SECTOR_SIZE)


async def all_connected(client: Client) -> None:
    """A report has come from each: none is still connecting."""
    for node in client.nodes:
        await client.status(node.rank, timeout_s=20)


@pytest.fixture
async def nodes() -> AsyncIterator[FakeCluster]:
    with trio.fail_after(30):
        async with cluster() as made:
            yield made


# --- reading and writing --------------------------------------------------------------------------
async def test_what_was_written_is_read(nodes: FakeCluster, rng: random.Random) -> None:
    async with Client(nodes.config) as client:
        assert await client.read(9) == sectors(1, 0)
        data = rng.randbytes(700 * SECTOR_SIZE)
        await client.write(100, data)
        assert await client.read(100, 700) == data
        assert await client.read(101, 2) == data[SECTOR_SIZE : 3 * SECTOR_SIZE]
        await client.write(0, memoryview(bytearray(sectors(1, 9))))
        assert await client.read(0) == sectors(1, 9)


def test_runs_stay_in_their_chunks() -> None:
    assert list(split(250, 10)) == [(250, 6), (256, 4)]
    assert list(split(0, 256)) == [(0, 256)]
    assert list(split(255, 514)) == [(255, 1), (256, 256), (512, 256), (768, 1)]


async def test_many_at_once_all_arrive(nodes: FakeCluster, rng: random.Random) -> None:
    expected: dict[int, bytes] = {}
    async with Client(nodes.config) as client:
        async with trio.open_nursery() as nursery:
            for sector in rng.sample(range(4096), 600):
                expected[sector] = rng.randbytes(SECTOR_SIZE)
                nursery.start_soon(client.write, sector, expected[sector])
        for sector, data in expected.items():
            assert nodes.disk.read(sector, 1) == data


async def test_arguments(nodes: FakeCluster) -> None:
    async with Client(nodes.config) as client:
        for bad in (b"", b"x", bytes(SECTOR_SIZE + 1)):
            with pytest.raises(ValueError, match="multiple"):
                await client.write(0, bad)
        with pytest.raises(ValueError, match="count"):
            await client.read(0, 0)
        for first, count in ((-1, 1), (MAX_SECTORS, 1)):
            with pytest.raises(OutOfRange) as caught:
                await client.read(first, count)
            assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
        assert not any(node.log for node in nodes.nodes)


# --- nodes that fail ------------------------------------------------------------------------------
async def test_a_store_cut_off_is_finished_on_another_node_under_the_same_tags(nodes: FakeCluster) -> None:
    nodes.nodes[0].behaviour.cuts_at = frozenset({STORE})
    async with Client(nodes.config) as client:
        StoppedClock(client)
        await all_connected(client)
        await client.write(0, sectors(3))
        assert client.counters.failovers == 1
    stores = [command for node in nodes.nodes for command in node.log if command.kind is STORE]
    assert len(stores) == 2 and stores[0].tags == stores[1].tags
    assert nodes.disk.read(0, 3) == sectors(3)


async def test_a_deaf_node_costs_one_attempt(nodes: FakeCluster) -> None:
    deaf = nodes.nodes[0]
    deaf.behaviour.deaf_to = EVERYTHING
    async with Client(nodes.config) as client:
        clock = StoppedClock(client)
        await all_connected(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, 0, sectors(1))
            await deaf.until(1)
            clock.move(GET_ATTEMPT_S - 0.01)
            await trio.sleep(2 * TICK_S)
            assert nursery.child_tasks and not client.counters.hedges
            clock.move(0.02)
        assert client.counters.hedges == 1
        await client.read(0)  # no time passes
        assert client.counters.hedges == 1


async def test_a_stopping_node_is_left_at_once(nodes: FakeCluster) -> None:
    nodes.nodes[0].behaviour.refuses = {TAG: Status.STOPPING}
    async with Client(nodes.config) as client:
        StoppedClock(client)
        await all_connected(client)
        await client.write(0, sectors(1))  # no time passes
        assert (client.counters.coordinated, client.counters.hedges) == (1, 0)


async def test_operations_wait_for_a_node_and_the_client_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dsreg.client")
    async with cluster(1) as nodes:
        node = nodes.nodes[0]
        async with Client(nodes.config) as client:
            await client.write(0, sectors(1, 1))
            node.stop()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, 0, sectors(1, 2))
                nursery.start_soon(client.write, 1, sectors(1, 3))
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert nodes.disk.read(1, 1) == sectors(1, 0)
                await nodes.restart(node)
            assert nodes.disk.read(0, 2) == sectors(1, 2) + sectors(1, 3)
            assert client.counters.reconnects == 1
    news = [message.rpartition(": ")[2] for message in caplog.messages]
    assert news == ["usable", "the connection has ended", "usable"]


async def test_connections_that_keep_breaking_lose_nothing(nodes: FakeCluster, rng: random.Random) -> None:
    written: dict[int, bytes] = {}
    async with Client(nodes.config) as client, trio.open_nursery() as breaking:

        async def trouble() -> None:
            while True:
                node = rng.choice(nodes.nodes)
                node.behaviour.cuts_at = frozenset(rng.sample([GET, READ, TAG, STORE], rng.randrange(3)))
                await trio.sleep(0.01)

        async def work(lane: int) -> None:
            for turn in range(20):
                sector = lane * 300 + turn % 4
                written[sector] = rng.randbytes(SECTOR_SIZE)
                await client.write(sector, written[sector])
                assert await client.read(sector) == written[sector]

        breaking.start_soon(trouble)
        async with trio.open_nursery() as workers:
            for lane in range(8):
                workers.start_soon(work, lane)
        breaking.cancel_scope.cancel()
    for sector, data in written.items():
        assert nodes.disk.read(sector, 1) == data


# --- giving up ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("deaf_to", "outcome"),
    [(READ, Outcome.DID_NOT_HAPPEN), (TAG, Outcome.DID_NOT_HAPPEN), (STORE, Outcome.MAY_HAVE_HAPPENED)],
)
async def test_a_timeout_says_what_is_known(nodes: FakeCluster, deaf_to: CommandKind, outcome: Outcome) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({deaf_to, GET} if deaf_to is READ else {deaf_to})
    outcomes: list[Outcome] = []
    async with Client(nodes.config, timeout_s=0.2) as client:
        clock = StoppedClock(client)
        await all_connected(client)

        async def call() -> None:
            with pytest.raises(OperationTimeout) as caught:
                await (client.read(0) if deaf_to is READ else client.write(0, sectors(1)))
            outcomes.append(caught.value.outcome)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await nodes.nodes[0].until(1, GET if deaf_to is READ else deaf_to)
            assert outcomes == []
            clock.move(0.21)
    assert outcomes == [outcome]


async def test_a_part_of_a_large_write_makes_the_whole_uncertain(nodes: FakeCluster) -> None:
    outcomes: list[Outcome] = []
    async with Client(nodes.config, timeout_s=0.5) as client:
        clock = StoppedClock(client)
        nodes.nodes[2].behaviour.deaf_to = EVERYTHING
        await all_connected(client)

        async def write() -> None:
            with pytest.raises(OperationTimeout) as caught:
                await client.write(0, sectors(512))  # the tags of chunk 0 by nodes 1 and 2, those of chunk 1 by 2 and 3
            outcomes.append(caught.value.outcome)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await nodes.nodes[0].until(1, STORE)
            await nodes.nodes[2].until(1)
            clock.move(0.51)
        assert outcomes == [Outcome.MAY_HAVE_HAPPENED]
        assert nodes.disk.read(0, 512) == sectors(256) + sectors(256, 0)


async def test_an_abandoned_store_is_over_before_the_next_write_to_its_sectors() -> None:
    async with cluster(1) as nodes:
        node = nodes.nodes[0]
        async with Client(nodes.config) as client, trio.open_nursery() as nursery:
            node.holds = True
            scope = trio.CancelScope()

            async def old() -> None:
                with scope:
                    await client.write(5, sectors(1, 1))

            nursery.start_soon(old)
            await node.until(1, TAG)
            await node.release()
            node.holds = True
            await node.until(1, STORE)
            scope.cancel()
            nursery.start_soon(client.write, 5, sectors(1, 2))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert [command.kind for command in node.log] == [TAG, STORE]
            await node.release()
            await node.until(2, STORE)
        assert nodes.disk.read(5, 1) == sectors(1, 2)


async def test_cancelled_reads_leave_nothing_behind() -> None:
    async with cluster(1) as nodes:
        node = nodes.nodes[0]
        node.behaviour.deaf_to = frozenset({GET, READ})
        async with Client(nodes.config) as client:
            StoppedClock(client)  # none is asked for again
            await all_connected(client)
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for sector in range(2 * MAX_OPERATIONS):
                        nursery.start_soon(client.read, sector)
                    await node.until(MAX_OPERATIONS, GET)
                    nursery.cancel_scope.cancel()
            asked = [command.first for command in node.log if command.kind == GET]
            assert len(set(asked)) == len(asked)  # what is cancelled gives room to others; none is asked for again
            assert client._engine.is_idle
            node.behaviour.deaf_to = frozenset()
            with trio.fail_after(20):
                assert await client.read(0, 2) == sectors(2, 0)


async def test_closing_ends_what_runs_and_what_waits(nodes: FakeCluster) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({STORE})
    client = Client(nodes.config)
    outcomes: list[Outcome] = []

    async def write() -> None:
        with pytest.raises(ClientClosed) as caught:
            await client.write(0, sectors(1))
        outcomes.append(caught.value.outcome)

    async with trio.open_nursery() as nursery:
        async with client:
            await all_connected(client)
            nursery.start_soon(write)
            nursery.start_soon(write)
            await nodes.nodes[0].until(1, STORE)
    assert sorted(outcome.name for outcome in outcomes) == ["DID_NOT_HAPPEN", "MAY_HAVE_HAPPENED"]
    with pytest.raises(ClientClosed):
        await client.read(0)


async def test_an_error_in_the_body_comes_out_as_it_is(nodes: FakeCluster) -> None:
    with pytest.raises(OutOfRange):
        async with Client(nodes.config) as client:
            await client.read(4096)


# --- order --------------------------------------------------------------------------------------
async def test_operations_that_overlap_go_one_by_one_in_order() -> None:
    async with cluster(1) as nodes:
        node = nodes.nodes[0]
        node.holds = True
        results: list[bytes] = []
        async with Client(nodes.config) as client, trio.open_nursery() as nursery:

            async def read() -> None:
                results.append(await client.read(2, 2))

            nursery.start_soon(client.write, 0, sectors(4, 1))
            await node.until(1)
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.start_soon(client.write, 3, sectors(1, 2))
            nursery.start_soon(client.write, 9, sectors(1, 7))
            await node.until(2)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert [(command.kind, command.first) for command in node.log] == [(TAG, 0), (TAG, 9)]
            await node.release()
        assert results == [sectors(2, 1)]
        assert nodes.disk.read(0, 4) == sectors(3, 1) + sectors(1, 2)



# --- nodes that cannot be used --------------------------------------------------------------------
async def test_a_damaged_greeting_is_not_taken_for_another_key(nodes: FakeCluster) -> None:
    """Each node's first answers are damaged on their way, which looks as if none of them had our key."""
    for node in nodes.nodes:
        node.behaviour.spoils = 1
    async with Client(nodes.config) as client:
        await client.write(3, sectors(1, 7))
        assert await client.read(3) == sectors(1, 7)
        await all_connected(client)
        assert [client.complaint(node.rank) for node in client.nodes] == ["", "", ""]


@pytest.mark.allow_logs("another client key")
async def test_a_wrong_key_is_an_error_and_not_a_wait() -> None:
    async with cluster(keys=Keys(bytes(32), bytes(64))) as nodes, Client(nodes.config) as client:
        with trio.fail_after(20), pytest.raises(AuthenticationFailed) as caught:
            await client.write(0, sectors(1))
        assert caught.value.outcome is Outcome.DID_NOT_HAPPEN


@pytest.mark.allow_logs("disk of another size")
async def test_a_wrong_size_is_an_error_and_not_a_wait(nodes: FakeCluster) -> None:
    async with Client(dataclasses.replace(nodes.config, sectors=8192)) as client:
        with trio.fail_after(20), pytest.raises(WrongDisk, match=r"disk of 4096 sectors, not of 8192") as caught:
            await client.write(0, sectors(1))
        assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
        assert client.complaint(1) == "has a disk of another size (4096 sectors, not 8192)"


async def test_no_complaint_about_a_good_node(nodes: FakeCluster) -> None:
    async with Client(nodes.config) as client:
        await all_connected(client)
        assert [client.complaint(node.rank) for node in client.nodes] == ["", "", ""]


@pytest.mark.allow_logs("does not speak the extension")
async def test_a_foreign_node_is_not_used_and_named_once(
    nodes: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = nodes.nodes[0]
    foreign.behaviour.greets = False
    async with Client(nodes.config) as client:
        await client.write(0, sectors(1))
        with trio.fail_after(12):
            await foreign.until_connections(3)
        assert client.connected_ranks == (2, 3)
    assert not foreign.log or all(command.first == (1 << 64) - 1 for command in foreign.log)
    assert len([record for record in caplog.records if "does not speak" in record.getMessage()]) == 1


# --- status -------------------------------------------------------------------------------------
async def test_status(nodes: FakeCluster) -> None:
    async with Client(nodes.config) as client:
        report = await client.status(2, timeout_s=5)
        assert report["rank"] == 2 and 0 < report["round_trip_s"] < 5
        nodes.nodes[2].behaviour.answers_status = False
        with pytest.raises(OperationTimeout):
            await client.status(3, timeout_s=0.1)
        nodes.nodes[0].stop()
        with pytest.raises(ClientError):
            await client.status(1, timeout_s=0.1)
        with pytest.raises(ValueError, match="rank 9"):
            await client.status(9, timeout_s=1)


async def test_a_status_asked_for_in_the_turn_in_which_the_connection_breaks(nodes: FakeCluster) -> None:
    """Whoever waited for the connection runs one turn after it has come: it may be gone by then."""
    async with Client(nodes.config) as client:
        await all_connected(client)
        client._engine.disconnected(Disconnected(1))
        assert await client._runner.ask_status(1) is None
