"""TagAllocator: no tag twice, none that was not promised; what WRITEs choose is promised as well."""

from __future__ import annotations

import random

from dsreg.protocol.tags import Tag, iter_tags, pack_tag, ts_of, unpack_tag
from dsreg.register.tag_allocator import PROMISE_STEP, TagAllocator


def test_one_tag_for_the_whole_run_above_the_highest() -> None:
    allocator = TagAllocator(2, 0)
    named = allocator.name(41, 3)
    assert [unpack_tag(tag) for tag in iter_tags(named.tags)] == [Tag(42, 2)] * 3
    assert allocator.last == 42


def test_above_any_named_before() -> None:
    allocator = TagAllocator(1, 0)
    assert unpack_tag(allocator.name(100, 1).tags) == Tag(101, 1)
    assert unpack_tag(allocator.name(7, 1).tags) == Tag(102, 1)


def test_starts_above_what_an_earlier_incarnation_promised() -> None:
    allocator = TagAllocator(1, PROMISE_STEP)
    assert unpack_tag(allocator.name(0, 1).tags) == Tag(PROMISE_STEP + 1, 1)


def test_promises_come_in_steps_and_hold_at_the_edge() -> None:
    allocator = TagAllocator(1, 0)
    assert allocator.name(0, 1).promise == PROMISE_STEP
    assert allocator.name(PROMISE_STEP - 1, 1).promise == PROMISE_STEP  # the last one that this promise covers
    assert allocator.last == PROMISE_STEP
    assert allocator.name(0, 1).promise == 2 * PROMISE_STEP


def test_no_tag_twice_across_restarts(rng: random.Random) -> None:
    """A crash keeps the promises that became durable; a tag whose promise did not was heard by nobody."""
    heard: set[Tag] = set()
    durable = 0
    for _ in range(50):
        allocator = TagAllocator(3, durable)
        for _ in range(rng.randrange(20)):
            named = allocator.name(rng.choice([0, rng.randrange(3 * PROMISE_STEP), allocator.last]), 1)
            if rng.random() < 0.3:
                break  # the crash comes before the promise is durable
            durable = max(durable, named.promise)
            tag = unpack_tag(named.tags)
            assert tag.ts <= durable
            assert tag not in heard
            heard.add(tag)


# --- what WRITEs choose ---------------------------------------------------------------------------
def test_a_write_promises_more_than_it_chooses_and_so_does_not_promise_each_time() -> None:
    allocator = TagAllocator(1, 0)
    assert allocator.choose(1) == PROMISE_STEP - 1
    assert allocator.choose(2) == allocator.choose(PROMISE_STEP - 1) == 0
    assert allocator.choose(PROMISE_STEP) == 2 * PROMISE_STEP - 1


def test_where_no_tag_was_named_writes_do_not_begin_above_the_promise_after_a_restart() -> None:
    assert TagAllocator(1, TagAllocator(1, 0).choose(PROMISE_STEP)).last == 0


def test_a_tag_named_below_what_writes_have_promised_is_not_named_again_after_a_restart() -> None:
    allocator = TagAllocator(1, 0)
    assert allocator.choose(5 * PROMISE_STEP) == 6 * PROMISE_STEP - 1
    named = allocator.name(0, 1)
    assert unpack_tag(named.tags) == Tag(1, 1)
    assert TagAllocator(1, named.promise).last >= 1
    assert named.promise > 6 * PROMISE_STEP - 1, "else the storage takes it for promised"
    assert TagAllocator(1, allocator.choose(7 * PROMISE_STEP)).last >= 1


def test_goes_on_above_all_that_was_chosen_when_own_tags_are_lost() -> None:
    allocator = TagAllocator(1, 0)
    chosen = 3 * PROMISE_STEP + 5
    again = TagAllocator(1, allocator.choose(chosen))
    assert again.choose(0) == 0
    again.forget()
    assert TagAllocator(1, again.choose(0)).last > chosen, "after the repair, and a restart, nobody knows of the loss"
    assert again.choose(0) == 0
    assert unpack_tag(again.name(0, 1).tags)[0] > chosen
    assert TagAllocator(1, again.promised).last >= again.last


# --- under an attachment --------------------------------------------------------------------------
def test_under_an_epoch_tags_are_of_it_and_of_this_life_and_need_no_promise() -> None:
    allocator = TagAllocator(2, 0, incarnation=5)
    for expected in (ts_of(3, 1), ts_of(3, 2)):
        named = allocator.name(7, 2, epoch=3)
        assert [unpack_tag(tag) for tag in iter_tags(named.tags)] == [Tag(expected, 2, 6, 3)] * 2
        assert named.promise == 0
    assert unpack_tag(allocator.name(ts_of(3, 90), 1, epoch=3).tags) == Tag(ts_of(3, 91), 2, 6, 3)


def test_under_an_epoch_a_restart_does_not_jump_ahead_of_the_clock_of_the_attachment() -> None:
    """A tag from the future would beat one that the attachment chooses later."""
    allocator = TagAllocator(1, 5 * PROMISE_STEP, incarnation=2)
    assert unpack_tag(allocator.name(0, 1, epoch=1).tags).ts == ts_of(1, 1)


def test_no_life_is_zero_and_neighbours_differ() -> None:
    lives = [unpack_tag(TagAllocator(1, 0, life).name(0, 1, epoch=1).tags).life for life in range(65534, 65540)]
    assert 0 not in lives and len(set(lives)) == len(lives)


def test_without_an_epoch_there_is_no_life_in_a_tag() -> None:
    assert TagAllocator(1, 0, incarnation=9).name(4, 1).tags == pack_tag(5, 1)


def test_from_the_second_life_on_it_stands_in_every_tag() -> None:
    allocator = TagAllocator(1, 0, incarnation=9)
    allocator.be(3, 9)
    assert allocator.name(4, 1).tags == pack_tag(5, 1, 2 << 12 | 10)
    assert unpack_tag(allocator.name(4, 1, epoch=2).tags) == Tag(ts_of(2, 1), 1, 2 << 12 | 10, 2)
    assert allocator.life_in(0) == allocator.life_in(7) == 2 << 12 | 10
    assert TagAllocator(1, 0, 9, 3).life_in(0) == 2 << 12 | 10


def test_under_an_epoch_no_tag_twice_across_restarts_without_any_promise(rng: random.Random) -> None:
    heard: set[Tag] = set()
    for life in range(1, 40):
        allocator = TagAllocator(3, 0, life)
        for _ in range(rng.randrange(10)):
            tag = unpack_tag(allocator.name(ts_of(1, rng.randrange(5)), 1, epoch=1).tags)
            assert tag not in heard
            heard.add(tag)


def test_an_operation_that_a_newer_epoch_has_overtaken_names_in_that() -> None:
    """A ts of a newer epoch than the tag's would be believed by nobody."""
    allocator = TagAllocator(1, 0)
    allocator.name(0, 1, epoch=5)
    assert unpack_tag(allocator.name(9, 1, epoch=0).tags) == Tag(ts_of(5, 2), 1, 2, 5)
    assert unpack_tag(allocator.name(9, 1, epoch=3).tags) == Tag(ts_of(5, 3), 1, 2, 5)
