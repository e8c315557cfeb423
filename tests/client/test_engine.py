"""The engine: its clock, what it holds for an operation, and when it sends what an event sets off."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.client import Client, runner
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError
from dsreg.protocol.messages import CommandKind
from dsreg.store import Buffer
from tests.client.fake_node import FakeCluster, cluster
from tests.simulation.leftovers import left_in_client

EVERYTHING = frozenset(CommandKind)
DATA = bytes(SECTOR_SIZE)


@pytest.fixture
async def nodes() -> AsyncIterator[FakeCluster]:
    with trio.fail_after(30):
        async with cluster() as made:
            yield made


async def connected(client: Client) -> None:
    for node in client.nodes:
        await client.status(node.rank, timeout_s=20)


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tags of an attachment fall behind those of others after a sleep."""
    asked: list[int] = []
    monkeypatch.setattr(time, "clock_gettime", lambda clock: asked.append(clock) or 7.0)
    assert runner._now_s() == 7.0
    assert asked == [time.CLOCK_BOOTTIME]


@pytest.mark.pure
async def test_what_a_lost_connection_sets_off_is_sent_at_once(
    nodes: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next tick, of which there is none here."""
    monkeypatch.setattr(runner, "TICK_S", 1000.0)
    first, second, third = nodes.nodes
    async with Client(nodes.config) as client:
        await connected(client)
        first.holds = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, 0, DATA)
            await first.until(1, CommandKind.TAG)
            await second.until(1, CommandKind.TAG)
            first.stop()
            await second.until(2, CommandKind.TAG)


async def test_a_run_that_is_given_up_before_it_was_started_holds_nothing(nodes: FakeCluster) -> None:
    """It was submitted by what another one called back, and given up at once."""
    told: list[str] = []
    async with Client(nodes.config) as client:
        await connected(client)

        def done(data: Buffer, error: DsregError | None) -> None:
            client.submit(7, 1, None, lambda data, error: told.append("given up")).abandon()
            told.append("first")

        client.submit(0, 1, None, done)
        client.end_turn()
        while not told:
            await trio.lowlevel.checkpoint()
        assert told == ["first"]
        assert client._engine._admission.is_idle
        assert await client.read(7) == DATA


@pytest.mark.pure
async def test_what_an_answer_sets_off_is_sent_at_once(nodes: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TAG is answered, and its STORE goes out: not with the next tick, of which there is none here."""
    monkeypatch.setattr(runner, "TICK_S", 1000.0)
    async with Client(nodes.config) as client:
        await connected(client)
        await client.write(0, DATA)
        assert await client.read(0) == DATA


@pytest.mark.parametrize("is_write", [False, True])
async def test_a_cancelled_call_leaves_nothing(nodes: FakeCluster, is_write: bool) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = EVERYTHING
    async with Client(nodes.config) as client:
        await connected(client)
        with trio.move_on_after(0.05):
            await (client.write(0, DATA) if is_write else client.read(0))
        left = left_in_client(client._engine)
        assert not left.keys() & {"operations", "requests", "operations that wait"}
        for node in nodes.nodes:
            node.behaviour.deaf_to = frozenset()
        with trio.fail_after(20):
            await client.write(0, DATA)


async def test_the_clock_ticks_for_later_operations_as_well(nodes: FakeCluster) -> None:
    """What is not answered is left to others after a while, also when nothing was under way for some time."""
    async with Client(nodes.config) as client:
        await connected(client)
        await client.read(0)
        await trio.sleep(3 * runner.TICK_S)  # the ticks are over
        nodes.nodes[0].behaviour.deaf_to = EVERYTHING
        with trio.fail_after(20):
            await client.read(0)


@pytest.mark.pure
async def test_what_one_that_waits_sets_free_when_it_leaves_begins_at_once(
    nodes: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next tick, of which there is none here, nor with what comes for others."""
    monkeypatch.setattr(runner, "TICK_S", 1000.0)
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.TAG})
    told = trio.Event()
    async with Client(nodes.config) as client:
        await connected(client)
        holder = client.submit(0, 2, 2 * DATA, lambda data, error: None)
        waiter = client.submit(1, 2, 2 * DATA, lambda data, error: None)
        client.submit(2, 1, None, lambda data, error: told.set())
        client.end_turn()
        waiter.abandon()
        client.end_turn()
        with trio.fail_after(20):
            await told.wait()
        holder.abandon()


async def test_a_question_for_a_status_ends_with_the_client(nodes: FakeCluster) -> None:
    client = Client(nodes.config)
    async with trio.open_nursery() as nursery:
        async with client:
            await connected(client)
            silent = client.nodes[0].rank
            client._runner.connections[silent].send = lambda message: None  # type: ignore[method-assign]
            over = trio.Event()

            async def ask() -> None:
                assert await client._runner.ask_status(silent) is None
                over.set()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert not over.is_set()
        with trio.fail_after(20):
            await over.wait()
    assert not client._runner._calls
