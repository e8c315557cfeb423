"""One connection to a node, on real sockets: what waits for a transport without room, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from dsreg.client.connection import Connection
from dsreg.client.events import Disconnected, Refusal
from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.lines import TcpLines
from dsreg.link.destinations import Destinations
from dsreg.outbox import HIGH_WATER_BYTES
from dsreg.protocol.address import Place
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Encodings, Keys, Side
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import FEATURE_ZEROS, Command, CommandKind, Hello, Message, StatusReport
from dsreg.protocol.tags import pack_tag
from dsreg.register.assembly import client_hello

KEYS = Keys(bytes(range(32)), bytes(range(64)))
SECTORS = 4096
PATIENCE_S = 30.0


class Node:
    """Answers a HELLO, and from then on reads only if the test does. `features`: of the cluster of three, and more."""

    def __init__(self, listener: trio.SocketListener, features: int) -> None:
        self._listener = listener
        self._features = features
        self.received_bytes = 0
        self.stream: trio.SocketStream

    async def accept(self) -> None:
        self.stream = await self._listener.accept()
        self._decoder = Decoder(KEYS, bounds=Bounds(SECTORS, frozenset(range(1, 255))), side=Side.NODE, extended=True)
        while not any(isinstance(message, Hello) for message in await self.read()):
            continue
        await self.send(Hello(0, True, bytes(16), 1, SECTORS, 3 | self._features))

    async def read(self) -> list[Message]:
        data = bytes(await self.stream.receive_some())
        self.received_bytes += len(data)
        return self._decoder.feed(data)

    async def send(self, message: Message) -> None:
        await self.stream.send_all(b"".join(Encoder(KEYS).encode(message)))

    async def requests_until(self, last: int) -> list[int]:
        """Of the commands that arrive, up to this one."""
        found: list[int] = []
        while last not in found:
            found += [each.request for each in await self.read() if isinstance(each, Command) and each.extended]
        return found


class Observer:
    """What the connection tells."""

    def __init__(self) -> None:
        self.up = trio.Event()
        self.messages: list[Message] = []

    def connected(self, rank: int, nodes: int, zeroes: bool, maps: bool) -> None:
        self.up.set()

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self.messages += messages

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self.up = trio.Event()


@asynccontextmanager
async def scene(features: int = 0) -> AsyncIterator[tuple[Node, Connection, Observer]]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            node, observer = Node(listener, features), Observer()
            destinations = Destinations(Place("127.0.0.1", listener.socket.getsockname()[1]))
            lines = TcpLines(destinations)
            rng = random.Random(1)
            connection = Connection(
                1, lines, destinations, hello=client_hello(SECTORS), observer=observer,
                encodings=Encodings(KEYS), seals=Seals(Keys(KEYS.client, b""), lambda: bytes(32)),
                jitter=lambda: rng.uniform(0.5, 1.0), clock=trio.current_time,
            )
            nursery.start_soon(lines.run, connection.driver)
            await node.accept()
            await observer.up.wait()
            yield node, connection, observer
            nursery.cancel_scope.cancel()


def store(request: int) -> Command:
    return Command(
        CommandKind.STORE, request, 0, MAX_RUN_SECTORS, pack_tag(1, 1) * MAX_RUN_SECTORS,
        bytes(MAX_RUN_SECTORS * SECTOR_SIZE), True,
    )


@pytest.mark.parametrize(
    ("features", "least", "most"), [(FEATURE_ZEROS, 0, 8192), (0, MAX_RUN_BYTES, 2 * MAX_RUN_BYTES)]
)
async def test_zeros_go_without_data_to_a_node_that_understands_it(features: int, least: int, most: int) -> None:
    async with scene(features) as (node, connection, _):
        connection.send(store(1))
        connection.flush()
        assert await node.requests_until(1) == [1]
        assert least <= node.received_bytes < most


def fill(connection: Connection) -> int:
    """As much as the transport takes; how many commands that are."""
    assert connection._outbox is not None
    sent = 0
    while connection._outbox.transport.outgoing_bytes < HIGH_WATER_BYTES:
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
    async with scene() as (node, connection, observer):
        fill(connection)
        connection.send(store(91))
        up = observer.up
        await node.stream.aclose()
        while observer.up is up:
            await trio.lowlevel.checkpoint()
        assert not connection.is_up
        await node.accept()
        await observer.up.wait()
        connection.send(store(92))
        connection.flush()
        assert await node.requests_until(92) == [92]


async def test_a_connection_that_is_dropped_is_made_again() -> None:
    async with scene() as (node, connection, observer):
        up = observer.up
        connection.drop()
        await node.accept()
        while observer.up is up:
            await trio.lowlevel.checkpoint()
        await observer.up.wait()
        connection.send(store(7))
        connection.flush()
        assert await node.requests_until(7) == [7]


async def test_bytes_of_a_node_come_in_order() -> None:
    async with scene() as (node, _, observer):
        for request in (1, 2, 3):
            await node.send(StatusReport(request, b"{}"))
        while len(observer.messages) < 3:
            await trio.lowlevel.checkpoint()
        assert observer.messages == [StatusReport(request, b"{}") for request in (1, 2, 3)]
