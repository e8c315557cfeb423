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
    """What a Quorum is asked as well."""

    def blocks(self, refusals: int) -> bool:
        """Whether these, a mask, are enough."""


class OfTheRecovered:
    """`sources`: the nodes that were left, as far as this one learns from them; if there are none nobody can tell.
    `life`: gives the number of this node's life. `quorum`: of all nodes."""

    def __init__(self, sources: Iterable[int], life: Callable[[], int], quorum: Quorum) -> None:
        self._sources = mask(sources)
        self._life = life
        self._quorum = quorum

    def blocks(self, refusals: int) -> bool:
        if self._life() > 1:
            return self._quorum.blocks(refusals)
        return self._sources != 0 and not self._sources & ~refusals
