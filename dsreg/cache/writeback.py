"""The write-back cache under trio: writers in, runs out."""

from __future__ import annotations

import collections
import logging
from types import TracebackType
from typing import Self

import trio

from dsreg.block_device import Explaining, Immediate, SectorStore
from dsreg.cache.core import Flush, Limits, Run, WriteBuffer
from dsreg.cache.extents import Extent, cover, gaps, join, within
from dsreg.cache.limits import END_IN_ERROR_S, TICK_S, WRITES_PER_TURN
from dsreg.client.client import split
from dsreg.client.engine import Done
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.core.messages import Buffer
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

log = logging.getLogger(__name__)

# After these nothing that is buffered will ever get out; after any other error it may the next time.
FINAL = (AttachRefused, ClientClosed, DiskFenced, OutOfRange)


class WritebackCache:
    """A store of sectors whose writes return when they are buffered, in front of `store`.

        async with WritebackCache(client) as cache:
            await cache.write(7, bytes(4096))     # buffered
            await cache.flush()                   # durable

    For any number of tasks at once. Reads see what is buffered. Leaving the block flushes, and raises WritebackFailed
    if that could not be. A write that waits for room longer than `timeout_s` raises OperationTimeout. Errors of the
    store while writing back are logged; what failed stays buffered and is tried again, and a flush that needs it fails
    with WritebackFailed. After an error that is final (FINAL) everything does.
    """

    def __init__(self, store: SectorStore, timeout_s: float | None = None, bounds: Limits | None = None) -> None:
        self._store = store
        self._immediate = store if isinstance(store, Immediate) else None
        self._timeout_s = timeout_s
        self._bounds = bounds or Limits()
        self._buffer = WriteBuffer(self._bounds)
        self._idle = trio.lowlevel.ParkingLot()  # tasks that have nothing to write out
        self._waiting: collections.deque[tuple[int, trio.Event]] = collections.deque()  # writers without room
        self._flushes: dict[Flush, trio.Event] = {}
        self._under_way: set[trio.Event] = set()  # one for each run that is being written out, set at its end
        self._busy = trio.Event()  # something is dirty
        self._failing: DsregError | None = None  # the run that ended last has failed
        self._turn = 0

    @property
    def sectors(self) -> int:
        return self._store.sectors

    @property
    def buffered_bytes(self) -> int:
        """How much is in the buffer and not known to be durable."""
        return self._buffer.used

    @property
    def obstacle(self) -> str:
        """See Client."""
        return self._store.obstacle if isinstance(self._store, Explaining) else ""

    # --- the caller's side --------------------------------------------------------------------
    async def read(self, sector: int, count: int = 1) -> bytes:
        """As Client.read: buffered sectors as they are now, the others from the store."""
        if count < 1:
            raise ValueError("count must be at least 1")
        self._check(sector, count)
        self._raise_final()
        stop = sector + count
        buffered = self._buffer.buffered(sector, stop)
        if not buffered:
            return await self._store.read(sector, count)
        # A sector that was buffered has the value it had when the read began, whatever happens to it meanwhile; one
        # that was not has in the store what it had then, or something newer.
        missing = list(gaps(buffered, sector, stop))
        if missing:
            first, end = missing[0][0], missing[-1][1]
            data = await self._store.read(first, end - first)
            stored = [Extent(first, end, data, len(data))]
            for begin, until in missing:
                for extent in within(stored, begin, until):
                    cover(buffered, extent)
        else:
            await self._let_others_run()
        return join(buffered)

    async def write(self, sector: int, data: Buffer) -> None:
        """As Client.write, but returned: it is buffered, and durable after the next flush. Each sector changes
        atomically. `data` may be changed again; of a `bytes` no copy is made."""
        content = data if isinstance(data, bytes) else bytes(data)
        size = len(content)
        if size == 0 or size % SECTOR_SIZE:
            raise ValueError(f"the data must be a positive multiple of {SECTOR_SIZE} bytes")
        count = size // SECTOR_SIZE
        self._check(sector, count)
        outcome = Outcome.DID_NOT_HAPPEN
        for first, sectors in split(sector, count):
            if self._waiting or self._buffer.error is not None or not self._buffer.reserve(sectors * SECTOR_SIZE):
                await self._wait_for_room(sectors * SECTOR_SIZE, outcome)
            begin = (first - sector) * SECTOR_SIZE
            piece = content if sectors == count else memoryview(content)[begin : begin + sectors * SECTOR_SIZE]
            self._buffer.put(Extent.of(first, piece, size), trio.current_time())
            outcome = Outcome.MAY_HAVE_HAPPENED
            self._busy.set()
            self._start_runs()
        await self._let_others_run()

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool:
        """As Client.begin. A write of one run, for which there is room, is over at once; a read of what is not buffered
        is begun in the store. False for anything else: `read` and `write` have to be called."""
        self._check(sector, count)
        if self._buffer.error is not None or sector % MAX_RUN_SECTORS + count > MAX_RUN_SECTORS:
            return False
        if data is None:
            if self._immediate is None or self._buffer.buffered(sector, sector + count):
                return False
            return self._immediate.begin(sector, count, None, done)
        if self._waiting or not self._buffer.reserve(len(data)):
            return False
        self._buffer.put(Extent.of(sector, data, len(data)), trio.current_time())
        self._busy.set()
        self._start_runs()
        done(b"", None)
        return True

    def flush_turn(self) -> None:
        """Send what has been begun."""
        if self._immediate is not None:
            self._immediate.flush_turn()

    async def flush(self) -> None:
        """Return when everything whose write had returned is durable. Raises WritebackFailed as soon as some of it
        could not be written; it stays buffered, and the next flush tries again."""
        self._raise_final()
        flush = self._buffer.flush()
        if flush.is_over:
            await trio.lowlevel.checkpoint()
            return
        over = self._flushes[flush] = trio.Event()
        self._start_runs()
        try:
            await over.wait()
        finally:
            self._flushes.pop(flush, None)
        if flush.error is not None:
            raise self._failure(flush.error, Outcome.MAY_HAVE_HAPPENED)

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        nursery.start_soon(self._tick)
        for _ in range(self._bounds.runs):
            nursery.start_soon(self._write_out)
        self._nursery = nursery
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._last_flush()
            elif isinstance(error, Exception):
                with trio.move_on_after(END_IN_ERROR_S):
                    await self.flush()
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

    async def _last_flush(self) -> None:
        """Two, if need be: what fails the first one may have begun before it, when all was not yet well. So may other
        runs that are under way still, up to `runs` of them, and the second one has to wait for these."""
        if self.buffered_bytes:
            log.info("writing back the last %d bytes", self.buffered_bytes)
        try:
            await self.flush()
        except WritebackFailed:
            for over in list(self._under_way):
                await over.wait()
            await self.flush()

    # --- calls ----------------------------------------------------------------------------------
    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or sector + count > self.sectors:
            last = self.sectors - 1
            raise OutOfRange(f"sectors {sector}..{sector + count - 1} of 0..{last}", Outcome.DID_NOT_HAPPEN)

    def _raise_final(self, outcome: Outcome = Outcome.DID_NOT_HAPPEN) -> None:
        if self._buffer.error is not None:
            raise self._failure(self._buffer.error, outcome)

    def _failure(self, error: DsregError, outcome: Outcome) -> WritebackFailed:
        reason = getattr(error, "reason", str(error))
        failure = WritebackFailed(f"{self.buffered_bytes} buffered bytes are not written back: {reason}", outcome)
        failure.__cause__ = error
        failure.is_final = isinstance(error, FINAL)
        return failure

    async def _let_others_run(self) -> None:
        """What is answered from memory gives way now and then only: each time costs a turn of the event loop."""
        self._turn = (self._turn + 1) % WRITES_PER_TURN
        if not self._turn:
            await trio.lowlevel.checkpoint()

    async def _wait_for_room(self, size: int, outcome: Outcome) -> None:
        """Reserve it, first come, first served."""
        self._raise_final(outcome)
        entry = size, trio.Event()
        self._waiting.append(entry)
        self._start_runs()
        with trio.move_on_after(float("inf") if self._timeout_s is None else self._timeout_s):
            try:
                await entry[1].wait()
            except trio.Cancelled:
                self._stand_back(entry)
                raise
            self._raise_final(outcome)
            return
        late = f"no room in the write-back cache within {self._timeout_s} s"
        raise OperationTimeout(late, outcome) from self._failing

    def _stand_back(self, entry: tuple[int, trio.Event]) -> None:
        if not entry[1].is_set():
            self._waiting.remove(entry)
        elif self._buffer.error is None:
            self._buffer.release(entry[0])
        self._admit()

    def _admit(self) -> None:
        """Writers that wait come in as far as there is room; all of them, when there will never be any."""
        while self._waiting and (self._buffer.error is not None or self._buffer.reserve(self._waiting[0][0])):
            self._waiting.popleft()[1].set()

    # --- the store's side -------------------------------------------------------------------------
    def _start_runs(self) -> None:
        """Wake a task if there is something for it. It wakes the next one."""
        if self._idle and self._buffer.is_ready(trio.current_time()):
            self._idle.unpark()

    async def _write_out(self) -> None:
        while True:
            ready = self._buffer.next(trio.current_time())
            if ready is None:
                await self._idle.park()
                continue
            self._start_runs()
            run, data = ready
            over = trio.Event()
            self._under_way.add(over)
            try:
                await self._store.write(run.first, data)
            except DsregError as error:
                self._failed(run, error)
            else:
                self._landed(run)
            finally:
                self._under_way.discard(over)
                over.set()

    def _landed(self, run: Run) -> None:
        if self._failing is not None:
            self._failing = None
            log.warning("buffered data is written back again")
        self._end(self._buffer.landed(run, trio.current_time()))

    def _failed(self, run: Run, error: DsregError) -> None:
        over: list[Flush] = []
        if isinstance(error, FINAL):
            if self._buffer.error is None:
                log.error("%s; it cannot be tried again", self._failure(error, Outcome.MAY_HAVE_HAPPENED))
            over = self._buffer.give_up(error)
        else:
            if self._failing is None:
                where = f"sectors {run.first}..{run.stop - 1}"
                log.warning("writing back %s has failed, they stay buffered and are tried again: %s", where, error)
            self._failing = error
        self._end(over + self._buffer.failed(run, error, trio.current_time()))

    def _end(self, flushes: list[Flush]) -> None:
        for flush in flushes:
            if flush in self._flushes:
                self._flushes.pop(flush).set()
        self._admit()

    async def _tick(self) -> None:
        """For what comes of age, and for the end of a pause."""
        while True:
            await self._busy.wait()
            while not self._buffer.is_clean and self._buffer.error is None:
                await trio.sleep(TICK_S)
                self._start_runs()
            self._busy = trio.Event()
