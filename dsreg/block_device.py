"""BlockDevice: reads and writes of any alignment, on a store of whole sectors. Every edge (FUSE, NBD, ...) uses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dsreg.client.range_lock import Held, RangeLock
from dsreg.constants import MAX_MAP_CHUNKS, MAX_RUN_BYTES, MAX_RUN_SECTORS, MAX_ZERO_CHUNKS, SECTOR_SIZE
from dsreg.errors import DsregError, Outcome, OutOfRange
from dsreg.protocol.zeros import zeros
from dsreg.store import Buffer, Done, Flush, Map, Read, Request, Runs, SectorStore, Write, Zero

# Runs of one request that are under way at once: an edge asks for up to 1 MiB, which lies in two chunks at most.
MAX_RUNS = 4
# Likewise of zeroing, which has no data: as many as a client has under way by their bytes (dsreg.client.limits).
MAX_ZERO_RUNS = 15
# And of those of many whole chunks: so that nodes have one while another one is on its way, and others come in between.
MAX_LONG_ZERO_RUNS = 4
_ZEROS = zeros(MAX_RUN_SECTORS)


class BlockDevice:
    """A disk of `size` bytes, which may grow.

    A write that does not begin and end at sector boundaries reads the sectors at its edges and writes them
    back whole. From the read to the end of the write its sectors are locked, against aligned writes too:
    within one BlockDevice no write is lost. Between two BlockDevices on one disk there is no such lock.
    """

    def __init__(self, store: SectorStore) -> None:
        self.store = store
        self.lock = RangeLock()
        self.writes = _Writes()

    @property
    def size(self) -> int:
        """In bytes."""
        return self.store.sectors * SECTOR_SIZE

    @property
    def is_cached(self) -> bool:
        """Whether a write that has ended is durable only after the next flush."""
        return self.store.is_cached

    @property
    def obstacle(self) -> str:
        """What requests wait for, if they do; "" if that is not known."""
        return self.store.obstacle

    def submit(self, request: Request, done: Done) -> None:
        """Carry out `request`; see dsreg.store. `done` is told what the store says, or OutOfRange past the end.

        A write or zeroing that has ended is durable at a majority; if `is_cached` and it has no `fua`, after a flush.
        """
        if isinstance(request, Read):
            self._read(request.offset, request.length, done)
        elif isinstance(request, Write):
            self._write(request.offset, request.data, request.fua, done)
        elif isinstance(request, Flush):
            self._flush(done)
        elif isinstance(request, Zero):
            self._zero(request.offset, request.length, request.fua, done)
        elif isinstance(request, Map):
            self._map(request.offset, request.length, done)
        else:
            self._zero(request.offset, request.length, False, done)

    def end_turn(self) -> None:
        """Send what has been submitted."""
        self.store.end_turn()

    def run(self, first: int, count: int, data: bytes | None, done: Done) -> None:
        """Read or write whole sectors."""
        if first % MAX_RUN_SECTORS + count <= MAX_RUN_SECTORS:
            self.store.submit(first, count, data, done)
        else:
            Runs(self.store, first, count, data, done, MAX_RUNS)

    # --- requests -------------------------------------------------------------------------------
    def _read(self, offset: int, length: int, done: Done) -> None:
        if self._is_nothing(offset, length, done):
            return
        if offset % SECTOR_SIZE == length % SECTOR_SIZE == 0:
            self.run(offset // SECTOR_SIZE, length // SECTOR_SIZE, None, done)
            return
        first, stop = _covering(offset, length)
        begin = offset - first * SECTOR_SIZE

        def cut(content: Buffer, error: DsregError | None) -> None:
            done(b"" if error is not None else content[begin : begin + length], error)

        self.run(first, stop - first, None, cut)

    def _write(self, offset: int, data: Buffer, fua: bool, done: Done) -> None:
        if not isinstance(data, bytes):
            data = bytes(data)
        if not self._is_nothing(offset, len(data), done):
            _WriteOperation(self, offset, data, done if not fua else partial(self.end, True, done))

    def end(self, fua: bool, done: Done, nothing: Buffer, error: DsregError | None) -> None:
        """A write, or all of a zeroing, has ended. `fua`: it is over when it is durable."""
        if error is None and fua and self.is_cached:
            self.store.flush(done)
        else:
            done(b"", error)

    def _flush(self, done: Done) -> None:
        """Without a cache the write that has ended is durable, and the one that has failed has told its caller."""
        if not self.is_cached:
            self.writes.when_ended(lambda: done(b"", None))
        else:
            self.writes.when_ended(lambda: self.store.flush(done))

    def _zero(self, offset: int, length: int, fua: bool, done: Done) -> None:
        if not self._is_nothing(offset, length, done):
            _ZeroOperation(self, offset, length, fua, done)

    def _map(self, offset: int, length: int, done: Done) -> None:
        if self._is_nothing(offset, length, done):
            return
        first, stop = offset // MAX_RUN_BYTES, -(-(offset + length) // MAX_RUN_BYTES)
        count = min(stop, self.size // MAX_RUN_BYTES, first + MAX_MAP_CHUNKS) - first
        if count:
            self.store.map(first * MAX_RUN_SECTORS, count * MAX_RUN_SECTORS, done)
        else:
            done(b"\0", None)  # the last piece of the disk

    def write_zeros(self, offset: int, length: int, done: Done) -> None:
        """Of one run, or of what the store zeroes as a whole."""
        if length <= MAX_RUN_BYTES:
            self._write(offset, _ZEROS[:length], False, done)
        else:
            _LongZero(self, offset // SECTOR_SIZE, length // SECTOR_SIZE, done)

    def _is_nothing(self, offset: int, length: int, done: Done) -> bool:
        """Whether the request is over already: empty, or beyond the end."""
        if length < 0:
            raise ValueError("a negative length")
        if offset < 0 or offset + length > self.size:
            reason = f"bytes {offset}..{offset + length - 1} of a disk of {self.size} bytes"
            done(b"", OutOfRange(reason, Outcome.DID_NOT_HAPPEN))
        elif length == 0:
            done(b"", None)
        else:
            return False
        return True


class _ZeroOperation:
    """Writes of zeros, some at a time. A loop, as each may end at once, and there may be thousands."""

    __slots__ = ("_device", "_done", "_error", "_fua", "_is_going", "_offset", "_stop", "_under_way")

    def __init__(self, device: BlockDevice, offset: int, length: int, fua: bool, done: Done) -> None:
        self._device = device
        self._offset = offset
        self._stop = offset + length
        self._fua = fua
        self._done = done
        self._error: DsregError | None = None  # the first one: nothing more is begun then
        self._under_way = 0
        self._is_going = False
        self._go_on()

    def _go_on(self) -> None:
        if self._is_going:
            return
        self._is_going = True
        while self._offset < self._stop:
            size, limit = self._piece()
            if self._under_way >= limit:
                break
            begin, self._offset = self._offset, self._offset + size
            self._under_way += 1
            self._device.write_zeros(begin, size, self._ended)
        self._is_going = False
        if not self._under_way:
            self._device.end(self._fua, self._done, b"", self._error)

    def _piece(self) -> tuple[int, int]:
        """Bytes of the next one, and how many may be under way with it: as many whole chunks as one command takes, or
        what is left of the chunk."""
        left, into = self._stop - self._offset, self._offset % MAX_RUN_BYTES
        if not into and left >= 2 * MAX_RUN_BYTES:
            return min(left // MAX_RUN_BYTES, MAX_ZERO_CHUNKS) * MAX_RUN_BYTES, MAX_LONG_ZERO_RUNS
        return min(left, MAX_RUN_BYTES - into), MAX_ZERO_RUNS

    def _ended(self, nothing: Buffer, error: DsregError | None) -> None:
        self._under_way -= 1
        if error is not None:
            self._error = self._error or error
            self._offset = self._stop
        self._go_on()


class _LongZero:
    """Zeros to many whole chunks, by one command of the store; a write like others to the lock and to a flush."""

    __slots__ = ("_count", "_device", "_done", "_first", "_held", "_number")

    def __init__(self, device: BlockDevice, first: int, count: int, done: Done) -> None:
        self._device = device
        self._first, self._count = first, count
        self._done = done
        self._number = device.writes.begin()
        self._held = device.lock.acquire(first, first + count, self._locked)
        if not self._held.waits:
            self._locked()

    def _locked(self) -> None:
        self._device.store.zero(self._first, self._count, self._ended)

    def _ended(self, nothing: Buffer, error: DsregError | None) -> None:
        self._device.lock.release(self._held)
        self._done(b"", error)
        self._device.writes.end(self._number)


class _WriteOperation:
    """One write: the lock on its sectors, then what stands around it in them, then the sectors."""

    __slots__ = ("_begin", "_count", "_data", "_device", "_done", "_first", "_held", "_number", "_sectors", "_unread")
    _held: Held

    def __init__(self, device: BlockDevice, offset: int, data: bytes, done: Done) -> None:
        self._device = device
        self._data = data
        self._done = done
        self._first, stop = _covering(offset, len(data))
        self._count = stop - self._first
        self._begin = offset - self._first * SECTOR_SIZE
        self._number = device.writes.begin()
        self._held = device.lock.acquire(self._first, stop, self._locked)
        if not self._held.waits:
            self._locked()

    def _locked(self) -> None:
        if len(self._data) == self._count * SECTOR_SIZE:
            self._device.run(self._first, self._count, self._data, self._ended)
            return
        self._sectors = bytearray(self._count * SECTOR_SIZE)
        last = self._count - 1
        is_whole_at_the_end = (self._begin + len(self._data)) % SECTOR_SIZE == 0
        edges = {0} if self._begin else set()
        if not is_whole_at_the_end:
            edges.add(last)
        self._unread = len(edges)
        for index in edges:
            self._device.run(self._first + index, 1, None, partial(self._read, index))

    def _read(self, index: int, content: Buffer, error: DsregError | None) -> None:
        """One of the edges."""
        if self._unread < 0:
            return  # the other one has failed
        if error is not None:
            self._unread = -1
            self._ended(b"", error)
            return
        self._sectors[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE] = content
        self._unread -= 1
        if not self._unread:
            self._sectors[self._begin : self._begin + len(self._data)] = self._data
            self._device.run(self._first, self._count, bytes(self._sectors), self._ended)

    def _ended(self, nothing: Buffer, error: DsregError | None) -> None:
        self._device.lock.release(self._held)
        self._done(b"", error)
        self._device.writes.end(self._number)


class _Writes:
    """Those under way; as many as the callers have."""

    def __init__(self) -> None:
        self._last = 0
        self._numbers: dict[int, None] = {}  # the oldest first
        self._waiting: list[tuple[int, Callable[[], None]]] = []  # by number: for the end of all up to it

    def __len__(self) -> int:
        return len(self._numbers)

    def begin(self) -> int:
        self._last += 1
        self._numbers[self._last] = None
        return self._last

    def end(self, number: int) -> None:
        del self._numbers[number]
        while self._waiting and self._waiting[0][0] < next(iter(self._numbers), self._last + 1):
            self._waiting.pop(0)[1]()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call it when all that have begun have ended."""
        if self._numbers:
            self._waiting.append((self._last, call))
        else:
            call()


def _covering(offset: int, length: int) -> tuple[int, int]:
    """The sectors [first, stop) that have the bytes in them."""
    return offset // SECTOR_SIZE, (offset + length - 1) // SECTOR_SIZE + 1
