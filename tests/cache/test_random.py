"""Many tasks, failures, and an end at any moment: what is then durable must be explainable.

Every write puts a number of its own into each of its sectors. After a crash each sector has to hold what the last flush
has vouched for, or something written since, or both in turn: never anything older, and never anything made up.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict

import pytest
import trio
import trio.testing

from dsreg.cache import Limits
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.errors import ClientError, WritebackFailed
from tests.cache.store import Store, TaskCache, timeout

# Around the border of a chunk, so that most ranges overlap and some are cut.
FIRST, STOP = 236, 276


@dataclasses.dataclass
class Write:
    """`end`: None while it lasts, and if it failed: then it may have happened."""

    number: int
    start: float
    end: float | None = None


class Trial:
    """Histories by sector, in numbered steps: `now` is later for each event than for the one before."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = Store(512, self.rng)
        self.failing_until_s = 0.0
        self.store.fails = lambda: timeout() if trio.current_time() < self.failing_until_s else None
        self.writes: dict[int, list[Write]] = defaultdict(lambda: [Write(0, 0, 0)])
        self.flushed = 0  # the step at which the last flush that was well began
        self.flushes = self.failed_flushes = self.reads = 0
        self._step = 0
        self._number = 0

    def step(self) -> int:
        self._step += 1
        return self._step

    def explain(self, sector: int, number: int, since: float, until: float, what: str) -> None:
        """Whether a look at the sector between the steps `since` and `until` may find `number`."""
        by_number = {write.number: write for write in self.writes[sector]}
        assert number in by_number, f"{what}: sector {sector} has {number}, which nobody wrote there"
        found = by_number[number]
        assert found.start < until
        for later in self.writes[sector]:
            newer = found.end is not None and later.start > found.end
            assert not (newer and later.end is not None and later.end < since), (
                f"{what}: sector {sector} has {found}, but {later} was over by step {since}"
            )

    async def run(self, cache: TaskCache, bounds: Limits) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(self._writer, cache)
                nursery.start_soon(self._reader, cache)
            nursery.start_soon(self._flusher, cache)
            nursery.start_soon(self._breaker)
            while True:
                assert cache.buffered_bytes <= bounds.buffered
                await trio.sleep(0.01)

    async def _pause(self) -> None:
        if self.rng.random() < 0.5:
            await trio.sleep(self.rng.expovariate(1 / 0.02))
        else:
            await trio.lowlevel.checkpoint()

    def _range(self) -> tuple[int, int]:
        count = self.rng.choice([1, 1, 2, 3, 8])
        return self.rng.randrange(FIRST, STOP - count + 1), count

    async def _writer(self, cache: TaskCache) -> None:
        while True:
            first, count = self._range()
            self._number += 1
            write = Write(self._number, self.step())
            for sector in range(first, first + count):
                self.writes[sector].append(write)
            data = write.number.to_bytes(8, "big") * (count * SECTOR_SIZE // 8)
            await cache.write(first, data)
            write.end = self.step()
            await self._pause()

    async def _reader(self, cache: TaskCache) -> None:
        while True:
            first, count = self._range()
            since = self.step()
            data = await cache.read(first, count)
            self.reads += 1
            until = self.step()
            for index in range(count):
                content = data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]
                self.explain(first + index, number_of(content), since, until, "a read")
            await self._pause()

    async def _flusher(self, cache: TaskCache) -> None:
        while True:
            await trio.sleep(self.rng.expovariate(1 / 0.05))
            started = self.step()
            try:
                await cache.flush()
            except WritebackFailed:
                self.failed_flushes += 1
            else:
                self.flushes += 1
                self.flushed = max(started, self.flushed)

    async def _breaker(self) -> None:
        while True:
            await trio.sleep(self.rng.expovariate(1 / 0.3))
            self.failing_until_s = trio.current_time() + self.rng.expovariate(1 / 0.1)

    def check_what_is_durable(self, what: str) -> None:
        for sector in range(FIRST, STOP):
            content = self.store.content.get(sector, bytes(SECTOR_SIZE))
            self.explain(sector, number_of(content), self.flushed, self.step(), what)
        self._check_order()

    def _check_order(self) -> None:
        """In no sector has the store got an older value after a newer one."""
        last: dict[int, Write] = {}
        for sector, content in self.store.changes:
            [write] = [write for write in self.writes[sector] if write.number == number_of(content)]
            before = last.get(sector, write)
            assert write.end is None or before.start < write.end, f"sector {sector}: {write} after {before}"
            last[sector] = write


def number_of(content: bytes) -> int:
    assert content == content[:8] * (SECTOR_SIZE // 8), "a sector of two writes"
    return int.from_bytes(content[:8], "big")


def random_bounds(rng: random.Random) -> Limits:
    sectors = rng.choice([8, 12, 40])
    return Limits(
        buffered=sectors * SECTOR_SIZE, low_water=sectors * SECTOR_SIZE // rng.choice([1, 2, 8]),
        age_s=rng.choice([0.01, 0.1, 1.0]), runs=rng.choice([1, 3, 16]), run_bytes=rng.choice([1 << 14, MAX_RUN_BYTES]),
    )


@pytest.mark.allow_logs("writing back .* failed", "writing back works again", "which are lost")
async def test_after_a_crash_every_sector_is_explained(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    flushes = failed_flushes = lost = 0
    for number in range(40):
        trial = Trial(seed + number)
        bounds = random_bounds(trial.rng)
        cache = TaskCache(trial.store, bounds=bounds)
        with trio.move_on_after(trial.rng.uniform(0.05, 1.5)):
            async with cache:
                await trial.run(cache, bounds)
        lost += cache.buffered_bytes > 0
        trial.check_what_is_durable(f"trial {number}, {bounds}")
        flushes += trial.flushes
        failed_flushes += trial.failed_flushes
    assert flushes > 60 and failed_flushes > 6 and lost > 6, "the trials have tried nothing"


@pytest.mark.allow_logs("writing back .* failed", "writing back works again")
async def test_after_an_orderly_end_everything_is_durable(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    for number in range(20):
        trial = Trial(seed + number)
        bounds = random_bounds(trial.rng)
        try:
            async with TaskCache(trial.store, bounds=bounds) as cache:
                with trio.move_on_after(trial.rng.uniform(0.05, 1.0)):
                    await trial.run(cache, bounds)
                trial.failing_until_s = 0.0
                trial.flushed = trial.step()
        except ClientError as error:
            raise AssertionError(f"trial {number}: {error}") from error
        assert cache.buffered_bytes == 0
        trial.check_what_is_durable(f"trial {number}, {bounds}")
