"""Scrub as plays: an event, then the effects expected."""

from __future__ import annotations

import math

import pytest

from dsreg.constants import MAX_RUN_SECTORS, TAG_SIZE
from dsreg.protocol.messages import Sums, SumsQuery
from dsreg.protocol.tags import pack_tag
from dsreg.register.damage import Damage, Kind
from dsreg.register.effects import Persist, Repair, Reply, Tell, Verify
from dsreg.register.scrub import ANSWER_S, LOOK_S, MAX_ASKED, MAX_TIMES_ASKED, MAX_TRIES, RETRY_S
from dsreg.register.throttle import BUSY_PAUSE_S, BUSY_S, BUSY_SECTORS
from dsreg.storage.checksum import crc32
from tests.protocol.values import data, tags
from tests.register.scrub_play import NAME, SECTORS, TAG, Play

LAST = 2 * MAX_RUN_SECTORS  # the first sector of the last chunk, which has four
PERIOD_S = 3000.0


# --- passes ---------------------------------------------------------------------------------------
def test_a_pass_that_was_asked_for_verifies_every_chunk_that_was_written_the_last_included() -> None:
    play = Play()
    play.have(0, LAST + 3)
    assert play.ask() == [Verify(0, MAX_RUN_SECTORS), Verify(LAST, 4)]
    assert play.scrub.done == 1 and play.scrub.next_due() == math.inf
    report = play.scrub.report(play.now)
    assert (report["done"], report["done_bytes"], report["total_bytes"]) == (1, 2 * 4096, 2 * 4096)
    assert play.found() == {} and report["running"] is False


def test_an_empty_disk_is_through_at_once() -> None:
    play = Play()
    assert play.ask() == [] and play.scrub.done == 1


def test_nothing_is_verified_unasked_when_it_is_switched_off() -> None:
    play = Play()
    play.have(0)
    assert play.tick() == [] and play.scrub.next_due() == math.inf


@pytest.mark.parametrize(("place", "expected"), [(0.0, (0, 1, 2)), (0.34, (1, 2, 0)), (0.99, (2, 0, 1))])
def test_of_its_own_accord_a_pass_takes_its_time_from_any_place_on(place: float, expected: tuple[int, ...]) -> None:
    play = Play(period_s=PERIOD_S, place=place)
    play.have(0, MAX_RUN_SECTORS, LAST)
    for turn, chunk in enumerate(expected):
        [verify] = play.tick()
        assert isinstance(verify, Verify) and verify.first == chunk * MAX_RUN_SECTORS
        assert play.verified(verify) == []
        for _ in range(round(PERIOD_S / 3 / LOOK_S) + 1):
            if play.now >= 100.0 + (turn + 1) * PERIOD_S / 3:
                break
            assert play.scrub.next_due() <= play.now + LOOK_S
            assert play.scrub._passes == 0
            play.now = play.scrub.next_due()
            if play.now < 100.0 + (turn + 1) * PERIOD_S / 3:
                assert play.tick() == []
    [verify] = [effect for _ in range(2) for effect in play.tick()]
    assert play.scrub._passes == 1 and play.scrub.report(play.now)["last_s"] == 0.0
    assert isinstance(verify, Verify) and verify.first == expected[0] * MAX_RUN_SECTORS


def test_what_is_written_during_a_pass_is_verified_in_it() -> None:
    """The pass does not hurry over what is empty yet."""
    play = Play(period_s=PERIOD_S)
    assert play.tick() == [] and play.scrub._passes == 0
    play.have(MAX_RUN_SECTORS)
    assert play.tick(PERIOD_S / 3) == [Verify(MAX_RUN_SECTORS, MAX_RUN_SECTORS)]


def test_while_clients_are_at_it_little_is_read_at_a_time() -> None:
    play = Play()
    play.have(0)
    play.throttle.client(play.now)
    play.scrub.ask(play.now)
    assert play.tick() == [Verify(0, BUSY_SECTORS)]
    assert play.verified(play.under_way) == []
    assert play.scrub.next_due() == play.now + BUSY_PAUSE_S
    assert play.tick(BUSY_PAUSE_S) == [Verify(BUSY_SECTORS, BUSY_SECTORS)]
    play.now += BUSY_S
    assert play.verified(play.under_way) == [Verify(2 * BUSY_SECTORS, MAX_RUN_SECTORS - 2 * BUSY_SECTORS)]


def test_what_was_being_stored_is_looked_at_again() -> None:
    play = Play()
    play.have(0)
    play.scrub.ask(play.now)
    [verify] = play.tick()
    for _ in range(MAX_TRIES):
        assert play.verified(verify, is_sure=False) == []
        assert play.scrub.next_due() == play.now + RETRY_S
        [verify] = play.tick(RETRY_S)
        assert verify == Verify(0, MAX_RUN_SECTORS)
    assert play.verified(verify, is_sure=False) == []  # it is new all the time: the pass goes on
    play.tick()
    assert play.scrub.done == 1


def test_who_asks_while_a_pass_is_under_way_gets_the_next_one() -> None:
    play = Play()
    play.have(0, LAST)
    assert play.scrub.ask(play.now) == 1
    [first] = play.tick()
    assert play.scrub.ask(play.now) == play.scrub.ask(play.now) == 2
    [second] = play.verified(first)
    assert play.verified(second) == [] and play.scrub.done == 1
    [again] = play.tick()
    assert again == first
    [last] = play.verified(again)
    play.verified(last)
    assert play.scrub.done == 2


def test_who_asks_does_not_wait_for_a_pass_of_its_own_accord() -> None:
    play = Play(period_s=PERIOD_S, place=0.99)
    play.have(0, LAST)
    [slow] = play.tick()
    assert play.scrub.ask(play.now) == 1
    assert play.verified(slow) == [Verify(0, MAX_RUN_SECTORS)]  # from the beginning, and that does not count


# --- damage ---------------------------------------------------------------------------------------
def test_damage_is_counted_and_told_once_and_repaired() -> None:
    play = Play()
    play.have(0, 3)
    play.scrub.ask(play.now)
    [verify] = play.tick()
    play.storage.lose(3)
    assert play.scrub.next_due() == -math.inf
    effects = play.verified(verify)
    assert effects == [Repair((3,)), Repair((3,))]
    assert play.scrub.news == [Damage(Kind.VALUE, 3, 1)] and play.found() == {"value": 1}
    assert "sector 3" in str(play.scrub.news[0])
    play.storage.found.append(Damage(Kind.VALUE, 3, 1))  # somebody reads it, too
    assert play.tick() == [] and play.found() == {"value": 1} and len(play.scrub.news) == 1
    assert play.scrub.ledger.report() == {
        "value": 1, "tag": 0, "contradiction": 0, "repaired": 0, "open": 1, "contradictions": 0, "sectors": [3],
    }
    play.have(3)  # as it is elsewhere
    assert play.scrub.ledger.report()["open"] == 0 and play.scrub.ledger.repaired == 1
    play.storage.lose(3)  # and damaged again
    play.tick()
    assert play.found() == {"value": 2}


def test_what_is_found_by_a_read_is_repaired_without_a_pass() -> None:
    play = Play()
    play.have(3)
    play.storage.lose(3)
    assert play.tick() == [Repair((3,))] and play.found() == {"value": 1}


def test_what_is_damaged_still_is_repaired_again_by_the_next_pass() -> None:
    play = Play()
    play.have(3)
    play.storage.lose(3)
    play.tick()
    play.ask()
    assert play.rest == [Repair((3,))] and play.found() == {"value": 1}


def test_a_slot_that_is_damaged_in_the_file_alone_needs_nobody() -> None:
    play = Play()
    play.have(3)
    play.storage.found.append(Damage(Kind.TAG, 0, 8))
    assert play.tick() == [] and play.found() == {"tag": 8}
    assert play.scrub.ledger.report()["open"] == 0 and play.scrub.ledger.repaired == 8


# --- comparing ------------------------------------------------------------------------------------
def test_each_chunk_is_compared_with_all_others_that_can() -> None:
    play = Play(2, 3)
    play.have(LAST)
    play.ask()
    assert play.rest == [Tell(2, SumsQuery(1, 1, LAST, 4)), Tell(3, SumsQuery(1, 2, LAST, 4))]
    assert play.scrub.done == 0  # not before they have answered
    assert play.sums(2, SumsQuery(2, 1, LAST, 4)) == [] and play.scrub.done == 0
    play.sums(3, SumsQuery(3, 2, LAST, 4))
    assert play.scrub.done == 1 and play.found() == {} and play.scrub.report(play.now)["done_not_compared"] == 0


def test_who_does_not_answer_is_asked_again_and_not_waited_for_for_ever() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    for _ in range(MAX_TIMES_ASKED - 1):
        assert play.scrub.next_due() == play.now + ANSWER_S
        assert play.tick(ANSWER_S) == [Tell(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS))] and play.scrub.done == 0
    assert play.tick(ANSWER_S) == []
    assert play.scrub.done == 1 and play.scrub.report(play.now)["done_not_compared"] == 1


@pytest.mark.parametrize("answers", [True, False])
def test_who_has_been_asked_again_may_answer_or_leave(answers: bool) -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.tick(ANSWER_S)
    if answers:
        play.sums(2, SumsQuery(2, 1, 0, MAX_RUN_SECTORS))
    else:
        play.scrub.compares = list
        assert play.tick(ANSWER_S) == []
    assert play.scrub.done == 1 and play.scrub.report(play.now)["done_not_compared"] == (not answers)


def test_the_same_name_with_two_checksums_is_a_contradiction_and_nothing_is_repaired() -> None:
    play = Play(2, 3)
    play.have(LAST + 1)
    play.ask()
    assert play.sums(2, SumsQuery(1, 1, LAST, 4), fill=8) == []
    assert play.found() == {"contradiction": 1}
    [news] = play.scrub.news
    assert (news.kind, news.first) == (Kind.CONTRADICTION, LAST + 1) and "at node 2" in str(news)
    assert play.sums(3, SumsQuery(1, 2, LAST, 4), fill=8) == []
    assert play.found() == {"contradiction": 1}  # once
    assert play.scrub.ledger.report()["contradictions"] == 1
    assert play.storage.load(LAST + 1, 1)[1] == data(7)
    play.storage.queue(Persist(LAST + 1, 1, tags((6, 2)), data(9), ()))  # somebody writes there
    play.storage.commit()
    assert play.scrub.ledger.report()["contradictions"] == 0


def test_the_name_counts_and_not_the_epoch_of_the_copy() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS), tag=pack_tag(*NAME, epoch=4), fill=8)
    assert play.found() == {"contradiction": 1}


def test_another_write_there_is_none() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS), tag=tags((6, 2)), fill=8)
    assert play.found() == {}


def test_what_was_never_written_has_no_checksum() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS), tag=bytes(TAG_SIZE), fill=8)
    assert play.found() == {}


def test_who_does_not_count_any_more_is_not_believed() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.scrub.compares = list
    play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS), fill=8)
    assert play.found() == {} and play.scrub.done == 1


@pytest.mark.parametrize(
    "query", [SumsQuery(1, 9, 0, MAX_RUN_SECTORS), SumsQuery(1, 1, LAST, 4), SumsQuery(1, 1, 0, 4)]
)
def test_an_answer_to_what_was_not_asked_is_dropped(query: SumsQuery) -> None:
    play = Play(2)
    play.have(0, LAST)
    play.scrub.ask(play.now)
    [verify] = play.tick()
    play.verified(verify)
    play.sums(2, query, fill=8)
    assert play.found() == {}


def test_a_contradiction_is_over_when_the_other_one_agrees() -> None:
    play = Play(2)
    play.have(0)
    play.ask()
    play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS), fill=8)
    play.ask()
    play.sums(2, SumsQuery(1, 2, 0, MAX_RUN_SECTORS))
    assert play.scrub.ledger.report()["contradictions"] == 0 and play.found() == {"contradiction": 1}


def test_not_too_much_is_asked_at_one_time() -> None:
    others = tuple(range(2, 2 + MAX_ASKED))
    play = Play(*others)
    play.have(0, LAST)
    assert play.ask() == [Verify(0, MAX_RUN_SECTORS)]
    assert play.scrub.next_due() == play.now + ANSWER_S
    assert play.sums(2, SumsQuery(1, 1, 0, MAX_RUN_SECTORS)) == [Verify(LAST, 4)]


def test_it_answers_with_what_is_durable() -> None:
    play = Play()
    play.have(LAST + 1)
    crc = crc32(data(7)).to_bytes(4)
    zeros = bytes(TAG_SIZE)
    answer = Sums(1, 77, LAST, 4, zeros + TAG + zeros * 2, bytes(4) + crc + bytes(8))
    assert play.scrub.message("link", SumsQuery(2, 77, LAST, 4), play.now) == [Reply("link", answer)]


def test_what_the_disk_has_more_meanwhile_is_for_the_next_pass() -> None:
    play = Play(place=0.9)
    larger = SECTORS + 2 * MAX_RUN_SECTORS
    play.have(0, LAST)
    play.scrub.ask(play.now)
    (effect,) = play.tick()
    play.storage.grow(larger)
    play.have(larger - 1)
    seen = []
    while isinstance(effect, Verify):
        seen.append(effect)
        effect = next(iter(play.verified(effect)), None)
    assert seen == [Verify(0, MAX_RUN_SECTORS), Verify(LAST, MAX_RUN_SECTORS)] and play.scrub.done == 1
    assert play.ask() == [*seen, Verify(larger - 4, 4)]


def test_a_pass_that_began_in_the_middle_goes_round_the_disk_that_there_was_then() -> None:
    play = Play(period_s=PERIOD_S, place=0.9)
    play.have(0, LAST)
    chunks: list[int] = []
    while 0 not in chunks:
        effects = play.tick(PERIOD_S / 10)
        assert play.now < 100.0 + 3 * PERIOD_S
        while effects:
            (effect,) = effects
            assert isinstance(effect, Verify)
            chunks.append(effect.first // MAX_RUN_SECTORS)
            if len(chunks) == 1:
                play.storage.grow(SECTORS + 2 * MAX_RUN_SECTORS)
                play.have(SECTORS + MAX_RUN_SECTORS)
            effects = play.verified(effect)
    assert chunks == [2, 2, 0], "the last chunk has become longer; those behind it are of the next pass"
