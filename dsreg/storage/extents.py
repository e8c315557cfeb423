"""Which whole chunks have no data here, without a value being read: never written, or zeros, all under one tag.

What was never written, and what one command zeroed, is said at once however long it is, if no slot tells of it. All
other chunks are looked at one by one, so many to a question: all of the node waits for that.
"""

from __future__ import annotations

from dsreg.constants import MAX_EXTENTS, TAG_SIZE, ZERO_TAG
from dsreg.protocol.extents import Extent
from dsreg.protocol.tags import is_uniform
from dsreg.storage.failure import Failure
from dsreg.storage.learning import Learning
from dsreg.storage.slot_table import SlotTable
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.storage.tags import TagTable

# What a question may cost: a chunk whose first sector has a value costs one, 4 us; one whose tags are all compared,
# with those of its slots that are not in memory, as many as the second figure.
BUDGET = 1024
COMPARED = 16


class Extents:
    def __init__(self, table: TagTable, learning: Learning, failure: Failure) -> None:
        self._table = table
        self._learning = learning
        self._failure = failure

    def of(self, first: int, count: int) -> list[Extent]:
        """Of the chunks from `first` on, which are whole: at most `count`, at least one; what is durable of them."""
        self._failure.check()
        extents: list[Extent] = []
        at, stop, left = first, first + count, BUDGET
        while at < stop and left > 0:
            end, tag = self._stretch(at, stop)
            if end == at:
                (tag, cost), end = self._look_at(at), at + 1
                left -= cost
            if extents and extents[-1].tag == tag:
                extents[-1] = Extent(extents[-1].chunks + end - at, tag)
            elif len(extents) == MAX_EXTENTS:
                break
            else:
                extents.append(Extent(end - at, tag))
            at = end
        return extents

    def _stretch(self, at: int, stop: int) -> tuple[int, bytes | None]:
        """Up to which chunk there is one thing to say, and what (Extent.tag); up to `at` if it is to be looked at."""
        table = self._table
        if table.lost:  # what has no slot may have been written
            return stop, None
        if (left := self._learning.chunks(at)) is not None and left[0] < stop:
            if left[0] == at:
                return min(left[1], stop), None
            stop = left[0]
        if (told := SlotTable.next_chunk(table, at)) is not None:
            stop = min(stop, told)
        run = next(table.runs.within(at, stop), None)
        if run is None:
            return stop, ZERO_TAG
        return (run.stop, run.tag) if run.start == at else (run.start, ZERO_TAG)

    def _look_at(self, chunk: int) -> tuple[bytes | None, int]:
        """What there is to say of a chunk of which slots tell, and what that has cost."""
        table, first = self._table, chunk * CHUNK_SECTORS
        if table.holds(first):
            return None, 1
        table.touch(first, CHUNK_SECTORS)
        if table.damaged and table.missing_of(first, CHUNK_SECTORS):
            return None, COMPARED
        tags = table.tags(first, CHUNK_SECTORS)
        is_one = is_uniform(tags) and not any(table.held(first, CHUNK_SECTORS))
        return tags[:TAG_SIZE] if is_one else None, COMPARED
