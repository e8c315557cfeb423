"""RunQueue: in order where runs overlap, side by side where they do not."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.register.run_queue import RunQueue


def test_what_does_not_overlap_goes_at_once() -> None:
    queue: RunQueue[str] = RunQueue()
    assert queue.add("a", 0, 4)
    assert queue.add("b", 4, 4)
    assert queue.add("c", 100000, 1)
    assert queue.remove("a") == []


def test_what_overlaps_waits_in_order_of_arrival() -> None:
    queue: RunQueue[str] = RunQueue()
    assert queue.add("a", 0, 1)
    assert not queue.add("b", 0, 1)
    assert not queue.add("c", 0, 1)
    assert queue.remove("a") == ["b"]
    assert queue.remove("b") == ["c"]
    assert queue.remove("c") == []


def test_a_run_waits_for_all_that_it_touches() -> None:
    queue: RunQueue[str] = RunQueue()
    assert queue.add("left", 0, 2)
    assert queue.add("right", 2, 2)
    assert not queue.add("both", 1, 2)
    assert queue.remove("right") == []
    assert queue.remove("left") == ["both"]


def test_several_go_together_when_what_held_them_is_gone() -> None:
    queue: RunQueue[str] = RunQueue()
    assert queue.add("wide", 0, 8)
    assert not queue.add("b", 6, 2)
    assert not queue.add("a", 0, 2)
    assert not queue.add("behind b", 7, 1)
    assert queue.remove("wide") == ["b", "a"]


@pytest.mark.parametrize("start", [MAX_RUN_SECTORS - 1, MAX_RUN_SECTORS, 5 * MAX_RUN_SECTORS - 128])
def test_overlap_across_the_edge_of_a_chunk(start: int) -> None:
    queue: RunQueue[str] = RunQueue()
    assert queue.add("a", start, MAX_RUN_SECTORS)
    assert not queue.add("b", start + MAX_RUN_SECTORS - 1, MAX_RUN_SECTORS)
    assert queue.add("c", start + 2 * MAX_RUN_SECTORS - 1, 1)
    assert queue.remove("a") == ["b"]


def test_one_that_is_given_up_while_it_waits_is_never_returned() -> None:
    queue: RunQueue[str] = RunQueue()
    queue.add("a", 0, 2)
    queue.add("b", 0, 2)
    queue.add("c", 1, 2)
    assert queue.remove("b") == []  # c still waits for a
    assert queue.remove("a") == ["c"]
    assert queue.remove("c") == []
    assert not queue._chunks


def test_length_and_membership() -> None:
    queue: RunQueue[str] = RunQueue()
    queue.add("a", 0, 1)
    queue.add("b", 0, 1)
    assert len(queue) == 2 and "b" in queue
    queue.remove("a")
    assert len(queue) == 1 and "a" not in queue


def test_random_runs_against_the_definition(rng: random.Random) -> None:
    """An item runs if and only if no earlier one that overlaps is still there."""
    queue: RunQueue[int] = RunQueue()
    present: dict[int, range] = {}  # in order of arrival
    running: set[int] = set()

    def may_run(item: int) -> bool:
        run = present[item]
        return not any(
            other < item and sectors.start < run.stop and run.start < sectors.stop
            for other, sectors in present.items()
        )

    for item in range(1500):
        first, count = rng.randrange(900), rng.randint(1, rng.choice([2, MAX_RUN_SECTORS]))
        present[item] = range(first, first + count)
        if queue.add(item, first, count):
            running.add(item)
        while running and (len(present) > 40 or rng.random() < 0.4):
            gone = rng.choice(sorted(running))
            del present[gone]
            running.remove(gone)
            ready = queue.remove(gone)
            assert ready == sorted(ready)
            running.update(ready)
        assert running == {item for item in present if may_run(item)}
    while running:
        gone = min(running)
        running.remove(gone)
        running.update(queue.remove(gone))
    assert not queue._entries and not queue._chunks
