"""Admission: first come, first served, within the bounds."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.client.admission import Admission


class Queue:
    """`came`: who has got room after having waited, in the order of getting it."""

    def __init__(self, operations: int, size: int) -> None:
        self.admission = Admission(operations, size)
        self.came: list[str] = []

    def named(self, name: str) -> Callable[[], None]:
        return lambda: self.came.append(name)


def test_a_large_one_is_not_overtaken_by_small_ones() -> None:
    queue = Queue(10, 100)
    assert queue.admission.acquire(60, queue.named("first")) is None
    assert queue.admission.acquire(80, queue.named("large")) is not None
    assert queue.admission.acquire(1, queue.named("small")) is not None, "there is room, and somebody waits for it"
    queue.admission.release(60)
    assert queue.came == ["large", "small"]


def test_when_one_who_waits_leaves_those_behind_come_in() -> None:
    queue = Queue(10, 100)
    queue.admission.acquire(60, queue.named("first"))
    large = queue.admission.acquire(80, queue.named("large"))
    queue.admission.acquire(1, queue.named("small"))
    assert large is not None
    queue.admission.give_up(large)
    assert queue.came == ["small"]


def test_operations_are_bounded_as_bytes_are() -> None:
    queue = Queue(2, 100)
    assert queue.admission.acquire(1, queue.named("one")) is None
    assert queue.admission.acquire(1, queue.named("two")) is None
    assert queue.admission.acquire(1, queue.named("three")) is not None
    queue.admission.release(1)
    assert queue.came == ["three"]
    queue.admission.release(1)
    queue.admission.release(1)
    assert queue.admission.is_idle
