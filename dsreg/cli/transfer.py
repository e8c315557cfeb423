"""Streams from and to the disk, in bounded memory with several runs in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from dsreg.constants import MAX_MAP_CHUNKS, MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.zeros import zeros
from dsreg.store import Done, Submitted, split
from dsreg.waiting import Waiter

# Runs of 1 MiB under way at once: enough to keep every node and the pipe busy, little enough to forget.
RUNS_IN_FLIGHT = 8
# Where so many chunks in a row may be data the map is asked for again behind them: a node may have been slow.
ASKED_AGAIN = 64
# Holes of so many runs in a row are given away in one piece: each takes a call in a thread.
HOLE_RUNS = 64
_ZEROS = bytes(zeros(MAX_RUN_SECTORS))

Advance = Callable[[float], None]
Source = Callable[[int], Awaitable[bytes]]


class Sink(Protocol):
    async def __call__(self, data: bytes, times: int = 1) -> None:
        """Take `data`, `times` times in a row."""


class Disk(Protocol):
    """What is needed of a Client."""

    async def read(self, sector: int, count: int = 1) -> bytes: ...

    async def write(self, sector: int, data: bytes) -> None: ...

    def map(self, first: int, count: int, done: Done) -> Submitted: ...

    def end_turn(self) -> None: ...


class OddLength(Exception):
    """The input ended `odd` bytes into a sector. The `sectors` whole ones before it are written."""

    def __init__(self, sectors: int, odd: int) -> None:
        self.sectors = sectors
        self.odd = odd
        super().__init__(f"the input ends {odd} bytes into a sector; its length must be a multiple of {SECTOR_SIZE} "
                         f"({sectors} whole sectors are written)")


async def copy_out(disk: Disk, first: int, count: int, sink: Sink, advance: Advance) -> None:
    """Read `count` sectors from `first` on and give them to `sink` in order, a run at a time. Holes are not read, and
    given away by up to HOLE_RUNS runs."""
    holes = _Holes(disk, first + count)
    async with trio.open_nursery() as nursery:
        waiting: deque[_Run] = deque()
        for run_first, run_count in split(first, count):
            is_hole = await holes.has(run_first, run_count)
            if is_hole and waiting and waiting[-1].is_hole and waiting[-1].times < HOLE_RUNS:
                waiting[-1].times += 1
                continue
            if len(waiting) == RUNS_IN_FLIGHT:
                await _deliver(waiting.popleft(), sink, advance)
            run = _Run(is_hole)
            if not is_hole:
                nursery.start_soon(run.read, disk, run_first, run_count)
            waiting.append(run)
        while waiting:
            await _deliver(waiting.popleft(), sink, advance)


async def copy_in(disk: Disk, first: int, source: Source, advance: Advance, *, compare: bool = False) -> int:
    """Write all that `source` has from sector `first` on; returns the number of sectors.

    `source(n)` returns n bytes, or fewer at the end of the input. With `compare`, a run that the disk has already is
    read and not written. Raises OddLength.
    """
    slots = trio.Semaphore(RUNS_IN_FLIGHT)
    sector, odd = first, 0

    async def write_run(at: int, data: bytes) -> None:
        if not compare or await disk.read(at, len(data) // SECTOR_SIZE) != data:
            await disk.write(at, data)
        slots.release()
        advance(len(data))

    async with trio.open_nursery() as nursery:
        ended = False
        while not ended:
            await slots.acquire()
            wanted = MAX_RUN_BYTES - sector % MAX_RUN_SECTORS * SECTOR_SIZE
            data = await source(wanted)
            ended = len(data) < wanted
            odd = len(data) % SECTOR_SIZE
            if whole := data[: len(data) - odd]:
                nursery.start_soon(write_run, sector, whole)
                sector += len(whole) // SECTOR_SIZE
    if odd:
        raise OddLength(sector - first, odd)
    return sector - first


class _Holes:
    """The map of holes of a disk, up to sector `stop`, as far as it was asked for last."""

    def __init__(self, disk: Disk, stop: int) -> None:
        self._disk = disk
        self._stop = stop
        self._first = 0
        self._map = b""  # of the chunks from that of `first` on

    async def has(self, first: int, count: int) -> bool:
        """Whether this run is a hole; asked in ascending order."""
        if count < MAX_RUN_SECTORS:
            return False  # it is no whole chunk
        index = (first - self._first) // MAX_RUN_SECTORS
        if index >= len(self._map):
            chunks = min((self._stop - first) // MAX_RUN_SECTORS, MAX_MAP_CHUNKS)
            waiter = Waiter()
            asked = self._disk.map(first, chunks * MAX_RUN_SECTORS, waiter.done)
            self._disk.end_turn()
            self._map, self._first, index = bytes(await waiter.wait(asked.abandon)), first, 0
            if (data := self._map.find(bytes(ASKED_AGAIN))) >= 0:
                self._map = self._map[: data + ASKED_AGAIN]
        return self._map[index] != 0


class _Run:
    """A run that is being read, or holes of `times` runs."""

    def __init__(self, is_hole: bool) -> None:
        self.is_hole = is_hole
        self.data = b""
        self.times = 1
        self.done = trio.Event()
        if is_hole:
            self.data = _ZEROS
            self.done.set()

    async def read(self, disk: Disk, first: int, count: int) -> None:
        self.data = await disk.read(first, count)
        self.done.set()


async def _deliver(run: _Run, sink: Sink, advance: Advance) -> None:
    await run.done.wait()
    await sink(run.data, run.times)
    advance(run.times * len(run.data))
