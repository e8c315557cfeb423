"""RangeLock and Admission: who waits for whom."""

from __future__ import annotations

import random

from dsreg.client.admission import Admission, Entry
from dsreg.client.range_lock import Held, RangeLock


class Users:
    """Of one lock: who has asked, and who has got it, in order."""

    def __init__(self) -> None:
        self.lock = RangeLock()
        self.held: dict[str, Held] = {}
        self.order: list[str] = []

    def ask(self, name: str, first: int, stop: int) -> None:
        held = self.held[name] = self.lock.acquire(first, stop, lambda: self.order.append(name))
        if not held.waits:
            self.order.append(name)

    def release(self, name: str) -> None:
        self.lock.release(self.held.pop(name))


def test_ranges_that_do_not_overlap_are_independent() -> None:
    users = Users()
    for first in range(0, 1000, 100):
        users.ask(str(first), first, first + 100)
    assert len(users.order) == 10
    for name in users.order:
        users.release(name)
    assert len(users.lock) == 0


def test_overlapping_ranges_follow_in_order_and_do_not_starve() -> None:
    users = Users()
    ranges = (("a", 0, 10), ("wide", 5, 2000), ("b", 0, 8), ("c", 1500, 1501), ("free", 3000, 3001))
    for name, first, stop in ranges:
        users.ask(name, first, stop)
    assert users.order == ["a", "free"]
    users.release("a")
    assert users.order == ["a", "free", "wide"]
    users.release("wide")
    assert users.order == ["a", "free", "wide", "b", "c"]
    for name in ("b", "c", "free"):
        users.release(name)
    assert len(users.lock) == 0


def test_long_ranges_take_nothing_for_their_length() -> None:
    users = Users()
    users.ask("short", 5000, 5001)
    users.ask("long", 0, 1 << 28)
    users.ask("in it", 7, 8)
    users.ask("longer", 1 << 20, 1 << 40)
    users.ask("far", 1 << 41, 1 << 42)
    assert users.order == ["short", "far"] and len(users.lock) == 5
    users.release("short")
    assert users.order == ["short", "far", "long"]
    users.release("long")
    assert users.order == ["short", "far", "long", "in it", "longer"]
    for name in ("in it", "longer", "far"):
        users.release(name)
    assert len(users.lock) == 0


def test_one_that_gives_up_is_gone() -> None:
    users = Users()
    users.ask("first", 0, 10)
    users.ask("gives up", 5, 15)
    users.ask("behind", 12, 14)
    users.release("gives up")
    assert users.order == ["first", "behind"]
    users.release("first")
    users.release("behind")
    assert users.order == ["first", "behind"] and len(users.lock) == 0


def test_a_long_queue_that_ends_at_once_is_no_recursion() -> None:
    lock = RangeLock()
    ended = []

    def use(number: int) -> None:
        held = lock.acquire(0, 1, lambda: end(number, held))

    def end(number: int, held: Held) -> None:
        ended.append(number)
        lock.release(held)

    first = lock.acquire(0, 1, lambda: None)
    for number in range(5000):
        use(number)
    lock.release(first)
    assert ended == list(range(5000)) and len(lock) == 0


def test_never_two_at_once_and_nobody_forgotten(rng: random.Random) -> None:
    lock = RangeLock()
    users = [0] * 1024
    holders: dict[Held, tuple[int, int]] = {}
    waiting: dict[Held, tuple[int, int]] = {}
    ended = 0

    def granted(held: Held) -> None:
        first, stop = waiting.pop(held)
        holders[held] = first, stop
        for sector in range(first, stop):
            users[sector] += 1
            assert users[sector] == 1

    def end_one() -> None:
        nonlocal ended
        among = holders if holders and (not waiting or rng.random() < 0.7) else waiting
        held = rng.choice(list(among))
        if held in holders:
            for sector in range(*holders.pop(held)):
                users[sector] -= 1
        else:
            del waiting[held]
        ended += 1
        lock.release(held)

    for _ in range(3000):
        if len(holders) + len(waiting) < 20 and rng.random() < 0.6:
            first = rng.randrange(1000)
            stop = rng.randrange(first + 1, min(first + 400, 1024) + 1)
            cell: list[Held] = []
            held = lock.acquire(first, stop, lambda cell=cell: granted(cell[0]))  # type: ignore[misc]
            cell.append(held)
            waiting[held] = first, stop
            if not held.waits:
                granted(held)
        elif holders or waiting:
            end_one()
    while holders or waiting:
        assert holders, "somebody waits for nobody"
        end_one()
    assert ended > 1000 and len(lock) == 0 and not any(users)


class Queue:
    """Who asked an admission for room, and who has got it."""

    def __init__(self, operations: int, size: int) -> None:
        self.admission = Admission(operations, size)
        self.admitted: list[int] = []

    def ask(self, size: int) -> Entry | None:
        entry = self.admission.acquire(size, lambda: self.admitted.append(size))
        if entry is None:
            self.admitted.append(size)
        return entry


def test_admission_bounds_number_and_bytes_first_come_first_served() -> None:
    queue = Queue(2, 100)
    for size in (90, 20, 1, 2):
        queue.ask(size)
    assert queue.admitted == [90]
    queue.admission.release(90)
    assert queue.admitted == [90, 20, 1]
    queue.admission.release(20)
    assert queue.admitted == [90, 20, 1, 2]
    queue.admission.release(1)
    queue.admission.release(2)
    assert queue.admission.is_idle


def test_admission_lets_the_next_one_in_when_one_gives_up() -> None:
    queue = Queue(10, 100)
    queue.ask(60)
    large = queue.ask(50)
    queue.ask(40)
    assert large is not None and queue.admitted == [60]
    queue.admission.give_up(large)
    assert queue.admitted == [60, 40]
    queue.admission.release(40)
    queue.admission.release(60)
    assert queue.admission.is_idle and queue.ask(100) is None


def test_admission_of_many_that_end_at_once_is_no_recursion() -> None:
    admission = Admission(1, 100)
    ended = []

    def end(number: int) -> None:
        ended.append(number)
        admission.release(10)

    assert admission.acquire(10, lambda: None) is None
    for number in range(5000):
        admission.acquire(10, lambda number=number: end(number))  # type: ignore[misc]
    admission.release(10)
    assert ended == list(range(5000)) and admission.is_idle


def test_admission_never_leaks(rng: random.Random) -> None:
    admission = Admission(3, 100)
    held: list[int] = []
    waiting: dict[int, tuple[Entry, int]] = {}
    number = 0
    for _ in range(5000):
        number += 1
        if rng.random() < 0.5:
            size = rng.randrange(100)

            def admitted(number: int = number) -> None:
                held.append(waiting.pop(number)[1])

            entry = admission.acquire(size, admitted)
            if entry is None:
                held.append(size)
            else:
                waiting[number] = entry, size
        elif waiting and rng.random() < 0.4:
            entry, _ = waiting.pop(rng.choice(list(waiting)))
            admission.give_up(entry)
        elif held:
            admission.release(held.pop(rng.randrange(len(held))))
        assert len(held) <= 3 and sum(held) <= 100
    while held:
        admission.release(held.pop())
    assert not waiting and admission.is_idle
