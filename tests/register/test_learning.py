"""What a node whose directory began without it learns, as plays. The node is 1 of 3; its storage is in memory."""

from __future__ import annotations

import pytest

from dsreg.constants import MAX_RUN_SECTORS, ZERO_SECTOR, ZERO_TAG
from dsreg.protocol.messages import (
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    ReadProc,
    Status,
    Value,
    WriteProc,
)
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.register.digests import UNKNOWN
from dsreg.register.effects import Adopt, Fence, Load, Persist, Reply, Tell
from dsreg.register.learner import MAX_HINTS, RETRY_S, Learner
from dsreg.register.quorum import majority_of
from dsreg.runs import Runs
from dsreg.storage.learned import Learned
from dsreg.testing.memory_storage import MemoryStorage
from tests.protocol.values import data, tags
from tests.register.heal_play import CHUNKS, LAST, NEW, OLD, RANKS, SECTORS
from tests.register.learning_play import Learning, new_learner

HIGHER = tags((6, 1))


# --- never written --------------------------------------------------------------------------------
def test_what_was_never_written_is_learned_at_once_from_two() -> None:
    play = Learning(2, 3)
    assert play.left == SECTORS and play.storage.unknown(0, 1) == [0]
    assert sum(isinstance(send.message, DigestQuery) for send in play.asked) == len(play.asked) == 2 + 2
    play.answer(), play.answer()
    assert play.left == SECTORS
    while play.left:
        assert play.asked
        assert play.answer() == []
    assert not play.in_sync(2) and not play.in_sync(3)  # now there is something to compare
    play.to_the_end()
    assert play.in_sync(2, 3) and play.heal.report(play.now)["in_sync"]


def test_a_large_disk_that_was_never_written_takes_one_question_to_each() -> None:
    storage, chunks = MemoryStorage(1 << 28), 1 << 20
    storage.learning.know(Runs())
    learner = Learner(majority_of(RANKS), storage.learning)
    assert learner.due([2, 3], True, 0.0) == (0, 4096)
    for rank in (2, 3):
        learner.answered(Digests(rank, 1, 0, 4096, chunks, {}), 0.0)
    assert learner.left == 0 and learner.due([2, 3], True, 1e6) is None


def test_one_other_is_not_enough() -> None:
    play = Learning(2)
    play.have(0, NEW, data(9), 2)
    play.all()
    assert play.left == SECTORS
    play.link(3)
    play.all()
    assert play.left == 0 and play.tag(0) == NEW


def test_two_answers_of_one_do_not_make_two() -> None:
    learner, _ = new_learner(ranks=(1, 2, 3, 4, 5))
    assert learner.due([2, 3], True, 0.0) is None  # three of four others have to tell
    assert learner.due([2, 3, 4], True, RETRY_S) is not None
    for rank in (2, 3, 3, 2):
        learner.answered(Digests(rank, 1, 0, CHUNKS, CHUNKS, {}), RETRY_S)
    assert learner.left == SECTORS
    learner.unanswered(4, RETRY_S)
    assert learner.left == SECTORS and learner.next_due() == 2 * RETRY_S


def test_who_has_not_accepted_this_life_does_not_teach() -> None:
    play = Learning(2, 3, teach=(2,))
    play.have(0, NEW, data(9), 3)
    play.all()
    assert play.left == SECTORS
    play.teach.add(3)
    play.all()
    assert play.left == 0 and play.tag(0) == NEW


@pytest.mark.parametrize("written", [False, True])
def test_what_was_told_before_it_accepted_does_not_count(written: bool) -> None:
    play = Learning(2, 3)
    if written:
        play.have(0, OLD, data(1), 2, 3)
        while not any(isinstance(send.message, ReadProc) for send in play.asked):
            play.answer()
    play.teach.discard(3)
    play.to_the_end()  # 3 answers what it was asked, and may not teach any more
    assert play.left == SECTORS - (SECTORS - MAX_RUN_SECTORS if written else 0)


def test_it_is_not_asked_before_it_has_accepted() -> None:
    play = Learning(2, 3, teach=(2,))
    play.teach.add(3)
    for _ in range(len(play.asked)):  # what it was asked before that says nothing
        play.answer()
    assert play.left == SECTORS
    play.all()
    assert play.left == 0


def test_a_directory_that_has_changed_takes_back_that_nothing_was_written() -> None:
    play = Learning(2, 3)
    for _ in range(3):  # the comparison with 2, that with 3, and what 2 was asked to learn from it
        rank, question = play.asked[0]
        play.answer()
    assert rank == 2 and play.left == SECTORS
    play.take(play.heal.link_down(2, play.now))
    play.to_the_end()
    assert play.left == SECTORS


def test_a_directory_that_has_changed_takes_back_what_it_has_told() -> None:
    play = Learning(2, 3)
    play.have(0, OLD, data(1), 2, 3)
    play.have(0, NEW, data(9), 3)
    while not any(isinstance(send.message, ReadProc) and send.message.values for send in play.asked):
        play.answer()
    play.others[2].have(0, HIGHER, data(10))  # between its answers
    play.take(play.heal.link_down(2, play.now))
    play.to_the_end()
    assert play.storage.unknown(0, 1) == [0]
    play.link(2)
    play.all()
    assert play.left == 0 and play.tag(0) == HIGHER


# --- what was written -----------------------------------------------------------------------------
def test_it_is_known_when_the_highest_is_stored_and_not_before() -> None:
    play = Learning(2, 3)
    play.have(LAST, OLD * 3, data(1, 2, 3), 2, 3)
    play.have(LAST + 1, NEW, data(9), 3)
    adopts: list[Adopt] = []
    while play.asked:
        adopts += [effect for effect in play.answer() if isinstance(effect, Adopt)]
    assert adopts and all(not adopt.repair for adopt in adopts)
    assert play.left == 4 and play.storage.unknown(LAST, 4) == [LAST, LAST + 1, LAST + 2, LAST + 3]
    for adopt in adopts:
        assert play.left == 4
        play.store(adopt)
    assert play.left == 0
    assert play.storage.load(LAST, 4)[:2] == (OLD + NEW + OLD + ZERO_TAG, data(1, 9, 3) + ZERO_SECTOR)


def test_one_says_never_written_and_the_other_has_it() -> None:
    for rank in (2, 3):
        play = Learning(2, 3)
        play.have(300, NEW, data(9), rank)
        play.all()
        assert play.left == 0 and play.tag(300) == NEW


def test_what_was_stored_in_this_life_is_not_fetched_and_stays() -> None:
    play = Learning(2, 3)
    play.have(0, HIGHER, data(10), 1)
    play.have(0, NEW, data(9), 2, 3)
    play.have(1, NEW, data(9), 1, 2, 3)
    play.all()
    assert play.left == 0 and play.storage.load(0, 2)[:2] == (HIGHER + NEW, data(10, 9))
    assert not any(isinstance(send.message, ReadProc) and send.message.values for send in play.asked)


def test_what_is_not_durable_yet_does_not_count() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 2, 3)
    play.storage.queue(Persist(0, 1, HIGHER, data(10), ()))
    while play.asked:
        for adopt in play.answer():
            assert play.left
            play.storage.full = True
            play.storage.commit()  # the store is refused
            play.storage.full = False
            play.store(adopt)
    assert play.left == 0 and play.tag(0) == NEW


def test_without_room_it_is_learned_later() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 2, 3)
    while not (adopts := play.answer()):
        pass
    play.store(adopts[0], ok=False)
    play.to_the_end()
    assert play.storage.unknown(0, 1) == [0] and play.tag(0) == ZERO_TAG
    play.all()
    assert play.left == 0 and play.tag(0) == NEW


def test_less_than_was_told_is_not_enough() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 2)
    play.have(0, OLD, data(1), 3)
    while not (isinstance((message := play.asked[0].message), ReadProc) and message.values):
        play.answer()
    rank, question = play.asked.pop(0)
    assert rank == 2 and isinstance(question, ReadProc)
    assert play.say(Value(2, question.rid, 0, 1, OLD, data(1))) == []
    assert play.storage.unknown(0, 1) == [0]


def test_a_damaged_value_of_this_life_is_taken_under_its_tag() -> None:
    play = Learning(2, 3)
    play.have(0, NEW * 2, data(9, 9), 1, 2, 3)
    play.storage.damage(0)
    play.storage.damage(1, tag_too=True)
    play.all()
    assert play.left == 0 and play.storage.missing(0, 2) == [] and play.storage.load(0, 2)[0] == NEW * 2


def test_no_answer_is_waited_for_and_asked_for_once_more() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 2, 3)
    play.unanswered()
    assert play.left == SECTORS
    play.tick(RETRY_S)
    while not any(isinstance(send.message, ReadProc) for send in play.asked):
        play.answer()
    play.unanswered()
    play.all()
    assert play.left == 0 and play.tag(0) == NEW


def test_the_epoch_in_force_elsewhere_is_promised_first() -> None:
    play = Learning(2, 3)
    newer = pack_tag(5, 2, 0, 7)
    play.have(0, newer, data(9), 2, 3)
    while not isinstance(play.asked[0].message, ReadProc):
        play.answer()
    effects = play.answer(7)
    assert [type(effect) for effect in effects] == [Fence] and play.storage.unknown(0, 1) == [0]
    play.storage.epoch = 7
    play.all()
    assert play.left == 0 and play.tag(0) == newer


# --- others that do not know ----------------------------------------------------------------------
def test_another_one_that_learns_does_not_teach_what_it_does_not_know() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 3)
    play.others[2].storage.begin_unknown()
    for _ in range(3):
        play.to_the_end(silently=True)
        play.tick(RETRY_S)
    assert play.left == SECTORS
    play.others[2].storage.learning.learned(0, SECTORS)
    play.all()
    assert play.left == 0 and play.tag(0) == NEW


def test_of_five_three_that_know_are_enough_beside_one_that_does_not() -> None:
    learner, _ = new_learner(10 * MAX_RUN_SECTORS, (1, 2, 3, 4, 5))
    assert learner.due([2, 3, 4, 5], True, 0.0) == (0, 10)
    learner.answered(Digests(2, 1, 0, 1, 6, {0: UNKNOWN}), 0.0)  # chunks 0 to 5
    learner.answered(Digests(3, 1, 0, 10, 10, {3: UNKNOWN, 4: b"4" * 16}), 0.0)
    learner.answered(Digests(4, 1, 0, 10, 10, {}), 0.0)
    learner.answered(Digests(5, 1, 0, 10, 10, {1: UNKNOWN}), 0.0)
    assert [chunk for chunk in range(10) if learner.is_left(chunk)] == [1, 3, 4, 6, 7, 8, 9]
    assert learner.next(()) == 4 and learner.know(4, [2, 3, 4, 5]) == [3, 4, 5]
    assert learner.know(3, [2, 3, 4, 5]) == [4, 5] and learner.next(()) is None
    assert learner.due([2, 3, 4, 5], True, 0.0) == (6, 4)  # and on


# --- order, questions and answers meanwhile -------------------------------------------------------
def test_what_somebody_has_asked_for_last_comes_first() -> None:
    play = Learning()
    play.have(0, NEW, data(9), 2, 3)
    play.heal.hint(0)
    question = ReadProc(2, 7, LAST, 1, False)
    assert play.replica.message(object(), question, play.at()) == []  # it is not answered
    play.have(300, NEW, data(9), 2, 3)
    play.link(2, 3)
    looked_at: list[int] = []
    while play.asked:
        if isinstance(message := play.asked[0].message, ReadProc) and not message.values:
            looked_at.append(message.first)
        for adopt in play.answer():
            play.store(adopt)
    assert looked_at == [LAST, LAST, 0, 0, 256, 256] and play.left == 0


def test_what_is_learned_before_its_digest_comes_is_not_lacking_for_ever() -> None:
    play = Learning()
    play.have(0, NEW, data(9), 2, 3)
    play.heal.hint(0)
    play.link(2, 3)
    while reads := [asked for asked in play.asked if isinstance(asked.message, ReadProc)]:
        play.asked.remove(reads[0])
        play.asked.insert(0, reads[0])
        for adopt in play.answer():
            play.store(adopt)
    assert 0 < play.left and play.tag(0) == NEW  # the digests are still on their way
    play.all()
    assert play.left == 0 and play.in_sync(2, 3)
    assert play.heal.report(play.now)["behind_bytes"] == 0 and play.heal.next_due(play.now) > play.now


def test_hints_are_bounded_and_those_that_are_known_are_none() -> None:
    learner, learning = new_learner(2000 * MAX_RUN_SECTORS)
    learning.learned(1999 * MAX_RUN_SECTORS, MAX_RUN_SECTORS)
    for chunk in (*range(1000), *range(1990, 2000)):
        learner.hint(chunk)
    learning.learned(1998 * MAX_RUN_SECTORS, MAX_RUN_SECTORS)
    found = []
    while (chunk := learner.next({1997})) is not None:
        found.append(chunk)
    assert found == [*range(1996, 1989, -1), *range(999, 999 - (MAX_HINTS - 9), -1)]


def test_a_store_is_acknowledged_and_a_question_is_not_answered() -> None:
    play = Learning(2, 3)
    origin = object()
    [persist] = play.replica.message(origin, WriteProc(2, 7, 0, 1, NEW, data(9)), play.at())
    assert isinstance(persist, Persist) and isinstance(persist.then[0], Reply)
    play.storage.queue(persist)
    assert play.storage.commit()[1]
    assert play.replica.message(origin, ReadProc(2, 8, 0, 1, False), play.at()) == []  # nor read from others
    [load] = play.replica.message(origin, ReadProc(2, 8, 0, 1, True), play.at())
    assert isinstance(load, Load)
    assert play.replica.loaded(load, *play.storage.load(0, 1), play.at()) == []
    get = Command.get(5, 0, 1)
    [refusal] = play.replica.command(origin, get, play.at())
    assert isinstance(refusal, Reply) and refusal.message.status is Status.REFUSED
    play.all()
    [answer] = play.replica.message(origin, ReadProc(2, 9, 0, 1, False), play.at())
    assert isinstance(answer, Reply) and isinstance(answer.message, Value) and answer.message.tags == NEW


def test_a_write_of_its_own_goes_above_what_it_has_stored_before_it_knew_the_rest() -> None:
    """The tag that is here may be of its own choice, from before a start, and nobody else has it."""
    play = Learning(2, 3)
    play.storage.epoch = play.replica.epochs.promised = 7  # there nothing is promised by which it would go above
    here, elsewhere = (pack_tag(ts_of(7, counter), 1, 2, 7) for counter in (9, 5))
    play.have(0, here, data(9), 1)
    write = Command(CommandKind.WRITE, 5, 0, 1, data=data(1))
    effects = play.replica.command(object(), write, play.at())
    for send in [effect for effect in effects if isinstance(effect, Tell)]:
        assert isinstance(send.message, ReadProc)
        value = Value(send.rank, send.message.rid, 0, 1, elsewhere, None, epoch=7)
        effects += play.replica.message(object(), value, play.at())
    [persist] = [effect for effect in effects if isinstance(effect, Persist)]
    assert persist.tags > here


def test_it_is_not_in_sync_as_long_as_something_is_to_be_learned() -> None:
    play = Learning(2, 3, teach=(2,))
    play.to_the_end()
    assert play.in_sync(2, 3) and play.left == SECTORS  # nothing differs in what is known
    report = play.heal.report(play.now)
    assert report["in_sync"] is False and report["behind_bytes"] == 0 and report["left_s"] is None


class NotWritten(Learned):
    """What a directory says until its next checkpoint."""

    is_recorded = True


def test_nor_before_it_is_durable_that_nothing_is() -> None:
    play = Learning(2, 3)
    play.all()
    assert play.left == 0 and play.heal.report(play.now)["in_sync"]
    play.storage.learning = NotWritten(SECTORS, play.storage.tags)
    report = play.heal.report(play.now)
    assert report["in_sync"] is False and report["unknown_bytes"] == 0 and report["left_s"] is None


def test_what_it_says_of_itself() -> None:
    play = Learning(2, 3)
    report = play.heal.report(play.now)
    assert report["in_sync"] is False and report["unknown_bytes"] == SECTORS * 4096 and report["known"] == 0.0
    play.have(0, NEW, data(9), 2, 3)
    while not (adopts := play.answer()):
        pass
    report = play.heal.report(play.now)
    assert report["in_sync"] is False and report["behind_bytes"] == 4096 and report["left_s"] is None
    assert report["unknown_bytes"] == 256 * 4096
    play.store(adopts[0])
    play.to_the_end()
    report = play.heal.report(play.now)
    assert report["in_sync"] is True and report["unknown_bytes"] == 0 and report["known"] == 1.0
