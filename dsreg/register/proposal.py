"""Proposing: having the next configuration chosen by those that decide under the one in force. docs/configurations.md.

The caller sends the questions to all members, again and again, and hands the answers in; who answers in a life that is
superseded is discounted, as for an operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dsreg.protocol.choosing import Answer, Ask, Elect, Later, Objection, Outbid, Promised, Question, Voted
from dsreg.protocol.configuration import NO_BALLOT, Ballot, Configuration, Vote
from dsreg.register.configuration import Goal, next_for, quorum_of
from dsreg.register.quorum import bit


class Chosen(NamedTuple):
    """It follows, whatever else happens: all are to be told."""

    configuration: Configuration


class Preempted(NamedTuple):
    """Another one proposes, with this ballot, or a higher one of its own: a new proposal needs a higher round."""

    promised: Ballot


@dataclass(frozen=True, slots=True)
class Unvoted:
    """Nothing is wanted, and those that decide have voted for nothing: nothing was chosen, nor will it be by a ballot
    below this one."""


Outcome = Chosen | Preempted | Unvoted


class Proposal:
    """`base`: the configuration in force. `goal`: what is proposed leads there; None: nothing is wanted, but what some
    have voted for is taken up. `round`: above all rounds that are known here; `proposer`: 16 random bytes, of this
    proposal alone."""

    def __init__(self, base: Configuration, goal: Goal | None, round: int, proposer: bytes) -> None:
        wish = None if goal is None else next_for(base, goal)
        assert goal is None or wish is not None, "there is nothing to be done"
        self._quorum = quorum_of(base)
        self._base = base
        self._wish = wish
        self._ballot = Ballot(round, proposer)
        self._answered = 0  # mask: in this phase
        self._votes: dict[int, Vote] = {}  # by rank: how it had voted when it promised
        self._following: Configuration | None = None  # proposed in the second phase
        self.objections: dict[int, str] = {}  # by rank, for people: who does not vote for it, so far

    @property
    def question(self) -> Question:
        """What those of `unanswered` are to be asked now."""
        if self._following is None:
            return Ask(self._base, self._ballot)
        return Elect(self._base, self._ballot, self._following)

    @property
    def unanswered(self) -> int:
        """The mask of the members that have not answered the question yet, or that may answer otherwise later."""
        return self._base.members & ~self._answered

    def answer(self, rank: int, question: Question, answer: Answer) -> Outcome | None:
        """The node `rank` has answered this question. None: it goes on."""
        if question != self.question:
            return None
        if isinstance(answer, Later):
            return Chosen(answer.configuration)
        if isinstance(answer, Outbid):
            return Preempted(answer.promised)
        if isinstance(answer, Objection):
            self.objections[rank] = answer.reason
            return None
        assert isinstance(answer, Promised if self._following is None else Voted)
        self.objections.pop(rank, None)
        self._answered |= bit(rank)
        if isinstance(answer, Promised) and answer.voted is not None:
            self._votes[rank] = answer.voted
        if not self._quorum.decided(self._answered):
            return None
        if self._following is not None:
            return Chosen(self._following)
        self._following = max(self._votes.values()).configuration if self._votes else self._wish
        if self._following is None:
            return Unvoted()
        self._answered = 0
        self.objections.clear()
        return None

    def discount(self, rank: int) -> None:
        """What this node has answered does not count any more: it has forgotten it. It is asked again."""
        self._answered &= ~bit(rank)
        if self._following is None:
            self._votes.pop(rank, None)


def next_round(promised: Ballot = NO_BALLOT) -> int:
    """Above what somebody has promised."""
    return promised.round + 1
