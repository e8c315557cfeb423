"""Exclusive locks on ranges of sectors, first come, first served."""

from __future__ import annotations

from typing import Final

import trio

# Ranges that share no chunk are never compared. The size is that of the largest run, whose runs are aligned
# to it, so that a run stands in one chunk.
_CHUNK: Final = 256


class Held:
    """A range that is held, or waited for."""

    __slots__ = ("_followers", "_open", "first", "stop", "waits_for")

    def __init__(self, first: int, stop: int) -> None:
        self.first = first
        self.stop = stop
        self.waits_for = 0
        self._followers: list[Held] = []
        self._open: trio.Event | None = None

    def overlaps(self, other: Held) -> bool:
        return self.first < other.stop and other.first < self.stop

    def follow(self, earlier: Held) -> None:
        earlier._followers.append(self)
        self.waits_for += 1

    async def wait(self) -> None:
        """Until nothing earlier overlaps."""
        if self.waits_for:
            self._open = trio.Event()
            await self._open.wait()

    def let_followers_go(self) -> None:
        for later in self._followers:
            later.waits_for -= 1
            if not later.waits_for and later._open is not None:
                later._open.set()


class RangeLock:
    """Ranges [first, stop) that overlap are held one after the other, in the order in which they were asked
    for; others are independent. A range that waits holds back later ones that overlap it, so none starves.

    The table has the ranges held and waited for and nothing else; taking one costs in proportion to those in
    the same 256-sector chunks.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, dict[Held, None]] = {}

    def __len__(self) -> int:
        """How many chunks are in the table: 0 when nothing is held."""
        return len(self._chunks)

    async def acquire(self, first: int, stop: int) -> Held:
        """Hold [first, stop), first < stop, and return what `release` wants. Cancelled: nothing is held."""
        assert 0 <= first < stop
        held = Held(first, stop)
        for earlier in self._overlapping(held):
            held.follow(earlier)
        for chunk in _chunks(held):
            self._chunks.setdefault(chunk, {})[held] = None
        acquired = False
        try:
            await held.wait()
            acquired = True
        finally:
            if not acquired:
                self.release(held)
        return held

    def is_free(self, first: int, stop: int) -> bool:
        """Whether no range that is held or waited for overlaps [first, stop), which stands in one chunk."""
        users = self._chunks.get(first // _CHUNK)
        return users is None or not any(first < user.stop and user.first < stop for user in users)

    def acquire_now(self, first: int, stop: int) -> Held | None:
        """Hold [first, stop), which stands in one chunk, if nothing overlaps it."""
        if not self.is_free(first, stop):
            return None
        held = Held(first, stop)
        self._chunks.setdefault(first // _CHUNK, {})[held] = None
        return held

    def release(self, held: Held) -> None:
        for chunk in _chunks(held):
            users = self._chunks[chunk]
            del users[held]
            if not users:
                del self._chunks[chunk]
        held.let_followers_go()

    def _overlapping(self, held: Held) -> dict[Held, None]:
        return {
            earlier: None
            for chunk in _chunks(held)
            for earlier in self._chunks.get(chunk, ())
            if earlier.overlaps(held)
        }


def _chunks(held: Held) -> range:
    return range(held.first // _CHUNK, (held.stop - 1) // _CHUNK + 1)
