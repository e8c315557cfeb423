"""What waits for a link: in order, once, and only while anybody needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.node.link_outbox import LinkOutbox
from dsreg.outbox import HIGH_WATER_BYTES, PRUNE_FIRST
from dsreg.protocol.codec import Bounds, Decoder, EncodeOnce, Encoder, Side
from dsreg.protocol.messages import Ack, Message, PeerMessage, ReadProc, WriteProc
from dsreg.protocol.tags import pack_tag
from dsreg.transport import Transport
from tests.node.scene import KEYS, PATIENCE_S, SECTORS, connected


class Link:
    """An outbox on a real connection. `over`: operations that have finished."""

    def __init__(self) -> None:
        mine, its = connected()
        self.transport = Transport(mine, "the other node")
        self.over: set[int] = set()
        self.outbox = LinkOutbox(self.transport, EncodeOnce(Encoder(KEYS)), lambda rid: rid not in self.over)
        its.setblocking(False)
        self._other = trio.SocketStream(trio.socket.from_stdlib_socket(its))
        self._decoder = Decoder(KEYS, bounds=Bounds(SECTORS, frozenset({1, 2, 3})), side=Side.NODE, extended=True)

    def fill(self) -> int:
        """As much as the transport is given at a time; how many messages that are. Nothing of it is sent yet."""
        filled = 0
        while self.transport.outgoing_bytes < HIGH_WATER_BYTES:
            filled += 1
            self.outbox.send(order(filled))
        return filled

    async def until(self, rid: int) -> list[PeerMessage]:
        """Send all, and give what arrives up to the message of this operation."""
        arrived: list[Message] = []
        self.transport.flush()
        while not any(getattr(message, "rid", 0) == rid for message in arrived):
            data = bytes(await self._other.receive_some())
            arrived += self._decoder.feed(data)
        return arrived  # type: ignore[return-value]


def order(rid: int) -> WriteProc:
    count = MAX_RUN_SECTORS
    return WriteProc(1, rid, 0, count, pack_tag(rid, 1) * count, bytes(count * SECTOR_SIZE))


def question(rid: int, first: int = 0) -> ReadProc:
    return ReadProc(1, rid, first, 1, True)


def rids(messages: list[PeerMessage]) -> list[int]:
    return [message.rid for message in messages]


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            made = Link()
            nursery.start_soon(made.transport.run_writer)
            yield made
            nursery.cancel_scope.cancel()
    made.transport.close()


async def test_what_waits_is_sent_in_order_as_the_port_has_room(link: Link) -> None:
    filled = link.fill()
    for rid in range(filled + 1, filled + 6):
        link.outbox.send(order(rid))
    most = HIGH_WATER_BYTES + 2 * MAX_RUN_SECTORS * SECTOR_SIZE
    assert link.transport.outgoing_bytes < most, "the others are no bytes yet"
    assert rids(await link.until(filled + 5)) == list(range(1, filled + 6))


async def test_questions_of_operations_that_are_over_are_not_sent(link: Link) -> None:
    filled = link.fill()
    for rid in (91, 92, 93, 94):
        link.outbox.send(question(rid))
    link.outbox.send(order(95))
    link.over |= {92, 93}
    link.outbox.send(question(96))
    assert rids(await link.until(96))[filled:] == [91, 94, 95, 96]


async def test_a_write_that_is_over_is_not_sent_and_the_other_node_lacks_it(link: Link) -> None:
    filled = link.fill()
    link.outbox.send(question(91))
    link.outbox.send(order(92))
    link.outbox.send(order(93))
    link.over |= {91}
    assert rids(await link.until(93))[filled:] == [92, 93] and not link.outbox.has_spared, "no question is missed"
    filled = link.fill()
    link.outbox.send(order(94))
    link.outbox.send(order(95))
    link.over |= {94}
    assert not link.outbox.has_spared, "it is not known yet"
    assert rids(await link.until(95))[filled:] == [95] and link.outbox.has_spared


async def test_answers_are_sent_whatever_is_over_here(link: Link) -> None:
    """They belong to operations of the other node. So many wait that what is over is weeded out."""
    filled = link.fill()
    count = 2 * PRUNE_FIRST
    link.over |= set(range(1, 2 * count))
    for rid in range(100, 100 + count):
        link.outbox.send(Ack(1, rid, 0, 1))
        link.outbox.send(question(rid - 100 + 1))
    assert len(link.outbox._waiting) < 2 * count, "the questions are weeded out"
    link.outbox.send(question(5000))
    assert rids(await link.until(5000))[filled:] == [*range(100, 100 + count), 5000]


async def test_a_message_that_is_sent_again_does_not_wait_twice(link: Link) -> None:
    filled = link.fill()
    for _ in range(3):
        link.outbox.send(question(91))
    for first in (1, 2, 3):
        link.outbox.send(question(92, first))  # pieces of a run
    link.outbox.send(question(93))
    arrived = (await link.until(93))[filled:]
    assert [(message.rid, message.first) for message in arrived] == [(91, 0), (92, 1), (92, 2), (92, 3), (93, 0)]
