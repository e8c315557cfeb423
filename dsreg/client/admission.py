"""How much a client has under way at once."""

from __future__ import annotations

import collections

import trio


class Admission:
    """Lets operations through, first come, first served, while their number and their bytes stay in bounds.

    One that is larger than all the bytes there are would never get through: that is a bug of the caller.
    """

    def __init__(self, operations: int, size: int) -> None:
        self._operations = operations
        self._bytes = self._all_bytes = size
        self._queue: collections.deque[tuple[int, trio.Event]] = collections.deque()

    def acquire_now(self, size: int) -> bool:
        """Take room for one operation of `size` bytes if there is some and nobody waits for it."""
        if self._queue or not self._operations or self._bytes < size:
            return False
        self._take(size)
        return True

    async def acquire(self, size: int) -> None:
        """Wait for room for one operation of `size` bytes, and take it. Cancelled: nothing is taken."""
        assert 0 <= size <= self._all_bytes
        if self.acquire_now(size):
            return
        entry = size, trio.Event()
        self._queue.append(entry)
        taken = False
        try:
            await entry[1].wait()
            taken = True
        finally:
            if not taken:
                self._give_up(entry)

    def release(self, size: int) -> None:
        self._operations += 1
        self._bytes += size
        self._admit()

    def _take(self, size: int) -> None:
        self._operations -= 1
        self._bytes -= size

    def _admit(self) -> None:
        while self._queue and self._operations and self._bytes >= self._queue[0][0]:
            size, admitted = self._queue.popleft()
            self._take(size)
            admitted.set()

    def _give_up(self, entry: tuple[int, trio.Event]) -> None:
        size, admitted = entry
        if admitted.is_set():
            # Between the cancelling and now, another task has released something.
            self.release(size)
        else:
            self._queue.remove(entry)
            self._admit()
