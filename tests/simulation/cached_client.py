"""A simulated client with a write-back cache: dsreg.cache over the engine.

What the cache asks of the store is in the history like the calls of any client. Of the cache itself two things are
checked: a read sees what this client has written and the store has not acknowledged yet, and what was written before a
flush is at the store when the flush has ended well. A crash takes what is buffered with it.
"""

from __future__ import annotations

import math
import random
from functools import partial

from dsreg.cache import WritebackCache
from dsreg.cache.core import Limits
from dsreg.cache.limits import TICK_S
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError, Outcome, WritebackFailed
from dsreg.protocol.messages import Buffer
from dsreg.store import Done, Submitted, outcome_of
from tests.simulation.clients import ExtensionClient
from tests.simulation.history import Call, value_of
from tests.simulation.worker import World

BOUNDS = Limits(
    buffered=16 * SECTOR_SIZE, low_water=4 * SECTOR_SIZE, age_s=0.3, runs=2, run_bytes=8 * SECTOR_SIZE
)
# The share of operations behind which the client flushes.
FLUSHES = 0.2


class CachedClient(ExtensionClient):
    """Also the SectorStore of its own cache."""

    is_cached = False
    obstacle = ""

    def __init__(self, world: World, name: str, host: int) -> None:
        self.sectors = world.options.sectors
        self._flushing = random.Random(f"flushes {world.options.seed} {name}")
        super().__init__(world, name, host)

    def _revive(self) -> None:
        super()._revive()
        self.cache = WritebackCache(self, bounds=BOUNDS, clock=self._clock)
        self._written: dict[int, int] = {}  # the last value of each sector whose write has ended
        self._stored: dict[int, int] = {}  # the last one that the store has acknowledged
        self._buffered: dict[int, dict[int, int]] = {}  # by read: what it has to see
        self._at_store: dict[Call, None] = {}
        self._cache_ticks = False

    def _die(self) -> None:
        for call in self._at_store:
            self.world.history.lost(call)
        for number in list(self.calls):
            self._over(number)
        super()._die()

    # --- through the cache ------------------------------------------------------------------------
    def _record(self, first: int, count: int, is_write: bool) -> Call:
        return self.world.history.draft(self.name, first, count, is_write)

    def begin(self, number: int, call: Call) -> None:
        data = call.data if call.is_write else None
        if data is None:
            sectors = range(call.first, call.first + call.count)
            self._buffered[number] = {
                sector: self._written[sector] for sector in sectors
                if self._written.get(sector, 0) > self._stored.get(sector, 0)
            }
        self.cache.submit(call.first, call.count, data, partial(self._cache_done, self._life, number))
        if self._flushing.random() < FLUSHES:
            self.cache.flush(partial(self._flushed, self._life, dict(self._written)))
        if not self._cache_ticks:
            self._cache_ticks = True
            self.world.loop.after(TICK_S, self._cache_tick, self._life)
        self.cache.end_turn()
        self._next()

    def _cache_done(self, life: int, number: int, data: Buffer, error: DsregError | None) -> None:
        assert life == self._life and number in self.calls, "a run that was over ends"
        call = self._over(number)
        buffered = self._buffered.pop(number, {})
        if error is not None:
            assert not call.is_write, error
            self._expect(error)
        elif call.is_write:
            self._written.update(zip(range(call.first, call.first + call.count), call.values, strict=True))
        else:
            for sector, value in buffered.items():
                at = (sector - call.first) * SECTOR_SIZE
                found = value_of(memoryview(data)[at : at + SECTOR_SIZE])
                assert found == value, f"{call} sees {found} in sector {sector}, where {value} is buffered"

    def _flushed(self, life: int, written: dict[int, int], data: Buffer, error: DsregError | None) -> None:
        assert life == self._life
        if error is not None:
            assert isinstance(error, WritebackFailed) and not error.is_final, error
            return
        self.world.loop.fault("flushed", self.name)
        for sector, value in written.items():
            assert self._stored.get(sector, 0) >= value, f"{value} in sector {sector} was flushed and is not stored"

    def _cache_tick(self, life: int) -> None:
        if life == self._life:
            self._enter(self._cache_tick_now, life)

    def _cache_tick_now(self, life: int) -> None:
        self.cache.tick()
        self._cache_ticks = not self.cache.is_idle
        if self._cache_ticks:
            self.world.loop.after(TICK_S, self._cache_tick, life)

    # --- beneath the cache (dsreg.store.SectorStore) ----------------------------------------------
    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        values: tuple[int, ...] = ()
        if data is not None:
            values = tuple(value_of(data[at : at + SECTOR_SIZE]) for at in range(0, len(data), SECTOR_SIZE))
        call = self.world.history.begin(Call(self.name, first, count, data is not None, values, 0))
        self._at_store[call] = None
        return self.engine.submit(first, count, data, partial(self._store_done, call, done), math.inf, True)

    def _store_done(self, call: Call, done: Done, data: Buffer, error: DsregError | None) -> None:
        del self._at_store[call]
        if error is None:
            self.world.history.returned(call, data)
            if call.is_write:
                self._stored.update(zip(range(call.first, call.first + call.count), call.values, strict=True))
        else:
            self._expect(error)
            if outcome_of(error) is Outcome.DID_NOT_HAPPEN:
                self.world.history.not_done(call)
            else:
                self.world.history.lost(call)
        done(data, error)

    def flush(self, done: Done) -> None:
        """What has ended is durable."""
        done(b"", None)

    def end_turn(self) -> None:
        self.engine.end_turn()
