"""Replica: operations of clients, as plays. L1..L6 are the lines in the docstring of dsreg.register.atomic_register."""

from __future__ import annotations

from collections import deque

import pytest

from dsreg.protocol.messages import Ack, Command, CommandKind, Response, Status, Value, WriteProc
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_COUNTER, MAX_COUNTS_PER_S
from dsreg.register.effects import Again, Effect, Load, Persist, Reply, Reserve, StoreOwnCopy, Tell
from dsreg.register.repairs import REFUSED_RETRY_S
from dsreg.register.tag_allocator import PROMISE_STEP, TagAllocator
from tests.protocol.values import data, tags
from tests.register.play import CLIENT, NEW, PEER, RANK, RID, Play, ask, at, load, ok, own, tell
from tests.register.settled import assert_settled

LOW, HIGH = tags((3, 2)), tags((4, 2))
ABSURD = tags((ALWAYS_PLAUSIBLE_COUNTER + 1, 2))
READ = Command(CommandKind.READ, 1, 0, 1)
WRITE = Command(CommandKind.WRITE, 1, 0, 1, data=NEW)
TAG = Command(CommandKind.TAG, 1, 0, 1, extended=True)
STORE = Command(CommandKind.STORE, 1, 0, 1, HIGH, NEW, True)


# --- READ -----------------------------------------------------------------------------------------
def test_read_in_one_round() -> None:
    play = Play()
    play.have(HIGH, NEW)
    assert play.read() == [*ask(), load()]  # L1
    assert play.value(2, RID, HIGH) == []
    assert play.load(load()) == [ok(READ, value=NEW)]  # L2, and nothing to write back
    assert_settled(play.replica, 100.0)


def test_read_that_writes_back() -> None:
    play = Play()
    play.have(LOW, data(1))
    assert play.read() == [*ask(), load()]
    assert play.load(load()) == []
    assert play.value(2, RID, HIGH) == [*ask(RID + 1, values=True), load(RID + 1, values=True)]
    assert play.value(3, RID, HIGH) == [], "the answer to an earlier rid"
    assert play.load(load(RID + 1, values=True)) == []
    write_back = own(HIGH, NEW, RID + 1)
    assert play.value(2, RID + 1, HIGH, NEW) == [*tell(HIGH, NEW, RID + 1), write_back]  # L3
    assert play.ack(3, RID + 1) == []
    assert play.commit(write_back) == [ok(READ, value=NEW)]  # L6
    assert_settled(play.replica, 100.0)


def test_a_load_that_comes_when_the_operation_has_gone_on_changes_nothing() -> None:
    play = Play()
    play.read()
    play.load(load())
    play.value(2, RID, HIGH)
    assert play.load(load()) == []
    assert play.replica.is_under_way(RID + 1) and not play.replica.is_under_way(RID)


# --- WRITE ----------------------------------------------------------------------------------------
def test_write_is_durable_here_before_anybody_hears_of_its_tag() -> None:
    play = Play()
    play.have(LOW, data(1))
    assert play.write() == ask()  # L1; its own tags by direct call
    assert play.value(3, RID, HIGH) == [own(tags((5, RANK)))]  # L2, L4: no Tell
    later = [*play.tick(10.0), *play.replica.link_up(2, True, at(10.0)), *play.ack(2, RID), *play.value(2, RID, LOW)]
    assert not any(isinstance(effect, Tell) and isinstance(effect.message, WriteProc) for effect in later)
    assert play.commit(own(tags((5, RANK)))) == tell(tags((5, RANK)))
    assert play.ack(2, RID) == [ok(WRITE)]  # L6
    assert_settled(play.replica, 100.0)


def test_write_takes_no_tag_that_was_named() -> None:
    play = Play()
    play.tag()
    play.value(2, RID, HIGH)  # names (5, RANK), which is not stored anywhere yet
    play.write()
    assert play.value(2, RID + 1, HIGH) == [own(tags((6, RANK)), rid=RID + 1)]


# --- TAG ------------------------------------------------------------------------------------------
def test_tag_reserves_before_it_answers() -> None:
    play = Play()
    assert play.tag() == ask()
    (reserve,) = play.value(2, RID, HIGH)
    assert reserve == Reserve(PROMISE_STEP, (ok(TAG, tags=tags((5, RANK))),))
    assert play.commit(reserve) == [ok(TAG, tags=tags((5, RANK)))]
    assert play.storage.ts_reserved >= 5
    assert_settled(play.replica, 100.0)


def test_tag_never_names_one_tag_twice() -> None:
    play = Play()
    named = []
    for rid in range(RID, RID + 5):
        play.tag()
        (reserve,) = play.value(2, rid, HIGH)
        (answer,) = play.commit(reserve)
        assert isinstance(answer, Reply) and isinstance(answer.message, Response)
        named.append(answer.message.tags)
    assert named == [tags((ts, RANK)) for ts in (5, 6, 7, 8, 9)]


def test_tag_of_a_run_is_one_tag_above_all() -> None:
    play = Play()
    play.have(tags((2, 1), (9, 3)), data(1, 2))
    assert play.tag(count=2) == ask(count=2)
    (reserve,) = play.value(2, RID, tags((3, 1), (1, 1)))
    (answer,) = play.commit(reserve)
    assert isinstance(answer, Reply) and isinstance(answer.message, Response)
    assert answer.message.tags == tags((10, RANK), (10, RANK))


# --- STORE ----------------------------------------------------------------------------------------
def test_store_goes_to_everybody_at_once() -> None:
    play = Play()
    assert play.store(HIGH) == [*tell(HIGH), own(HIGH)]
    assert play.ack(2, RID) == []
    assert play.ack(3, RID) == [ok(STORE)]
    assert play.replica.durable(Ack(RANK, RID, 0, 1), at(0.0)) == [], "its own copy comes too late to count"
    assert_settled(play.replica, 100.0)


def test_store_twice_and_late_changes_nothing() -> None:
    play = Play()
    newer = tags((7, 3))
    play.have(newer, data(7))
    for rid in (RID, RID + 1):
        assert play.store(HIGH) == [*tell(HIGH, rid=rid), own(HIGH, rid=rid)]
        assert play.ack(2, rid) == []
        assert play.commit(own(HIGH, rid=rid)) == [ok(STORE)]
        assert play.storage.load(0, 1) == (newer, data(7), False)


# --- late and foreign answers ---------------------------------------------------------------------
def test_answers_that_do_not_belong_change_nothing() -> None:
    play = Play()
    play.have(HIGH, NEW)
    play.read(first=0, count=1)
    foreign: list[Value | Ack] = [
        Value(2, RID + 1, 0, 1, HIGH, None),  # wrong rid
        Value(2, RID, 1, 1, HIGH, None),  # wrong run
        Value(2, RID, 0, 2, HIGH * 2, None),
        Ack(2, RID, 0, 1),  # wrong phase
        Value(RANK, RID, 0, 1, HIGH, None),  # its own rank, from outside
        Ack(RANK, RID, 0, 1),
    ]
    for message in foreign:
        assert play.message(message) == []
    assert play.load(load()) == [], "still one answer short"
    assert play.replica.counters["foreign_run"] == 2
    assert play.replica.counters["own_rank_from_outside"] == 2


def test_questions_under_its_own_rank_from_outside_are_not_answered() -> None:
    play = Play()
    assert play.message(WriteProc(RANK, RID, 0, 1, HIGH, NEW)) == []
    assert play.message(WriteProc(RANK, RID, 0, 1, HIGH, NEW, bytes(16))) == []


def test_a_node_counts_once() -> None:
    play = Play(nodes=5)
    play.store(HIGH)
    for _ in range(3):
        assert play.ack(2, RID) == []
    assert play.ack(3, RID) == []
    assert play.ack(4, RID) == [ok(STORE)]
    assert play.ack(5, RID) == []


# --- the queue ------------------------------------------------------------------------------------
def test_operations_that_overlap_queue_and_others_do_not() -> None:
    play = Play()
    assert play.store(HIGH * 2, data(1, 2), first=0) != []
    assert play.read(first=1, count=4, request=2) == []
    assert play.read(first=4, request=3) == [], "behind the second, which waits"
    assert play.read(first=8, request=4) == [*ask(RID + 1, 8), load(RID + 1, 8)]
    assert play.replica.unfinished() == 4
    play.ack(2, RID, count=2)
    answer, *started = play.ack(3, RID, count=2)
    assert isinstance(answer, Reply)
    assert started == [*ask(RID + 2, 1, 4), load(RID + 2, 1, 4)]
    assert play.replica.unfinished() == 3


@pytest.mark.parametrize("kind", [READ.kind, WRITE.kind, TAG.kind, STORE.kind])
def test_a_thousand_operations_on_one_sector_of_a_single_node(kind: CommandKind) -> None:
    play = Play(nodes=1)
    effects: deque[Effect] = deque(play.store(HIGH, request=5000))
    for request in range(1000):
        command = Command(kind, request, 0, 1, HIGH, NEW) if kind in (CommandKind.WRITE, CommandKind.STORE) else None
        assert play.command(command or Command(kind, request, 0, 1)) == [], "the store holds the sector"
    answered = []
    while effects:
        match effects.popleft():
            case Persist() | Reserve() as effect:
                effects.extend(play.commit(effect))
            case Load() as effect:
                effects.extend(play.load(effect))
            case Reply(_, Response() as response):
                answered.append(response.request)
            case other:
                raise AssertionError(other)
    assert answered == [5000, *range(1000)]
    assert_settled(play.replica, 100.0)


# --- sending again --------------------------------------------------------------------------------
def test_questions_are_sent_again_to_those_who_have_not_answered() -> None:
    play = Play(nodes=5)
    play.write()
    play.value(2, RID, LOW)
    assert play.replica.next_due() == 0.5
    assert play.tick(0.4) == []
    assert play.tick(0.5) == ask(to=(3, 4, 5))
    assert play.replica.next_due() == 1.5
    assert play.replica.link_up(4, True, at(0.6)) == ask(to=(4,))
    assert play.replica.link_up(2, True, at(0.6)) == []


def test_the_second_phase_is_sent_again_under_the_same_rid() -> None:
    play = Play()
    play.store(HIGH)
    play.ack(2, RID)
    assert play.tick(0.5) == tell(HIGH, to=(3,))
    play.ack(3, RID)
    assert play.tick(100.0) == []
    assert play.replica.link_up(3, True, at(100.0)) == []


# --- a tag that was chosen and is lost ------------------------------------------------------------
def test_what_a_write_chooses_is_promised_before_its_own_copy_is_durable() -> None:
    play = Play(promised=0)
    play.write()
    promise, = play.value(2, RID, LOW)
    assert promise == Reserve(PROMISE_STEP - 1, (Again(StoreOwnCopy(RID)),))
    assert play.commit(promise) == [own(tags((4, RANK)))]
    play.write(first=1, request=2)
    assert play.value(2, RID + 1, LOW, first=1) == [own(tags((4, RANK)), rid=RID + 1, first=1)], "it is promised"


@pytest.mark.parametrize("kind", [CommandKind.WRITE, CommandKind.TAG])
def test_a_tag_that_was_chosen_and_is_lost_is_not_chosen_again(kind: CommandKind) -> None:
    """Another node may have got it, and not be among those that are asked."""
    chosen = tags((3, RANK))
    play = Play()
    play.have(chosen, data(3))
    play.storage.damage(0, tag_too=True)
    play.write() if kind is CommandKind.WRITE else play.tag()
    play.value(2, RID, tags((0, 0)))
    promise, = play.value(3, RID, tags((0, 0)))
    assert isinstance(promise, Reserve), "not on the same promise again"
    (then,) = play.commit(promise)
    again = then.tags if isinstance(then, Persist) else then.message.tags  # type: ignore[union-attr]
    assert again == tags((PROMISE_STEP, RANK)) > chosen
    assert promise.ts >= PROMISE_STEP


def test_a_tag_that_was_chosen_and_is_lost_is_not_chosen_again_after_its_repair_and_a_restart() -> None:
    play = Play()
    play.have(tags((3, RANK)), data(3))
    play.storage.damage(0, tag_too=True)
    play.read()
    play.load(load())
    play.value(2, RID, LOW)
    play.value(3, RID, LOW)
    play.load(load(RID + 1, values=True))
    play.value(2, RID + 1, LOW, data(1))
    *_, promise = play.value(3, RID + 1, LOW, data(1))
    assert isinstance(promise, Reserve), "not repaired before it is certain that the node goes on above"
    (repair,) = play.commit(promise)
    play.commit(repair)
    assert play.storage.tags(0, 1) == LOW
    assert TagAllocator(RANK, play.storage.ts_reserved).last > 3


# --- no room --------------------------------------------------------------------------------------
def test_a_write_without_room_here_goes_on_at_the_others_under_a_promised_tag() -> None:
    play = Play()
    play.write()
    (persist,) = play.value(2, RID, LOW)
    play.storage.full = True
    (promise,) = play.commit(persist)
    assert isinstance(promise, Reserve), "nobody hears of a tag that is neither stored nor promised"
    renamed = tags((5, RANK))
    assert play.commit(promise) == [*tell(renamed), own(renamed)]
    play.ack(2, RID)
    assert play.ack(3, RID) == [ok(WRITE)]
    assert play.storage.ts_reserved >= 5
    play.tick(100.0)
    assert_settled(play.replica, 100.0)


def test_a_write_without_room_is_stored_here_when_there_is_room_again() -> None:
    play = Play()
    play.write()
    (persist,) = play.value(2, RID, LOW)
    play.storage.full = True
    (promise,) = play.commit(persist)
    play.commit(promise)
    play.tick(0.5)
    play.storage.full = False
    (again,) = [effect for effect in play.tick(REFUSED_RETRY_S) if isinstance(effect, Persist)]
    assert play.commit(again) == []
    assert play.ack(3, RID) == [ok(WRITE)]
    assert play.storage.tags(0, 1) == tags((5, RANK))
    assert_settled(play.replica, 100.0)


# --- a client that has gone -----------------------------------------------------------------------
def test_what_a_client_that_has_gone_only_wanted_to_know_is_given_up() -> None:
    play = Play()
    play.read()
    play.tag(first=7)
    commands, effects = play.replica.disconnected(CLIENT, at(0.0))
    assert [command.kind for command in commands] == [CommandKind.READ, CommandKind.TAG] and effects == []
    assert_settled(play.replica, 100.0)


def test_a_write_that_was_begun_is_finished_for_a_client_that_has_gone_and_one_that_was_not_is_dropped() -> None:
    play = Play()
    play.write()
    play.write(request=2)
    commands, _ = play.replica.disconnected(CLIENT, at(0.0))
    assert [command.request for command in commands] == [2]
    (persist,) = play.value(2, RID, LOW)
    play.commit(persist)
    assert play.ack(3, RID) == [ok(WRITE)]
    assert_settled(play.replica, 100.0)


def test_what_others_asked_goes_on_when_a_client_goes() -> None:
    play = Play()
    play.read()
    other = Command(CommandKind.TAG, 5, 0, 1, extended=True)
    assert play.replica.command(PEER, other, at(0.0)) == [], "it waits for the read of the same sector"
    _, effects = play.replica.disconnected(CLIENT, at(0.0))
    assert effects == ask(RID + 1)


def test_without_room_here_the_others_are_enough_for_a_store() -> None:
    play = Play()
    play.store(HIGH)
    play.storage.full = True
    play.commit(own(HIGH))
    play.ack(2, RID)
    assert play.ack(3, RID) == [ok(STORE)]
    assert play.tick(REFUSED_RETRY_S) == [], "the operation is over"
    assert_settled(play.replica, 100.0)


# --- dishonest tags -------------------------------------------------------------------------------
def test_absurd_tags_are_refused_everywhere() -> None:
    play = Play()
    play.have(HIGH, NEW)
    refusal = Response(Status.DISBELIEVED, CommandKind.STORE, 1, extended=True)
    command = STORE._replace(tags=ABSURD)
    assert play.command(command) == [Reply(CLIENT, refusal, command)]
    assert play.message(WriteProc(2, 5, 0, 1, ABSURD, NEW)) == []
    assert play.message(WriteProc(2, 5, 0, 1, ABSURD, NEW, bytes(16))) == []
    play.write()
    assert play.value(2, RID, ABSURD) == []
    assert play.links.waiting_for(RID) == [2, 3], "that was no answer"
    assert play.value(3, RID, HIGH) == [own(tags((5, RANK)))]
    assert play.replica.counters["implausible_tags"] == 4


@pytest.mark.parametrize("unix_time_s", [0, 1 << 17, 1 << 30])
def test_a_tag_as_high_as_is_believed_is_taken(unix_time_s: int) -> None:
    play = Play(unix_time_s=unix_time_s)
    play.have(HIGH, NEW)
    believed = max(ALWAYS_PLAUSIBLE_COUNTER, unix_time_s * MAX_COUNTS_PER_S)
    assert play.message(WriteProc(2, 5, 0, 1, tags((believed + 1, 2)), NEW)) == []
    far = tags((believed, 2))
    answer = Reply(PEER, Ack(RANK, 5, 0, 1))
    assert play.message(WriteProc(2, 5, 0, 1, far, NEW)) == [Persist(0, 1, far, NEW, (answer,))]
