"""One connection to a node: what waits for a port without room, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from dsreg.client.connection import Connection
from dsreg.client.events import Disconnected, Refusal
from dsreg.client.limits import HIGH_WATER_BYTES, RECONNECT_FIRST_S
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.codec import Decoder, EncodeOnce, Encoder, Keys, Side
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Command, CommandKind, Hello, Message, StatusReport
from dsreg.protocol.tags import pack_tag

KEYS = Keys(bytes(range(32)), bytes(range(64)))
SECTORS = 4096
PATIENCE_S = 30.0


class Node:
    """Answers a HELLO, and from then on reads only if the test does."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.stream: trio.SocketStream

    async def accept(self) -> None:
        self.stream = await self._listener.accept()
        self._decoder = Decoder(KEYS, sectors=SECTORS, ranks=frozenset(range(1, 255)), side=Side.NODE, extended=True)
        while not any(isinstance(message, Hello) for message in await self.read()):
            continue
        await self.send(Hello(0, True, bytes(16), 1, SECTORS, 3))

    async def read(self) -> list[Message]:
        return self._decoder.feed(bytes(await self.stream.receive_some()))

    async def send(self, message: Message) -> None:
        await self.stream.send_all(b"".join(Encoder(KEYS).encode(message)))

    async def requests_until(self, last: int) -> list[int]:
        """Of the commands that arrive, up to this one."""
        found: list[int] = []
        while last not in found:
            found += [each.request for each in await self.read() if isinstance(each, Command) and each.extended]
        return found


class Owner:
    """What the connection tells."""

    def __init__(self) -> None:
        self.up = trio.Event()
        self.messages: list[Message] = []

    def connected(self, rank: int, nodes: int) -> None:
        self.up.set()

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self.messages += messages

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self.up = trio.Event()


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[Node, Connection, Owner]]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            node, owner = Node(listener), Owner()
            encode = EncodeOnce(Encoder(KEYS)), EncodeOnce(Encoder(None))
            connection = Connection(
                1, "127.0.0.1", listener.socket.getsockname()[1], keys=Keys(KEYS.client, b""), sectors=SECTORS,
                owner=owner, rng=random.Random(1), encode=encode,
                seals=Seals(Keys(KEYS.client, b""), lambda: bytes(32)),
            )
            nursery.start_soon(connection.run)
            await node.accept()
            await owner.up.wait()
            yield node, connection, owner
            nursery.cancel_scope.cancel()


def store(request: int) -> Command:
    return Command(
        CommandKind.STORE, request, 0, MAX_RUN_SECTORS, pack_tag(1, 1) * MAX_RUN_SECTORS,
        bytes(MAX_RUN_SECTORS * SECTOR_SIZE), True,
    )


def fill(connection: Connection) -> int:
    """As much as the port takes; how many commands that are."""
    assert connection._port is not None
    sent = 0
    while connection._port.outgoing_bytes < HIGH_WATER_BYTES:
        sent += 1
        connection.send(store(sent))
    return sent


async def test_what_has_no_room_is_sent_in_order_once_there_is_some() -> None:
    async with scene() as (node, connection, _):
        sent = fill(connection)
        for request in range(sent + 1, sent + 6):
            connection.send(store(request))
        connection.flush()
        assert await node.requests_until(sent + 5) == list(range(1, sent + 6))


async def test_what_is_withdrawn_while_it_waits_is_not_sent() -> None:
    async with scene() as (node, connection, _):
        sent = fill(connection)
        for request in (91, 92, 93):
            connection.send(store(request))
        connection.withdraw(92)
        connection.withdraw(1)  # too late
        connection.flush()
        assert await node.requests_until(93) == [*range(1, sent + 1), 91, 93]


async def test_what_waited_is_not_sent_over_the_next_connection() -> None:
    """It was given up with the old one, and has been sent elsewhere since."""
    async with scene() as (node, connection, owner):
        fill(connection)
        connection.send(store(91))
        await node.stream.aclose()
        await node.accept()
        await owner.up.wait()
        connection.send(store(92))
        connection.flush()
        assert await node.requests_until(92) == [92]


async def test_a_connection_that_was_of_use_is_made_again_soon() -> None:
    async with scene() as (node, connection, owner):
        connection._backoff_s = 1.0  # as after some that were not
        await node.send(StatusReport(1, b"{}"))
        while not owner.messages:
            await trio.lowlevel.checkpoint()
        assert connection._backoff_s == RECONNECT_FIRST_S


@pytest.mark.parametrize("times", [3])
async def test_connections_that_are_of_no_use_are_made_ever_more_seldom(times: int) -> None:
    async with scene() as (node, connection, owner):
        for again in range(times):
            await node.stream.aclose()
            await node.accept()
            await owner.up.wait()
            assert connection._backoff_s == 2 ** (again + 1) * RECONNECT_FIRST_S
