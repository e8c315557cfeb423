"""A node that learns, in plays: see test_learning."""

from __future__ import annotations

from dsreg.constants import ZERO_TAG
from dsreg.register.heal_work import ANSWER_S
from dsreg.register.learner import RETRY_S, Learner
from dsreg.register.quorum import majority_of
from dsreg.runs import Runs
from dsreg.storage.learned import Learned
from tests.register.heal_play import RANKS, SECTORS, Play


def new_learner(sectors: int = SECTORS, ranks: tuple[int, ...] = RANKS) -> tuple[Learner, Learned]:
    """Of a disk of so many sectors, of which it knows none, and which was never written where it has learned it."""
    learned = Learned(sectors, lambda first, count: ZERO_TAG * count)
    learned.know(Runs())
    return Learner(majority_of(ranks), learned), learned


class Learning(Play):
    """`teach`: who has accepted this node's life."""

    def __init__(self, *links: int, teach: tuple[int, ...] = (2, 3)) -> None:
        super().__init__(learns=True)
        self.teach = set(teach)
        self.heal.may_teach = self.teach.__contains__
        self.link(*links)

    @property
    def left(self) -> int:
        return self.storage.learning.left

    def unanswered(self) -> None:
        """Nobody answers what was asked."""
        self.asked.clear()
        self.tick(ANSWER_S)

    def all(self, seconds: float = 10.0) -> None:
        """To the end, with what is tried again."""
        end = self.now + seconds
        self.to_the_end()
        while self.now < end and not (self.left == 0 and self.in_sync(2, 3)):
            self.tick(RETRY_S)
            self.to_the_end()
