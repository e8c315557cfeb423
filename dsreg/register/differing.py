"""Chunks of this node's copy that differ from those of others: which wait to be looked at, and which came out as they
should but for what is not durable yet. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from dsreg.constants import MAX_RUN_SECTORS, ZERO_TAG
from dsreg.protocol.tags import highest, iter_tags
from dsreg.register.heal_work import SETTLE_S, HealView
from dsreg.register.quorum import bit


class Differing:
    def __init__(self) -> None:
        self._todo: dict[int, int] = {}  # by chunk: the mask of the nodes from whose it differs
        self._later: list[tuple[float, int, int]] = []  # when, chunk, and mask likewise
        self._settled: set[int] = set()  # of these: differed before
        self._looked_at = self._found = 0  # how many were, and sectors that were lacking in them

    def __len__(self) -> int:
        """How many wait, those that are to be looked at later not counted."""
        return len(self._todo)

    @property
    def is_empty(self) -> bool:
        return not self._todo and not self._later

    @property
    def rests(self) -> bool:
        """Whether none is to be looked at later."""
        return not self._later

    @property
    def masks(self) -> list[int]:
        """For each that waits."""
        return [*self._todo.values(), *(which for _, _, which in self._later)]

    def looked_at(self, lacking: int) -> None:
        """One of them was, and lacked so many sectors."""
        self._looked_at += 1
        self._found += lacking

    @property
    def each(self) -> int:
        """How many sectors one lacks, as far as is known."""
        return self._found // self._looked_at if self._looked_at else MAX_RUN_SECTORS

    def want(self, chunk: int, which: int) -> None:
        self._todo[chunk] = self._todo.get(chunk, 0) | which

    def want_later(self, at_s: float, chunk: int, which: int) -> None:
        """It has differed, and is to be looked at again then."""
        self._settled.add(chunk)
        self._later.append((at_s, chunk, which))

    def due(self, now: float) -> list[tuple[int, int]]:
        """Those whose time has come, each with its mask: they are no longer here."""
        found = [entry for entry in self._later if entry[0] <= now]
        for entry in found:
            self._later.remove(entry)
        return [(chunk, which) for _, chunk, which in found]

    def next_due(self) -> float:
        return min((at_s for at_s, _, _ in self._later), default=math.inf)

    def next(self, busy: Collection[int]) -> tuple[int, int, bool] | None:
        """The one to be looked at now, none of `busy`: chunk, mask, and whether it differed before."""
        chunk = next((chunk for chunk in self._todo if chunk not in busy), None)
        if chunk is None:
            return None
        settled = chunk in self._settled
        self._settled.discard(chunk)
        return chunk, self._todo.pop(chunk), settled

    def drop(self, rank: int) -> None:
        """That node is not compared with any more."""
        for chunk in [chunk for chunk, which in self._todo.items() if which == bit(rank)]:
            del self._todo[chunk]


class Awaited:
    """Tags that others have told, and that are queued here, but not durable yet: this node is not in sync with them
    before they are."""

    def __init__(self, storage: HealView) -> None:
        self._storage = storage
        self._tags: dict[tuple[int, int], bytes] = {}  # by first sector and number of sectors, of a chunk
        self.again_s = math.inf  # when they are to be looked at

    @property
    def is_empty(self) -> bool:
        return not self._tags

    def add(self, run: tuple[int, int], told: Iterable[bytes], now: float) -> None:
        """`run`: first sector, and number of sectors, of a chunk. `told`: its tags at others, 16 bytes a sector."""
        durable, latest = self._storage.tags(*run), self._storage.latest_tags(*run)
        if durable == latest:
            return
        tags = highest([*told, *([self._tags[run]] if run in self._tags else [])])
        columns = zip(iter_tags(tags), iter_tags(durable), iter_tags(latest), strict=True)
        self._tags[run] = b"".join(tag if before != after else ZERO_TAG for tag, before, after in columns)
        self.again_s = now + SETTLE_S

    def review(self, now: float) -> list[int]:
        """Forget those that have become durable; gives the chunks of those that will not, as they were refused."""
        refused = []
        for run, tags in list(self._tags.items()):
            if is_at_least(self._storage.tags(*run), tags):
                del self._tags[run]
            elif not is_at_least(self._storage.latest_tags(*run), tags):
                del self._tags[run]
                refused.append(run[0] // MAX_RUN_SECTORS)
        self.again_s = now + SETTLE_S if self._tags else math.inf
        return refused


def is_at_least(tags: bytes, told: bytes) -> bool:
    """Whether none of the tags is below the one that was told of its sector."""
    return all(map(bytes.__ge__, iter_tags(tags), iter_tags(told)))
