"""Admission: bounds how much a client has in flight. By callbacks; nothing waits in here."""

from __future__ import annotations

import collections
from collections.abc import Callable


class Entry:
    """Somebody who waits for room for `size` bytes."""

    __slots__ = ("admitted", "size")

    def __init__(self, size: int, admitted: Callable[[], None]) -> None:
        self.size = size
        self.admitted = admitted


class Admission:
    """Lets operations through, first come, first served, while their number and their bytes stay in bounds.

    One that is larger than all the bytes there are would never get through: that is a bug of the caller.
    """

    def __init__(self, operations: int, size: int) -> None:
        self._operations = self._all_operations = operations
        self._bytes = self._all_bytes = size
        self._queue: collections.deque[Entry] = collections.deque()
        self._is_admitting = False

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, and nobody waits."""
        return self._operations == self._all_operations and self._bytes == self._all_bytes and not self._queue

    def acquire(self, size: int, admitted: Callable[[], None]) -> Entry | None:
        """Take room for one operation of `size` bytes: None. Or wait for it, and have `admitted` called then."""
        assert 0 <= size <= self._all_bytes
        if not self._queue and self._operations and self._bytes >= size:
            self._operations -= 1
            self._bytes -= size
            return None
        entry = Entry(size, admitted)
        self._queue.append(entry)
        return entry

    def give_up(self, entry: Entry) -> None:
        """`entry` still waits, and does so no longer."""
        self._queue.remove(entry)
        self._admit()

    def release(self, size: int) -> None:
        self._operations += 1
        self._bytes += size
        if self._queue:
            self._admit()

    def _admit(self) -> None:
        if self._is_admitting:
            return  # the loop below goes on with what has become free meanwhile
        self._is_admitting = True
        while self._queue and self._operations and self._bytes >= self._queue[0].size:
            entry = self._queue.popleft()
            self._operations -= 1
            self._bytes -= entry.size
            entry.admitted()
        self._is_admitting = False
