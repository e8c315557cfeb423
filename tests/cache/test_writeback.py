"""The cache under trio, step by step. `Clock`: the time of that test jumps when all tasks wait."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from dsreg.block_device import BlockDevice
from dsreg.cache import Limits
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientClosed, ClientError, DiskFenced, OperationTimeout, Outcome, OutOfRange, WritebackFailed
from dsreg.protocol.messages import Buffer
from tests.cache.store import Store, TaskCache, timeout
from tests.stores import Bytes, OfTasks

Clock = trio.testing.MockClock
SMALL = Limits(buffered=8 * SECTOR_SIZE, low_water=8 * SECTOR_SIZE, age_s=1000.0, runs=4)
FAILED = "writing back sectors .* failed"
AGAIN = "writing back works again"


def letters(text: str) -> bytes:
    return b"".join(letter.encode() * SECTOR_SIZE for letter in text)


def text_of(data: bytes) -> str:
    return "".join(chr(data[at] or ord(".")) for at in range(0, len(data), SECTOR_SIZE))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def cache(store: Store) -> AsyncIterator[TaskCache]:
    """With a store beneath that works again at the end."""
    async with TaskCache(store) as cache:
        yield cache
        store.fails = lambda: None
        store.gate.set()


def durable(store: Store, first: int, count: int) -> str:
    return text_of(b"".join(store.content.get(sector, bytes(SECTOR_SIZE)) for sector in range(first, first + count)))


async def test_a_write_returns_when_it_is_buffered(cache: TaskCache, store: Store) -> None:
    store.gate = trio.Event()
    await cache.write(3, letters("abc"))
    assert text_of(await cache.read(3, 3)) == "abc" and not store.writes
    store.gate.set()
    await cache.flush()
    assert durable(store, 3, 3) == "abc" and cache.buffered_bytes == 0
    assert text_of(await cache.read(2, 5)) == ".abc."


async def test_what_is_dirty_goes_out_after_a_second(
    autojump_clock: Clock, cache: TaskCache, store: Store
) -> None:
    await cache.write(3, letters("abc"))
    await trio.sleep(0.9)
    assert not store.writes
    await trio.sleep(0.3)
    assert durable(store, 3, 3) == "abc"


async def test_a_full_run_goes_out_without_a_copy(cache: TaskCache, store: Store) -> None:
    data = bytes(256 * SECTOR_SIZE)
    await cache.write(256, data)
    await trio.testing.wait_all_tasks_blocked()
    assert store.writes == [(256, 256)]
    large = random.Random(0).randbytes(1000 * SECTOR_SIZE)
    await cache.write(100, large)
    assert await cache.read(100, 1000) == large
    await cache.flush()
    assert await store.read(100, 1000) == large


async def test_the_caller_may_use_its_buffer_again(cache: TaskCache, store: Store) -> None:
    data = bytearray(letters("ab"))
    await cache.write(0, data)
    data[:] = letters("xx")
    await cache.write(2, memoryview(data))
    data[:] = letters("yy")
    assert text_of(await cache.read(0, 4)) == "abxx"


async def test_what_cannot_be_written_is_refused(cache: TaskCache) -> None:
    for sector, count in ((-1, 1), (4096, 1), (4095, 2)):
        with pytest.raises(OutOfRange):
            await cache.write(sector, letters("a") * count)
        with pytest.raises(OutOfRange):
            await cache.read(sector, count)


# --- reads --------------------------------------------------------------------------------------------
async def test_a_read_joins_what_is_buffered_with_what_is_not(cache: TaskCache, store: Store) -> None:
    await cache.write(250, letters("abcdefghijkl"))
    await cache.flush()
    await cache.write(252, letters("X"))
    await cache.write(255, letters("YZ"))
    assert text_of(await cache.read(249, 14)) == ".abXdeYZhijkl."
    assert text_of(await cache.read(252, 1)) == "X"
    assert text_of(await cache.read(253, 4)) == "deYZ"
    assert text_of(await cache.read(255, 2)) == "YZ"


async def test_a_read_takes_no_older_value_when_the_newer_one_lands_meanwhile(
    cache: TaskCache, store: Store
) -> None:
    """It has looked at the store before, and the buffer is empty after."""
    await cache.write(0, letters("aa"))
    await cache.flush()
    await cache.write(0, letters("b"))
    store.reading = trio.Event()
    found: list[str] = []

    async def read() -> None:
        found.append(text_of(await cache.read(0, 2)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await cache.flush()
        assert cache.buffered_bytes == 0
        store.reading.set()
    assert found == ["ba"]


# --- room ---------------------------------------------------------------------------------------------
async def test_writers_wait_for_room_in_the_order_in_which_they_came(store: Store) -> None:
    order: list[int] = []

    async def write(number: int, count: int) -> None:
        await cache.write(16 * number, letters("x" * count))
        order.append(number)

    async with TaskCache(store, bounds=SMALL) as cache:
        store.gate = trio.Event()
        await cache.write(0, letters("a" * 8))
        async with trio.open_nursery() as nursery:
            for number, count in ((1, 4), (2, 8), (3, 8), (4, 7)):
                nursery.start_soon(write, number, count)
                await trio.testing.wait_all_tasks_blocked()
            assert not order and cache.buffered_bytes == 8 * SECTOR_SIZE
            store.gate.set()
    assert order == [1, 2, 3, 4]


async def test_a_small_write_does_not_overtake_a_large_one_that_waits(store: Store) -> None:
    """There is room for it, and it came later: its value is the one that stays."""
    async with TaskCache(store, bounds=SMALL) as cache:
        store.gate = trio.Event()
        await cache.write(0, letters("a" * 6))
        async with trio.open_nursery() as nursery:
            for text in ("cccc", "d"):
                nursery.start_soon(cache.write, 100, letters(text))
                await trio.testing.wait_all_tasks_blocked()
            assert text_of(await cache.read(100, 1)) == "."
            store.gate.set()
        assert text_of(await cache.read(100, 4)) == "dccc"


async def test_a_writer_that_gives_up_holds_nobody_back(autojump_clock: Clock, store: Store) -> None:
    async with TaskCache(store, bounds=SMALL) as cache:
        store.gate = trio.Event()
        await cache.write(0, letters("a" * 6))
        done = trio.Event()

        async def write() -> None:
            await cache.write(100, letters("bb"))
            done.set()

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1) as scope:
                nursery.start_soon(write)
                await cache.write(50, letters("c" * 8))
            assert scope.cancelled_caught
            with trio.fail_after(1):
                await done.wait()
        store.gate.set()
    assert durable(store, 50, 1) == "." and durable(store, 100, 2) == "bb"


async def test_waiting_for_room_ends_after_the_timeout(autojump_clock: Clock, store: Store) -> None:
    store.gate = trio.Event()
    async with TaskCache(store, timeout_s=5, bounds=SMALL) as cache:
        await cache.write(0, letters("a" * 7))
        started_s = trio.current_time()
        with pytest.raises(OperationTimeout) as caught:
            await cache.write(100, letters("bb"))
        assert caught.value.outcome is Outcome.DID_NOT_HAPPEN and 5 <= trio.current_time() - started_s < 5.3
        with pytest.raises(OperationTimeout) as caught:
            await cache.write(255, letters("bbb"))
        assert caught.value.outcome is Outcome.MAY_HAVE_HAPPENED
        store.gate.set()


# --- errors -------------------------------------------------------------------------------------------
async def test_a_flush_fails_until_the_data_is_durable(
    cache: TaskCache, store: Store, allow_logs: Callable[[str], None]
) -> None:
    allow_logs(FAILED)
    allow_logs(AGAIN)
    await cache.write(0, letters("ab"))
    store.fails = timeout
    for _ in range(3):
        with pytest.raises(WritebackFailed, match="8192 buffered bytes are not written back: no majority") as caught:
            await cache.flush()
        assert isinstance(caught.value.__cause__, OperationTimeout)
        assert text_of(await cache.read(0, 2)) == "ab"
    await cache.write(1, letters("c"))
    store.fails = lambda: None
    await cache.flush()
    assert durable(store, 0, 2) == "ac"


async def test_an_error_in_the_background_is_not_lost(
    autojump_clock: Clock, cache: TaskCache, store: Store, allow_logs: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    allow_logs(FAILED)
    allow_logs(AGAIN)
    store.fails = timeout
    await cache.write(0, letters("a"))
    await trio.sleep(60)
    assert 4 <= len(store.writes) <= 20, "it is tried again, not all the time"
    assert caplog.text.count("writing back sectors") == 1, "said once"
    with pytest.raises(WritebackFailed):
        await cache.flush()
    store.fails = lambda: None
    await trio.sleep(10)
    assert durable(store, 0, 1) == "a"
    await cache.flush()
    assert caplog.text.count("again") >= 1


@pytest.mark.parametrize("kind", [ClientClosed, DiskFenced])
async def test_a_final_error_ends_everything(
    kind: type[ClientError], store: Store, allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    allow_logs("cannot be tried again")
    allow_logs("16384 bytes in it, which are lost")
    failed: list[str] = []

    async def expect_failure(call: Callable[[], object]) -> None:
        with pytest.raises(WritebackFailed, match="no more of that") as caught:
            await call()  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, kind)
        failed.append(caught.value.reason)

    with pytest.raises(WritebackFailed):
        async with TaskCache(store, bounds=SMALL) as cache:
            store.gate = trio.Event()
            store.fails = lambda: kind("no more of that", Outcome.DID_NOT_HAPPEN)
            await cache.write(0, letters("aaaa"))
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(expect_failure, lambda: cache.write(300, letters("bbbbb")))
                    nursery.start_soon(expect_failure, cache.flush)
                    await trio.testing.wait_all_tasks_blocked()
                    store.gate.set()
                await expect_failure(lambda: cache.write(5, letters("c")))
                await expect_failure(lambda: cache.read(5))
                await expect_failure(lambda: cache.read(0))
                await expect_failure(cache.flush)
    assert len(failed) == 6 and caplog.text.count("cannot be tried again") == 1


# --- the end ------------------------------------------------------------------------------------------
async def test_the_end_flushes(store: Store) -> None:
    async with TaskCache(store) as cache:
        await cache.write(0, letters("ab"))
    assert durable(store, 0, 2) == "ab"


async def test_the_end_tries_again_what_had_begun_before(store: Store, allow_logs: Callable[[str], None]) -> None:
    allow_logs(FAILED)
    allow_logs(AGAIN)
    errors = [timeout()]
    store.gate, store.fails = trio.Event(), lambda: errors.pop() if errors else None
    async with trio.open_nursery() as nursery:
        async with TaskCache(store) as cache:
            nursery.start_soon(cache.write, 0, letters("a" * 256))
            await trio.testing.wait_all_tasks_blocked()
            assert store.writes
            store.gate.set()
    assert durable(store, 0, 2) == "aa" and len(store.writes) == 2


async def test_an_end_in_an_error_flushes_too(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with TaskCache(store) as cache:
            await cache.write(0, letters("ab"))
            raise ZeroDivisionError
    assert durable(store, 0, 2) == "ab"


async def test_an_end_that_loses_something_says_so(store: Store, allow_logs: Callable[[str], None]) -> None:
    allow_logs(FAILED)
    allow_logs("closed with 8192 bytes in it, which are lost")
    store.fails = timeout
    with pytest.raises(WritebackFailed, match="8192 buffered bytes are not written back: no majority"):
        async with TaskCache(store) as cache:
            await cache.write(0, letters("ab"))


async def test_an_end_by_cancellation_says_what_is_lost(
    autojump_clock: Clock, store: Store, allow_logs: Callable[[str], None]
) -> None:
    allow_logs("closed with 8192 bytes in it, which are lost")
    with trio.move_on_after(0.5):
        async with TaskCache(store) as cache:
            await cache.write(0, letters("ab"))
            await trio.sleep_forever()
    assert not store.writes


# --- on top ---------------------------------------------------------------------------------------------
async def test_a_block_device_flushes_the_cache(cache: TaskCache, store: Store) -> None:
    assert BlockDevice(cache.cache).is_cached and not BlockDevice(OfTasks(store)).is_cached
    device = Bytes(BlockDevice(cache.cache))
    await device.write(4000, b"x" * 200)
    assert not store.writes
    assert await device.read(3999, 202) == b"\0" + b"x" * 200 + b"\0"
    await device.flush()
    assert store.content[0][4000:] == b"x" * 96 and store.content[1][:105] == b"x" * 104 + b"\0"


@pytest.mark.allow_logs(FAILED, AGAIN)
async def test_the_last_flush_outlives_every_run_that_was_lost_before_it(autojump_clock: Clock) -> None:
    """Each of the runs that are under way fails, one after the other, and then all is well."""

    class Failing(Store):
        lost = [trio.Event() for _ in range(3)]
        number = 0

        async def write(self, sector: int, data: Buffer) -> None:
            self.number += 1
            if self.number <= len(self.lost):
                await self.lost[self.number - 1].wait()
                raise timeout()
            await super().write(sector, data)

    store = Failing()

    async def fail_one_after_the_other() -> None:
        for over in store.lost:
            await trio.testing.wait_all_tasks_blocked()
            over.set()

    async with trio.open_nursery() as nursery:
        async with TaskCache(store, bounds=Limits(buffered=64 * SECTOR_SIZE, age_s=0.0, runs=4)) as cache:
            for first in (0, 300, 600):
                await cache.write(first, letters("ab"))
            await trio.testing.wait_all_tasks_blocked()
            assert store.number == len(store.lost)
            nursery.start_soon(fail_one_after_the_other)
    assert cache.buffered_bytes == 0
    assert [durable(store, first, 2) for first in (0, 300, 600)] == ["ab"] * 3
