"""From whom a node of a recovered cluster learns (docs/recover.md, rule 2). The node is 1 of 3 in the plays."""

from __future__ import annotations

import pytest

from dsreg.register.assembly import new_heal
from dsreg.register.quorum import majority_of, mask
from dsreg.register.teachers import OfTheRecovered
from tests.protocol.values import data, tags
from tests.register.heal_play import NEW, OLD, RANKS, SECTORS, Play


@pytest.mark.parametrize(("sources", "life", "told", "enough"), [
    ((3,), 1, (3,), True), ((3,), 1, (2, 3), True), ((3,), 1, (2,), False), ((3,), 1, (), False),
    ((2, 3), 1, (2, 3), True), ((2, 3), 1, (3,), False),
    ((), 1, (2, 3), False),  # it was left itself, the first of all: its directory is gone
    ((3,), 2, (3,), False), ((3,), 2, (2, 3), True), ((), 2, (2, 3), True),  # it was lost since: rules of lives
])
def test_who_has_to_tell(sources: tuple[int, ...], life: int, told: tuple[int, ...], enough: bool) -> None:
    teachers = OfTheRecovered(sources, lambda: life, majority_of(RANKS))
    assert teachers.covers(mask(told)) is enough


@pytest.mark.parametrize(("members", "told", "enough"), [
    ((1, 2, 4), (2,), True), ((1, 2, 4), (4,), False),  # 3 has left
    ((1, 4, 5), (4,), False), ((1, 4, 5), (4, 5), True),  # both have: those that are there tell
])
def test_who_has_left_is_not_waited_for(members: tuple[int, ...], told: tuple[int, ...], enough: bool) -> None:
    teachers = OfTheRecovered((2, 3), lambda: 1, majority_of(RANKS))
    teachers.reconfigured(majority_of(members))
    assert teachers.covers(mask(told)) is enough


class Recovered(Play):
    """Its life, and those that were left, as far as it learns from them."""

    def __init__(self, *sources: int, life: int = 1) -> None:
        super().__init__(learns=True)
        self.life = life
        quorum = majority_of(RANKS)
        self.heal = new_heal(
            self.replica, quorum, self.storage, teachers=OfTheRecovered(sources, lambda: self.life, quorum)
        )

    def some_time(self) -> int:
        """Until nothing happens any more; how many sectors are left to be learned."""
        for _ in range(8):
            self.to_the_end(silently=True)
            self.tick(1.0)
        self.to_the_end(silently=True)
        return self.storage.learning.left


def test_it_learns_from_the_one_that_was_left() -> None:
    play = Recovered(3)
    play.others[2].storage.begin_unknown()  # another one that is new
    play.have(5, NEW, data(9), 3)
    play.link(2)
    assert play.some_time() == SECTORS, "it knows nothing"
    play.link(3)
    assert play.some_time() == 0
    assert play.tag(5) == NEW and play.storage.load(5, 1)[1] == data(9)


def test_what_it_has_stored_meanwhile_is_kept() -> None:
    play = Recovered(3)
    for sector in (4, 5, 6):  # of which the one in between is fetched with the others
        play.have(sector, OLD, data(1), 3)
    play.have(5, NEW, data(3), 1)
    play.link(3)
    assert play.some_time() == 0
    assert [play.storage.load(sector, 1)[1] for sector in (4, 5, 6)] == [data(1), data(3), data(1)]


def test_all_that_were_left_have_to_tell() -> None:
    play = Recovered(2, 3)
    play.have(5, NEW, data(9), 2)
    play.have(6, tags((9, 3)), data(8), 3)
    play.link(3)
    assert play.some_time() == SECTORS
    play.link(2)
    assert play.some_time() == 0
    assert play.tag(5) == NEW and play.tag(6) == tags((9, 3))


def test_one_that_was_left_is_not_learned_from_before_it_knows_itself() -> None:
    play = Recovered(2, 3)
    play.have(5, NEW, data(9), 2)
    play.others[3].storage.begin_unknown()
    play.link(2, 3)
    assert play.some_time() == SECTORS


def test_after_its_directory_was_lost_others_have_to_tell() -> None:
    play = Recovered(3, life=2)
    play.link(3)
    assert play.some_time() == SECTORS
    play.link(2)
    assert play.some_time() == 0


def test_what_is_damaged_since_is_not_learned_from_it_alone() -> None:
    """It was stored in this life, and acknowledged: the one that was left may not have it."""
    play = Recovered(3)
    play.have(5, NEW, data(9), 1)
    play.storage.damage(5, tag_too=True)
    play.have(5, OLD, data(1), 3)
    play.link(3)
    left = play.some_time()
    assert play.storage.unknown(5, 1) == [5] and left > 0
    play.have(5, NEW, data(9), 2)
    play.link(2)
    assert play.some_time() == 0
    assert play.tag(5) == NEW and play.storage.load(5, 1)[1] == data(9)
