"""Tally: one question to several nodes, of which the client counts the majority itself."""

from __future__ import annotations

import enum

from dsreg.protocol.messages import CommandKind, Response
from dsreg.protocol.tags import is_restamped
from dsreg.register.quorum import majority


class Verdict(enum.Enum):
    WAIT = enum.auto()
    DONE = enum.auto()
    ASK_ALL = enum.auto()  # the nodes that were not asked may settle it
    GIVE_UP = enum.auto()  # a node has to see to it


class Tally:
    """`kind`: GET or PUT. `nodes`: of the cluster. `epoch`: that of the attachment, 0 for none.

    A PUT is done when a majority has it. A GET is done when a majority has one identical tag vector and one of
    these nodes its values. Under an attachment, all of that must have been stored under its own epoch, or
    all nodes must have it: otherwise a node that was not heard may hold a newer value of an older attachment.
    """

    __slots__ = ("_epoch", "_kind", "_majority", "_nodes", "_tags", "agree", "answered", "asked", "values")

    def __init__(self, kind: CommandKind, nodes: int, epoch: int) -> None:
        self._kind = kind
        self._nodes = nodes
        self._majority = majority(nodes)
        self._epoch = epoch
        self._tags = b""  # of the first answer
        self.asked: set[int] = set()
        self.answered = 0  # nodes
        self.agree = True  # all have answered with the same tags
        self.values: Response | None = None  # the answer that has values

    def add(self, answer: Response) -> None:
        """The answer of one more node."""
        if not self.answered:
            self._tags = answer.tags
        elif answer.tags != self._tags:
            self.agree = False
        self.answered += 1
        if answer.data:
            self.values = answer

    def verdict(self, outstanding: int) -> Verdict:
        """`outstanding`: nodes that were asked and may still answer."""
        if self._kind is CommandKind.PUT:
            if self.answered >= self._majority:
                return Verdict.DONE
            return Verdict.WAIT if self.answered + outstanding >= self._majority else Verdict.GIVE_UP
        if not self.agree:
            return Verdict.GIVE_UP
        if self.answered < self._majority or self.values is None:
            enough = outstanding and self.answered + outstanding >= self._majority
            return Verdict.WAIT if enough else Verdict.GIVE_UP
        if not self._epoch or is_restamped(self._tags, self._epoch) or self.answered == self._nodes:
            return Verdict.DONE
        if outstanding:
            return Verdict.WAIT
        return Verdict.GIVE_UP if len(self.asked) == self._nodes else Verdict.ASK_ALL
