"""Tally: one question to several nodes, of which the client counts the answers itself."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from dsreg.protocol.messages import CommandKind, Response
from dsreg.register.one_round import may_return
from dsreg.register.quorum import Quorum, mask


class Verdict(enum.Enum):
    WAIT = enum.auto()
    DONE = enum.auto()
    ASK_ALL = enum.auto()  # the nodes that were not asked may settle it
    GIVE_UP = enum.auto()  # a node has to see to it


# Members of enumerations that each operation needs: see dsreg.protocol.messages.
_PUT, _ZERO, _WAIT, _DONE = CommandKind.PUT, CommandKind.ZERO, Verdict.WAIT, Verdict.DONE


class Tally:
    """`kind`: GET, PUT or ZERO. `epoch`: that of the attachment, 0 for none. Sets of nodes are masks of ranks.

    A PUT, or a ZERO, is done when a quorum has it. A GET is done when all that have answered have one identical vector
    of tags, one of them its values, and the rule of one-round reads is met (dsreg.register.one_round).
    """

    __slots__ = ("_epoch", "_is_put", "_quorum", "_tags", "agree", "answered", "asked", "last", "values")

    def __init__(self, kind: CommandKind, quorum: Quorum, epoch: int) -> None:
        self._is_put = kind is _PUT or kind is _ZERO
        self._quorum = quorum
        self._epoch = epoch
        self._tags = b""  # of the first answer
        self.asked = 0  # nodes
        self.last = 0  # rank of the one that has answered last; 0: none has
        self.answered = 0  # nodes
        self.agree = True  # all have answered with the same tags
        self.values: Response | None = None  # the answer that has values

    def add(self, rank: int, answer: Response) -> None:
        """The answer of one more node."""
        if not self.answered:
            self._tags = answer.tags
        elif answer.tags != self._tags:
            self.agree = False
        self.answered |= 1 << rank
        self.last = rank
        if answer.data:
            self.values = answer

    def verdict(self, outstanding: Iterable[int]) -> Verdict:
        """`outstanding`: the ranks of those that were asked and may still answer."""
        quorum, answered = self._quorum, self.answered
        if self._is_put:
            if quorum.decided(answered):
                return _DONE
            return _WAIT if quorum.decided(answered | mask(outstanding)) else Verdict.GIVE_UP
        if not self.agree:
            return Verdict.GIVE_UP
        if self.values is not None and may_return(quorum, answered, self._tags, self._epoch):
            return _DONE
        waits_for = mask(outstanding)
        if self.values is None or not quorum.decided(answered):
            enough = waits_for and quorum.decided(answered | waits_for)
            return _WAIT if enough else Verdict.GIVE_UP
        if waits_for:
            return _WAIT
        return Verdict.GIVE_UP if quorum.all_answered(self.asked) else Verdict.ASK_ALL

    @property
    def has_all(self) -> bool:
        """Whether all nodes have answered."""
        return self._quorum.all_answered(self.answered)
