"""Runs of whole chunks that were zeroed by one command each: 32 bytes a run, however long it is.

A run lies over what the slots of `tags` say: of a sector the higher tag counts, that of its slot or chunk or that of
the run. So to take one changes no slot, and what is stored later stands above it by its own tag.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from dsreg.constants import TAG_SIZE, ZERO_TAG
from dsreg.protocol.tags import is_uniform
from dsreg.storage.slots import CHUNK_SECTORS


class ZeroRun(NamedTuple):
    """The chunks [start, stop)."""

    start: int
    stop: int
    tag: bytes


class ZeroRuns:
    """Disjoint, ascending; two that touch have different tags."""

    def __init__(self) -> None:
        self.starts, self.stops = array("Q"), array("Q")
        self.tags = bytearray()

    def __len__(self) -> int:
        return len(self.starts)

    def _at(self, index: int) -> ZeroRun:
        tag = bytes(self.tags[index * TAG_SIZE:(index + 1) * TAG_SIZE])
        return ZeroRun(self.starts[index], self.stops[index], tag)

    def add(self, start: int, stop: int, tag: bytes) -> None:
        """The chunks [start, stop) have at least this tag from now on: where a run has a higher one, that stays."""
        assert 0 <= start < stop and len(tag) == TAG_SIZE
        low, high = bisect_left(self.stops, start), bisect_right(self.starts, stop)  # those that touch it
        runs: list[ZeroRun] = []
        at = start
        tail = None
        for run in map(self._at, range(low, high)):
            if run.tag >= tag:
                _push(runs, ZeroRun(at, min(run.start, stop), tag))
                _push(runs, run)
                at = max(at, run.stop)
                continue
            if run.start < start:
                _push(runs, ZeroRun(run.start, min(run.stop, start), run.tag))
            if run.stop > stop:
                tail = ZeroRun(max(run.start, stop), run.stop, run.tag)
        _push(runs, ZeroRun(at, stop, tag))
        if tail is not None:
            _push(runs, tail)
        self.starts[low:high] = array("Q", [run.start for run in runs])
        self.stops[low:high] = array("Q", [run.stop for run in runs])
        self.tags[low * TAG_SIZE:high * TAG_SIZE] = b"".join(run.tag for run in runs)

    def within(self, start: int, stop: int) -> Iterator[ZeroRun]:
        """What of [start, stop) is in runs."""
        index = bisect_right(self.stops, start)
        while index < len(self.starts) and self.starts[index] < stop:
            run = self._at(index)
            yield ZeroRun(max(run.start, start), min(run.stop, stop), run.tag)
            index += 1

    def tag_of(self, chunk: int) -> bytes:
        """ZERO_TAG if it is in no run."""
        index = bisect_right(self.stops, chunk)
        if index == len(self.starts) or self.starts[index] > chunk:
            return ZERO_TAG
        return bytes(self.tags[index * TAG_SIZE:(index + 1) * TAG_SIZE])

    def covers(self, start: int, stop: int, tag: bytes) -> bool:
        """Whether all of these chunks have this tag, or a higher one, by runs."""
        for run in self.within(start, stop):
            if run.start > start or run.tag < tag:
                return False
            start = run.stop
        return start >= stop

    def following(self, chunk: int) -> int | None:
        """The first chunk from `chunk` on that is in a run."""
        index = bisect_right(self.stops, chunk)
        return max(chunk, self.starts[index]) if index < len(self.starts) else None

    def laid_over(self, first: int, tags: bytes, field: bytes, value: bytes) -> bytes:
        """`field`, of len(value) bytes for each of the sectors from `first` on, which have these tags by their slots,
        with `value` for those over which a run lies; without `value`, with the tag of that."""
        count, over = len(tags) // TAG_SIZE, None
        end = first + count
        for run in self.within(first // CHUNK_SECTORS, (end - 1) // CHUNK_SECTORS + 1):
            one = value or run.tag
            begin = max(run.start * CHUNK_SECTORS - first, 0)
            until = min(run.stop * CHUNK_SECTORS - first, count)
            some = tags[begin * TAG_SIZE:until * TAG_SIZE]
            if is_uniform(some):
                spans = [(begin, until)] if some[:TAG_SIZE] < run.tag else []
            else:
                older = (tags[index * TAG_SIZE:(index + 1) * TAG_SIZE] < run.tag for index in range(begin, until))
                spans = [(index, index + 1) for index, is_older in enumerate(older, begin) if is_older]
            for start, stop in spans:
                over = bytearray(field) if over is None else over
                over[start * len(one):stop * len(one)] = one * (stop - start)
        return field if over is None else bytes(over)


def _push(runs: list[ZeroRun], run: ZeroRun) -> None:
    """Behind those before, of which the last one grows if it can; not if it is empty."""
    if run.start >= run.stop:
        return
    if runs and runs[-1].stop == run.start and runs[-1].tag == run.tag:
        run = ZeroRun(runs.pop().start, run.stop, run.tag)
    runs.append(run)
