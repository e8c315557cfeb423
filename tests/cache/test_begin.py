"""What the cache does without a task: writes into the buffer, reads of what is not in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.block_device import BlockDevice
from dsreg.cache import Limits, WritebackCache
from dsreg.client.engine import Done
from dsreg.constants import SECTOR_SIZE
from dsreg.core.messages import Buffer
from dsreg.errors import ClientError, DiskFenced, Outcome, OutOfRange, WritebackFailed
from tests.cache.store import Store
from tests.cache.test_writeback import durable, letters, text_of

BOUNDS = Limits(buffered=8 * SECTOR_SIZE, low_water=8 * SECTOR_SIZE, age_s=1000.0, runs=4)


class BegunStore(Store):
    """Reads are begun, and over when the turn is."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[int, int, Done]] = []

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool:
        assert data is None, "the cache writes in runs of its own"
        self.begun.append((sector, count, done))
        return True

    def flush_turn(self) -> None:
        begun, self.begun = self.begun, []
        for first, count, done in begun:
            done(letters(durable(self, first, count).replace(".", chr(0))), None)


class Told:
    def __init__(self) -> None:
        self.data: list[str] = []

    def done(self, data: Buffer, error: ClientError | None) -> None:
        assert error is None
        self.data.append(text_of(bytes(data)))


@pytest.fixture
def store() -> BegunStore:
    return BegunStore()


@pytest.fixture
async def cache(store: BegunStore) -> AsyncIterator[WritebackCache]:
    async with WritebackCache(store, bounds=BOUNDS) as cache:
        yield cache


async def test_a_write_that_is_begun_is_buffered_and_over(cache: WritebackCache, store: BegunStore) -> None:
    told = Told()
    assert cache.begin(3, 3, letters("abc"), told.done) and told.data == [""]
    assert not store.writes and cache.buffered_bytes == 3 * SECTOR_SIZE
    assert text_of(await cache.read(2, 5)) == ".abc."
    await cache.flush()
    assert durable(store, 3, 3) == "abc"


async def test_a_read_is_begun_in_the_store_unless_it_is_of_what_is_buffered(
    cache: WritebackCache, store: BegunStore
) -> None:
    told = Told()
    await cache.write(0, letters("xyz"))
    await cache.flush()
    assert cache.begin(1, 1, letters("b"), told.done)
    assert not cache.begin(0, 3, None, told.done), "a part of it is not in the store"
    assert cache.begin(2, 2, None, told.done) and told.data == [""]
    cache.flush_turn()
    assert told.data == ["", "z."]
    assert text_of(await cache.read(0, 3)) == "xbz"


async def test_a_write_without_room_is_not_begun_nor_one_behind_others_that_wait(
    cache: WritebackCache, store: BegunStore
) -> None:
    told = Told()
    store.gate = trio.Event()
    assert cache.begin(0, 8, letters("abcdefgh"), told.done)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.write, 20, letters("123456"))
        await trio.testing.wait_all_tasks_blocked()
        assert not cache.begin(40, 1, letters("x"), told.done)
        store.gate.set()
    assert cache.begin(40, 1, letters("x"), told.done)
    await cache.flush()
    assert durable(store, 0, 8) + durable(store, 20, 6) + durable(store, 40, 1) == "abcdefgh123456x"


@pytest.mark.allow_logs("cannot be tried again", "which are lost")
async def test_nothing_is_begun_that_is_out_of_range_in_two_runs_or_after_the_end(store: BegunStore) -> None:
    told = Told()
    with pytest.raises(WritebackFailed):
        async with WritebackCache(store, bounds=BOUNDS) as cache:
            with pytest.raises(OutOfRange):
                cache.begin(store.sectors, 1, letters("a"), told.done)
            assert not cache.begin(255, 2, letters("ab"), told.done)
            store.fails = lambda: DiskFenced("taken over", Outcome.MAY_HAVE_HAPPENED)
            assert cache.begin(0, 1, letters("a"), told.done)
            with pytest.raises(WritebackFailed):
                await cache.flush()
            assert not cache.begin(1, 1, letters("b"), told.done) and not cache.begin(2, 1, None, told.done)
    assert told.data == [""]


async def test_a_block_device_on_it_begins_and_is_never_flushed_by_itself(cache: WritebackCache) -> None:
    told = Told()
    device = BlockDevice(cache)
    assert device.begin_write(SECTOR_SIZE, letters("q"), told.done)
    assert device.is_cached and not device.is_flushed
    assert device.begin_read(8 * SECTOR_SIZE, SECTOR_SIZE, told.done)
    device.flush_turn()
    assert told.data == ["", "."]
    assert not device.begin_read(SECTOR_SIZE, SECTOR_SIZE, told.done)
    assert text_of(await device.read(SECTOR_SIZE, SECTOR_SIZE)) == "q"
