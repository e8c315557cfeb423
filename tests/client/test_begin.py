"""Runs that are begun without waiting: Client.begin, against real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.client import Client
from dsreg.client.engine import Done
from dsreg.client.limits import MAX_OPERATIONS
from dsreg.core.messages import Buffer
from dsreg.errors import ClientClosed, ClientError, OutOfRange
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
        self.told: list[tuple[str, bytes, ClientError | None]] = []
        self._news = trio.Event()

    def named(self, name: str) -> Done:
        def done(data: Buffer, error: ClientError | None) -> None:
            self.told.append((name, bytes(data), error))
            self._news.set()

        return done

    async def number(self, count: int) -> None:
        while len(self.told) < count:
            await self._news.wait()
            self._news = trio.Event()


async def test_a_run_that_is_begun_is_told_of_when_it_is_over(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        await all_connected(client)
        assert client.begin(300, 2, sectors(2, 7), calls.named("write"))
        assert not client.begin(301, 1, None, calls.named("overlaps")), "it would have to wait"
        assert client.begin(302, 1, None, calls.named("read beside it"))
        assert calls.told == []
        client.flush_turn()
        await calls.number(2)
        assert client.begin(301, 1, None, calls.named("read"))
        client.flush_turn()
        await calls.number(3)
    assert sorted(calls.told[:2], key=lambda told: told[0]) == [
        ("read beside it", sectors(1, 0), None), ("write", b"", None)
    ]
    assert calls.told[2:] == [("read", sectors(1, 7), None)]


async def test_what_is_begun_counts_among_what_waits_in_order(nodes: FakeCluster) -> None:
    """A task that waits for a sector is not passed by, and gets it when what was begun is over."""
    calls = Calls()
    async with Client(nodes.config) as client:
        await all_connected(client)
        assert client.begin(5, 1, sectors(1, 1), calls.named("write"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, 4, sectors(2, 2))
            await trio.testing.wait_all_tasks_blocked()
            assert not client.begin(4, 1, None, calls.named("read"))
            client.flush_turn()
        assert await client.read(4, 2) == sectors(2, 2)
        assert [name for name, _, _ in calls.told] == ["write"]


async def test_what_can_not_be_begun(nodes: FakeCluster) -> None:
    calls = Calls()
    async with Client(nodes.config) as client:
        assert not client.begin(255, 2, None, calls.named("two runs"))
        with pytest.raises(OutOfRange):
            client.begin(client.sectors, 1, None, calls.named("beyond the end"))
        begun = 0
        while client.begin(2 * begun, 1, None, calls.named("one more")):
            begun += 1
        assert begun == MAX_OPERATIONS, "as much as may be under way"
    await calls.number(begun)
    assert all(isinstance(error, ClientClosed) for _, _, error in calls.told)
    assert not client.begin(0, 1, None, calls.named("closed"))
    async with Client(nodes.config, timeout_s=5) as client:
        assert not client.begin(0, 1, None, calls.named("with a time limit"))
