"""A store that takes its time and fails on demand, and remembers in which order it was written."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from dsreg.cache import Limits, WritebackCache
from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
from dsreg.errors import DsregError, OperationTimeout, Outcome
from dsreg.protocol.messages import Buffer
from tests.stores import OfTasks, Tasks


class TaskCache(Tasks):
    """A WritebackCache in front of a Store, for tasks."""

    def __init__(
        self, store: Store, timeout_s: float | None = None, bounds: Limits | None = None
    ) -> None:
        self.runs = OfTasks(store)
        self.cache = WritebackCache(self.runs, timeout_s, bounds)
        super().__init__(self.cache)

    @property
    def buffered_bytes(self) -> int:
        return self.cache.buffered_bytes

    async def __aenter__(self) -> Self:
        await self.cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.cache.__aexit__(kind, error, trace)
        finally:
            await self.runs.crash()


def timeout() -> OperationTimeout:
    return OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED)


class Store:
    """Sectors in a dict. `fails` says what a write or read raises, None for nothing; writes wait for `gate`.

    With `rng` everything takes a random time, in which sectors change one after the other, and a write that fails or is
    cancelled has changed some of them.
    """

    def __init__(self, sectors: int = 4096, rng: random.Random | None = None) -> None:
        self.sectors = sectors
        self.content: dict[int, bytes] = {}
        self.writes: list[tuple[int, int]] = []  # first sector, number of sectors
        self.changes: list[tuple[int, bytes]] = []  # every change of a sector, in order
        self.fails: Callable[[], DsregError | None] = lambda: None
        self.gate = trio.Event()
        self.gate.set()
        self.reading = trio.Event()  # one that is not set holds reads up after they have looked
        self.reading.set()
        self._rng = rng
        self._under_way: set[int] = set()

    async def read(self, sector: int, count: int = 1) -> bytes:
        await self._take_time()
        data = b"".join(self.content.get(index, ZERO_SECTOR) for index in range(sector, sector + count))
        await self.reading.wait()
        return data

    async def write(self, sector: int, data: Buffer) -> None:
        assert isinstance(data, bytes), "the client would copy anything else"
        count = len(data) // SECTOR_SIZE
        sectors = range(sector, sector + count)
        assert not self._under_way.intersection(sectors), "a sector is under way twice"
        assert sector // 256 == (sector + count - 1) // 256, "a run across chunks"
        self.writes.append((sector, count))
        self._under_way.update(sectors)
        try:
            await self.gate.wait()
            error = self.fails()
            for index in self._some(sectors) if error else self._shuffled(sectors):
                await self._take_time()
                content = data[(index - sector) * SECTOR_SIZE :][:SECTOR_SIZE]
                self.content[index] = content
                self.changes.append((index, content))
            await self._take_time()
            if error is not None:
                raise error
        finally:
            self._under_way.difference_update(sectors)

    async def _take_time(self) -> None:
        if self._rng is not None and self._rng.random() < 0.3:
            await trio.sleep(self._rng.expovariate(1 / 0.003))
        else:
            await trio.lowlevel.checkpoint()

    def _shuffled(self, sectors: range) -> list[int]:
        order = list(sectors)
        if self._rng is not None:
            self._rng.shuffle(order)
        return order

    def _some(self, sectors: range) -> list[int]:
        return [] if self._rng is None else self._shuffled(sectors)[: self._rng.randrange(len(sectors) + 1)]
