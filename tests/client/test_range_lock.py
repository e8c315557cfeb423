"""RangeLock and Admission: who waits for whom."""

from __future__ import annotations

import random

import trio
import trio.testing

from dsreg.client.admission import Admission
from dsreg.client.range_lock import RangeLock


async def test_ranges_that_do_not_overlap_are_independent() -> None:
    lock = RangeLock()
    with trio.fail_after(1):
        held = [await lock.acquire(first, first + 100) for first in range(0, 1000, 100)]
    for one in held:
        lock.release(one)
    assert len(lock) == 0


async def test_overlapping_ranges_follow_in_order_and_do_not_starve() -> None:
    lock = RangeLock()
    order: list[str] = []

    async def use(name: str, first: int, stop: int) -> None:
        held = await lock.acquire(first, stop)
        order.append(name)
        await trio.testing.wait_all_tasks_blocked()
        lock.release(held)

    async with trio.open_nursery() as nursery:
        ranges = (("a", 0, 10), ("wide", 5, 2000), ("b", 0, 8), ("c", 1500, 1501), ("free", 3000, 3001))
        for name, first, stop in ranges:
            nursery.start_soon(use, name, first, stop)
            await trio.testing.wait_all_tasks_blocked()
    assert [name for name in order if name != "free"] == ["a", "wide", "b", "c"]
    assert len(lock) == 0


async def test_one_that_is_cancelled_while_waiting_is_gone() -> None:
    lock = RangeLock()
    first = await lock.acquire(0, 10)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await lock.acquire(5, 15)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        third = trio.Event()

        async def behind() -> None:
            lock.release(await lock.acquire(12, 14))
            third.set()

        nursery.start_soon(behind)
        await trio.testing.wait_all_tasks_blocked()
        assert not third.is_set()
        scope.cancel()
        await third.wait()
    lock.release(first)
    assert len(lock) == 0


async def test_never_two_at_once_and_nobody_forgotten(rng: random.Random) -> None:
    lock = RangeLock()
    users = [0] * 1024
    done = 0

    async def use() -> None:
        nonlocal done
        first = rng.randrange(1000)
        stop = rng.randrange(first + 1, min(first + 400, 1024) + 1)
        with trio.CancelScope() as scope:
            if rng.random() < 0.2:
                scope.cancel()
            held = await lock.acquire(first, stop)
            for sector in range(first, stop):
                users[sector] += 1
                assert users[sector] == 1
            for _ in range(rng.randrange(4)):
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
            for sector in range(first, stop):
                users[sector] -= 1
            lock.release(held)
        done += 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(use)
    assert done == 300 and len(lock) == 0


async def test_admission_bounds_number_and_bytes_first_come_first_served() -> None:
    admission = Admission(2, 100)
    admitted: list[int] = []

    async def ask(size: int) -> None:
        await admission.acquire(size)
        admitted.append(size)

    async with trio.open_nursery() as nursery:
        for size in (90, 20, 1, 2):
            nursery.start_soon(ask, size)
            await trio.testing.wait_all_tasks_blocked()
        assert admitted == [90]
        admission.release(90)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(admitted) == [1, 20, 90]
        admission.release(20)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(admitted) == [1, 2, 20, 90]


async def test_admission_lets_the_next_one_in_when_one_is_cancelled() -> None:
    admission = Admission(10, 100)
    await admission.acquire(60)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def ask_too_much() -> None:
            with scope:
                await admission.acquire(50)

        nursery.start_soon(ask_too_much)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(admission.acquire, 40)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    admission.release(40)
    admission.release(60)
    with trio.fail_after(1):
        await admission.acquire(100)


async def test_admission_survives_cancelling_and_releasing_at_the_same_moment(rng: random.Random) -> None:
    admission = Admission(3, 100)

    async def use(size: int) -> None:
        with trio.CancelScope() as scope:
            if rng.random() < 0.3:
                scope.deadline = trio.current_time() + 0.001
            await admission.acquire(size)
            with trio.CancelScope(shield=True):
                await trio.sleep(0.0005)
            admission.release(size)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(use, rng.randrange(100))
        await admission.acquire(100)
