"""WritebackCache: buffers writes in memory and writes them back as runs. By callbacks; its one task is the timer."""

from __future__ import annotations

import collections
import logging
import math
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import trio

from dsreg.cache.core import Flush, Limits, Run, WriteBuffer
from dsreg.cache.counting import Counts
from dsreg.cache.extents import Extent, cover, gaps, join, within
from dsreg.cache.limits import END_IN_ERROR_S, TICK_S
from dsreg.chunks import chunks_of
from dsreg.errors import (
    AttachRefused,
    ClientClosed,
    DiskFenced,
    DsregError,
    OperationTimeout,
    Outcome,
    OutOfRange,
    WritebackFailed,
)
from dsreg.store import SEEN_THROUGH, SETTLED, Buffer, Done, SectorStore, Submitted, out_of_range
from dsreg.waiting import Waiter

log = logging.getLogger(__name__)

# After these nothing that is buffered will ever get out; after any other error it may the next time.
FINAL = (AttachRefused, ClientClosed, DiskFenced, OutOfRange)


class _Writer:
    """A write that waits for room."""

    __slots__ = ("cache", "data", "deadline_s", "done", "first")

    def __init__(self, cache: WritebackCache, first: int, data: bytes, done: Done, deadline_s: float) -> None:
        self.cache = cache
        self.first = first
        self.data = data
        self.done = done
        self.deadline_s = deadline_s

    def abandon(self) -> Outcome:
        """See dsreg.store.Submitted."""
        return self.cache.abandon(self)


class WritebackCache:
    """A store of sectors whose writes end when they are buffered, in front of `store`.

        async with WritebackCache(client) as cache:
            cache.submit(7, 1, bytes(4096), done)     # done has been called: buffered
            cache.flush(done)                         # will be called: durable

    Reads see what is buffered. Leaving the block flushes, and raises WritebackFailed if that could not be. A write that
    waits for room longer than `timeout_s` ends with OperationTimeout. Errors of the store while writing back are
    logged; what failed stays buffered and is tried again, and a flush that needs it fails with WritebackFailed. After
    an error that is final (FINAL) everything does.
    """

    is_cached = True

    def __init__(
        self, store: SectorStore, timeout_s: float | None = None, bounds: Limits | None = None,
        clock: Callable[[], float] = trio.current_time, counts: Counts | None = None,
    ) -> None:
        self.counts = Counts() if counts is None else counts
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._bounds = bounds or Limits()
        self._buffer = WriteBuffer(self._bounds)
        self._writers: collections.deque[_Writer] = collections.deque()  # without room
        self._flushes: dict[Flush, Done] = {}
        self._runs = 0  # that are being written out
        self._no_runs: list[Callable[[], None]] = []  # called once there are none
        self._is_starting = False
        self._failing: DsregError | None = None  # the run that ended last has failed

    @property
    def sectors(self) -> int:
        """See dsreg.store.SectorStore."""
        return self._store.sectors

    @property
    def buffered_bytes(self) -> int:
        """How much is in the buffer and not known to be durable."""
        return self._buffer.used

    @property
    def waiting(self) -> int:
        """Writes that wait for room."""
        return len(self._writers)

    @property
    def is_failing(self) -> bool:
        """Whether the last run could not be written back, or nothing ever can."""
        return self._failing is not None or self._buffer.error is not None

    @property
    def obstacle(self) -> str:
        """See dsreg.store.SectorStore."""
        return self._store.obstacle

    @property
    def is_idle(self) -> bool:
        """Nothing is buffered, and nobody waits."""
        return self._buffer.is_clean and not self._writers and not self._flushes and not self._runs

    # --- the caller's side --------------------------------------------------------------------
    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        """A write is over when it is buffered, which is at once if there is room. A read is of what is buffered, and of
        what the store has."""
        if first < 0 or first + count > self.sectors:
            done(b"", out_of_range(first, count, self.sectors))
        elif self._buffer.error is not None:
            done(b"", self._failure(self._buffer.error, Outcome.DID_NOT_HAPPEN))
        elif data is None:
            return self._read(first, count, done)
        elif self._writers or not self._buffer.reserve(len(data)):
            deadline_s = math.inf if self._timeout_s is None else self._clock() + self._timeout_s
            self._writers.append(writer := _Writer(self, first, data, done, deadline_s))
            self._start_runs()
            return writer
        else:
            self._put(first, data, done)
            self._start_runs()
        return SETTLED

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        """Not buffered: the store beneath does it, once all is written back that was written before."""
        if first < 0 or first + count > self.sectors:
            done(b"", out_of_range(first, count, self.sectors))
            return SETTLED

        def flushed(nothing: Buffer, error: DsregError | None) -> None:
            if error is not None:
                done(b"", error)
            else:
                self._store.zero(first, count, done)

        self.flush(flushed)
        return SEEN_THROUGH

    def map(self, first: int, count: int, done: Done) -> Submitted:
        """As the store says; but of what is buffered at this moment that it is data."""
        if first < 0 or first + count > self.sectors:
            done(b"", out_of_range(first, count, self.sectors))
            return SETTLED
        if self._buffer.error is not None:
            done(b"", self._failure(self._buffer.error, Outcome.DID_NOT_HAPPEN))
            return SETTLED
        chunks = chunks_of(first, count)
        buffered = [chunk - chunks.start for chunk in self._buffer.chunks_in(chunks)]

        def told(holes: Buffer, error: DsregError | None) -> None:
            marked = bytearray(holes)
            for index in buffered:
                if index < len(marked):
                    marked[index] = 0
            done(bytes(marked), error)

        return self._store.map(first, count, told)

    def flush(self, done: Done) -> None:
        """Over when everything whose write has ended is durable; with WritebackFailed as soon as some of it could not
        be written. That stays buffered, and the next flush tries again."""
        if self._buffer.error is not None:
            self._flush_ended(done, self._failure(self._buffer.error, Outcome.DID_NOT_HAPPEN))
            return
        flush = self._buffer.flush()
        if flush.is_over:
            self._flush_ended(done, None)
        else:
            self._flushes[flush] = done
            self._start_runs()

    def _flush_ended(self, done: Done, failure: WritebackFailed | None) -> None:
        self.counts.flushes += 1
        self.counts.failed_flushes += failure is not None
        done(b"", failure)

    def end_turn(self) -> None:
        """Send what has been submitted."""
        self._store.end_turn()

    def tick(self) -> None:
        """What has come of age goes out; who has waited too long is told. To be called every TICK_S."""
        now_s = self._clock()
        while self._writers and self._writers[0].deadline_s <= now_s:
            reason = f"no room in the write-back cache within {self._timeout_s} s"
            late = OperationTimeout(reason, Outcome.DID_NOT_HAPPEN)
            late.__cause__ = self._failing
            self._writers.popleft().done(b"", late)
        self._admit()
        self._start_runs()
        self._store.end_turn()

    def abandon(self, writer: _Writer) -> Outcome:
        """See dsreg.store.Submitted."""
        if writer not in self._writers:
            return Outcome.MAY_HAVE_HAPPENED
        self._writers.remove(writer)
        self._admit()
        return Outcome.DID_NOT_HAPPEN

    # --- start and end --------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._last_flush()
            elif isinstance(error, Exception):
                with trio.move_on_after(END_IN_ERROR_S):
                    await self._flushed()
        except WritebackFailed as failure:
            if error is None:
                raise
            log.error("%s", failure)
        finally:
            if not self._buffer.is_clean:
                log.error("the write-back cache is closed with %d bytes in it, which are lost", self.buffered_bytes)
            self._nursery.cancel_scope.cancel()
            # The body's error is not shown to the nursery, which would wrap it in an ExceptionGroup.
            await self._manager.__aexit__(None, None, None)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            if not self._buffer.is_clean or self._writers:
                self.tick()

    async def _flushed(self) -> None:
        waiter = Waiter()
        self.flush(waiter.done)
        self.end_turn()
        await waiter.wait()

    async def _last_flush(self) -> None:
        """Two, if need be: what fails the first one may have begun before it, when all was not yet well. So may other
        runs that are under way still, up to `runs` of them, and the second one has to wait for these."""
        if self.buffered_bytes:
            log.info("writing back the last %d bytes", self.buffered_bytes)
        try:
            await self._flushed()
        except WritebackFailed:
            if self._runs:
                waiter = Waiter()
                self._no_runs.append(partial(waiter.done, b"", None))
                await waiter.wait()
            await self._flushed()

    # --- reads and writes -------------------------------------------------------------------------
    def _read(self, first: int, count: int, done: Done) -> Submitted:
        """Buffered sectors as they are now, the others from the store."""
        stop = first + count
        buffered = self._buffer.buffered(first, stop)
        if not buffered:
            self.counts.misses += 1
            return self._store.submit(first, count, None, done)
        # A sector that was buffered has the value it had when the read began, whatever happens to it meanwhile; one
        # that was not has in the store what it had then, or something newer.
        missing = list(gaps(buffered, first, stop))
        if not missing:
            self.counts.hits += 1
            done(join(buffered), None)
            return SETTLED
        self.counts.partial_hits += 1
        begin, end = missing[0][0], missing[-1][1]

        def fill(content: Buffer, error: DsregError | None) -> None:
            if error is not None:
                done(b"", error)
                return
            data = content if isinstance(content, bytes) else bytes(content)
            stored = [Extent(begin, end, data, len(data))]
            for start, until in missing:
                for extent in within(stored, start, until):
                    cover(buffered, extent)
            done(join(buffered), None)

        return self._store.submit(begin, end - begin, None, fill)

    def _put(self, first: int, data: bytes, done: Done) -> None:
        """There is room for it."""
        self._buffer.put(Extent.of(first, data, len(data)), self._clock())
        done(b"", None)

    def _admit(self) -> None:
        """Writers that wait come in as far as there is room; all of them, when there will never be any."""
        while self._writers:
            writer = self._writers[0]
            if self._buffer.error is not None:
                self._writers.popleft()
                writer.done(b"", self._failure(self._buffer.error, Outcome.DID_NOT_HAPPEN))
            elif self._buffer.reserve(len(writer.data)):
                self._writers.popleft()
                self._put(writer.first, writer.data, writer.done)
            else:
                return

    def _failure(self, error: DsregError, outcome: Outcome) -> WritebackFailed:
        reason = getattr(error, "reason", str(error))
        failure = WritebackFailed(f"{self.buffered_bytes} buffered bytes are not written back: {reason}", outcome)
        failure.__cause__ = error
        failure.is_final = isinstance(error, FINAL)
        return failure

    # --- the store's side -------------------------------------------------------------------------
    def _start_runs(self) -> None:
        """A loop: a run may end at once, and free the next."""
        if self._is_starting:
            return
        self._is_starting = True
        while (ready := self._buffer.next(self._clock())) is not None:
            run, data = ready
            self._runs += 1
            self._store.submit(run.first, run.stop - run.first, data, partial(self._run_ended, run))
        self._is_starting = False

    def _run_ended(self, run: Run, nothing: Buffer, error: DsregError | None) -> None:
        self._runs -= 1
        over = self._landed(run) if error is None else self._failed(run, error)
        for flush in over:
            if (done := self._flushes.pop(flush, None)) is not None:
                failed = flush.error
                self._flush_ended(done, None if failed is None else self._failure(failed, Outcome.MAY_HAVE_HAPPENED))
        self._admit()
        self._start_runs()
        if not self._runs:
            waiting, self._no_runs = self._no_runs, []
            for call in waiting:
                call()

    def _landed(self, run: Run) -> list[Flush]:
        self.counts.written_bytes += run.size
        if self._failing is not None:
            self._failing = None
            log.warning("writing back works again")
        return self._buffer.landed(run, self._clock())

    def _failed(self, run: Run, error: DsregError) -> list[Flush]:
        over: list[Flush] = []
        self.counts.failed_runs += 1
        if isinstance(error, FINAL):
            if self._buffer.error is None:
                log.error("%s; it cannot be tried again", self._failure(error, Outcome.MAY_HAVE_HAPPENED))
            over = self._buffer.give_up(error)
        else:
            if self._failing is None:
                where = f"sectors {run.first}..{run.stop - 1}"
                log.warning("writing back %s failed; the data stays in the cache and is tried again: %s", where, error,
                            extra={"sector": run.first, "sectors": run.stop - run.first, "error": type(error).__name__})
            self._failing = error
        return over + self._buffer.failed(run, error, self._clock())
