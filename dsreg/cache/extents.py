"""Lists of extents, sorted by sector and disjoint: which part of which buffer holds the data of which sectors. Pure.

No piece keeps alive a buffer of more than twice its own size: what would, is copied out. So the memory behind a list is
at most twice the bytes in it, whatever was written over, and each cut copies less than a half of the buffer it cuts.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter

from dsreg.constants import SECTOR_SIZE

_FIRST = attrgetter("first")
_STOP = attrgetter("stop")


@dataclasses.dataclass(slots=True, eq=False)
class Extent:
    """The sectors [first, stop) have the bytes `data`, (stop - first) * 4096 of them. Nothing in it ever changes.

    `data` is a view of a `bytes` object of `pinned` bytes, or that object itself.
    """

    first: int
    stop: int
    data: bytes | memoryview
    pinned: int

    @classmethod
    def of(cls, first: int, data: bytes | memoryview, pinned: int) -> Extent:
        """`data`: a positive multiple of 4096 bytes."""
        size = len(data)
        if pinned > 2 * size:
            data, pinned = bytes(data), size
        return cls(first, first + size // SECTOR_SIZE, data, pinned)

    def part(self, first: int, stop: int) -> Extent:
        """What it has of the sectors [first, stop), which lie within it."""
        if first == self.first and stop == self.stop:
            return self
        return Extent.of(first, self.view(first, stop), self.pinned)

    def view(self, first: int, stop: int) -> memoryview:
        """The same, as it stands."""
        return memoryview(self.data)[(first - self.first) * SECTOR_SIZE : (stop - self.first) * SECTOR_SIZE]


def cover(extents: list[Extent], new: Extent) -> int:
    """Put `new` in, in place of what stands there. Returns how many sectors there were of that."""
    if not extents or extents[-1].stop <= new.first:
        extents.append(new)
        return 0
    begin = bisect_right(extents, new.first, key=_STOP)
    end = bisect_left(extents, new.stop, key=_FIRST)
    hit = extents[begin:end]
    if not hit:
        extents.insert(begin, new)
        return 0
    covered = sum(min(old.stop, new.stop) - max(old.first, new.first) for old in hit)
    kept = [new]
    if hit[0].first < new.first:
        kept.insert(0, hit[0].part(hit[0].first, new.first))
    if hit[-1].stop > new.stop:
        kept.append(hit[-1].part(new.stop, hit[-1].stop))
    extents[begin:end] = kept
    return covered


def slide_under(extents: list[Extent], old: Extent) -> int:
    """Put in what `old` has where nothing stands yet. Returns how many of its sectors are covered already."""
    free = list(gaps(extents, old.first, old.stop))
    for first, stop in free:
        cover(extents, old.part(first, stop))
    return old.stop - old.first - sum(stop - first for first, stop in free)


def gaps(extents: list[Extent], first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The ranges of [first, stop) that no extent has, in order."""
    for index in range(bisect_right(extents, first, key=_STOP), len(extents)):
        extent = extents[index]
        if extent.first >= stop:
            break
        if extent.first > first:
            yield first, extent.first
        first = extent.stop
    if first < stop:
        yield first, stop


def within(extents: list[Extent], first: int, stop: int) -> Iterator[Extent]:
    """What there is of the sectors [first, stop), cut to them; without copies, so not to be kept."""
    for index in range(bisect_right(extents, first, key=_STOP), len(extents)):
        extent = extents[index]
        if extent.first >= stop:
            break
        begin, end = max(first, extent.first), min(stop, extent.stop)
        whole = begin == extent.first and end == extent.stop
        yield extent if whole else Extent(begin, end, extent.view(begin, end), extent.pinned)


def join(extents: Iterable[Extent]) -> bytes:
    """The content of all of them, one after the other: the one copy on the way out, if one is needed."""
    parts = [extent.data for extent in extents]
    if len(parts) == 1:
        part = parts[0]
        if isinstance(part, memoryview) and isinstance(part.obj, bytes) and part.nbytes == len(part.obj):
            return part.obj
        return bytes(part)  # bytes of bytes are not a copy
    return b"".join(parts)
