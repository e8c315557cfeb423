"""A node that learns, in plays: see test_learning."""

from __future__ import annotations

from dsreg.register.heal_work import ANSWER_S
from dsreg.register.learner import RETRY_S
from tests.register.heal_play import Play


class Learning(Play):
    """`teach`: who has accepted this node's life."""

    def __init__(self, *links: int, teach: tuple[int, ...] = (2, 3)) -> None:
        super().__init__(learns=True)
        self.teach = set(teach)
        self.heal.may_teach = self.teach.__contains__
        for rank in links:
            self.link(rank)

    def link(self, *ranks: int) -> None:
        for rank in ranks:
            self.take(self.heal.link_up(rank, self.now))

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
