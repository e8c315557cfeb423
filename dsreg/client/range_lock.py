"""RangeLock: exclusive locks on ranges of sectors, first come, first served. By callbacks; nothing waits in here."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Final

# Ranges that share no chunk are never compared. The size is that of the largest run, whose runs are aligned
# to it, so that a run stands in one chunk.
_CHUNK: Final = 256
# Ranges of more chunks than this stand in none of them, and are compared with all: they are few.
_MANY: Final = 8


class Held:
    """A range that is held, or waited for (`waits`)."""

    __slots__ = ("_earlier", "_followers", "_granted", "first", "stop")

    def __init__(self, first: int, stop: int, granted: Callable[[], None]) -> None:
        self.first = first
        self.stop = stop
        self._granted: Callable[[], None] | None = granted  # None: given up
        self._earlier = 0  # ranges that this one waits for
        self._followers: list[Held] = []

    @property
    def waits(self) -> bool:
        return self._earlier > 0

    def overlaps(self, other: Held) -> bool:
        return self.first < other.stop and other.first < self.stop

    def follow(self, earlier: Held) -> None:
        earlier._followers.append(self)
        self._earlier += 1

    def end(self) -> list[Held]:
        """It is held no more, nor waited for. Those that waited for nothing else."""
        self._granted = None
        free = []
        for later in self._followers:
            later._earlier -= 1
            if not later._earlier:
                free.append(later)
        return free

    def grant(self) -> None:
        if self._granted is not None:
            self._granted()


class RangeLock:
    """Ranges [first, stop) that overlap are held one after the other, in the order in which they were asked
    for; others are independent. A range that waits holds back later ones that overlap it, so none starves.

    The table has the ranges held and waited for and nothing else; taking one costs in proportion to those in
    the same 256-sector chunks, and to the long ones; taking a long one, in proportion to all.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, dict[Held, None]] = {}
        self._long: dict[Held, None] = {}
        # Ranges that have just become free. Granting one may release it, which frees the next: a loop, not a recursion.
        self._free: collections.deque[Held] = collections.deque()
        self._is_granting = False

    def __len__(self) -> int:
        """How many chunks and long ranges are in the table: 0 when nothing is held."""
        return len(self._chunks) + len(self._long)

    def acquire(self, first: int, stop: int, granted: Callable[[], None]) -> Held:
        """Hold [first, stop), first < stop. If it has to wait (`Held.waits`), `granted` is called when it is held."""
        assert 0 <= first < stop
        held = Held(first, stop, granted)
        begin, end = first // _CHUNK, (stop - 1) // _CHUNK
        for earlier in self._long:
            if earlier.overlaps(held):
                held.follow(earlier)
        if end - begin >= _MANY:
            for earlier in {user: None for users in self._chunks.values() for user in users}:
                if earlier.overlaps(held):
                    held.follow(earlier)
            self._long[held] = None
            return held
        if begin == end:  # the usual case by far
            users = self._chunks.get(begin)
            if users is None:
                self._chunks[begin] = {held: None}
                return held
            for user in users:
                if user.overlaps(held):
                    held.follow(user)
            users[held] = None
            return held
        for earlier in {user: None for chunk in range(begin, end + 1) for user in self._chunks.get(chunk, ())}:
            if earlier.overlaps(held):
                held.follow(earlier)
        for chunk in range(begin, end + 1):
            self._chunks.setdefault(chunk, {})[held] = None
        return held

    def release(self, held: Held) -> None:
        """Also of one that waits: then it is given up, and `granted` is not called."""
        begin, end = held.first // _CHUNK, (held.stop - 1) // _CHUNK
        if end - begin >= _MANY:
            del self._long[held]
            begin = end + 1
        for chunk in range(begin, end + 1):
            users = self._chunks[chunk]
            del users[held]
            if not users:
                del self._chunks[chunk]
        if not held._followers:
            held._granted = None
            return
        self._free.extend(held.end())
        if self._is_granting:
            return
        self._is_granting = True
        while self._free:
            self._free.popleft().grant()
        self._is_granting = False
