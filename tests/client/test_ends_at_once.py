"""One event ends several runs of one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from dsreg.client import Client
from dsreg.errors import ClientClosed, DsregError, OperationTimeout, Outcome
from dsreg.protocol.messages import CommandKind
from dsreg.store import SETTLED, Done, Runs, Submitted
from dsreg.testing.memory_store import MemoryStore
from tests.client.fake_node import FakeCluster
from tests.client.test_client import nodes, sectors

__all__ = ["nodes"]


async def write_until_closed(client: Client, errors: list[ClientClosed]) -> None:
    with pytest.raises(ClientClosed) as caught:
        await client.write(0, sectors(700))
    errors.append(caught.value)


@pytest.mark.parametrize(("deaf_to", "outcome"), [
    (CommandKind.TAG, Outcome.DID_NOT_HAPPEN), (CommandKind.STORE, Outcome.MAY_HAVE_HAPPENED)])
async def test_a_long_write_when_the_client_is_closed(
    nodes: FakeCluster, deaf_to: CommandKind, outcome: Outcome
) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({deaf_to})
    errors: list[ClientClosed] = []

    with trio.fail_after(25):
        async with trio.open_nursery() as nursery:
            async with Client(nodes.config) as client:
                nursery.start_soon(write_until_closed, client, errors)
                for node in nodes.nodes:  # each is the one that is asked first for one of the runs
                    await node.until(1, deaf_to)
    assert errors[0].outcome is outcome


async def test_one_part_may_have_happened_though_the_first_that_is_told_did_not(nodes: FakeCluster) -> None:
    first, *others = nodes.nodes
    first.behaviour.deaf_to = frozenset({CommandKind.TAG, CommandKind.STORE})
    for node in others:
        node.behaviour.deaf_to = frozenset({CommandKind.STORE})
    errors: list[ClientClosed] = []

    with trio.fail_after(25):
        async with trio.open_nursery() as nursery:
            async with Client(nodes.config) as client:
                for known in client.nodes:
                    await client.status(known.rank, timeout_s=20)
                nursery.start_soon(write_until_closed, client, errors)
                await first.until(1, CommandKind.TAG)
                for node in others:
                    await node.until(1, CommandKind.STORE)
    assert errors[0].outcome is Outcome.MAY_HAVE_HAPPENED


async def test_a_long_write_of_which_all_is_overdue_ends_once_and_the_client_goes_on(nodes: FakeCluster) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.TAG})
    with trio.fail_after(25):
        async with Client(nodes.config, timeout_s=0.3) as client:
            with pytest.raises(OperationTimeout) as caught:
                await client.write(0, sectors(700))
            assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
            for node in nodes.nodes:
                node.behaviour.deaf_to = frozenset()
            await client.read(0)


class Narrow:
    """A store with room for one run: giving it up lets the next one begin, which fails at once."""

    sectors, is_cached, obstacle = 1024, False, ""

    def __init__(self) -> None:
        self.waiting: list[Done] = []

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> GivenUp:
        self.waiting.append(done)
        return GivenUp(lambda: self.give_up(done))

    def give_up(self, done: Done) -> None:
        if done in self.waiting:
            self.waiting.remove(done)
            if self.waiting:
                self.waiting.pop()(b"", OperationTimeout("no room", Outcome.MAY_HAVE_HAPPENED))

    def flush(self, done: Done) -> None:
        done(b"", None)

    def end_turn(self) -> None:
        pass


class GivenUp:
    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def abandon(self) -> Outcome:
        self._act()
        return Outcome.DID_NOT_HAPPEN


@pytest.mark.parametrize("how", ["abandoned", "one fails"])
def test_a_run_that_ends_while_the_others_are_given_up(how: str) -> None:
    store, told = Narrow(), list[DsregError | None]()
    runs = Runs(store, 0, 1024, bytes(1024 * 4096), lambda content, error: told.append(error), 4)
    if how == "abandoned":
        assert runs.abandon() is Outcome.MAY_HAVE_HAPPENED and told == []
    else:
        store.waiting.pop(0)(b"", OperationTimeout("first", Outcome.DID_NOT_HAPPEN))
        [error] = told
        assert isinstance(error, OperationTimeout) and error.outcome is Outcome.MAY_HAVE_HAPPENED
    assert store.waiting == []


class Failing(MemoryStore):
    """The run that is submitted as number `fails` fails at once, or makes the one before it fail."""

    def __init__(self, fails: int, *, before: bool) -> None:
        super().__init__(2048)
        self.submitted: list[Done] = []
        self.given_up = 0
        self._fails = fails
        self._before = before

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        self.submitted.append(done)
        if len(self.submitted) < self._fails:
            return GivenUp(lambda: None)
        failing = self.submitted[-2] if self._before else done
        failing(b"", OperationTimeout("no majority", Outcome.DID_NOT_HAPPEN))
        return GivenUp(self.count) if self._before else SETTLED

    def count(self) -> None:
        self.given_up += 1


@pytest.mark.parametrize("fails", [1, 2, 4])
def test_nothing_is_begun_after_a_run_that_has_failed(fails: int) -> None:
    store, told = Failing(fails, before=False), list[DsregError | None]()
    Runs(store, 0, 2048, bytes(2048 * 4096), lambda content, error: told.append(error), 4)
    assert len(store.submitted) == fails and len(told) == 1 and isinstance(told[0], OperationTimeout)


def test_a_run_is_given_up_whose_submission_makes_another_one_fail() -> None:
    store, told = Failing(2, before=True), list[DsregError | None]()
    Runs(store, 0, 2048, bytes(2048 * 4096), lambda content, error: told.append(error), 4)
    assert len(store.submitted) == 2 and store.given_up == 1 and len(told) == 1
