"""The request seam: requests to a disk, who is told of their end, and what a store of sectors can do.

    edges  ->  BlockDevice.submit(request, done)             bytes, of any alignment
                   ->  SectorStore.submit(first, count, data, done)   one run of whole sectors
                       SectorStore.zero(first, count, done)           many whole chunks
                       SectorStore.map(first, count, done)            likewise, whether there is anything but zeros
                           WritebackCache, Client, MemoryStore

Everything that is submitted calls back, once, at once or later, in the thread of the event loop; nothing raises but for
arguments that are wrong on any disk. What was submitted in a turn of the event loop is sent by `end_turn`, if not
earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import ClientError, DsregError, Outcome, OutOfRange
from dsreg.protocol.messages import Buffer as Buffer

# Told, once, what a request has come to: what was read (b"" of anything else), or the error. It must not raise: that
# ends the store, and what was to be told next is not.
Done = Callable[[Buffer, DsregError | None], None]


# --- requests to a block device: offsets and lengths in bytes --------------------------------------------------------
class Read(NamedTuple):
    offset: int
    length: int


class Write(NamedTuple):
    """`data` must not change before the end. `fua`: durable when it has ended, whatever cache there is."""

    offset: int
    data: Buffer
    fua: bool = False


class Zero(NamedTuple):
    """The range reads as zeros afterwards."""

    offset: int
    length: int
    fua: bool = False


class Trim(NamedTuple):
    """Nobody needs what is in the range any more; it reads as zeros afterwards."""

    offset: int
    length: int


class Flush(NamedTuple):
    """Over when every write that was submitted before has ended and is durable."""


class Map(NamedTuple):
    """Where there is nothing but zeros, without reading: see SectorStore.map. What it comes to begins with the chunk of
    1 MiB that `offset` is in, and may end before the range does (dsreg.chunks.extents_of). Of a last piece of the disk
    that is no whole chunk nothing is known."""

    offset: int
    length: int


Request = Read | Write | Zero | Trim | Flush | Map


# --- a store of sectors ----------------------------------------------------------------------------------------------
class Submitted(Protocol):
    """A run that has been submitted."""

    def abandon(self) -> Outcome:
        """Nobody waits for it any more: `done` is not called. What is known of it at this moment.

        A write that may be under way is seen through in the background.
        """


class Settled:
    """A run that had ended when `submit` returned."""

    def abandon(self) -> Outcome:
        return Outcome.DID_NOT_HAPPEN


class SeenThrough:
    """A run that cannot be taken back, and of which `done` is told in any case."""

    def abandon(self) -> Outcome:
        return Outcome.MAY_HAVE_HAPPENED


SETTLED = Settled()
SEEN_THROUGH = SeenThrough()


class SectorStore(Protocol):
    """Runs of 1..256 sectors that lie in one chunk of 256 (`split`). Runs that overlap take effect in the order in
    which they were submitted."""

    @property
    def sectors(self) -> int: ...

    @property
    def is_cached(self) -> bool:
        """Whether a write that has ended is durable only after a flush."""

    @property
    def obstacle(self) -> str:
        """What runs wait for at this moment, for people; "" if that is not known."""

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        """Read the run, or write `data` to it. Each sector is read and written atomically, the run is not."""

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        """Write zeros to many whole chunks (dsreg.protocol.zeros.are_chunks), which takes nothing for their length. It
        is durable when it has ended, also where `is_cached`. No write to these sectors may be under way there."""

    def map(self, first: int, count: int, done: Done) -> Submitted:
        """Which whole chunks (dsreg.protocol.extents.can_be_mapped) are nothing but zeros: a byte for each, from the
        first one on, of all or only of some of them, at least one. 1: it is a hole: all its sectors read as zeros, each
        at some moment between the call and its end. 0: it has to be read. It waits for no run that is under way."""

    def flush(self, done: Done) -> None:
        """Over when everything that had been written before is durable."""

    def end_turn(self) -> None:
        """Send what has been submitted."""


def split(first: int, count: int) -> Iterator[tuple[int, int]]:
    """The runs (first, count) of a range of sectors, none across a multiple of 256."""
    stop = first + count
    while first < stop:
        sectors = min(stop - first, MAX_RUN_SECTORS - first % MAX_RUN_SECTORS)
        yield first, sectors
        first += sectors


class Runs:
    """A range of sectors of any length as the runs that it is made of, at most `limit` of them under way at a time.

    `done` is called when all have ended, or with the first failure, which ends the rest. `data`: what to write.
    """

    def __init__(self, store: SectorStore, first: int, count: int, data: bytes | None, done: Done, limit: int) -> None:
        self._store = store
        self._first = first
        self._data = data
        self._done = done
        self._outcome = Outcome.DID_NOT_HAPPEN  # of what has ended
        self._pending = enumerate(split(first, count))
        self._parts: dict[int, Buffer] = {}
        self._under_way: dict[int, Submitted | None] = {}
        self._is_over = False
        for _ in range(limit):
            self._next()

    def abandon(self) -> Outcome:
        """See Submitted."""
        self._is_over = True
        while self._under_way:  # giving up one may let another one begin, and end
            _, run = self._under_way.popitem()
            if run is not None and run.abandon() is Outcome.MAY_HAVE_HAPPENED:
                self._outcome = Outcome.MAY_HAVE_HAPPENED
        return self._outcome

    def _next(self) -> None:
        if self._is_over or (step := next(self._pending, None)) is None:
            return
        index, (start, sectors) = step
        begin = (start - self._first) * SECTOR_SIZE
        data = None if self._data is None else self._data[begin : begin + sectors * SECTOR_SIZE]
        self._under_way[index] = None

        def ended(content: Buffer, error: DsregError | None) -> None:
            self._ended(index, content, error)

        run = self._store.submit(start, sectors, data, ended)
        if index in self._under_way:
            self._under_way[index] = run
        else:
            run.abandon()  # unless it has ended, another one has failed meanwhile

    def _ended(self, index: int, content: Buffer, error: DsregError | None) -> None:
        self._under_way.pop(index, None)
        if self._data is not None and (error is None or outcome_of(error) is Outcome.MAY_HAVE_HAPPENED):
            self._outcome = Outcome.MAY_HAVE_HAPPENED
        if self._is_over:
            return  # nobody is to be told any more
        if error is not None:
            self._done(b"", _of_a_part(error, self.abandon()))
            return
        self._parts[index] = content
        self._next()
        if not self._under_way and not self._is_over:
            self._is_over = True
            parts = [self._parts[number] for number in sorted(self._parts)]
            self._done(b"" if self._data is not None else b"".join(parts), None)


def out_of_range(first: int, count: int, sectors: int) -> OutOfRange:
    """The error for a range that does not lie on a disk of so many sectors."""
    return OutOfRange(f"sectors {first}..{first + count - 1} of 0..{sectors - 1}", Outcome.DID_NOT_HAPPEN)


def outcome_of(error: DsregError) -> Outcome:
    return error.outcome if isinstance(error, ClientError) else Outcome.DID_NOT_HAPPEN


def _of_a_part(error: DsregError, outcome: Outcome) -> DsregError:
    """`error` of one run, for the whole."""
    if not isinstance(error, ClientError) or error.outcome is outcome:
        return error
    whole = type(error)(f"a part of the write failed: {error.reason}", outcome)
    whole.__cause__ = error
    return whole
