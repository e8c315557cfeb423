"""NameTally: the tags of a write, named by nodes that are each asked for themselves.

A node names a tag above its own copy, and never names it again. The highest one that a majority names is above all that
any of these nodes has, so above each write that was complete before they were asked; and nobody else has it. So one
round does what takes two where a node asks the others. docs/client.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsreg.client.quorum import Tally, Verdict
from dsreg.protocol.messages import CommandKind, Response
from dsreg.protocol.tags import highest, highest_epoch
from dsreg.register.quorum import Quorum, mask


class NameTally(Tally):
    """Of a TAG. All must answer under one epoch: what an older one left behind is for a node to sort out."""

    __slots__ = ("tags",)

    def __init__(self, quorum: Quorum) -> None:
        super().__init__(CommandKind.TAG, quorum, 0)
        self.tags = b""  # per sector the highest that was named

    def add(self, rank: int, answer: Response) -> None:
        if self.tags and highest_epoch(answer.tags) != highest_epoch(self.tags):
            self.agree = False
        self.tags = highest([self.tags, answer.tags]) if self.tags else answer.tags
        self.answered |= 1 << rank
        self.last = rank

    def verdict(self, outstanding: Iterable[int]) -> Verdict:
        quorum, answered = self._quorum, self.answered
        if not self.agree:
            return Verdict.GIVE_UP
        if quorum.decided(answered):
            return Verdict.DONE
        return Verdict.WAIT if quorum.decided(answered | mask(outstanding)) else Verdict.GIVE_UP
