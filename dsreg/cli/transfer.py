"""Streams between the disk and a file descriptor, in bounded memory with several runs in flight."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE

# Runs of 1 MiB under way at once: enough to keep every node and the pipe busy, little enough to forget.
RUNS_IN_FLIGHT = 8

Advance = Callable[[float], None]
Sink = Callable[[bytes], Awaitable[None]]
Source = Callable[[int], Awaitable[bytes]]


class Disk(Protocol):
    """What is needed of a Client."""

    async def read(self, sector: int, count: int = 1) -> bytes: ...

    async def write(self, sector: int, data: bytes) -> None: ...


class OddLength(Exception):
    """The input ended `odd` bytes into a sector. The `sectors` whole ones before it are written."""

    def __init__(self, sectors: int, odd: int) -> None:
        self.sectors = sectors
        self.odd = odd
        super().__init__(f"the input ends {odd} bytes into a sector; its length must be a multiple of {SECTOR_SIZE} "
                         f"({sectors} whole sectors are written)")


def runs(first: int, count: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the runs that cover `count` sectors, cut where chunks of 256 sectors begin."""
    end = first + count
    while first < end:
        length = min(end, first - first % MAX_RUN_SECTORS + MAX_RUN_SECTORS) - first
        yield first, length
        first += length


async def copy_out(disk: Disk, first: int, count: int, sink: Sink, advance: Advance) -> None:
    """Read `count` sectors from `first` on and give them to `sink` in order, a run at a time."""
    async with trio.open_nursery() as nursery:
        waiting: deque[_Run] = deque()
        for run_first, run_count in runs(first, count):
            if len(waiting) == RUNS_IN_FLIGHT:
                await _deliver(waiting.popleft(), sink, advance)
            run = _Run()
            nursery.start_soon(run.read, disk, run_first, run_count)
            waiting.append(run)
        while waiting:
            await _deliver(waiting.popleft(), sink, advance)


async def copy_in(disk: Disk, first: int, source: Source, advance: Advance) -> int:
    """Write all that `source` has from sector `first` on; returns the number of sectors.

    `source(n)` returns n bytes, or fewer at the end of the input. Raises OddLength.
    """
    slots = trio.Semaphore(RUNS_IN_FLIGHT)
    sector, odd = first, 0

    async def write_run(at: int, data: bytes) -> None:
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


def descriptor_source(descriptor: int, name: str) -> Source:
    """Reads from a file descriptor that may block, a terminal or a pipe as well as a file. OSErrors have `name`."""

    def read_fully(size: int) -> bytes:
        parts, missing = [], size
        with _naming(name):
            while missing and (part := os.read(descriptor, missing)):
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)

    async def source(size: int) -> bytes:
        # Abandoned on Ctrl-C: nothing else ends a read from a pipe on which nothing comes.
        return await trio.to_thread.run_sync(read_fully, size, abandon_on_cancel=True)

    return source


def descriptor_sink(descriptor: int, name: str) -> Sink:
    """Writes to a file descriptor that may block. OSErrors have `name`."""

    def write_fully(data: bytes) -> None:
        rest = memoryview(data)
        with _naming(name):
            while rest:
                rest = rest[os.write(descriptor, rest):]

    async def sink(data: bytes) -> None:
        await trio.to_thread.run_sync(write_fully, data, abandon_on_cancel=True)

    return sink


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """The system names the file of an error only where it was opened by name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None


class _Run:
    """A run that is being read."""

    def __init__(self) -> None:
        self.data = b""
        self.done = trio.Event()

    async def read(self, disk: Disk, first: int, count: int) -> None:
        self.data = await disk.read(first, count)
        self.done.set()


async def _deliver(run: _Run, sink: Sink, advance: Advance) -> None:
    await run.done.wait()
    await sink(run.data)
    advance(len(run.data))
