"""Evidence that a peer speaks only the contract: such a peer cannot say what it has heard of a rank. Pure.

Silence is no evidence: a node that recovers is bound, and silent. What is: a message of the contract has come from
that rank, so it is up; it has never greeted, which a node that knows greetings does as soon as it connects; and a
greeting to it stays without an answer for ANSWER_S from then on, on a connection that it keeps, or is hung up on again
and again.
"""

from __future__ import annotations

import math
from typing import Final

# A node that is up answers a greeting within milliseconds.
ANSWER_S: Final = 0.5
# A node that is killed hangs up as well, once.
HANG_UPS: Final = 2


class ForeignPeers:
    """Times in seconds, on one clock that does not go backwards."""

    def __init__(self) -> None:
        self._heard_s: dict[int, float] = {}  # first message of the contract
        self._greeted_s: dict[int, float] = {}  # a greeting is under way since then
        self._hang_ups: dict[int, int] = {}
        self._greets: set[int] = set()
        self.found: set[int] = set()

    def greets(self, rank: int) -> None:
        """It has greeted, or answered a greeting."""
        self._greets.add(rank)
        self.found.discard(rank)

    def heard(self, rank: int, now: float) -> bool:
        """A message of the contract has come. Gives whether the peer should be greeted now, for want of evidence."""
        self._heard_s.setdefault(rank, now)
        return rank not in self._greets and rank not in self.found and rank not in self._greeted_s

    def greeting(self, rank: int, now: float) -> None:
        """A greeting was sent over a connection that stands."""
        self._greeted_s[rank] = now

    def unanswered(self, rank: int, now: float, *, hung_up: bool) -> None:
        """It has had no answer."""
        self.look(now)
        self._greeted_s.pop(rank, None)
        if hung_up and rank in self._heard_s:
            self._hang_ups[rank] = self._hang_ups.get(rank, 0) + 1
            if self._hang_ups[rank] >= HANG_UPS and rank not in self._greets:
                self.found.add(rank)

    def look(self, now: float) -> None:
        """Time has passed."""
        self.found.update(rank for rank in self._greeted_s if self._due(rank) <= now)

    def _due(self, rank: int) -> float:
        heard_s = self._heard_s.get(rank)
        if heard_s is None or rank in self._greets or rank in self.found:
            return math.inf
        return max(heard_s, self._greeted_s[rank]) + ANSWER_S

    @property
    def next_due(self) -> float:
        return min(map(self._due, self._greeted_s), default=math.inf)
