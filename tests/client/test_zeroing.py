"""Zeros to many chunks by one command: ZERO at all nodes, or in pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from dsreg.client import Client
from dsreg.client.events import Completed, Connected, Disconnected, Split, Start, Tick, Withdraw
from dsreg.client.limits import ZERO_ATTEMPT_S
from dsreg.client.pieces import MAX_PIECES, Pieces
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientError, NodesFull, Outcome
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import ATTACHED, unpack_tag
from dsreg.store import Done
from tests.client.attached_play import AttachedPlay, attach_answer, puts
from tests.client.fake_node import cluster
from tests.client.play import Play, answered, commands, ok

FIRST, COUNT = 512, 1024
START = Start(5, FIRST, COUNT, zero=True)
ZERO = CommandKind.ZERO


class ZeroPlay(AttachedPlay):
    """`zeroes`: the nodes that know the command."""

    def __init__(self, zeroes: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__()
        for rank in zeroes:
            self.do(Disconnected(rank))
            for other, asked in commands(self.do(Connected(rank, 3, True))):
                if asked.kind is CommandKind.ATTACH:
                    self.do(attach_answer(asked, other, 1))


def zeros(play: Play) -> dict[int, Command]:
    sent = dict(commands(play.do(START)))
    assert {command.kind for command in sent.values()} == {ZERO} and len(set(sent.values())) == 1
    return sent


def test_all_nodes_are_told_and_a_majority_does() -> None:
    play = ZeroPlay()
    sent = zeros(play)
    assert set(sent) == {1, 2, 3}
    command = sent[1]
    assert (command.first, command.count, command.data, command.epoch) == (FIRST, COUNT, b"", 1)
    assert len(command.tags) == 16 and unpack_tag(command.tags).wr == ATTACHED
    assert play.do(ok(command, 1, b"")) == []
    assert play.do(ok(command, 3, b"")) == [Completed(5)], "node 2 gets it all the same"
    later = puts(play, 6, FIRST)[1]
    assert later.tags > command.tags, "what is written later is newer"


def test_a_node_that_does_not_know_it_gets_pieces() -> None:
    play = ZeroPlay((1, 2))
    assert play.do(START) == [Split(5, False)]
    play.do(Disconnected(3))
    assert set(zeros(play)) == {1, 2}, "it is not asked now"


def test_without_an_attachment_it_is_done_in_pieces() -> None:
    assert Play().do(START) == [Split(5, False)]


@pytest.mark.parametrize("status", [Status.REFUSED, Status.NO_SPACE])
def test_no_majority_does_it(status: Status) -> None:
    play = ZeroPlay()
    command = zeros(play)[1]
    assert play.do(answered(command, 1, status, b"")) == []
    effects = play.do(answered(command, 2, status, b""))
    assert [effect for effect in effects if not isinstance(effect, Withdraw)] == [Split(5, True)]
    assert play.core.outcome(5) is None


def test_no_majority_answers() -> None:
    play = ZeroPlay()
    command = zeros(play)[1]
    assert play.do(ok(command, 1, b"")) == []
    assert Split(5, True) not in play.do(Tick(), ZERO_ATTEMPT_S / 2), "a node may have a gibibyte to give back"
    assert Split(5, True) in play.do(Tick(), ZERO_ATTEMPT_S)
    assert play.do(ok(command, 2, b"")) == [], "it is over, and what comes late counts for nothing"


def test_an_answer_with_data_is_none() -> None:
    play = ZeroPlay()
    command = zeros(play)[1]
    good = ok(command, 1, b"")
    (message,) = good.messages
    assert isinstance(message, Response)
    assert play.do(good._replace(messages=(message._replace(tags=bytes(16)),))) == []
    assert play.do(ok(command, 2, b"")) == []


# --- pieces -----------------------------------------------------------------------------------------------
class Writer:
    """Keeps what it is to write, or ends it at once. What was told of, and is under way still, stays in `lingering`."""

    def __init__(self, at_once: bool = False) -> None:
        self.begun: list[tuple[int, int]] = []
        self.under_way: list[tuple[Done, Callable[[], None]]] = []
        self.lingering: list[Callable[[], None]] = []
        self.most = 0
        self.at_once = at_once

    def write_zeros(self, first: int, count: int, done: Done, over: Callable[[], None]) -> None:
        self.begun.append((first, count))
        self.under_way.append((done, over))
        self.most = max(self.most, len(self.under_way))
        if self.at_once:
            self.end()

    def tell(self, error: ClientError | None = None, at: int = 0) -> None:
        """Of one that goes on."""
        done, over = self.under_way.pop(at)
        self.lingering.append(over)
        done(b"", error)

    def end(self, error: ClientError | None = None, at: int = 0) -> None:
        self.tell(error, at)
        self.lingering.pop()()


class Told:
    """What a zeroing in pieces of 100 chunks has come to."""

    def __init__(self, writer: Writer, *, count: int = 100, is_exposed: bool = False) -> None:
        self.errors: list[ClientError | None] = []
        self.times_over = 0
        self.pieces = Pieces(writer, 512, count * 256, self.errors.append, self._over, is_exposed=is_exposed)
        self.pieces.go_on()

    def _over(self) -> None:
        self.times_over += 1


def test_pieces_are_chunks_some_at_a_time() -> None:
    writer = Writer()
    told = Told(writer)
    while writer.under_way:
        assert not told.errors and not told.times_over
        writer.end()
    assert told.errors == [None] and told.times_over == 1 and writer.most == MAX_PIECES
    assert writer.begun == [(512 + 256 * index, 256) for index in range(100)]


def test_thousands_that_end_at_once_are_not_thousands_of_calls_deep() -> None:
    writer = Writer(at_once=True)
    told = Told(writer, count=20_000)
    assert told.errors == [None] and told.times_over == 1 and len(writer.begun) == 20_000


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_first_failure_ends_it_once_nothing_is_under_way(outcome: Outcome) -> None:
    writer = Writer()
    told = Told(writer)
    writer.end(NodesFull("no room", outcome), 3)
    assert len(writer.begun) == MAX_PIECES and not told.errors
    while writer.under_way:
        writer.end()
    (error,) = told.errors
    assert isinstance(error, NodesFull) and error.outcome is Outcome.MAY_HAVE_HAPPENED, "others have ended well"


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("is_exposed", [False, True])
def test_what_has_not_happened_at_all_is_said_to(outcome: Outcome, is_exposed: bool) -> None:
    """A client that must not write beside another one is refused all."""
    writer = Writer()
    told = Told(writer, is_exposed=is_exposed)
    while writer.under_way:
        writer.end(NodesFull("no room", outcome))
    (error,) = told.errors
    assert error is not None
    assert error.outcome is (Outcome.MAY_HAVE_HAPPENED if is_exposed else outcome)


def test_one_that_is_given_up_begins_nothing_more() -> None:
    writer = Writer()
    told = Told(writer)
    told.pieces.stop()
    while writer.under_way:
        writer.end()
    assert told.errors == [None] and told.times_over == 1 and len(writer.begun) == MAX_PIECES


def test_whose_time_is_over_is_told_of_at_once_and_over_when_nothing_of_it_is_under_way() -> None:
    writer = Writer()
    told = Told(writer)
    while writer.under_way:
        writer.tell(NodesFull("no room", Outcome.MAY_HAVE_HAPPENED))
    assert len(told.errors) == 1 and len(writer.lingering) == MAX_PIECES
    while writer.lingering:
        assert not told.times_over
        writer.lingering.pop()()
    assert told.times_over == 1 and len(told.errors) == 1


async def test_sectors_of_pieces_whose_time_is_over_stay_locked() -> None:
    """A later write would overtake them, and one of them that is met by it be taken for a copy of this client."""
    with trio.fail_after(60):
        async with cluster() as nodes:
            for node in nodes.nodes:
                node.behaviour.deaf_to = frozenset({CommandKind.STORE})
            async with Client(nodes.config, timeout_s=2.0) as client:
                for each in client.nodes:
                    await client.status(each.rank, timeout_s=30)
                told = trio.Event()
                client.zero(0, 512, lambda data, error: told.set())
                client.end_turn()
                await told.wait()
                later = client.submit(0, 1, b"x" * SECTOR_SIZE, lambda data, error: None)
                assert later.held is not None and later.held.waits
                elsewhere = client.submit(512, 1, b"x" * SECTOR_SIZE, lambda data, error: None)
                assert elsewhere.held is not None and not elsewhere.held.waits
