"""TagNamer: no tag twice, none that was not promised."""

from __future__ import annotations

import random

from dsreg.core.naming import PROMISE_STEP, TagNamer
from dsreg.core.tags import iter_tags, unpack_tag


def test_one_tag_for_the_whole_run_above_the_highest() -> None:
    namer = TagNamer(2, 0)
    named = namer.name(41, 3)
    assert [unpack_tag(tag) for tag in iter_tags(named.tags)] == [(42, 2)] * 3
    assert namer.last == 42


def test_above_any_named_before() -> None:
    namer = TagNamer(1, 0)
    assert unpack_tag(namer.name(100, 1).tags) == (101, 1)
    assert unpack_tag(namer.name(7, 1).tags) == (102, 1)


def test_starts_above_what_an_earlier_incarnation_promised() -> None:
    namer = TagNamer(1, PROMISE_STEP)
    assert unpack_tag(namer.name(0, 1).tags) == (PROMISE_STEP + 1, 1)


def test_promises_come_in_steps_and_hold_at_the_edge() -> None:
    namer = TagNamer(1, 0)
    assert namer.name(0, 1).promise == PROMISE_STEP
    assert namer.name(PROMISE_STEP - 1, 1).promise == PROMISE_STEP  # the last one that this promise covers
    assert namer.last == PROMISE_STEP
    assert namer.name(0, 1).promise == 2 * PROMISE_STEP


def test_no_tag_twice_across_restarts(rng: random.Random) -> None:
    """A crash keeps the promises that became durable; a tag whose promise did not was heard by nobody."""
    heard: set[tuple[int, int]] = set()
    durable = 0
    for _ in range(50):
        namer = TagNamer(3, durable)
        for _ in range(rng.randrange(20)):
            named = namer.name(rng.choice([0, rng.randrange(3 * PROMISE_STEP), namer.last]), 1)
            if rng.random() < 0.3:
                break  # the crash comes before the promise is durable
            durable = max(durable, named.promise)
            tag = unpack_tag(named.tags)
            assert tag[0] <= durable
            assert tag not in heard
            heard.add(tag)
