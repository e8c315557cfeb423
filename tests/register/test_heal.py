"""Heal as plays: an event, then the effects expected. The node is 1 of 3; its storage is in memory."""

from __future__ import annotations

import math

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR, ZERO_TAG
from dsreg.protocol.messages import DigestQuery, Digests, ReadProc, Value
from dsreg.protocol.tags import pack_tag
from dsreg.register.digests import UNKNOWN
from dsreg.register.effects import Adopt, Fence, Reply, Tell
from dsreg.register.heal import RETRY_S
from dsreg.register.heal_work import ANSWER_S, SETTLE_S
from dsreg.register.throttle import BUSY_SECTORS, Throttle
from tests.protocol.values import data, tags
from tests.register.heal_play import CHUNKS, FIRST_RID, LAST, NEW, OLD, PROMISED, Play


def test_it_compares_as_soon_as_a_link_is_up_and_once_more_later() -> None:
    play = Play(2)
    assert play.asked == [Tell(2, DigestQuery(1, FIRST_RID, 0, CHUNKS))]
    assert not play.in_sync(2)
    assert play.answer() == [] and play.asked == []
    assert play.in_sync(2) and not play.in_sync(3)
    assert play.heal.next_due(play.now) == play.now + 600.0
    assert play.tick(600.0) == []
    assert play.asked == [Tell(2, DigestQuery(1, FIRST_RID + 1, 0, CHUNKS))]


def test_what_another_one_has_and_this_one_has_not_is_taken_under_its_tag() -> None:
    play = Play()
    play.have(LAST, OLD * 3, data(1, 2, 3), 1, 2)
    play.have(LAST + 1, NEW, data(9), 2)
    play.link(2)
    assert play.answer() == []
    assert play.asked == [Tell(2, ReadProc(1, FIRST_RID + 1, LAST, 4, False))]
    assert play.answer() == []
    assert play.asked == [Tell(2, ReadProc(1, FIRST_RID + 2, LAST + 1, 1, True))]
    assert not play.in_sync(2) and play.heal.is_asking(FIRST_RID + 2)
    [adopt] = play.answer()
    assert adopt == Adopt(LAST + 1, 1, NEW, data(9), FIRST_RID + 2)
    assert not play.in_sync(2)
    assert play.store(adopt) == [] and play.in_sync(2)
    assert play.storage.load(LAST, 4)[:2] == (OLD + NEW + OLD + ZERO_TAG, data(1, 9, 3) + ZERO_SECTOR)


def test_what_is_lower_or_the_same_elsewhere_is_not_asked_for() -> None:
    play = Play()
    play.have(0, NEW, data(9), 1)
    play.have(0, OLD, data(1), 2)
    play.link(2)
    play.answer()
    assert [type(send.message) for send in play.asked] == [ReadProc]
    assert play.answer() == [] and play.asked == []
    assert play.in_sync(2) and play.tag(0) == NEW


def test_of_several_the_highest_is_taken() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.have(0, tags((6, 1)), data(10), 3)
    play.link(2, 3)
    play.to_the_end()
    assert play.storage.load(0, 1)[:2] == (tags((6, 1)), data(10)) and play.in_sync(2, 3)


def test_what_was_never_written_and_restamped_is_not_fetched() -> None:
    play = Play()
    play.storage.epoch = play.replica.epochs.promised = 7
    bare = pack_tag(0, 0, 0, 7)
    play.have(0, pack_tag(3, 1, 0, 0), data(1), 1)
    play.have(0, bare * 256, bytes(256 * 4096), 2)
    play.link(2)
    play.answer()
    [adopt] = play.answer(7)
    assert isinstance(adopt, Adopt) and (adopt.first, adopt.count, adopt.tags) == (0, 256, bare * 256)
    assert not any(adopt.data) and play.asked == []
    play.store(adopt)
    assert play.in_sync(2) and play.tag(0) == bare


def test_the_copy_keeps_its_epoch_below_what_is_promised() -> None:
    play = Play()
    play.storage.epoch = play.replica.epochs.promised = 7
    old = pack_tag(3 << 56 | 5, 255, 0, 3)
    play.have(0, old, data(1), 2)
    play.link(2)
    play.to_the_end()
    assert play.tag(0) == old and play.in_sync(2)


def test_a_newer_epoch_is_promised_before_anything_of_it_is_taken() -> None:
    play = Play()
    newer = pack_tag(9 << 56 | 5, 255, 0, 9)
    play.have(0, newer, data(1), 2)
    play.link(2)
    play.answer()
    [fence] = play.answer(9)
    assert isinstance(fence, Fence) and fence.epoch == 9 and fence.then == ()
    assert play.asked == [] and play.tag(0) == ZERO_TAG
    play.storage.queue(fence)
    play.storage.commit()
    assert play.tick(RETRY_S) == []
    play.to_the_end()
    assert play.tag(0) == newer and play.in_sync(2)


def test_an_epoch_or_a_tag_that_is_not_believed_is_not_taken() -> None:
    play = Play()
    absurd = pack_tag(1 << 55, 2)
    play.have(0, absurd, data(1), 2)
    play.link(2)
    play.answer()
    assert play.answer() == [] and play.asked == []
    play.tick(RETRY_S)
    assert play.answer(1 << 23) == [] and play.asked == []
    assert play.tag(0) == ZERO_TAG and not play.in_sync(2)


def test_values_whose_epoch_is_newer_than_that_of_the_tags_are_asked_for_anew() -> None:
    play = Play()
    play.have(0, OLD, data(1), 2)
    play.link(2)
    play.answer()
    play.answer()
    [fence] = play.answer(9)
    assert isinstance(fence, Fence) and play.tag(0) == ZERO_TAG
    play.storage.queue(fence)
    play.storage.commit()
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.tag(0) == OLD


def test_nothing_comes_from_a_node_that_does_not_count() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.link(2)
    play.answer()
    play.answer()
    play.heal.counts = lambda rank: rank != 2
    assert play.answer() == [] and play.tag(0) == ZERO_TAG
    play.tick(ANSWER_S)
    assert not play.in_sync(2)


def test_answers_that_are_none_are_dropped() -> None:
    play = Play(2, 3)
    rank, question = play.asked[0]
    assert isinstance(question, DigestQuery)
    good = play.others[rank].answer(question)
    assert isinstance(good, Digests)
    for bad in (
        good._replace(rank=3), good._replace(rid=5), good._replace(first=1), good._replace(count=CHUNKS + 1),
        Value(2, question.rid, 0, CHUNKS, OLD * CHUNKS, None),
    ):
        assert play.say(bad) == []
    assert play.heal.counters["heal_stray"] == 5
    play.say(good)
    assert play.in_sync(2)
    assert play.say(good) == [] and play.heal.counters["heal_stray"] == 6


def test_a_value_without_data_is_no_answer_to_a_question_for_it() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.link(2)
    play.answer()
    play.answer()
    _, question = play.asked[0]
    assert isinstance(question, ReadProc)
    assert play.say(Value(2, question.rid, 0, 1, NEW, None)) == []
    assert play.heal.counters["heal_stray"] == 1
    [adopt] = play.answer()
    assert isinstance(adopt, Adopt) and adopt.data == data(9)


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_what_is_not_answered_is_asked_anew(answered: int) -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.link(2)
    for _ in range(answered):
        play.answer()
    [lost] = play.asked
    play.asked.clear()
    assert play.heal.next_due(play.now) == play.now + ANSWER_S
    play.tick(ANSWER_S)
    assert isinstance(lost.message, DigestQuery | ReadProc) and not play.heal.is_asking(lost.message.rid)
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.tag(0) == NEW and play.in_sync(2)


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_link_that_breaks_takes_its_questions_along(answered: int) -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.link(2)
    for _ in range(answered):
        play.answer()
    play.heal.link_down(2, play.now)
    play.asked.clear()
    assert not play.heal._questions and not play.heal._differing and not play.heal._open
    assert play.tick(RETRY_S) == [] and play.asked == []
    assert play.heal.next_due(play.now) == math.inf
    play.link(2)
    play.to_the_end()
    assert play.tag(0) == NEW and play.in_sync(2)


def test_what_waited_for_it_goes_on_without_it() -> None:
    play = Play()
    play.have(0, OLD, data(1), 1, 3)
    play.have(0, NEW, data(9), 2)
    play.storage.damage(0)  # so both are asked at once
    play.link(2, 3)
    play.answer()
    play.answer()
    assert play.answer() == []  # the tags of 2; those of 3 do not come
    [tell] = play.asked
    assert tell.rank == 3
    play.asked.clear()
    assert play.take(play.heal.link_down(3, play.now)) == []
    [tell] = play.asked
    assert isinstance(tell.message, ReadProc) and tell.rank == 2 and tell.message.values
    play.to_the_end()
    assert play.tag(0) == NEW


def test_a_store_that_was_refused_comes_again() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.link(2)
    play.answer()
    play.answer()
    [adopt] = play.answer()
    assert play.store(adopt, ok=False) == [] and not play.in_sync(2)
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.tag(0) == NEW and play.in_sync(2)


def test_and_nothing_else_is_fetched_meanwhile() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.have(100, NEW, data(9), 2)
    play.heal.throttle.client(play.now)  # one at a time
    play.link(2)
    play.answer()
    play.answer()
    [adopt] = play.answer()
    assert play.store(adopt, ok=False) == [] and play.asked == []
    assert play.heal.next_due(play.now) == play.now + RETRY_S
    play.tick(RETRY_S / 2)
    assert play.asked == []
    play.tick(RETRY_S)
    play.to_the_end()
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.tag(0) == play.tag(100) == NEW and play.in_sync(2)


def test_what_waits_is_still_due_when_the_clock_is_looked_at_later() -> None:
    """First for room here, then for the rate that it may have."""
    play = Play()
    for sector in (0, 100):
        play.have(sector, NEW, data(9), 2)
    play.heal.throttle = Throttle(SECTOR_SIZE)  # one sector a second
    play.link(2)
    play.answer()
    play.answer()
    [adopt] = play.answer()
    assert play.store(adopt, ok=False) == [] and play.asked == []
    due = play.heal.next_due(play.now)
    assert due == play.now + RETRY_S == play.heal.next_due(due + 0.01)
    assert play.tick(RETRY_S + 0.01) == [] and len(play.asked) == 1  # the other one, a second after the first
    [adopt] = play.answer()
    assert play.store(adopt) == []
    while not play.in_sync(2):
        assert play.now < 120.0
        due = play.heal.next_due(play.now)
        assert play.heal.next_due(due + 0.01) == due
        play.tick(due + 0.01 - play.now)
        play.to_the_end()
    assert play.tag(0) == play.tag(100) == NEW


def test_a_write_that_was_on_its_way_is_not_fetched() -> None:
    play = Play(2)
    play.to_the_end()
    play.have(0, NEW, data(9), 2)
    play.heal.look(play.now)
    play.tick(0.0)
    play.answer()
    assert play.answer() == [] and play.asked == [] and play.in_sync(2)
    play.have(0, NEW, data(9), 1)
    assert play.heal.next_due(play.now) == play.now + SETTLE_S
    play.tick(SETTLE_S)
    assert [send.message for send in play.asked] == [ReadProc(1, FIRST_RID + 3, 0, 256, False)]
    assert play.answer() == [] and play.asked == [] and play.in_sync(2)


def test_and_one_that_was_not_is() -> None:
    play = Play(2)
    play.to_the_end()
    play.have(0, NEW, data(9), 2)
    play.heal.look(play.now + 7)
    assert play.tick(6.9) == [] and play.asked == []
    play.tick(0.2)
    play.to_the_end()
    play.tick(SETTLE_S)
    play.to_the_end()
    assert play.tag(0) == NEW


def test_a_tag_that_is_lost_is_learned_from_as_many_as_meet_every_quorum() -> None:
    play = Play()
    play.have(0, OLD, data(1), 1, 3)
    play.have(0, NEW, data(9), 2)
    play.storage.damage(0, tag_too=True)
    play.link(3)
    play.to_the_end()
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.storage.unknown(0, 1) == [0]  # 3 alone cannot say what 1 has acknowledged
    play.link(2)
    play.to_the_end()
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.storage.unknown(0, 1) == [] and play.tag(0) == NEW
    # It may have chosen a tag for a write which none of these has seen.
    assert play.storage.ts_reserved > PROMISED and play.replica.allocator.last == PROMISED


def test_a_lost_tag_is_not_replaced_by_less_than_was_told() -> None:
    play = Play()
    play.have(0, OLD * 2, data(1, 1), 1, 3)
    play.have(0, NEW * 2, data(9, 9), 2)
    for sector in (0, 1):
        play.storage.damage(sector, tag_too=True)
    play.link(2, 3)
    while not (isinstance(play.asked[0].message, ReadProc) and play.asked[0].message.values):
        play.answer()
    _, question = play.asked.pop(0)
    assert isinstance(question, ReadProc) and question.count == 2
    assert play.say(Value(2, question.rid, 0, 2, OLD + NEW, data(1, 9))) == []
    assert play.storage.unknown(0, 2) == [0, 1]
    play.tick(RETRY_S)
    play.to_the_end()
    assert play.tag(0) == NEW


def test_a_lost_value_is_restored_from_one_that_has_the_tag() -> None:
    play = Play()
    play.have(0, OLD, data(1), 1, 2)
    play.storage.damage(0)
    play.link(2)
    play.to_the_end()
    assert play.storage.load(0, 1) == (OLD, data(1), False) and play.in_sync(2)


def test_what_another_one_has_lost_is_not_asked_of_it() -> None:
    play = Play()
    play.have(0, NEW, data(9), 2)
    play.others[2].storage.damage(3, tag_too=True)
    assert play.others[2].digests.of(0) == UNKNOWN
    play.link(2)
    assert play.answer() == [] and play.asked == []


def test_it_gives_way_to_clients() -> None:
    play = Play()
    play.have(0, NEW * 100, data(*[9] * 100), 2)
    play.heal.throttle.client(play.now)
    play.link(2)
    play.answer()
    play.answer()
    seen = 0
    while play.asked:
        [question] = [tell.message for tell in play.asked]
        assert isinstance(question, ReadProc) and question.count <= BUSY_SECTORS
        [adopt] = play.answer()
        seen += 1
        assert play.asked == []
        play.store(adopt)
    assert seen == -(-100 // BUSY_SECTORS) and play.in_sync(2) and play.storage.tags(0, 100) == NEW * 100


def test_it_answers_for_its_own_digests() -> None:
    play = Play()
    play.have(LAST, OLD, data(1), 1)
    assert play.heal.message("peer", DigestQuery(2, 77, 1, 2), play.at()) == [
        Reply("peer", Digests(1, 77, 1, 2, CHUNKS, {2: play.heal._digests.of(2)}))
    ]
