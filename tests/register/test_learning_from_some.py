"""What a node learns while some of the others have yet to learn it themselves, as plays."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import DigestQuery
from dsreg.register.heal_work import ANSWER_S
from dsreg.register.quorum import majority_of
from dsreg.register.teachers import OfTheRecovered
from tests.protocol.values import data
from tests.register.heal_play import NEW, RANKS, SECTORS
from tests.register.learning_play import Learning


def test_what_too_few_know_is_asked_for_again_without_another_event() -> None:
    play = Learning(2, 3)
    play.have(0, NEW, data(9), 3)
    play.others[2].storage.begin_unknown()
    play.others[2].storage.learning.learned(MAX_RUN_SECTORS, SECTORS - MAX_RUN_SECTORS)
    play.to_the_end(silently=True)
    assert play.left == MAX_RUN_SECTORS
    play.others[2].storage.learning.learned(0, MAX_RUN_SECTORS)
    while play.left:
        play.now = max(play.now, play.heal.next_due(play.now))  # no link, no client, no comparison
        assert play.now < 110.0
        play.tick(0.0)
        play.to_the_end()
    assert play.left == 0 and play.tag(0) == NEW


def test_one_that_does_not_know_the_chunk_itself_keeps_nobody_from_learning_it() -> None:
    """It is asked as well if it was not there when the digests were told, and never answers."""
    play = Learning(3, 2)
    play.heal._teachers = play.heal._learner._enough = OfTheRecovered([3], lambda: 1, majority_of(RANKS))
    play.have(0, NEW, data(9), 2, 3)
    while any(isinstance(tell.message, DigestQuery) for tell in play.asked):
        play.answer()
    play.asked = [tell for tell in play.asked if tell.rank == 3]
    play.to_the_end()
    assert play.left > 0
    play.tick(ANSWER_S)
    play.to_the_end()
    assert play.left == 0 and play.tag(0) == NEW
