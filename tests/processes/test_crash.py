"""Nodes that are killed, stopped and away: what was acknowledged stays, what goes on goes on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import trio

from dsreg.client import Client
from dsreg.errors import OperationTimeout, Outcome
from tests.processes.cluster import TIMEOUT_S, Cluster
from tests.processes.history import History, now, stamp, value_of
from tests.processes.raw import RawClient

SECTORS = 64


class Load:
    """A writer of its own sectors and some readers of all, through one client; any error ends the test.

    `acknowledged`: sector -> the value last acknowledged; `attempted`: the one last tried.
    """

    def __init__(self, client: Client, rng: random.Random) -> None:
        self.acknowledged: dict[int, int] = {}
        self.attempted: dict[int, int] = {}
        self.operations = 0
        self._client = client
        self._rng = rng
        self._values = itertools.count(1)
        self._progress = trio.Event()

    async def __aenter__(self) -> Load:
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        for part in range(4):
            self.nursery.start_soon(self._write, range(part, SECTORS, 4))
            self.nursery.start_soon(self._read)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    async def _write(self, sectors: range) -> None:
        while True:
            sector = self._rng.choice(sectors)
            self.attempted[sector] = value = next(self._values)
            await self._client.write(sector, stamp(value))
            self.acknowledged[sector] = value
            self._step()

    async def _read(self) -> None:
        while True:
            sector = self._rng.randrange(SECTORS)
            least = self.acknowledged.get(sector, 0)
            assert value_of(await self._client.read(sector)) >= least
            self._step()

    def _step(self) -> None:
        self.operations += 1
        self._progress.set()
        self._progress = trio.Event()

    async def go_on(self, operations: int) -> None:
        """Until so many more are done."""
        goal = self.operations + operations
        with trio.fail_after(TIMEOUT_S):
            while self.operations < goal:
                await self._progress.wait()

    def check(self, read: dict[int, int]) -> None:
        """Each sector has the value last acknowledged, or one whose write was under way at the end."""
        for sector, value in self.acknowledged.items():
            assert value <= read[sector] <= self.attempted[sector], sector


def contents(cluster: Cluster, rank: int) -> dict[int, int]:
    """All sectors, as this node reads them."""
    with RawClient(cluster.address(rank), cluster.config.client_key) as client:
        client.send(*(client.read_frame(sector, sector) for sector in range(SECTORS)))
        return {sector: value_of(answer.content) for sector, answer in client.responses(SECTORS).items()}


def check_reads(load: Load, seen: list[dict[int, int]]) -> None:
    """`seen`: what was read, one after the other. A write that was never acknowledged may take effect between two
    reads, but no read may go back behind an earlier one."""
    for values in seen:
        load.check(values)
    for earlier, later in itertools.pairwise(seen):
        assert all(earlier[sector] <= later[sector] for sector in earlier)


async def test_each_node_is_killed_in_turn(cluster: Cluster, rng: random.Random) -> None:
    async with Client(cluster.config) as client, Load(client, rng) as load:
        await load.go_on(100)
        for rank in cluster.ranks:
            await trio.to_thread.run_sync(cluster.kill, rank)
            await load.go_on(100)
            await trio.to_thread.run_sync(cluster.start, rank)
            await load.go_on(100)
    check_reads(load, [await trio.to_thread.run_sync(contents, cluster, rank) for rank in cluster.ranks])


async def test_all_nodes_are_killed_at_once(cluster: Cluster, rng: random.Random) -> None:
    for _ in range(2):
        async with Client(cluster.config) as client, Load(client, rng) as load:
            await load.go_on(150)
            cluster.kill()
        cluster.start()
        seen = [await trio.to_thread.run_sync(contents, cluster, rank) for rank in cluster.ranks]
        check_reads(load, seen)


async def test_without_a_majority_operations_wait(cluster: Cluster) -> None:
    with RawClient(cluster.address(1), cluster.config.client_key) as raw:
        raw.write(0, stamp(1))  # node 1 has begun: alone it could not
    async with Client(cluster.config) as client:
        await client.write(1, stamp(1))
        cluster.kill(2, 3)
        outcomes: dict[str, object] = {}

        async def write() -> None:
            outcomes["write"] = await client.write(1, stamp(2))

        async def read() -> None:
            outcomes["read"] = value_of(await client.read(2))

        with RawClient(cluster.address(1), cluster.config.client_key) as raw:
            raw.send(raw.write_frame(1, 3, stamp(3)), raw.read_frame(2, 1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(read)
                await until_unfinished(cluster, 1, 4)
                # Everything is under way at the only node, which answers what needs no others, and only that.
                raw.nothing_more()
                assert not outcomes
                await trio.to_thread.run_sync(cluster.start, 3)
            assert outcomes == {"write": None, "read": 0}
            answers = raw.responses(2)
            assert answers[1].status == 0 and value_of(answers[2].content) in (1, 2)
        assert value_of(await client.read(1)) == 2 and value_of(await client.read(3)) == 3


async def until_unfinished(cluster: Cluster, rank: int, count: int) -> None:
    """Until the node has so many operations under way."""
    async with Client(cluster.only(rank)) as client:
        with trio.fail_after(TIMEOUT_S):
            while (await client.status(rank, TIMEOUT_S))["unfinished"] < count:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("up", [(), (2,)])
async def test_without_a_majority_and_with_a_limit(cluster: Cluster, up: tuple[int, ...]) -> None:
    cluster.kill(*(rank for rank in cluster.ranks if rank not in up))
    async with Client(cluster.config, timeout_s=0.5) as client:
        for call in (client.read(0), client.write(0, stamp(1))):
            with pytest.raises(OperationTimeout) as raised:
                await call
            # The tags that a write needs come from a majority, too: no node has heard of its value.
            assert raised.value.outcome is Outcome.DID_NOT_HAPPEN
    cluster.start(*(rank for rank in cluster.ranks if rank not in up))
    assert value_of(RawClient(cluster.address(1), cluster.config.client_key).read(0)) == 0


async def test_a_limit_that_ends_a_store_says_so(cluster: Cluster) -> None:
    """The majority goes while values are stored: whether they are there is not known."""
    outcomes: list[tuple[int, int, Outcome]] = []
    async with Client(cluster.config, timeout_s=1.0) as client:

        async def write(part: int) -> None:
            for value in itertools.count(1):
                try:
                    await client.write(part, stamp(value))
                except OperationTimeout as error:
                    outcomes.append((part, value, error.outcome))
                    end_majority()  # be it that one has met its limit before that
                    return
                if part == 0 and value == 20:
                    end_majority()

        def end_majority() -> None:
            if 1 in cluster.processes:
                cluster.kill(1, 2)

        async with trio.open_nursery() as nursery:
            for part in range(32):
                nursery.start_soon(write, part)
    cluster.start(1, 2)
    assert len(outcomes) == 32
    seen = contents(cluster, 3)
    for part, value, outcome in outcomes:
        possible = {value - 1} if outcome is Outcome.DID_NOT_HAPPEN else {value - 1, value}
        assert seen[part] in possible, (part, value, outcome)


async def test_a_stopped_node_changes_nothing_when_it_goes_on(cluster: Cluster, rng: random.Random) -> None:
    async with Client(cluster.config) as client, Load(client, rng) as load:
        await load.go_on(100)
        cluster.pause(1)  # with commands of clients and messages of nodes in its buffers, read and unread
        await load.go_on(300)
        newest = dict(load.acknowledged)
        cluster.resume(1)
        await load.go_on(100)
    seen = [await trio.to_thread.run_sync(contents, cluster, rank) for rank in cluster.ranks]
    check_reads(load, seen)
    assert all(seen[0][sector] >= value for sector, value in newest.items())


async def test_late_commands_of_a_stopped_node_are_linearizable(cluster: Cluster) -> None:
    """Contract WRITEs wait in a stopped node while others write the same sectors; it carries them out late."""
    history = History()
    cluster.pause(1)
    with RawClient(cluster.address(1), cluster.config.client_key) as late:
        begin, late_values = now(), {}
        for sector in range(8):
            late_values[sector] = history.new_value()
            late.send(late.write_frame(sector, sector, stamp(late_values[sector])))
        async with Client(cluster.only(2, 3)) as client:
            for sector in list(range(8)) * 2:
                await recorded_write(history, client, sector)
            cluster.resume(1)
            for sector in late.responses(8):
                history.wrote(sector, late_values[sector], begin, now(), "late")
            for sector in range(8):
                await recorded_read(history, client, sector)
    async with Client(cluster.only(1)) as client:
        for sector in range(8):
            await recorded_read(history, client, sector)
    history.check()


async def recorded_write(history: History, client: Client, sector: int) -> None:
    value, start = history.new_value(), now()
    await client.write(sector, stamp(value))
    history.wrote(sector, value, start, now())


async def recorded_read(history: History, client: Client, sector: int) -> None:
    start = now()
    history.read(sector, value_of(await client.read(sector)), start, now())


def test_a_node_that_was_away_answers_for_what_it_missed(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    key = cluster.config.client_key
    cluster.kill(3)
    with RawClient(cluster.address(1), key) as client:
        for sector in range(20):
            client.write(sector, stamp(sector + 1))
    cluster.start(3)
    cluster.kill(1)
    with RawClient(cluster.address(3), key) as client:
        assert [value_of(client.read(sector)) for sector in range(20)] == list(range(1, 21))
    cluster.start(1)
    cluster.kill(2)
    with RawClient(cluster.address(1), key) as client:
        assert [value_of(client.read(sector)) for sector in range(20)] == list(range(1, 21))
