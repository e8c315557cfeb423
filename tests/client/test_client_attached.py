"""The client under trio with the disk attached, against real sockets."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from dsreg.client import Attach, Client
from dsreg.client.limits import GET_ATTEMPT_S
from dsreg.errors import (
    AlreadyAttached,
    AuthenticationFailed,
    ClientClosed,
    DiskFenced,
    OperationTimeout,
    Outcome,
)
from dsreg.protocol.codec import Keys
from dsreg.protocol.messages import CommandKind
from dsreg.protocol.tags import is_restamped
from tests.client.clock import StoppedClock
from tests.client.fake_node import FakeCluster, cluster
from tests.client.test_client import all_connected, nodes, sectors

PUT, STORE, ATTACH = CommandKind.PUT, CommandKind.STORE, CommandKind.ATTACH
FIRST, SECOND, THIEF = Attach(name="host a"), Attach(name="host b"), Attach(take_over=True, name="host c")
__all__ = ["nodes"]


async def test_what_was_written_is_read(nodes: FakeCluster, rng: random.Random) -> None:
    async with Client(nodes.config, attach=FIRST) as client:
        data = rng.randbytes(700 * 4096)
        await client.write(100, data)
        assert await client.read(100, 700) == data
        assert await client.attached() == 1
    kinds = {command.kind for node in nodes.nodes for command in node.log}
    # On a machine that is busy answers may come too late: then a node is asked to see to it.
    late = {CommandKind.READ, STORE} if client.counters.coordinated else set()
    assert kinds - late == {ATTACH, PUT, CommandKind.GET}


async def test_a_second_one_is_told_who_has_it(nodes: FakeCluster) -> None:
    async with Client(nodes.config, attach=FIRST) as first:
        await first.attached()
        async with Client(nodes.config, attach=SECOND) as second:
            for call in (second.attached(), second.write(0, sectors(1)), second.read(0)):
                with trio.fail_after(20), pytest.raises(AlreadyAttached, match="by host a, which is alive") as caught:
                    await call
                assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
            assert isinstance(await second.lost(), AlreadyAttached)
        await first.write(0, sectors(1))


async def test_whoever_takes_it_over_ends_the_first(nodes: FakeCluster) -> None:
    async with Client(nodes.config, attach=FIRST) as first:
        await first.write(0, sectors(1, 1))
        async with Client(nodes.config, attach=THIEF) as thief:
            assert await thief.attached() == 2
            with trio.fail_after(20), pytest.raises(DiskFenced) as caught:
                await first.write(0, sectors(1, 2))
            assert "taken the disk over" in caught.value.reason
            assert isinstance(await first.lost(), DiskFenced)
            with pytest.raises(DiskFenced):
                await first.attached()
            assert await thief.read(0) == sectors(1, 1)


async def test_it_is_free_once_the_first_has_closed(nodes: FakeCluster) -> None:
    for epoch in (1, 2, 3):
        async with Client(nodes.config, attach=FIRST) as client:
            assert await client.attached() == epoch
        for node in nodes.nodes:
            with trio.fail_after(20):
                await node.until_connections_end()


async def test_no_majority_is_waited_for_as_long_as_the_caller_says(nodes: FakeCluster) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({ATTACH})
    async with Client(nodes.config, timeout_s=0.2, attach=FIRST) as client:
        with pytest.raises(OperationTimeout, match="not attached within"):
            await client.attached()
        with pytest.raises(OperationTimeout):
            await client.write(0, sectors(1))
        for node in nodes.nodes:
            node.behaviour.deaf_to = frozenset()
    async with Client(nodes.config, timeout_s=10, attach=FIRST) as client:
        await client.write(0, sectors(1))


async def test_an_answer_that_is_lost_is_asked_for_again(nodes: FakeCluster) -> None:
    for node in nodes.nodes[:2]:
        node.behaviour.deaf_to = frozenset({ATTACH})
    async with Client(nodes.config, attach=FIRST) as client:
        with trio.move_on_after(0.2):
            await client.attached()
        for node in nodes.nodes:
            node.behaviour.deaf_to = frozenset()
        with trio.fail_after(20):
            await client.attached()


@pytest.mark.allow_logs("another client key")
async def test_a_wrong_key_is_an_error_and_not_a_wait() -> None:
    async with cluster(keys=Keys(bytes(32), bytes(64))) as strange, Client(strange.config, attach=FIRST) as client:
        with trio.fail_after(10), pytest.raises(AuthenticationFailed):
            await client.attached()


async def test_closing_ends_the_wait() -> None:
    async with cluster() as made:
        for node in made.nodes:
            node.behaviour.deaf_to = frozenset({ATTACH})
        client, errors = Client(made.config, attach=FIRST), []

        async def wait() -> None:
            with pytest.raises(ClientClosed) as caught:
                await client.attached()
            errors.append(caught.value)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                async with client:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(errors) == 1


async def test_only_who_attaches_can_wait_for_it(nodes: FakeCluster) -> None:
    async with Client(nodes.config) as client:
        with pytest.raises(ValueError, match="without `attach`"):
            await client.attached()


async def test_a_put_cut_off_everywhere_is_stored_under_the_same_tag(nodes: FakeCluster) -> None:
    async with Client(nodes.config, attach=FIRST) as client:
        await client.attached()
        await all_connected(client)
        for node in nodes.nodes[:2]:
            node.behaviour.cuts_at = frozenset({PUT})
        with trio.fail_after(20):
            await client.write(0, sectors(3))
    writes = [command for node in nodes.nodes for command in node.log if command.kind in (PUT, STORE)]
    assert {command.kind for command in writes} == {PUT, STORE}
    assert len({command.tags for command in writes}) == 1
    assert nodes.disk.read(0, 3) == sectors(3)


async def test_a_cluster_of_more_nodes_than_the_configuration_has(nodes: FakeCluster) -> None:
    """A majority is one of the nodes that there are: two of three configured ones are none of five."""
    for node in nodes.nodes:
        node.nodes = 5
    nodes.nodes[2].behaviour.deaf_to = frozenset(CommandKind)
    async with Client(nodes.config, attach=FIRST) as client:
        await all_connected(client)
        with trio.move_on_after(0.5) as limit:
            await client.attached()
        assert limit.cancelled_caught
    async with Client(nodes.config) as client:
        clock = StoppedClock(client)
        await all_connected(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.read, 0)
            for node in nodes.nodes:
                await node.until(1, CommandKind.GET)
            clock.move(GET_ATTEMPT_S)
        assert client.counters.coordinated == 1


async def test_what_others_left_is_raised_before_it_is_read(nodes: FakeCluster) -> None:
    async with Client(nodes.config) as client:
        await client.write(5, sectors(2))
    nodes.nodes[2].behaviour.deaf_to = frozenset({CommandKind.GET})  # so that not all can agree
    async with Client(nodes.config, attach=FIRST) as client:
        raised: list[int] = []
        for _ in range(2):
            with trio.fail_after(20):
                assert await client.read(5, 2) == sectors(2)
            stores = [each for node in nodes.nodes for each in node.log if each.epoch and each.kind is STORE]
            raised.append(len(stores))
    assert is_restamped(nodes.disk.tags(5, 2), 1)
    # By the first read; on a machine that is busy by way of several nodes, and the same each time.
    assert raised[0] == raised[1] > 0 and len({command.tags for command in stores}) == 1


async def test_a_read_that_is_cancelled_while_it_raises_is_over_before_the_next_one(nodes: FakeCluster) -> None:
    first, second, third = nodes.nodes
    third.behaviour.deaf_to = frozenset({CommandKind.GET})
    async with Client(nodes.config, attach=FIRST) as client, trio.open_nursery() as nursery:
        await all_connected(client)
        for node in nodes.nodes:
            node.behaviour.deaf_to |= {STORE}
        scope = trio.CancelScope()

        async def old() -> None:
            with scope:
                await client.read(5)

        nursery.start_soon(old)
        await first.until(1, STORE)
        scope.cancel()
        asked = len(second.log)
        nursery.start_soon(client.read, 5)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(second.log) == asked, "it waits"
        first.behaviour.deaf_to = second.behaviour.deaf_to = frozenset()
        first.stop()
    assert is_restamped(nodes.disk.tags(5, 1), 1)
