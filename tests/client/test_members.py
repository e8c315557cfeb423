"""Directories that have changed, as plays of the client's core: such a node is not asked, and what it has said does not
count any more."""

from __future__ import annotations

import pytest

from dsreg.client.events import Attached, Completed, Connected, Effect, Moved, NotCounted, Received, Start
from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import AddressReport, CommandKind, LivesReport
from tests.client.attached_play import OWNER, AttachedPlay, attach_answer, puts
from tests.client.play import DATA, Play, commands, ok

ONE, TWO, THREE, OTHER = (Life(1, bytes([number]) * 16) for number in (1, 2, 3, 9))
LIVES = {1: ONE, 2: TWO, 3: THREE}
GET, PUT, READ = CommandKind.GET, CommandKind.PUT, CommandKind.READ

pytestmark = pytest.mark.pure


def tells(play: Play, rank: int, known: dict[int, Life], own: Life | None = None, stage: Stage = Stage.STARTED
          ) -> list[Effect]:
    return play.do(Received(rank, (LivesReport(rank, True, stage, own or LIVES[rank], known),)))


def known(play: Play, *ranks: int) -> None:
    """These nodes show their directories."""
    for rank in ranks:
        assert tells(play, rank, {}) == []


def changed(play: Play, rank: int = 1, teller: int = 3) -> list[Effect]:
    """`teller` knows `rank` by another directory; what that leads to but for the message about it."""
    told, *effects = tells(play, teller, {rank: OTHER})
    assert isinstance(told, NotCounted) and told.rank == rank and "not known for sure" in told.fault
    return effects


def test_a_read_asks_anew_when_one_that_has_answered_does_not_count_any_more() -> None:
    play = Play()
    known(play, 1, 2, 3)
    first = dict(commands(play.do(Start(5, 0, 1))))
    assert set(first) == {1, 2} and play.do(ok(first[1], 1)) == []
    again = dict(commands(changed(play)))
    assert set(again) == {2, 3} and {command.kind for command in again.values()} == {GET}
    assert play.do(ok(first[2], 2)) == [], "the answer to the old question"
    assert play.do(ok(again[2], 2)) == []
    assert play.do(ok(again[3], 3)) == [Completed(5, DATA)]


def test_a_write_is_put_anew_as_the_same_write() -> None:
    play = AttachedPlay()
    known(play, 1, 2, 3)
    first = puts(play)
    assert play.do(ok(first[1], 1)) == []
    again = dict(commands(changed(play)))
    assert set(again) == {2, 3} and {command.tags for command in again.values()} == {first[1].tags}
    assert play.do(ok(again[2], 2)) == []
    assert play.do(ok(again[3], 3)) == [Completed(5)]


def test_what_only_that_node_was_asked_goes_to_another() -> None:
    play = Play()
    known(play, 1, 2, 3)
    rank, command = play.read(5)
    assert (rank, command.kind) == (1, READ)
    [(other, again)] = commands(changed(play))
    assert (other, again.kind) == (2, READ)


def test_it_is_not_asked_and_its_late_answers_do_not_count() -> None:
    play = Play()
    known(play, 1, 2, 3)
    first = dict(commands(play.do(Start(5, 0, 1))))
    changed(play)
    late = play.core.counters.late_answers
    assert play.do(ok(first[1], 1)) == [] and play.core.counters.late_answers == late + 1
    assert {rank for rank, _ in commands(play.do(Start(6, 0, 1)))} == {2, 3}


def test_it_is_used_again_once_all_agree() -> None:
    play = Play(up=(1, 3))
    known(play, 1, 3)
    changed(play)
    assert play.core.up(1), "its connection stands"
    assert tells(play, 3, {1: ONE}) == [NotCounted(1, "")]
    assert {rank for rank, _ in commands(play.do(Start(5, 0, 1)))} == {1, 3}


def test_an_operation_waits_for_a_node_that_has_not_started_yet() -> None:
    play = Play(up=(1,))
    assert tells(play, 1, {}, stage=Stage.CLAIMING) == []
    assert play.do(Start(5, 0, 1)) == []
    [(rank, command)] = commands(tells(play, 1, {}))
    assert (rank, command.kind) == (1, READ)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_claim_that_it_accepts_is_not_accepted(is_late: bool) -> None:
    play = AttachedPlay(held=False)
    known(play, 1, 2, 3)
    assert play.do(attach_answer(play.asked[1], 1)) == []
    claims = dict(commands(play.do(attach_answer(play.asked[2], 2))))
    assert set(claims) == {1, 2, 3}
    acceptance = attach_answer(claims[1], 1, 1, OWNER, True)
    assert is_late or play.do(acceptance) == []
    assert changed(play) == []
    assert not is_late or play.do(acceptance) == []
    assert play.do(attach_answer(claims[2], 2, 1, OWNER, True)) == []
    assert play.do(attach_answer(claims[3], 3, 1, OWNER, True)) == [Attached(1)]


def test_nothing_goes_on_for_a_node_that_counts_again_before_the_disk_is_attached() -> None:
    play = AttachedPlay(up=(1, 3), held=False)
    known(play, 1, 3)
    assert play.do(Start(5, 0, 1)) == []
    assert changed(play) == []
    assert tells(play, 3, {1: ONE}) == [NotCounted(1, "")]


def test_another_directory_than_it_showed_before() -> None:
    play = Play(up=(2, 3))
    assert play.do(Connected(1)) == []
    known(play, 1, 2, 3)
    [told] = tells(play, 1, {}, own=OTHER)
    assert isinstance(told, NotCounted) and told.fault.startswith("its directory has changed")
    assert {rank for rank, _ in commands(play.do(Start(5, 0, 1)))} == {2, 3}


LATER = Life(2, OTHER.store)


def test_a_put_of_an_earlier_life_does_not_count_and_goes_to_the_later_one_as_the_same_write() -> None:
    play = AttachedPlay()
    known(play, 1, 2, 3)
    first = puts(play)
    assert play.do(ok(first[1], 1)) == []
    again = dict(commands(tells(play, 1, {}, own=LATER)))
    assert again[1].tags == first[1].tags and again[1].kind == PUT
    assert play.do(ok(again[2], 2)) == [], "the acknowledgement of the lost directory is not one of two"
    assert play.do(ok(again[1], 1)) == [Completed(5)]


def test_who_has_accepted_a_later_life_voids_the_answer_of_the_earlier_one() -> None:
    play = Play()
    known(play, 1, 2, 3)
    first = dict(commands(play.do(Start(5, 0, 1))))
    assert play.do(ok(first[1], 1)) == []
    again = dict(commands(tells(play, 3, {1: LATER})))
    assert set(again) == {2, 3}
    assert tells(play, 1, {}, own=LATER) == []
    assert {rank for rank, _ in commands(play.do(Start(6, 0, 1)))} & {1, 2, 3}
    assert play.do(ok(again[2], 2)) == []
    assert play.do(ok(again[3], 3)) == [Completed(5, DATA)]


def test_who_has_not_heard_of_a_later_life_changes_nothing() -> None:
    play = Play()
    assert tells(play, 1, {}, own=LATER) == []
    assert tells(play, 2, {1: ONE}) == [] and tells(play, 3, {1: ONE}) == []
    assert {rank for rank, _ in commands(play.do(Start(5, 0, 1)))} == {1, 2}


# --- addresses ------------------------------------------------------------------------------------
HERE, THERE = Place("here", 1), Place("there", 2)


def tells_addresses(play: Play, rank: int, addresses: dict[int, Address]) -> list[Effect]:
    return play.do(Received(rank, (AddressReport(rank, True, addresses),)))


def test_where_a_node_is_is_taken_from_any_node_that_tells_it() -> None:
    play = Play()
    tells(play, 1, {2: TWO})
    assert tells_addresses(play, 1, {2: Address(TWO, 1, HERE), 3: Address(THREE, 1, HERE)}) == [Moved(2, HERE, True)]
    assert tells_addresses(play, 1, {2: Address(TWO, 2, THERE)}) == [Moved(2, THERE, False)]
    assert tells_addresses(play, 1, {2: Address(TWO, 1, HERE)}) == [], "an older one"
    known(play, 3)
    assert tells_addresses(play, 3, {2: Address(TWO, 1, HERE), 3: Address(THREE, 1, HERE)}) == [Moved(3, HERE, True)]


def test_the_word_of_another_directory_is_not_taken() -> None:
    play = Play()
    tells(play, 1, {2: TWO})
    tells(play, 2, {}, OTHER, Stage.ASKING)
    assert tells_addresses(play, 2, {2: Address(OTHER, 9, THERE)}) == []


def test_of_a_rank_that_it_does_not_use_it_takes_no_address() -> None:
    play = Play()
    tells(play, 1, {4: OTHER})
    assert tells_addresses(play, 1, {4: Address(OTHER, 1, HERE)}) == []
