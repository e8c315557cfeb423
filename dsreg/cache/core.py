"""WriteBuffer: which sectors are dirty, what is written back next, what a flush waits for. Pure.

Sectors are kept by chunks of 256, as runs lie in them. A chunk has *dirty* extents, the newest values, and at most one
*departure*: extents that were dirty together, and were cut into runs that go out, each with one write of the store
beneath. What is written meanwhile becomes dirty again and departs when all runs of the first departure have ended. So
no sector is ever in two writes at once, and the order of its values is never changed.

A run that fails comes back: its sectors are dirty again, under what was written since. An error that is *final* is
kept: from then on nothing goes out.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Iterable

from dsreg.cache import limits
from dsreg.cache.extents import Extent, cover, join, slide_under, within
from dsreg.chunks import chunks_of
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import DsregError


@dataclasses.dataclass(frozen=True)
class Limits:
    """See limits.py. All of them positive; `low_water` <= `buffered`, and room for one run in `buffered`."""

    buffered: int = limits.BUFFER_BYTES
    low_water: int = limits.LOW_WATER_BYTES
    age_s: float = limits.AGE_S
    runs: int = limits.MAX_RUNS
    run_bytes: int = limits.MAX_RUNS_BYTES


class Flush:
    """Somebody waits until what was dirty when he asked is durable. Over when `is_over`; then `error` says how."""

    __slots__ = ("error", "is_over", "pending")

    def __init__(self) -> None:
        self.pending = 0  # departures that it waits for, and chunks whose next departure it waits for
        self.is_over = False
        self.error: DsregError | None = None


@dataclasses.dataclass(slots=True, eq=False)
class Run:
    """Contiguous sectors of one chunk that are written together."""

    departure: Departure
    extents: list[Extent]
    first: int
    stop: int

    @property
    def size(self) -> int:
        """In bytes."""
        return (self.stop - self.first) * SECTOR_SIZE


@dataclasses.dataclass(slots=True, eq=False)
class Departure:
    """Runs of one chunk that left it together, and the flushes that wait for all of them."""

    chunk: Chunk
    since_s: float
    runs: dict[Run, None] = dataclasses.field(default_factory=dict)  # those that have not ended
    flushes: list[Flush] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, eq=False)
class Chunk:
    number: int
    dirty: list[Extent] = dataclasses.field(default_factory=list)
    dirty_sectors: int = 0
    since_s: float = 0.0  # when the oldest of the dirty extents came
    departure: Departure | None = None
    flushes: list[Flush] = dataclasses.field(default_factory=list)  # those that wait for the next departure


class WriteBuffer:
    """The caller writes out what `next` returns and says `landed` or `failed`. Times `now` in seconds, ascending."""

    def __init__(self, bounds: Limits) -> None:
        self.used = 0  # bytes in the buffer: dirty, departed, and those that are reserved for what comes
        self.error: DsregError | None = None  # the final one
        self._bounds = bounds
        self._chunks: dict[int, Chunk] = {}
        # (since_s, chunk number) of chunks that are dirty and may depart; entries that no longer fit are skipped.
        self._by_age: list[tuple[float, int]] = []
        self._is_crowded = False  # somebody was refused last
        self._dirty = 0  # bytes that have not departed
        self._departed: collections.deque[Run] = collections.deque()
        self._flying = 0
        self._flying_bytes = 0
        self._pause_s = 0.0  # the last one, 0 when the last run that ended was well
        self._paused_until_s = 0.0

    # --- in -------------------------------------------------------------------------------------
    def reserve(self, size: int) -> bool:
        """Take room for `size` more bytes, up to a run of them, if there is. An empty buffer has it in any case."""
        self._is_crowded = self.used > 0 and self.used + size > self._bounds.buffered
        if not self._is_crowded:
            self.used += size
        return not self._is_crowded

    def release(self, size: int) -> None:
        """They will not come."""
        self.used -= size

    def put(self, new: Extent, now: float) -> None:
        """Buffer `new`, which lies in one chunk, in the room that was reserved for it."""
        number = new.first // MAX_RUN_SECTORS
        assert (new.stop - 1) // MAX_RUN_SECTORS == number
        assert self.error is None
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = Chunk(number)
        if not chunk.dirty:
            chunk.since_s = now
            if chunk.departure is None:
                heapq.heappush(self._by_age, (now, number))
        covered = cover(chunk.dirty, new)
        self.used -= covered * SECTOR_SIZE
        self._add_dirty(chunk, new.stop - new.first - covered)
        if chunk.dirty_sectors == MAX_RUN_SECTORS and chunk.departure is None and now >= self._paused_until_s:
            self._depart(chunk)  # nothing can be added to it any more

    def buffered(self, first: int, stop: int) -> list[Extent]:
        """The newest values of the sectors [first, stop) as far as they are here: extents in order, cut to them."""
        found: list[Extent] = []
        if not self._chunks:
            return found
        for number in chunks_of(first, stop - first):
            chunk = self._chunks.get(number)
            if chunk is None:
                continue
            dirty = within(chunk.dirty, first, stop)
            if chunk.departure is None:
                found += dirty
                continue
            departed: list[Extent] = []
            for run in chunk.departure.runs:
                if run.first < stop and run.stop > first:
                    departed += within(run.extents, first, stop)
            for extent in dirty:
                cover(departed, extent)
            found += departed
        return found

    def chunks_in(self, chunks: range) -> list[int]:
        """Those of which something is buffered, or on its way to the store and not known to be there."""
        if len(chunks) < len(self._chunks):
            return [number for number in chunks if number in self._chunks]
        return [number for number in self._chunks if number in chunks]

    # --- out ------------------------------------------------------------------------------------
    def is_ready(self, now: float) -> bool:
        """Whether `next` would return a run."""
        if self.error is not None or self._flying >= self._bounds.runs:
            return False
        if not self._departed and self._is_due(now):
            self._depart(self._oldest())
        if not self._departed:
            return False
        return not self._flying or self._flying_bytes + self._departed[0].size <= self._bounds.run_bytes

    def next(self, now: float) -> tuple[Run, bytes] | None:
        """What is to be written now, and its content; None: nothing at this moment."""
        if not self.is_ready(now):
            return None
        run = self._departed.popleft()
        data = join(run.extents)
        # What it was joined from is not needed twice.
        run.extents = [Extent(run.first, run.stop, data, len(data))]
        self._flying += 1
        self._flying_bytes += run.size
        return run, data

    def landed(self, run: Run, now: float) -> list[Flush]:
        """The run is durable. The flushes that are over with it."""
        self._end_flight(run)
        self._pause_s = self._paused_until_s = 0.0
        self.used -= run.size
        return self._end_run(run, now)

    def failed(self, run: Run, error: DsregError, now: float) -> list[Flush]:
        """The run may or may not be durable; its sectors stay dirty. The flushes that are over with it."""
        self._end_flight(run)
        self._pause_s = min(max(2 * self._pause_s, limits.RETRY_FIRST_S), limits.RETRY_MAX_S)
        self._paused_until_s = now + self._pause_s
        chunk = run.departure.chunk
        chunk.since_s = run.departure.since_s
        for extent in run.extents:
            covered = slide_under(chunk.dirty, extent)
            self.used -= covered * SECTOR_SIZE
            self._add_dirty(chunk, extent.stop - extent.first - covered)
        over = _fail(run.departure.flushes, error)
        return over + self._end_run(run, now)

    # --- flush ----------------------------------------------------------------------------------
    @property
    def is_clean(self) -> bool:
        return not self._chunks

    def flush(self) -> Flush:
        """Let everything depart that is dirty. Over at once if there is nothing."""
        flush = Flush()
        assert self.error is None
        for chunk in list(self._chunks.values()):
            if chunk.departure is None:
                self._depart(chunk)
            elif chunk.dirty:
                chunk.flushes.append(flush)
                flush.pending += 1
            assert chunk.departure is not None
            chunk.departure.flushes.append(flush)
            flush.pending += 1
        flush.is_over = not flush.pending
        return flush

    def give_up(self, error: DsregError) -> list[Flush]:
        """`error` is final. All flushes are over with it."""
        self.error = self.error or error
        over = []
        for chunk in self._chunks.values():
            over += _fail(chunk.flushes, error)
            if chunk.departure is not None:
                over += _fail(chunk.departure.flushes, error)
        return over

    # --- departures -------------------------------------------------------------------------------
    def _is_due(self, now: float) -> bool:
        """Whether the oldest chunk that may depart should."""
        if now < self._paused_until_s or self._oldest_entry() is None:
            return False
        is_much = self._is_crowded or self._dirty > self._bounds.low_water
        return is_much or now >= self._by_age[0][0] + self._bounds.age_s

    def _oldest_entry(self) -> tuple[float, int] | None:
        while self._by_age:
            since_s, number = self._by_age[0]
            chunk = self._chunks.get(number)
            if chunk is not None and chunk.dirty and chunk.departure is None and chunk.since_s == since_s:
                return self._by_age[0]
            heapq.heappop(self._by_age)
        return None

    def _oldest(self) -> Chunk:
        return self._chunks[self._by_age[0][1]]

    def _add_dirty(self, chunk: Chunk, sectors: int) -> None:
        chunk.dirty_sectors += sectors
        self._dirty += sectors * SECTOR_SIZE

    def _depart(self, chunk: Chunk) -> None:
        """Cut what is dirty into runs, and let them wait for their turn."""
        assert chunk.departure is None and chunk.dirty
        departure = chunk.departure = Departure(chunk, chunk.since_s, flushes=chunk.flushes)
        run: Run | None = None
        for extent in chunk.dirty:
            if run is not None and extent.first == run.stop:
                run.extents.append(extent)
                run.stop = extent.stop
            else:
                run = Run(departure, [extent], extent.first, extent.stop)
                departure.runs[run] = None
        self._departed.extend(departure.runs)
        self._add_dirty(chunk, -chunk.dirty_sectors)
        chunk.dirty, chunk.flushes = [], []

    def _end_flight(self, run: Run) -> None:
        self._flying -= 1
        self._flying_bytes -= run.size

    def _end_run(self, run: Run, now: float) -> list[Flush]:
        departure = run.departure
        del departure.runs[run]
        if departure.runs:
            return []
        chunk = departure.chunk
        chunk.departure = None
        if not chunk.dirty:
            del self._chunks[chunk.number]
        elif self.error is None and any(not flush.is_over for flush in chunk.flushes):
            self._depart(chunk)
        elif chunk.dirty_sectors == MAX_RUN_SECTORS and now >= self._paused_until_s:
            self._depart(chunk)
        else:
            heapq.heappush(self._by_age, (chunk.since_s, chunk.number))
        over = []
        for flush in departure.flushes:
            flush.pending -= 1
            if not flush.pending and not flush.is_over:
                flush.is_over = True
                over.append(flush)
        return over


def _fail(flushes: Iterable[Flush], error: DsregError) -> list[Flush]:
    """End those that are not over."""
    over = []
    for flush in flushes:
        if not flush.is_over:
            flush.is_over, flush.error = True, error
            over.append(flush)
    return over
