"""The interpreter of effects: links that come and go, what waits for them, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from dsreg.constants import MAX_RUN_SECTORS, NO_OWNER, SECTOR_SIZE
from dsreg.protocol.codec import Bounds, Decoder, Side
from dsreg.protocol.messages import Command, CommandKind, Message, ReadProc, Value
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH, FIRST_EPOCH_S, S_PER_EPOCH
from dsreg.register.contract import Uuids
from dsreg.register.execution import size_of
from dsreg.transport import Transport
from tests.node.scene import KEYS, PATIENCE_S, SECTORS, Scene, connected, running, store

RANKS = (1, 2, 3)


class Peer:
    """The other end of a link to the node 2."""

    def __init__(self) -> None:
        mine, its = connected()
        self.transport = Transport(mine, "node 2")
        its.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(its))
        self._decoder = Decoder(KEYS, bounds=Bounds(SECTORS, frozenset(RANKS)), side=Side.NODE, extended=True)

    async def message(self) -> Message:
        messages: list[Message] = []
        while not messages:
            data = bytes(await self._stream.receive_some())
            assert data, "the link is over"
            messages = self._decoder.feed(data)
        return messages[0]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with running(Scene(ranks=RANKS)) as made:
        yield made


@pytest.mark.parametrize("extended", [False, True])
async def test_an_answer_to_a_peer_of_the_contract_waits_for_its_link(scene: Scene, extended: bool) -> None:
    """It asks over a connection of its own, and is answered over the link to it: which may be down at the moment."""
    asked = ReadProc(2, 77, 0, 1, True, uuid=Uuids(2, 5).question(ReadProc, 77, 0))
    scene.interpreter.message(scene.connection, asked)
    scene.interpreter.end_turn()
    peer = Peer()
    with trio.fail_after(PATIENCE_S):
        scene.interpreter.link_up(2, peer.transport, extended)
        answer = await peer.message()
    assert isinstance(answer, Value) and (answer.rid, answer.rank) == (77, 1)
    peer.transport.close()


async def test_the_end_of_an_old_link_leaves_the_new_one(scene: Scene) -> None:
    """The other node was restarted: its new connection is there before the end of the old one is seen."""
    old, new = Peer(), Peer()
    scene.interpreter.link_up(2, old.transport, True)
    scene.interpreter.link_up(2, new.transport, True)
    scene.interpreter.link_down(2, old.transport)
    scene.ask(Command(CommandKind.READ, 1, 0, 1, extended=True))
    with trio.fail_after(PATIENCE_S):
        question = await new.message()
    assert isinstance(question, ReadProc) and question.first == 0
    old.transport.close()
    new.transport.close()


async def test_the_end_of_a_link_is_the_end_of_what_is_sent_over_it(scene: Scene) -> None:
    peer = Peer()
    scene.interpreter.link_up(2, peer.transport, True)
    scene.interpreter.link_down(2, peer.transport)
    scene.ask(Command(CommandKind.READ, 1, 0, 1, extended=True))
    assert peer.transport.outgoing_bytes == 0 and 2 not in scene.interpreter._links
    peer.transport.close()


async def test_what_is_under_way_is_counted_until_it_is_answered() -> None:
    idle: list[int] = []
    async with running(Scene()) as scene:
        scene.interpreter.on_idle = lambda: idle.append(scene.interpreter.unfinished)
        scene.files.shut("sync", "journal.1")
        scene.ask(store(1, 0, 4, 1), store(2, 8, 2, 1))
        room = scene.connection.room = trio.Event()
        assert (scene.interpreter.unfinished, scene.interpreter.unfinished_bytes) == (2, 6 * SECTOR_SIZE)
        assert (scene.connection.unfinished, scene.connection.unfinished_bytes) == (2, 6 * SECTOR_SIZE)
        await scene.files.somebody_waits()
        assert not room.is_set() and idle == []
        scene.files.open_gate("sync", "journal.1")
        await scene.client.answers(2)
        assert room.is_set(), "whoever waits with reading from the client goes on"
        assert idle and set(idle) == {0}
        assert (scene.interpreter.unfinished, scene.interpreter.unfinished_bytes) == (0, 0)
        assert (scene.connection.unfinished, scene.connection.unfinished_bytes) == (0, 0)


async def test_each_event_is_judged_by_what_the_clock_says_then() -> None:
    """A machine that starts in 1970 believes the epochs of today once its clock is set."""
    async with running(Scene()) as scene:
        believed = []
        for unix_s in (0.0, FIRST_EPOCH_S + S_PER_EPOCH * 2_000_000, 0.0):
            scene.unix_s = unix_s
            scene.ask(Command.attach(1, 0, NO_OWNER))
            believed.append((await scene.client.answer()).believed)
        assert believed == [ALWAYS_PLAUSIBLE_EPOCH, 2_000_000, ALWAYS_PLAUSIBLE_EPOCH]


@pytest.mark.parametrize(
    ("kind", "values", "counted"),
    [
        (CommandKind.READ, False, True), (CommandKind.GET, True, True), (CommandKind.GET, False, False),
        (CommandKind.TAG, False, False), (CommandKind.STORE, False, True), (CommandKind.PUT, False, True),
    ],
)
def test_bytes_count_where_they_are_held_or_will_be(kind: CommandKind, values: bool, counted: bool) -> None:
    command = Command(kind, 1, 0, MAX_RUN_SECTORS, extended=True, values=values)
    assert size_of(command) == (MAX_RUN_SECTORS * SECTOR_SIZE if counted else 0)
