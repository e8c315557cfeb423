"""Bytes at any offset, on top of a store of sectors. Every edge (FUSE, NBD, ...) sits on this one."""

from __future__ import annotations

import errno
from typing import Final, Protocol, runtime_checkable

import trio

from dsreg.client.engine import Done
from dsreg.client.range_lock import RangeLock
from dsreg.constants import SECTOR_SIZE
from dsreg.core.messages import Buffer
from dsreg.errors import ClientError, DsregError, NodesFull, NoSpace, Outcome, OutOfRange

# What stands for an error at a system call, for every edge; EIO for all others. docs/fuse.md has it in words.
ERRNOS: Final[tuple[tuple[type[DsregError], int], ...]] = (
    (NodesFull, errno.ENOSPC),
    (NoSpace, errno.ENOSPC),
    (OutOfRange, errno.EINVAL),
)


def errno_of(error: DsregError) -> int:
    """The errno for `error`, or for what it came from: a cache fails with the error of the store beneath it."""
    cause: BaseException | None = error
    while isinstance(cause, DsregError):
        for kind, code in ERRNOS:
            if isinstance(cause, kind):
                return code
        cause = cause.__cause__
    return errno.EIO


class SectorStore(Protocol):
    """What a block device needs; dsreg.client.Client is one."""

    @property
    def sectors(self) -> int: ...

    async def read(self, sector: int, count: int = 1) -> bytes: ...

    async def write(self, sector: int, data: Buffer) -> None: ...


@runtime_checkable
class Immediate(Protocol):
    """A store that can begin without waiting, and calls back; dsreg.client.Client is one, and describes it."""

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool: ...

    def flush_turn(self) -> None: ...


@runtime_checkable
class Flushable(Protocol):
    """A store whose writes are durable only after a flush; dsreg.cache.WritebackCache is one."""

    async def flush(self) -> None: ...


@runtime_checkable
class Explaining(Protocol):
    """A store that knows what its operations wait for; dsreg.client.Client is one, and describes it."""

    @property
    def obstacle(self) -> str: ...


class BlockDevice:
    """A disk of `size` bytes.

    A write that does not begin and end at sector boundaries reads the sectors at its edges and writes them
    back whole. From the read to the end of the write its sectors are locked, against aligned writes too:
    within one BlockDevice no write is lost. Between two BlockDevices on one disk there is no such lock.

    Raises what the store raises, and OutOfRange past the end.
    """

    def __init__(self, store: SectorStore) -> None:
        self._store = store
        self._cache = store if isinstance(store, Flushable) else None
        self._immediate = store if isinstance(store, Immediate) else None
        self._lock = RangeLock()
        self._writes = _Writes()

    @property
    def size(self) -> int:
        """In bytes."""
        return self._store.sectors * SECTOR_SIZE

    @property
    def is_cached(self) -> bool:
        """Whether a write that has returned is durable only after the next flush."""
        return self._cache is not None

    @property
    def is_flushed(self) -> bool:
        """Whether a flush would have nothing to wait for."""
        return self._cache is None and not self._writes

    @property
    def obstacle(self) -> str:
        """What operations wait for, if they do; "" if that is not known."""
        return self._store.obstacle if isinstance(self._store, Explaining) else ""

    async def read(self, offset: int, length: int) -> bytes:
        """`length` >= 0 bytes from `offset` on."""
        self._check(offset, length)
        if length == 0:
            return b""
        first, stop = _covering(offset, length)
        data = await self._store.read(first, stop - first)
        if len(data) == length:
            return data
        begin = offset - first * SECTOR_SIZE
        return data[begin : begin + length]

    async def write(self, offset: int, data: Buffer) -> None:
        """Returned: the data is durable at a majority; if `is_cached`, it will be after a flush. The caller leaves
        `data` unchanged until it has returned."""
        view = memoryview(data).cast("B")
        self._check(offset, len(view))
        if not view:
            return
        first, stop = _covering(offset, len(view))
        number = self._writes.begin()
        try:
            held = await self._lock.acquire(first, stop)
            try:
                if len(view) == (stop - first) * SECTOR_SIZE:
                    await self._store.write(first, data)
                else:
                    await self._store.write(first, await self._filled_up(offset, view, first, stop))
            finally:
                self._lock.release(held)
        finally:
            self._writes.end(number)

    def begin_read(self, offset: int, length: int, done: Done) -> bool:
        """Read without waiting, as Client.begin does: whole sectors of one run, from a store that can do it. False, and
        nothing begun: `read` has to be called."""
        first, count = offset // SECTOR_SIZE, length // SECTOR_SIZE
        if self._immediate is None or (offset | length) % SECTOR_SIZE or not count:
            return False
        return self._immediate.begin(first, count, None, done)

    def begin_write(self, offset: int, data: bytes, done: Done) -> bool:
        """Write without waiting: see `begin_read`. Not to sectors of which a part is being written."""
        first, count = offset // SECTOR_SIZE, len(data) // SECTOR_SIZE
        if self._immediate is None or (offset | len(data)) % SECTOR_SIZE or not count:
            return False
        self._check(offset, len(data))  # before it counts as begun: it would never end
        # Without taking the lock: whoever takes it later and reads is behind this write in the order of the store.
        if not self._lock.is_free(first, first + count):
            return False
        number = self._writes.begin()

        def ended(nothing: Buffer, error: ClientError | None) -> None:
            self._writes.end(number)
            done(nothing, error)

        if self._immediate.begin(first, count, data, ended):
            return True
        self._writes.end(number)
        return False

    def flush_turn(self) -> None:
        """Send what has been begun."""
        if self._immediate is not None:
            self._immediate.flush_turn()

    async def flush(self) -> None:
        """Return when every write that had been called has ended, and is durable. Without a cache the one that
        has returned is, and the one that has failed has told its caller."""
        await self._writes.ended()
        if self._cache is not None:
            await self._cache.flush()

    async def _filled_up(self, offset: int, view: memoryview, first: int, stop: int) -> bytes:
        """`view`, with what stands around it in the sectors first..stop-1. These must be locked."""
        begin = offset - first * SECTOR_SIZE
        end = begin + len(view)
        size = (stop - first) * SECTOR_SIZE
        content = bytearray(size)
        if stop - first <= 2:
            content[:] = await self._store.read(first, stop - first)
        else:
            # One after the other: whoever cares for the time it takes writes whole sectors.
            if begin:
                content[:SECTOR_SIZE] = await self._store.read(first)
            if end < size:
                content[-SECTOR_SIZE:] = await self._store.read(stop - 1)
        content[begin:end] = view
        return bytes(content)

    def _check(self, offset: int, length: int) -> None:
        if length < 0:
            raise ValueError("a negative length")
        if offset < 0 or offset + length > self.size:
            raise OutOfRange(
                f"bytes {offset}..{offset + length - 1} of a disk of {self.size} bytes", Outcome.DID_NOT_HAPPEN
            )


class _Writes:
    """Those under way; as many as the callers have."""

    def __init__(self) -> None:
        self._last = 0
        self._numbers: dict[int, None] = {}  # the oldest first
        self._waiting: list[tuple[int, trio.Event]] = []  # by number: for the end of all up to it

    def __len__(self) -> int:
        return len(self._numbers)

    def begin(self) -> int:
        self._last += 1
        self._numbers[self._last] = None
        return self._last

    def end(self, number: int) -> None:
        del self._numbers[number]
        while self._waiting and self._waiting[0][0] < next(iter(self._numbers), self._last + 1):
            self._waiting.pop(0)[1].set()

    async def ended(self) -> None:
        """Wait for the end of all that have begun."""
        if self._numbers:
            event = trio.Event()
            self._waiting.append((self._last, event))
            await event.wait()


def _covering(offset: int, length: int) -> tuple[int, int]:
    """The sectors [first, stop) that have the bytes in them."""
    return offset // SECTOR_SIZE, (offset + length - 1) // SECTOR_SIZE + 1
