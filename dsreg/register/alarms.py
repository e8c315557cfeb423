"""Alarms: when what is looked at next, for many things of which each is moved or dropped more often than it is due."""

from __future__ import annotations

import heapq


class Alarms:
    """One time for each key. Times in seconds on one clock that does not go backwards.

    A heap of (time, key). A key that is set again, or dropped, leaves its old entry in the heap, which is thrown away
    when it has come to the front.
    """

    __slots__ = ("_heap", "_times")

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def set(self, key: int, due_s: float) -> None:
        self._times[key] = due_s
        heapq.heappush(self._heap, (due_s, key))

    def drop(self, key: int) -> None:
        """It may not be there."""
        self._times.pop(key, None)

    def __getitem__(self, key: int) -> float:
        return self._times[key]

    def next_due(self) -> float | None:
        """The earliest; None if there is none."""
        heap, times = self._heap, self._times
        while heap:
            due_s, key = heap[0]
            if times.get(key) == due_s:
                return due_s
            heapq.heappop(heap)
        return None

    def take(self, now: float) -> int | None:
        """The key that is due first, if it is due by `now`. It is dropped."""
        due_s = self.next_due()
        if due_s is None or due_s > now:
            return None
        _, key = heapq.heappop(self._heap)
        del self._times[key]
        return key

    def __len__(self) -> int:
        """How much is in the heap."""
        return len(self._heap)
