"""Runs that call back: Client.submit, against real sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.client import Client
from dsreg.client.limits import MAX_OPERATIONS
from dsreg.errors import ClientClosed, DsregError, OperationTimeout, Outcome, OutOfRange
from dsreg.protocol.messages import CommandKind
from dsreg.store import Buffer, Done
from tests.client.clock import StoppedClock
from tests.client.fake_node import FakeCluster, cluster
from tests.client.test_client import all_connected, sectors


@pytest.fixture
async def nodes() -> AsyncIterator[FakeCluster]:
    with trio.fail_after(30):
        async with cluster() as made:
            yield made


class Calls:
    """What callbacks were told, in their order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes, DsregError | None]] = []
        self._news = trio.Event()

    def named(self, name: str) -> Done:
        def done(data: Buffer, error: DsregError | None) -> None:
            self.told.append((name, bytes(data), error))
            self._news.set()

        return done

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]

    async def number(self, count: int) -> None:
        while len(self.told) < count:
            await self._news.wait()
            self._news = trio.Event()


def is_idle(client: Client) -> bool:
    """Nothing is held, counted or waited for any more."""
    return client._engine.is_idle


async def test_runs_that_overlap_end_in_their_order_and_others_beside_them(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        await all_connected(client)
        client.submit(300, 2, sectors(2, 7), calls.named("write"))
        client.submit(301, 1, None, calls.named("read behind it"))
        client.submit(302, 1, None, calls.named("read beside it"))
        assert calls.told == []
        client.end_turn()
        await calls.number(3)
        assert is_idle(client)
    told = {name: (data, error) for name, data, error in calls.told}
    assert told == {
        "write": (b"", None), "read beside it": (sectors(1, 0), None), "read behind it": (sectors(1, 7), None)
    }
    assert calls.names.index("write") < calls.names.index("read behind it")


async def test_a_task_that_waits_is_not_passed_by(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        await all_connected(client)
        client.submit(5, 1, sectors(1, 1), calls.named("write"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, 4, sectors(2, 2))
            await trio.testing.wait_all_tasks_blocked()
            client.submit(4, 2, None, calls.named("read"))
            client.end_turn()
        await calls.number(2)
    assert calls.told == [("write", b"", None), ("read", sectors(2, 2), None)]


async def test_more_than_may_be_under_way_waits_for_room(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        await all_connected(client)
        for number in range(MAX_OPERATIONS + 50):
            client.submit(number, 1, sectors(1, number % 250), calls.named(str(number)))
        assert len(client._engine._operations) == MAX_OPERATIONS
        client.end_turn()
        await calls.number(MAX_OPERATIONS + 50)
        assert is_idle(client)
    assert not [error for _, _, error in calls.told if error is not None]


async def test_what_waits_is_told_of_the_end(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        for number in range(MAX_OPERATIONS + 50):
            client.submit(0 if number % 2 else number, 1, None, calls.named(str(number)))
    assert len(calls.told) == MAX_OPERATIONS + 50 and is_idle(client)
    assert all(isinstance(error, ClientClosed) for _, _, error in calls.told)
    client.submit(0, 1, None, calls.named("closed"))
    assert isinstance(calls.told[-1][2], ClientClosed)


@pytest.mark.parametrize(("first", "count"), [(4096, 1), (4000, 97)])
async def test_what_is_beyond_the_end_is_told_so(nodes: FakeCluster, first: int, count: int) -> None:
    """By a node: the disk may have become larger since the file was written."""
    async with Client(nodes.config) as client:
        with pytest.raises(OutOfRange, match="no such sector") as caught:
            await client.read(first, count)
        assert caught.value.outcome is Outcome.DID_NOT_HAPPEN


@pytest.mark.parametrize("waits_for", ["the answer", "its sectors", "room"])
async def test_an_abandoned_run_leaves_nothing_behind(nodes: FakeCluster, waits_for: str) -> None:
    calls = Calls()
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.GET, CommandKind.READ})
    async with Client(nodes.config) as client:
        await all_connected(client)
        first = client.submit(5, 1, None, calls.named("first"))
        runs = [first]
        if waits_for == "its sectors":
            runs.insert(0, client.submit(5, 1, None, calls.named("second")))
        elif waits_for == "room":
            fillers = [client.submit(10 + number, 1, None, calls.named("fill")) for number in range(MAX_OPERATIONS)]
            runs.insert(0, fillers.pop())
            runs += fillers
        client.end_turn()
        for run in runs:
            assert run.abandon() is Outcome.DID_NOT_HAPPEN
            assert run.abandon() is Outcome.DID_NOT_HAPPEN, "once more changes nothing"
        assert is_idle(client) and not calls.told


async def test_a_time_limit_ends_what_is_under_way_and_what_waits(nodes: FakeCluster) -> None:
    calls = Calls()
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.STORE})
    async with Client(nodes.config, timeout_s=0.3) as client:
        clock = StoppedClock(client)
        await all_connected(client)
        client.submit(5, 1, sectors(1, 1), calls.named("stores"))
        client.submit(5, 1, sectors(1, 2), calls.named("waits"))
        client.end_turn()
        await nodes.nodes[0].until(1, CommandKind.STORE)
        clock.move(0.31)
        await calls.number(2)
    outcomes = {name: error.outcome for name, _, error in calls.told if isinstance(error, OperationTimeout)}
    assert outcomes == {"stores": Outcome.MAY_HAVE_HAPPENED, "waits": Outcome.DID_NOT_HAPPEN}


async def test_what_begins_and_ends_while_those_before_it_are_overdue_is_told_once(nodes: FakeCluster) -> None:
    """The first that is overdue makes room for a question that no node can answer, which is over as it begins."""
    calls = Calls()
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.GET, CommandKind.READ})
    async with Client(nodes.config, timeout_s=0.3) as client:
        clock = StoppedClock(client)
        await all_connected(client)
        for number in range(MAX_OPERATIONS):
            client.submit(number, 1, None, calls.named(f"read {number}"))
        client.map(0, 256, calls.named("map"))
        client.end_turn()
        assert not calls.told
        clock.move(0.31)
        await calls.number(MAX_OPERATIONS + 1)
    names = [name for name, _, _ in calls.told]
    assert len(names) == len(set(names)) == MAX_OPERATIONS + 1
    [(_, holes, error)] = [told for told in calls.told if told[0] == "map"]
    assert error is None and bytes(holes) == b"\0"


async def test_callers_that_are_cancelled_at_any_moment_leave_nothing_behind(
    nodes: FakeCluster, rng: random.Random
) -> None:
    """Waiting for its sectors, for room, for an answer, or in the very turn in which it is let in."""
    ended = 0

    async def call(client: Client) -> None:
        nonlocal ended
        with trio.move_on_after(rng.choice([0, 0.001, 0.01, 1000])):
            first = rng.randrange(1000)
            if rng.random() < 0.5:
                await client.write(first, sectors(rng.choice([1, 3, 300])))
            else:
                await client.read(first, rng.choice([1, 3, 300]))
        ended += 1

    async with Client(nodes.config) as client:
        await all_connected(client)
        async with trio.open_nursery() as nursery:
            for _ in range(600):
                nursery.start_soon(call, client)
        with trio.fail_after(20):
            while not is_idle(client):  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert ended == 600
