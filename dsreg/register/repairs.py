"""Repairs: sectors that this node cannot store or read at the moment, tried again later.

Damaged sectors are read anew through the register, which writes them back here as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dsreg.chunks import chunks_of
from dsreg.register.tag_view import TagView

# Repairs at one time. The others wait for the next question about them.
MAX_REPAIRS = 64
# Seconds until this node tries again to store its own value for which it had no room.
REFUSED_RETRY_S = 1.0


class Repairs:
    """Not queued with the commands: a run that waits for another node's repair would hold up the repair for which that
    node's run waits. A read chooses no tag, so it may go beside whatever else is under way on its sector."""

    def __init__(self, storage: TagView) -> None:
        self._storage = storage
        self.wanted: deque[int] = deque()  # the sectors whose repair is to begin now
        self.under_way: set[int] = set()  # with these
        self.on_unknown: Callable[[int], None] = lambda chunk: None  # somebody has asked for what is to be learned

    def want(self, first: int, count: int) -> None:
        """Somebody has asked for this run: see to the damaged sectors in it. What is to be learned is not read here:
        those that are asked may not know this life."""
        for chunk in chunks_of(first, count):
            self.on_unknown(chunk)
        for sector in self._storage.damaged_of(first, count):
            if sector not in self.under_way and len(self.under_way) < MAX_REPAIRS:
                self.under_way.add(sector)
                self.wanted.append(sector)

    def end(self, sector: int) -> None:
        self.under_way.discard(sector)


class Refused:
    """Operations whose own copy found no room, until it is to be tried again. Times as in Replica."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, int]] = deque()  # (again at, rid), ascending

    def add(self, rid: int, now: float) -> None:
        self._waiting.append((now + REFUSED_RETRY_S, rid))

    def due(self, now: float) -> list[int]:
        rids = []
        while self._waiting and self._waiting[0][0] <= now:
            rids.append(self._waiting.popleft()[1])
        return rids

    def next_due(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None
