"""What somebody who changes members needs of a client: whose answers count, the lives behind them, telling what was
chosen. By real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from dsreg.client import Client
from dsreg.protocol.choosing import Answered, Ask, ConfigurationReport, Promised, Proposed
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Hello, LivesReport, Message
from dsreg.register.quorum import mask
from tests.client.fake_node import Disk, FakeCluster, FakeNode
from tests.processes.cluster import own_host

BOTH = mask((1, 2))
FIRST, LATER = Configuration(1, 64, BOTH, 0, BOTH), Configuration(2, 64, BOTH, mask((1,)), BOTH)
QUESTION = Ask(FIRST, Ballot(1, b"p" * 16))
LIVES = {rank: Life(1, bytes([rank]) * 16) for rank in (1, 2)}
NEXT = Life(2, b"n" * 16)


class VotingNode(FakeNode):
    """Tells its life, those that it knows, and the configuration; promises whatever is proposed."""

    def __init__(self, rank: int, disk: Disk, host: str) -> None:
        super().__init__(rank, disk, host)
        self.known = dict(LIVES)
        self.told: list[Configuration] = []
        self.heard = trio.Event()

    async def _message(self, stream: trio.SocketStream, message: Message) -> bool:
        if isinstance(message, Proposed):
            await self._send(stream, Answered(message.request, Promised(None)))
        elif isinstance(message, ConfigurationReport):
            self.told.append(message.configuration)
            self.heard.set()
        elif isinstance(message, Hello):
            await super()._message(stream, message)
            await self._send(stream, LivesReport(0, True, Stage.STARTED, LIVES[self.rank], self.known))
            await self._send(stream, ConfigurationReport(0, True, FIRST))
        else:
            return await super()._message(stream, message)
        return True


@asynccontextmanager
async def voting() -> AsyncIterator[tuple[FakeCluster, list[VotingNode]]]:
    disk, host = Disk(64), own_host()
    nodes = [VotingNode(rank, disk, host) for rank in (1, 2)]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                await nursery.start(node.serve)
            yield FakeCluster(nursery, [*nodes]), nodes
            nursery.cancel_scope.cancel()


async def all_have_told(client: Client) -> None:
    for rank in (1, 2):
        await client.status(rank, 20)


async def test_a_node_promises_and_its_life_is_known() -> None:
    async with voting() as (cluster, _), Client(cluster.config) as client:
        assert await client.propose(2, QUESTION, 20) == Promised(None)
        assert client.life(2) == LIVES[2] and client.configuration == FIRST
        assert await client.propose(3, QUESTION, 20) is None  # there is none


@pytest.mark.allow_logs("is neither asked nor counted")
async def test_a_node_with_another_directory_than_the_known_one_does_not_count() -> None:
    async with voting() as (cluster, nodes):
        nodes[0].known[2] = NEXT
        async with Client(cluster.config) as client:
            await all_have_told(client)
            assert client.life(2) == NEXT
            assert await client.propose(2, QUESTION, 20) is None
            assert await client.propose(1, QUESTION, 20) == Promised(None)


async def test_who_does_not_answer_is_not_waited_for_long() -> None:
    async with voting() as (cluster, nodes), Client(cluster.config) as client:
        await all_have_told(client)
        nodes[1].stop()
        await nodes[1].until_connections_end()
        assert await client.propose(2, QUESTION, 0.1) is None


async def test_all_that_are_connected_are_told() -> None:
    async with voting() as (cluster, nodes), Client(cluster.config) as client:
        await all_have_told(client)
        client.tell(LATER)
        for node in nodes:
            await node.heard.wait()
            assert node.told[0] == LATER
