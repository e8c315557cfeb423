"""TagNamer: no tag twice, none that was not promised; what WRITEs choose is promised as well."""

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


# --- what WRITEs choose ---------------------------------------------------------------------------
def test_a_write_promises_more_than_it_chooses_and_so_does_not_promise_each_time() -> None:
    namer = TagNamer(1, 0)
    assert namer.choose(1) == PROMISE_STEP - 1
    assert namer.choose(2) == namer.choose(PROMISE_STEP - 1) == 0
    assert namer.choose(PROMISE_STEP) == 2 * PROMISE_STEP - 1


def test_where_no_tag_was_named_writes_do_not_begin_above_the_promise_after_a_restart() -> None:
    assert TagNamer(1, TagNamer(1, 0).choose(PROMISE_STEP)).last == 0


def test_a_tag_named_below_what_writes_have_promised_is_not_named_again_after_a_restart() -> None:
    namer = TagNamer(1, 0)
    assert namer.choose(5 * PROMISE_STEP) == 6 * PROMISE_STEP - 1
    named = namer.name(0, 1)
    assert unpack_tag(named.tags) == (1, 1)
    assert TagNamer(1, named.promise).last >= 1
    assert named.promise > 6 * PROMISE_STEP - 1, "else the storage takes it for promised"
    assert TagNamer(1, namer.choose(7 * PROMISE_STEP)).last >= 1


def test_goes_on_above_all_that_was_chosen_when_own_tags_are_lost() -> None:
    namer = TagNamer(1, 0)
    chosen = 3 * PROMISE_STEP + 5
    again = TagNamer(1, namer.choose(chosen))
    assert again.choose(0) == 0
    again.forget()
    assert TagNamer(1, again.choose(0)).last > chosen, "after the repair, and a restart, nobody knows of the loss"
    assert again.choose(0) == 0
    assert unpack_tag(again.name(0, 1).tags)[0] > chosen
    assert TagNamer(1, again.promised).last >= again.last
