"""Admission: what an operation takes it gives back, whenever its task is cancelled."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dsreg.client.admission import Admission

OPERATIONS, SIZE = 3, 1000


@contextlib.asynccontextmanager
async def tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery with a deadline: what is lost here, somebody waits for."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            yield nursery


def assert_nothing_is_taken(admission: Admission) -> None:
    """All room can be had at once, and no more than that."""
    assert all(admission.acquire_now(SIZE // OPERATIONS) for _ in range(OPERATIONS))
    assert not admission.acquire_now(0)
    for _ in range(OPERATIONS):
        admission.release(SIZE // OPERATIONS)
    assert admission.acquire_now(SIZE)
    admission.release(SIZE)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancelled_in_the_turn_of_its_admission(cancel_first: bool) -> None:
    """Whichever of the two comes first, the room is not lost, and who waits behind gets it."""
    admission = Admission(1, SIZE)
    assert admission.acquire_now(1)
    scope = trio.CancelScope()
    taken: list[str] = []

    async def acquire(name: str, its_scope: trio.CancelScope) -> None:
        with its_scope:
            await admission.acquire(1)
            taken.append(name)

    async with tasks() as nursery:
        nursery.start_soon(acquire, "first", scope)
        await trio.testing.wait_all_tasks_blocked()
        if cancel_first:
            scope.cancel()
        admission.release(1)
        scope.cancel()
        nursery.start_soon(acquire, "second", trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        if taken == ["first"]:
            admission.release(1)
    assert taken[-1] == "second"
    admission.release(1)
    assert admission.acquire_now(SIZE), "all the room, and its only place, are there"


async def test_one_that_stands_back_lets_those_behind_it_in() -> None:
    """A large one that waits holds up smaller ones; when it gives up they need not wait for another release."""
    admission = Admission(OPERATIONS, SIZE)
    assert admission.acquire_now(SIZE // 2)
    scope = trio.CancelScope()

    async def large() -> None:
        with scope:
            await admission.acquire(SIZE)

    async with tasks() as nursery:
        nursery.start_soon(large)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(admission.acquire, 1)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    admission.release(1)
    admission.release(SIZE // 2)
    assert_nothing_is_taken(admission)


async def test_nothing_is_lost_whatever_happens(rng: random.Random) -> None:
    """Tasks that come, hold, release and are cancelled at any moment."""
    admission = Admission(OPERATIONS, SIZE)
    held = 0

    async def use(scope: trio.CancelScope, size: int, turns: int) -> None:
        nonlocal held
        with scope:
            await admission.acquire(size)
            held += size
            assert held <= SIZE
            try:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            finally:
                held -= size
                admission.release(size)

    async with tasks() as nursery:
        scopes: list[trio.CancelScope] = []
        for _ in range(3000):
            scopes.append(trio.CancelScope())
            nursery.start_soon(use, scopes[-1], rng.choice((0, 1, 400, SIZE)), rng.randrange(4))
            if rng.random() < 0.5:
                scopes.pop(rng.randrange(len(scopes))).cancel()
            if rng.random() < 0.5:
                await trio.lowlevel.checkpoint()
    assert not held
    assert_nothing_is_taken(admission)
