"""What heal does about damage that a scrub, or a read, has found, as plays. The node is 1 of 3."""

from __future__ import annotations

from dsreg.register.effects import Adopt
from tests.protocol.values import data
from tests.register.heal_play import LAST, NEW, OLD, Play


def test_a_value_that_was_found_damaged_is_fetched_at_once_under_its_own_tag() -> None:
    """All are asked, as anybody may have it; one that has it is enough, as its tag says that it is this one."""
    play = Play(2, 3)
    play.have(LAST, OLD, data(1), 1, 2, 3)
    play.answer(), play.answer()
    play.storage.damage(LAST)
    assert play.take(play.heal.repair([LAST], play.now)) == []
    assert [send.rank for send in play.asked] == [2, 3]
    play.answer(), play.answer()
    [adopt] = play.answer()
    assert isinstance(adopt, Adopt) and (adopt.first, adopt.count, adopt.tags) == (LAST, 1, OLD)
    play.store(adopt)
    assert play.storage.missing(LAST, 1) == []


def test_a_value_that_was_found_damaged_is_not_replaced_by_an_older_one() -> None:
    play = Play(2, 3)
    play.have(LAST, OLD, data(1), 2, 3)
    play.have(LAST, NEW, data(9), 1)
    play.answer(), play.answer()
    play.to_the_end()
    play.storage.damage(LAST)
    play.take(play.heal.repair([LAST], play.now))
    play.answer(), play.answer()
    assert play.asked == [] and play.storage.missing(LAST, 1) == [LAST] and play.tag(LAST) == NEW
