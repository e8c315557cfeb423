"""AtomicRegister as plays: what arrives, and what the register wants done. L1..L6 are the lines in its docstring."""

from __future__ import annotations

import itertools

import pytest

from dsreg.register.actions import AskAll, Return, StoreAll, StoreOwn
from dsreg.register.atomic_register import AtomicRegister
from dsreg.register.quorum import majority_of
from tests.protocol.values import data, tags

RANK = 1
NEW = data(9)
NODES = [1, 2, 3, 4, 5, 7]
LOW, HIGH = tags((3, 2)), tags((4, 1))


def register(nodes: int = 3, count: int = 1) -> AtomicRegister:
    """That of rank 1, on the sectors from 8 on; its rids are 100, 101, ..."""
    return AtomicRegister(RANK, majority_of(range(1, nodes + 1)), 8, count, itertools.count(100))


# --- L1 -------------------------------------------------------------------------------------------
def test_l1_read_asks_all_for_tags_and_itself_for_the_value() -> None:
    assert register().read() == [AskAll(100, values=False, own_values=True)]


def test_l1_write_and_tag_ask_all_for_tags() -> None:
    assert register().write(NEW) == [AskAll(100, values=False, own_values=False)]
    assert register().tag() == [AskAll(100, values=False, own_values=False)]


def test_l1_every_operation_has_a_rid_of_its_own() -> None:
    one = register(nodes=1)
    assert one.read() == [AskAll(100, False, True)]
    one.value(1, 100, HIGH, NEW)
    assert one.read() == [AskAll(101, False, True)]


def test_one_operation_at_a_time() -> None:
    busy = register()
    busy.read()
    with pytest.raises(AssertionError):
        busy.write(NEW)
    with pytest.raises(AssertionError):
        busy.store(HIGH, NEW)


# --- L2: a majority -------------------------------------------------------------------------------
@pytest.mark.parametrize("nodes", NODES)
def test_l2_write_waits_for_values_of_a_majority(nodes: int) -> None:
    writer = register(nodes)
    writer.write(NEW)
    for rank in range(2, majority_of(range(nodes)).needed + 1):
        assert writer.value(rank, 100, LOW, None) == []
    assert writer.value(RANK, 100, HIGH, None) == [StoreOwn(100, tags((5, RANK)), NEW)]


@pytest.mark.parametrize("nodes", NODES)
def test_l6_returns_on_acks_of_a_majority(nodes: int) -> None:
    storer = register(nodes)
    storer.store(HIGH, NEW)
    for rank in range(1, majority_of(range(nodes)).needed):
        assert storer.ack(rank, 100) == []
    assert storer.ack(nodes, 100) == [Return(b"", b"")]
    assert storer.ack(nodes - 1, 100) == []
    assert storer.phase is None


def test_l2_a_node_counts_once() -> None:
    writer = register(nodes=5)
    writer.write(NEW)
    writer.value(RANK, 100, LOW, None)
    for _ in range(5):
        assert writer.value(2, 100, LOW, None) == []
    assert writer.value(3, 100, LOW, None) == [StoreOwn(100, tags((4, RANK)), NEW)]


def test_l6_a_node_counts_once() -> None:
    storer = register(nodes=5)
    storer.store(HIGH, NEW)
    storer.ack(2, 100)
    for _ in range(5):
        assert storer.ack(2, 100) == []
    storer.ack(3, 100)
    assert storer.ack(4, 100) == [Return(b"", b"")]


# --- L2, L3: reading ------------------------------------------------------------------------------
def test_read_returns_at_once_what_a_majority_and_its_own_copy_agree_on() -> None:
    reader = register()
    reader.read()
    assert reader.value(RANK, 100, HIGH, NEW) == []
    assert reader.value(2, 100, HIGH, None) == [Return(HIGH, NEW)]
    assert reader.phase is None


def test_read_returns_what_a_majority_agrees_on_though_one_node_has_an_unfinished_newer_one() -> None:
    reader = register(nodes=5)
    reader.read()
    reader.value(2, 100, LOW, None)
    reader.value(3, 100, HIGH, None)
    reader.value(4, 100, LOW, None)
    assert reader.value(RANK, 100, LOW, NEW) == [Return(LOW, NEW)]


def test_read_waits_for_its_own_copy_though_a_majority_of_others_agrees() -> None:
    reader = register()
    reader.read()
    assert reader.value(2, 100, HIGH, None) == []
    assert reader.value(3, 100, HIGH, None) == []
    assert reader.value(RANK, 100, HIGH, NEW) == [Return(HIGH, NEW)]


def test_read_does_not_return_what_others_agree_on_and_its_own_copy_does_not() -> None:
    reader = register()
    reader.read()
    reader.value(2, 100, HIGH, None)
    reader.value(3, 100, HIGH, None)
    assert reader.value(RANK, 100, LOW, data(1)) == [AskAll(101, values=True, own_values=True)]


def test_own_tag_without_its_value_is_no_copy() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, HIGH, None)
    assert reader.value(2, 100, HIGH, None) == [AskAll(101, values=True, own_values=True)]


def test_less_than_a_majority_that_agrees_is_not_enough() -> None:
    reader = register(nodes=4)
    reader.read()
    reader.value(RANK, 100, HIGH, NEW)
    reader.value(2, 100, HIGH, None)
    assert reader.value(3, 100, LOW, None) == [StoreAll(100, HIGH, NEW), StoreOwn(100, HIGH, NEW)]


def test_l3_read_writes_back_its_own_copy_when_that_is_the_highest() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, HIGH, NEW)
    assert reader.value(2, 100, LOW, None) == [StoreAll(100, HIGH, NEW), StoreOwn(100, HIGH, NEW)]
    assert reader.ack(RANK, 100) == []
    assert reader.ack(3, 100) == [Return(HIGH, NEW)]


def test_l3_read_asks_for_values_under_a_new_rid_and_writes_the_highest_back() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    assert reader.value(2, 100, HIGH, None) == [AskAll(101, values=True, own_values=True)]
    assert reader.value(3, 100, HIGH, NEW) == [], "the answer to an earlier rid"
    assert reader.value(RANK, 101, LOW, data(1)) == []
    assert reader.value(2, 101, HIGH, NEW) == [StoreAll(101, HIGH, NEW), StoreOwn(101, HIGH, NEW)]
    assert reader.ack(2, 101) == []
    assert reader.ack(3, 101) == [Return(HIGH, NEW)]


def test_a_tag_alone_does_not_answer_a_question_for_values() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    reader.value(2, 100, HIGH, None)
    reader.value(RANK, 101, LOW, data(1))
    assert reader.value(2, 101, HIGH, None) == []
    assert reader.value(2, 101, HIGH, NEW) != []


def test_l3_a_value_that_came_unasked_saves_the_second_question() -> None:
    """A peer that speaks the contract always sends values."""
    reader = register()
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    assert reader.value(2, 100, HIGH, NEW) == [StoreAll(100, HIGH, NEW), StoreOwn(100, HIGH, NEW)]


def test_l2_the_value_goes_with_its_tag_also_where_only_wr_differs() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, tags((4, 2)), data(1))
    assert reader.value(2, 100, tags((4, 3)), NEW)[0] == StoreAll(100, tags((4, 3)), NEW)


def test_l2_each_sector_of_a_run_takes_its_own_highest() -> None:
    reader = register(count=3)
    reader.read()
    reader.value(RANK, 100, tags((5, 1), (1, 1), (2, 2)), data(11, 12, 13))
    assert reader.value(3, 100, tags((4, 3), (2, 3), (2, 3)), data(31, 32, 33)) == [
        StoreAll(100, tags((5, 1), (2, 3), (2, 3)), data(11, 32, 33)),
        StoreOwn(100, tags((5, 1), (2, 3), (2, 3)), data(11, 32, 33)),
    ]
    reader.ack(2, 100)
    assert reader.ack(3, 100) == [Return(tags((5, 1), (2, 3), (2, 3)), data(11, 32, 33))]


def test_a_run_that_agrees_but_for_one_sector_is_written_back() -> None:
    reader = register(count=2)
    reader.read()
    reader.value(RANK, 100, tags((5, 1), (1, 1)), data(11, 12))
    assert reader.value(2, 100, tags((5, 1), (1, 2)), None) == [AskAll(101, values=True, own_values=True)]


# --- L2, L4: writing ------------------------------------------------------------------------------
def test_l4_write_takes_one_more_than_the_highest_ts_and_its_own_rank() -> None:
    writer = register(nodes=5)
    writer.write(NEW)
    writer.value(RANK, 100, tags((3, 1)), None)
    writer.value(4, 100, tags((7, 4)), None)
    assert writer.value(5, 100, tags((7, 5)), None) == [StoreOwn(100, tags((8, RANK)), NEW)]


def test_l4_each_sector_of_a_run_takes_its_own_tag() -> None:
    writer = register(count=2)
    writer.write(data(1, 2))
    writer.value(RANK, 100, tags((3, 1), (0, 0)), None)
    assert writer.value(2, 100, tags((2, 2), (6, 2)), None) == [StoreOwn(100, tags((4, 1), (7, 1)), data(1, 2))]


def test_write_takes_no_tag_that_may_have_been_named() -> None:
    writer = register()
    writer.write(NEW, ts_floor=50)
    writer.value(RANK, 100, LOW, None)
    assert writer.value(2, 100, LOW, None) == [StoreOwn(100, tags((51, RANK)), NEW)]


def test_l4_nobody_hears_of_the_tag_before_the_own_copy_is_durable() -> None:
    writer = register()
    writer.write(NEW)
    writer.value(RANK, 100, LOW, None)
    assert writer.value(2, 100, LOW, None) == [StoreOwn(100, tags((4, RANK)), NEW)]
    assert writer.value(3, 100, HIGH, None) == [], "the tag is chosen"
    assert writer.ack(2, 100) == []
    assert writer.ack(3, 100) == []
    assert writer.ack(RANK, 100) == [StoreAll(100, tags((4, RANK)), NEW)]
    assert writer.ack(2, 100) == [Return(b"", b"")]


def test_write_waits_for_its_own_tag_though_a_majority_of_others_has_answered() -> None:
    writer = register()
    writer.write(NEW)
    assert writer.value(2, 100, LOW, None) == []
    assert writer.value(3, 100, LOW, None) == []
    assert writer.value(RANK, 100, HIGH, None) == [StoreOwn(100, tags((5, RANK)), NEW)]


def test_a_single_node_writes_and_returns_once_it_is_durable() -> None:
    writer = register(nodes=1)
    writer.write(NEW)
    assert writer.value(RANK, 100, LOW, None) == [StoreOwn(100, tags((4, RANK)), NEW)]
    assert writer.ack(RANK, 100) == [StoreAll(100, tags((4, RANK)), NEW), Return(b"", b"")]


# --- TAG and STORE --------------------------------------------------------------------------------
def test_tag_returns_the_highest_of_a_majority_and_stores_nothing() -> None:
    asker = register(count=2)
    asker.tag()
    asker.value(RANK, 100, tags((3, 1), (9, 1)), None)
    assert asker.value(3, 100, tags((4, 3), (0, 0)), None) == [Return(tags((4, 3), (9, 1)), b"")]
    assert asker.phase is None


def test_tag_waits_for_its_own_tag() -> None:
    asker = register()
    asker.tag()
    asker.value(2, 100, LOW, None)
    assert asker.value(3, 100, LOW, None) == []
    assert asker.value(RANK, 100, HIGH, None) == [Return(HIGH, b"")]


def test_store_goes_out_at_once_under_the_tags_it_was_given() -> None:
    storer = register()
    assert storer.store(HIGH, NEW) == [StoreAll(100, HIGH, NEW), StoreOwn(100, HIGH, NEW)]
    storer.ack(2, 100)
    assert storer.ack(3, 100) == [Return(b"", b"")]


# --- late and foreign answers ---------------------------------------------------------------------
@pytest.mark.parametrize("rid", [99, 101, 0])
def test_answers_to_another_rid_do_not_count(rid: int) -> None:
    writer = register(nodes=1)
    writer.write(NEW)
    assert writer.value(RANK, rid, LOW, None) == []
    assert writer.own_absent(rid) == []
    writer.value(RANK, 100, LOW, None)
    assert writer.ack(RANK, rid) == []
    assert writer.store_own(rid) == []
    assert writer.ack(RANK, 100) != []


def test_an_ack_in_the_read_phase_and_a_value_in_the_write_phase_do_not_count() -> None:
    reader = register()
    reader.read()
    for rank in (1, 2, 3):
        assert reader.ack(rank, 100) == []
    reader.value(RANK, 100, HIGH, NEW)
    reader.value(2, 100, LOW, None)  # now it writes back
    for rank in (1, 2, 3):
        assert reader.value(rank, 100, tags((99, 3)), data(7)) == []
    assert reader.ack(2, 100) == []
    assert reader.ack(3, 100) == [Return(HIGH, NEW)]


def test_acks_of_one_phase_do_not_count_for_the_next_operation() -> None:
    storer = register()
    storer.store(HIGH, NEW)
    storer.ack(2, 100)
    storer.ack(3, 100)
    storer.store(tags((6, 1)), NEW)
    assert storer.ack(RANK, 100) == []
    assert storer.ack(2, 101) == []
    assert storer.ack(3, 101) == [Return(b"", b"")]


def test_nothing_counts_when_no_operation_is_under_way() -> None:
    idle = register(nodes=1)
    assert idle.value(RANK, 100, HIGH, NEW) == []
    assert idle.own_absent(100) == []
    assert idle.ack(RANK, 100) == []
    assert idle.store_own(100) == []


# --- no room --------------------------------------------------------------------------------------
def test_a_refused_own_copy_is_asked_for_again_and_the_others_are_not_told() -> None:
    writer = register()
    writer.write(NEW)
    writer.value(RANK, 100, LOW, None)
    (own,) = writer.value(2, 100, LOW, None)
    assert writer.store_own(100) == [own]
    assert writer.store_own(100) == [own]
    assert writer.ack(RANK, 100) == [StoreAll(100, tags((4, RANK)), NEW)]


def test_a_refused_own_copy_in_the_write_phase_is_asked_for_again_while_the_others_decide() -> None:
    storer = register()
    storer.store(HIGH, NEW)
    assert storer.store_own(100) == [StoreOwn(100, HIGH, NEW)]
    storer.ack(2, 100)
    assert storer.ack(3, 100) == [Return(b"", b"")]
    assert storer.store_own(100) == []


# --- the own copy is damaged ----------------------------------------------------------------------
def test_read_without_its_own_copy_takes_a_majority_of_the_others_and_repairs() -> None:
    reader = register()
    reader.read()
    assert reader.own_absent(100) == []
    assert reader.store_own(100) == [], "nothing is stored in the read phase"
    reader.value(2, 100, HIGH, None)
    assert reader.value(3, 100, HIGH, None) == [AskAll(101, values=True, own_values=True)], "no value at hand"
    assert reader.own_absent(101) == []
    reader.value(2, 101, LOW, data(1))
    assert reader.value(3, 101, HIGH, NEW) == [StoreAll(101, HIGH, NEW), StoreOwn(101, HIGH, NEW, repair=True)]
    reader.ack(2, 101)
    assert reader.ack(RANK, 101) == [Return(HIGH, NEW)]


def test_read_learns_last_that_its_own_copy_is_damaged() -> None:
    reader = register()
    reader.read()
    reader.value(2, 100, HIGH, NEW)
    reader.value(3, 100, HIGH, NEW)
    assert reader.own_absent(100) == [StoreAll(100, HIGH, NEW), StoreOwn(100, HIGH, NEW, repair=True)]


def test_write_without_its_own_copy() -> None:
    writer = register()
    writer.write(NEW)
    writer.own_absent(100)
    writer.value(2, 100, LOW, None)
    assert writer.value(3, 100, HIGH, None) == [StoreOwn(100, tags((5, RANK)), NEW, repair=True)]
    assert writer.ack(RANK, 100) == [StoreAll(100, tags((5, RANK)), NEW)]


def test_tag_without_its_own_copy() -> None:
    asker = register()
    asker.tag()
    asker.value(2, 100, LOW, None)
    asker.own_absent(100)
    assert asker.value(3, 100, HIGH, None) == [Return(HIGH, b"")]


def test_less_than_a_majority_of_the_others_is_not_enough() -> None:
    for begin in (AtomicRegister.read, AtomicRegister.tag):
        lonely = register(nodes=2)
        begin(lonely)
        assert lonely.own_absent(100) == []
        assert lonely.value(2, 100, HIGH, NEW) == []


def test_a_copy_that_was_damaged_and_answers_later_counts() -> None:
    reader = register()
    reader.read()
    reader.own_absent(100)
    reader.value(2, 100, HIGH, None)
    assert reader.value(RANK, 100, HIGH, NEW) == [Return(HIGH, NEW)]
