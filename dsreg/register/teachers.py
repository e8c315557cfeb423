"""Who has to tell a node what it is to learn. Pure.

As a rule as many others as meet every quorum (docs/lives.md, 14). In a cluster that was recovered from what another one
has left a node in its first life has acknowledged nothing that it could have forgotten: what it lacks is what was left,
and those that have it tell (docs/recover.md, rule 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from dsreg.register.quorum import Quorum, mask


class Teachers(Protocol):
    def covers(self, answers: int) -> bool:
        """Whether these, a mask, are enough."""

    def reconfigured(self, quorum: Quorum) -> None:
        """`quorum` decides from now on."""


class OfAll:
    """As many as meet every quorum of the nodes."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum

    def covers(self, answers: int) -> bool:
        return self._quorum.covers(answers)

    def reconfigured(self, quorum: Quorum) -> None:
        self._quorum = quorum


class OfTheRecovered(OfAll):
    """`sources`: the nodes that were left, as far as this one learns from them; if there are none nobody can tell.
    `life`: gives the number of this node's life."""

    def __init__(self, sources: Iterable[int], life: Callable[[], int], quorum: Quorum) -> None:
        super().__init__(quorum)
        self._sources = mask(sources)
        self._life = life

    def covers(self, answers: int) -> bool:
        # What those had that have left since is at a majority: docs/configurations.md, rule 6.
        stayed = self._sources & self._quorum.members
        if self._life() > 1 or self._sources and not stayed:
            return self._quorum.covers(answers)
        return stayed != 0 and not stayed & ~answers
