"""Sets of sectors as runs: 16 bytes each, however long."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Runs:
    """Disjoint runs [start, stop) that do not touch, ascending. `total`: how many numbers are in them."""

    def __init__(self) -> None:
        self.starts, self.stops = array("Q"), array("Q")
        self.total = 0

    def add(self, start: int, stop: int) -> None:
        """Some of it may be there."""
        assert 0 <= start < stop
        low, high = bisect_left(self.stops, start), bisect_right(self.starts, stop)  # those that touch it
        if low < high:
            start, stop = min(start, self.starts[low]), max(stop, self.stops[high - 1])
            self.total -= sum(self.stops[low:high]) - sum(self.starts[low:high])
        self.starts[low:high], self.stops[low:high] = array("Q", (start,)), array("Q", (stop,))
        self.total += stop - start

    def remove(self, start: int, stop: int) -> None:
        """Any part of it may be there, or none."""
        low, high = bisect_right(self.stops, start), bisect_left(self.starts, stop)  # those that have some of it
        if low >= high:
            return
        first, last = self.starts[low], self.stops[high - 1]
        self.total -= sum(self.stops[low:high]) - sum(self.starts[low:high])
        left = [(begin, end) for begin, end in ((first, start), (stop, last)) if begin < end]
        self.total += sum(end - begin for begin, end in left)
        self.starts[low:high] = array("Q", [begin for begin, _ in left])
        self.stops[low:high] = array("Q", [end for _, end in left])

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """What of [start, stop) is in no run."""
        at = bisect_right(self.stops, start)
        while start < stop:
            begin = self.starts[at] if at < len(self.starts) else stop
            if start < begin:
                yield start, min(begin, stop)
            if begin >= stop:
                return
            start, at = self.stops[at], at + 1

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.starts, number)
        return at > 0 and number < self.stops[at - 1]

    def pop(self) -> int:
        """The lowest number, which is taken out. There must be one."""
        first = self.starts[0]
        self.total -= 1
        if first + 1 < self.stops[0]:
            self.starts[0] = first + 1
        else:
            del self.starts[0], self.stops[0]
        return first
