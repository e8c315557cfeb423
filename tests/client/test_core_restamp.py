"""The client's core with the disk attached, as scripts: what a READ finds that was left by older attachments.

Rule 10 of docs/attachments.md: the attachment stores that itself, under its own epoch, and returns it only then. It
decides once what it is, whatever other nodes answer.
"""

from __future__ import annotations

import pytest

from dsreg.client.events import (
    Abandon,
    Completed,
    Disconnected,
    Dropped,
    Effect,
    Failed,
    Received,
    Send,
    Start,
    Tick,
    Withdraw,
)
from dsreg.client.limits import ATTEMPT_FIRST_S
from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR, ZERO_TAG
from dsreg.errors import DiskFenced, Outcome
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import pack_tag, restamped
from tests.client.attached_play import AttachedPlay
from tests.client.play import DATA, answered, commands, ok
from tests.client.test_core_attached import LEFT, MINE, gets, one

READ, STORE = CommandKind.READ, CommandKind.STORE
NEWER, OTHER = pack_tag(6, 2), b"o" * SECTOR_SIZE
RESTAMPED = restamped(LEFT, 1)


def left(command: Command, rank: int, tags: bytes = LEFT, data: bytes = DATA) -> Received:
    """The answer to a READ of what is not at a majority under the epoch."""
    return Received(rank, (Response(Status.OK, READ, command.request, tags, data, True),))


def reading(play: AttachedPlay) -> Command:
    """Begin a read that two nodes answer differently: its READ, which goes to 1."""
    sent = gets(play)
    play.do(ok(sent[1], 1, LEFT))
    rank, read = one(play.do(ok(sent[2], 2, NEWER)))
    assert (rank, read.kind, read.epoch) == (1, READ, 1)
    return read


def restamping(play: AttachedPlay) -> Command:
    """Begin a read of what was left: its STORE, which goes to 1."""
    rank, store = one(play.do(left(reading(play), 1)))
    assert (rank, store.kind) == (1, STORE)
    return store


def test_it_is_stored_raised_before_it_is_returned() -> None:
    play = AttachedPlay()
    read = reading(play)
    [sent] = play.do(left(read, 1))
    assert isinstance(sent, Send) and isinstance(sent.message, Command)
    store = sent.message
    assert (sent.rank, store) == (1, Command(STORE, store.request, 0, 1, RESTAMPED, DATA, True, 1))
    assert store.request != read.request
    assert play.do(left(read, 1)) == [], "the same answer once more"
    assert play.do(ok(store, 1)) == [Completed(5, DATA)]
    assert not play.core.busy


def test_each_sector_under_its_own_name() -> None:
    play = AttachedPlay()
    for rank in (2, 3):
        play.do(Disconnected(rank))
    _, read = play.sends(Start(5, 0, 3))
    tags, values = LEFT + ZERO_TAG + MINE, DATA + ZERO_SECTOR + OTHER
    rank, store = one(play.do(left(read, 1, tags, values)))
    assert store.tags == RESTAMPED + restamped(ZERO_TAG, 1) + MINE, "what was never written as well"
    assert store.data == values
    assert play.do(ok(store, rank)) == [Completed(5, values)]


def test_what_is_there_under_the_epoch_is_returned_at_once() -> None:
    play = AttachedPlay()
    assert play.do(left(reading(play), 1, b"")) == [Completed(5, DATA)]


def test_the_answer_of_a_second_node_to_the_same_read_changes_nothing() -> None:
    play = AttachedPlay()
    read = reading(play)
    assert play.do(Tick(), after_s=ATTEMPT_FIRST_S) == [Send(2, read)]
    withdrawn, sent = play.do(left(read, 2))
    assert withdrawn == Withdraw(1, read.request)
    assert isinstance(sent, Send) and isinstance(sent.message, Command)
    store = sent.message
    assert (sent.rank, store.tags, store.data) == (2, RESTAMPED, DATA)
    assert play.do(left(read, 1, NEWER, OTHER)) == [] == play.do(left(read, 1, b"", OTHER)), "before it is stored"
    assert play.core.counters.late_answers == 2
    assert play.do(ok(store, 2)) == [Completed(5, DATA)]
    assert play.do(left(read, 1, NEWER, OTHER)) == [], "and after"
    assert not play.core.busy


def test_it_is_stored_under_the_same_tags_wherever_it_goes() -> None:
    play = AttachedPlay()
    store = restamping(play)
    assert play.do(Tick(), after_s=ATTEMPT_FIRST_S) == [Send(2, store)]
    assert play.do(Disconnected(1)) == []
    assert play.do(Disconnected(2)) == [Send(3, store)]
    assert play.do(ok(store, 3)) == [Completed(5, DATA)]


# --- giving up ------------------------------------------------------------------------------------
def test_one_that_is_abandoned_before_it_has_decided_stores_nothing() -> None:
    play = AttachedPlay()
    read = reading(play)
    assert play.do(Abandon(5)) == [Withdraw(1, read.request), Dropped(5)]
    assert play.do(left(read, 1)) == []
    assert not play.core.busy


def test_one_that_is_abandoned_while_it_stores_is_seen_through() -> None:
    """Else the next read of the sector could return something older before this copy comes up."""
    play = AttachedPlay()
    store = restamping(play)
    assert play.core.outcome(5) is Outcome.DID_NOT_HAPPEN, "a read changes no value"
    assert play.do(Abandon(5)) == []
    assert play.do(Disconnected(1)) == [Send(2, store)]
    assert play.do(ok(store, 2)) == [Completed(5, DATA)]


def test_one_whose_store_no_node_has_can_be_abandoned() -> None:
    play = AttachedPlay()
    store = restamping(play)
    for rank in (1, 2, 3):
        effects: list[Effect] = play.do(answered(store, rank, Status.STOPPING))
        assert effects == ([Send(rank + 1, store)] if rank < 3 else [])
    assert play.do(Abandon(5)) == [Dropped(5)]


def test_one_that_is_fenced_while_it_stores_returns_nothing() -> None:
    play = AttachedPlay()
    store = restamping(play)
    effects = play.do(answered(store, 1, Status.FENCED, epoch=2))
    [failed] = [effect for effect in effects if isinstance(effect, Failed)]
    assert isinstance(failed.error, DiskFenced) and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert not [effect for effect in effects if isinstance(effect, Completed)]


# --- answers that are none ------------------------------------------------------------------------
@pytest.mark.parametrize(("tags", "data"), [(LEFT, b""), (LEFT * 2, DATA), (LEFT, DATA * 2), (LEFT * 2, DATA * 2)])
def test_an_answer_of_a_wrong_length_is_ignored(tags: bytes, data: bytes) -> None:
    play = AttachedPlay()
    read = reading(play)
    assert play.do(left(read, 1, tags, data)) == []
    assert commands(play.do(left(read, 1)))[0][1].kind is STORE
