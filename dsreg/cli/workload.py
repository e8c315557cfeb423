"""The load of `dsreg bench`: a fixed number of requests in flight, and what each of them took."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import trio

from dsreg.constants import SECTOR_SIZE

# Blocks of random bytes to write in turn: they do not compress, and making each anew would cost more CPU than
# the client itself.
_PAYLOADS = 16
# Latencies are counted in buckets 1 % wide: constant memory however long the run, at a precision beyond need.
_BUCKETS_PER_E = 100
_TICK_S = 0.25  # between two steps of the progress bar


class Disk(Protocol):
    """What is needed of a Client."""

    async def read(self, sector: int, count: int = 1) -> bytes: ...

    async def write(self, sector: int, data: bytes) -> None: ...


class Advance(Protocol):
    def __call__(self, amount: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Load:
    """`depth` requests of `block_sectors` in flight for `seconds`; `read_percent` of them reads, the others writes,
    at the blocks of the first `span_sectors` sectors, one after the other if `sequential`, or else at random."""

    depth: int
    block_sectors: int
    read_percent: int
    sequential: bool
    seconds: float
    span_sectors: int
    seed: int


@dataclass(slots=True)
class Latencies:
    """The latencies of one kind of request, in seconds."""

    count: int = 0
    max_s: float = 0.0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, latency_s: float) -> None:
        self.count += 1
        self.max_s = max(self.max_s, latency_s)
        self._buckets[math.floor(math.log(max(latency_s, 1e-9)) * _BUCKETS_PER_E)] += 1

    def percentile_s(self, percent: float) -> float:
        """The latency that `percent` of the requests (0..100) did not exceed, to 1 %; 0 when there were none."""
        rank = math.ceil(self.count * percent / 100)
        for bucket, count in sorted(self._buckets.items()):
            rank -= count
            if rank <= 0:
                return min(self.max_s, math.exp((bucket + 0.5) / _BUCKETS_PER_E))
        return self.max_s


@dataclass(slots=True)
class Measured:
    """What a run was like: seconds on the clock, latencies of reads and of writes."""

    elapsed_s: float = 0.0
    reads: Latencies = field(default_factory=Latencies)
    writes: Latencies = field(default_factory=Latencies)

    @property
    def operations(self) -> int:
        return self.reads.count + self.writes.count


async def run_load(disk: Disk, load: Load, advance: Advance) -> Measured:
    """Put `load` on `disk` and measure. `advance` is given the seconds that have passed, in small steps.

    Requests in flight at the end are waited for and counted. An error of any request ends the run and is raised.
    """
    blocks = load.span_sectors // load.block_sectors
    assert blocks >= 1 and load.depth >= 1 and 0 <= load.read_percent <= 100
    rng = random.Random(load.seed)
    payloads = [rng.randbytes(load.block_sectors * SECTOR_SIZE) for _ in range(_PAYLOADS)]
    measured = Measured()
    issued = 0
    start_s = trio.current_time()
    end_s = start_s + load.seconds

    async def worker() -> None:
        nonlocal issued
        while (sent_s := trio.current_time()) < end_s:
            number, issued = issued, issued + 1
            sector = (number % blocks if load.sequential else rng.randrange(blocks)) * load.block_sectors
            if rng.random() * 100 < load.read_percent:
                await disk.read(sector, load.block_sectors)
                measured.reads.add(trio.current_time() - sent_s)
            else:
                await disk.write(sector, payloads[number % _PAYLOADS])
                measured.writes.add(trio.current_time() - sent_s)

    async def show_time() -> None:
        while trio.current_time() < end_s:
            await trio.sleep(_TICK_S)
            advance(_TICK_S)

    async with trio.open_nursery() as ticking:
        ticking.start_soon(show_time)
        async with trio.open_nursery() as nursery:
            for _ in range(load.depth):
                nursery.start_soon(worker)
        measured.elapsed_s = trio.current_time() - start_s
        ticking.cancel_scope.cancel()
    return measured
