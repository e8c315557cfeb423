"""The load of the benchmark does what was ordered and counts what it did."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from dsreg.cli.workload import Latencies, Load, run_load
from dsreg.constants import SECTOR_SIZE


class CountingDisk:
    """Every request takes `latency_s` of the test's clock."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.under_way = 0
        self.most_under_way = 0

    async def _take_time(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await trio.sleep(self.latency_s)
        self.under_way -= 1

    async def read(self, sector: int, count: int = 1) -> bytes:
        self.reads.append((sector, count))
        await self._take_time()
        return bytes(count * SECTOR_SIZE)

    async def write(self, sector: int, data: bytes) -> None:
        self.writes.append((sector, len(data) // SECTOR_SIZE))
        await self._take_time()


def load(**changes: object) -> Load:
    values = {"depth": 8, "block_sectors": 2, "read_percent": 50, "sequential": False, "seconds": 4.0,
              "span_sectors": 101, "seed": 1, **changes}
    return Load(**values)  # type: ignore[arg-type]


async def test_a_mixed_random_load(autojump_clock: trio.testing.MockClock) -> None:
    disk, seconds = CountingDisk(0.01), []
    measured = await run_load(disk, load(), seconds.append)
    assert disk.most_under_way == 8
    assert measured.elapsed_s == pytest.approx(4.0, abs=0.02)
    assert measured.operations == len(disk.reads) + len(disk.writes) == pytest.approx(3200, abs=16)
    assert measured.reads.count == len(disk.reads) == pytest.approx(1600, rel=0.1)
    assert {count for _, count in disk.reads + disk.writes} == {2}
    assert {sector for sector, _ in disk.reads} <= set(range(0, 100, 2)), "whole blocks inside the span"
    assert len({sector for sector, _ in disk.writes}) == 50
    assert sum(seconds) == pytest.approx(4.0, abs=0.3)
    assert measured.writes.percentile_s(50) == pytest.approx(0.01, rel=0.02)


async def test_the_seed_decides_the_requests(autojump_clock: trio.testing.MockClock) -> None:
    disks = [CountingDisk(0.01) for _ in range(3)]
    for disk, seed in zip(disks, (1, 1, 2), strict=True):
        await run_load(disk, load(seed=seed, depth=1), lambda amount: None)
    assert disks[0].reads == disks[1].reads and disks[0].reads != disks[2].reads


async def test_sequential_reads_alone(autojump_clock: trio.testing.MockClock) -> None:
    disk = CountingDisk(0.01)
    await run_load(disk, load(sequential=True, read_percent=100), lambda amount: None)
    assert not disk.writes
    assert [sector for sector, _ in disk.reads] == [number % 50 * 2 for number in range(len(disk.reads))]


def test_percentiles_to_one_percent(rng: random.Random) -> None:
    values = [rng.lognormvariate(-6, 1) for _ in range(5000)]
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    values.sort()
    for percent in (1, 50, 90, 99, 99.9, 100):
        exact = values[max(0, -int(-len(values) * percent // 100) - 1)]
        assert latencies.percentile_s(percent) == pytest.approx(exact, rel=0.011)
    assert latencies.max_s == values[-1]
    assert Latencies().percentile_s(99) == 0
