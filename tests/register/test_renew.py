"""AtomicRegister.renew, in every phase of every operation: rule 3 of docs/attachments.md, and L1..L6 of the register.

Rule 3: an operation that meets a newer epoch starts over under it. A read asks again; a write whose tags were chosen
asks for values, compares by the names of the writes, and stores per sector what is the highest, restamped.
"""

from __future__ import annotations

import itertools

import pytest

from dsreg.protocol.tags import ATTACHED, pack_tag, restamped, ts_of
from dsreg.register.actions import AskAll, Return, StoreAll, StoreOwn
from dsreg.register.atomic_register import AtomicRegister
from dsreg.register.quorum import majority_of
from tests.protocol.values import data, tags

RANK = 1
NEW = data(9)
LOW, HIGH = tags((3, 2)), tags((4, 1))
NEVER = tags((0, 0))
E = 2  # the newer epoch
LIFE = 6  # of this node


def register(count: int = 1, epoch: int = 0, nodes: int = 3) -> AtomicRegister:
    return AtomicRegister(RANK, majority_of(range(1, nodes + 1)), 8, count, itertools.count(100), epoch)


def at(epoch: int, tag: bytes) -> bytes:
    return restamped(tag, epoch)


def written_in(epoch: int, counter: int, wr: int = ATTACHED, life: int = 0) -> bytes:
    return pack_tag(ts_of(epoch, counter), wr, life, epoch)


def ask(rid: int, *, values: bool, own: bool) -> list[AskAll]:
    return [AskAll(rid, values, own)]


# --- an epoch from the beginning ----------------------------------------------------------------------
def test_rule_4_a_write_under_an_epoch_is_above_all_of_older_ones() -> None:
    writer = register(epoch=E)
    writer.write(NEW, life=LIFE)
    writer.value(2, 100, LOW, None)
    (own,) = writer.value(RANK, 100, HIGH, None)
    assert own == StoreOwn(100, written_in(E, 1, RANK, LIFE), NEW)  # L4
    assert writer.ack(RANK, 100) == [StoreAll(100, written_in(E, 1, RANK, LIFE), NEW)]


def test_rule_4_a_write_after_one_of_the_attachment() -> None:
    writer = register(epoch=E)
    writer.write(NEW, life=LIFE)
    writer.value(2, 100, written_in(E, 70), None)
    (own,) = writer.value(RANK, 100, HIGH, None)
    assert own == StoreOwn(100, written_in(E, 71, RANK, LIFE), NEW)


def test_rule_4_a_write_is_above_what_this_node_has_named_in_the_epoch() -> None:
    """Nobody may have stored it yet."""
    writer = register(epoch=E)
    writer.write(NEW, ts_of(E, 80), LIFE)
    writer.value(2, 100, written_in(E, 70), None)
    (own,) = writer.value(RANK, 100, HIGH, None)
    assert own == StoreOwn(100, written_in(E, 81, RANK, LIFE), NEW)


def test_without_an_epoch_there_is_no_life_in_the_tag_of_a_write() -> None:
    writer = register()
    writer.write(NEW, life=LIFE)
    writer.value(2, 100, LOW, None)
    assert writer.value(RANK, 100, HIGH, None) == [StoreOwn(100, tags((5, RANK)), NEW)]


def test_rule_5_a_plain_read_returns_what_a_majority_agrees_on() -> None:
    reader = register(epoch=E)
    assert reader.read() == ask(100, values=False, own=True)
    reader.value(2, 100, HIGH, None)
    assert reader.value(RANK, 100, HIGH, NEW) == [Return(HIGH, NEW)]


# --- READ for an attachment ---------------------------------------------------------------------------
def test_rule_5_a_strict_read_tells_the_tags_of_what_is_not_raised_and_stores_nothing() -> None:
    reader = register(epoch=E)
    assert reader.read(strict=True) == ask(100, values=False, own=True)
    reader.value(2, 100, HIGH, None)
    assert reader.value(RANK, 100, HIGH, NEW) == [Return(HIGH, NEW)], "as they are: the attachment restamps them"
    assert reader.phase is None
    assert reader.value(3, 100, HIGH, NEW) == []


@pytest.mark.parametrize("newer", [HIGH, at(E, LOW)])
def test_rule_10_a_strict_read_that_finds_different_copies_takes_the_highest_and_stores_nothing(newer: bytes) -> None:
    """Also where the higher one has been restamped: at a minority, by a STORE that got no further."""
    reader = register(epoch=E)
    reader.read(strict=True)
    reader.value(RANK, 100, LOW, data(1))
    assert reader.value(2, 100, newer, None) == ask(101, values=True, own=True)
    reader.value(RANK, 101, LOW, data(1))
    assert reader.value(2, 101, newer, NEW) == [Return(newer, NEW)]


def test_rule_10_a_strict_read_composes_sector_by_sector() -> None:
    reader = register(count=2, epoch=E)
    reader.read(strict=True)
    reader.value(RANK, 100, LOW + HIGH, data(1, 2))
    reader.value(2, 100, HIGH + LOW, None)
    reader.value(RANK, 101, LOW + HIGH, data(1, 2))
    assert reader.value(2, 101, HIGH + LOW, data(3, 4)) == [Return(HIGH + HIGH, data(3, 2))]


def test_rule_5_a_strict_read_without_an_own_copy_stores_nothing_either() -> None:
    reader = register(epoch=E)
    reader.read(strict=True)
    reader.value(2, 100, HIGH, None)
    reader.value(3, 100, HIGH, None)
    assert reader.own_absent(100) == ask(101, values=True, own=True)
    reader.value(2, 101, HIGH, NEW)
    reader.value(3, 101, HIGH, NEW)
    assert reader.own_absent(101) == [Return(HIGH, NEW)]


def test_rule_5_a_strict_read_of_what_is_raised_takes_one_round() -> None:
    reader = register(epoch=E)
    reader.read(strict=True)
    reader.value(2, 100, at(E, HIGH), None)
    assert reader.value(RANK, 100, at(E, HIGH), NEW) == [Return(b"", NEW)], "no tags: nothing is left to store"


def test_rule_5_one_sector_that_is_not_raised_is_enough_for_all_tags() -> None:
    reader = register(count=2, epoch=E)
    reader.read(strict=True)
    vector = at(E, HIGH) + LOW
    reader.value(2, 100, vector, None)
    assert reader.value(RANK, 100, vector, NEW * 2) == [Return(vector, NEW * 2)]


def test_rule_5_what_was_never_written_is_to_be_raised_as_well() -> None:
    """A copy of a minority that nobody has seen must not come up later."""
    reader = register(epoch=E)
    reader.read(strict=True)
    reader.value(2, 100, NEVER, None)
    assert reader.value(RANK, 100, NEVER, bytes(4096)) == [Return(NEVER, bytes(4096))]


# --- what is written back -----------------------------------------------------------------------------
def test_rule_3_all_that_is_written_back_is_raised() -> None:
    """A copy that only one node has of an older epoch may be the highest; it is a write like any other."""
    reader = register(epoch=E)
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    assert reader.value(2, 100, HIGH, None) == ask(101, values=True, own=True)
    reader.value(RANK, 101, LOW, data(1))
    assert reader.value(2, 101, HIGH, NEW)[0] == StoreAll(101, at(E, HIGH), NEW)


# --- a newer one in the first phase -------------------------------------------------------------------
@pytest.mark.parametrize("operation", ["read", "write", "tag"])
def test_rule_3_a_query_asks_again_and_old_answers_do_not_count(operation: str) -> None:
    one = register()
    {"read": one.read, "tag": one.tag, "write": lambda: one.write(NEW, life=LIFE)}[operation]()
    one.value(2, 100, HIGH, None)
    assert one.renew(E) == ask(101, values=False, own=operation == "read")
    assert one.epoch == E
    assert one.value(RANK, 100, HIGH, NEW) == [] == one.value(3, 100, HIGH, NEW), "the answers to the old question"
    assert one.value(RANK, 101, HIGH, NEW) == []
    (effect, *_) = one.value(2, 101, HIGH, None)
    if operation == "read":
        assert effect == Return(HIGH, NEW)
    elif operation == "write":
        assert effect == StoreOwn(101, written_in(E, 1, RANK, LIFE), NEW)
    else:
        assert effect == Return(HIGH, b"")


def test_rule_3_a_query_for_values_asks_for_values_again() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    reader.value(2, 100, HIGH, None)  # its value is missing: values are asked for under 101
    assert reader.renew(E) == ask(102, values=True, own=True)


def test_a_query_that_was_told_that_the_own_copy_is_damaged_asks_it_again() -> None:
    reader = register()
    reader.read()
    reader.own_absent(100)
    reader.renew(E)
    reader.value(2, 101, HIGH, None)
    assert reader.value(3, 101, HIGH, None) == [], "the own copy has not said anything about this question"
    assert reader.own_absent(101) == ask(102, values=True, own=True)


# --- a newer one in the second phase ------------------------------------------------------------------
def test_rule_3_a_read_that_writes_back_asks_again_and_keeps_nothing() -> None:
    reader = register()
    reader.read()
    reader.value(RANK, 100, LOW, data(1))
    reader.value(2, 100, HIGH, None)
    reader.value(RANK, 101, LOW, data(1))
    reader.value(2, 101, HIGH, NEW)
    reader.ack(RANK, 101)
    assert reader.renew(E) == ask(102, values=True, own=True)
    assert reader.ack(2, 101) == [], "an order of the old epoch may be void"
    newer = written_in(E, 1)
    reader.value(RANK, 102, at(E, LOW), data(1))
    assert reader.value(3, 102, newer, data(5)) == [StoreAll(102, newer, data(5)), StoreOwn(102, newer, data(5))]
    reader.ack(RANK, 102)
    assert reader.ack(3, 102) == [Return(newer, data(5))], "and not what it was about to return"


def recording() -> AtomicRegister:
    """A WRITE that has chosen (5, RANK), above a majority's (4, 1), and makes its own copy durable."""
    writer = register()
    writer.write(NEW)
    writer.value(2, 100, LOW, None)
    assert writer.value(RANK, 100, HIGH, None) == [StoreOwn(100, tags((5, RANK)), NEW)]
    return writer


def storing_write() -> AtomicRegister:
    writer = recording()
    assert writer.ack(RANK, 100) == [StoreAll(100, tags((5, RANK)), NEW)]
    return writer


def storing_store() -> AtomicRegister:
    writer = register()
    assert writer.store(tags((5, RANK)), NEW)[0] == StoreAll(100, tags((5, RANK)), NEW)
    return writer


@pytest.mark.parametrize("begun", [recording, storing_write, storing_store])
def test_rule_3_a_write_that_has_chosen_keeps_its_name(begun: type) -> None:
    writer = begun()
    assert writer.renew(E) == ask(101, values=True, own=True)
    assert writer.recording is None
    for late in (RANK, 2, 3):
        assert writer.ack(late, 100) == []
    writer.value(2, 101, HIGH, data(4))
    own = at(E, tags((5, RANK)))
    assert writer.value(RANK, 101, LOW, data(3)) == [StoreAll(101, own, NEW), StoreOwn(101, own, NEW)]
    writer.ack(2, 101)
    assert writer.ack(3, 101) == [Return(b"", b"")]  # L6


@pytest.mark.parametrize("begun", [recording, storing_write, storing_store])
def test_rule_3_a_read_that_has_raised_an_older_write_does_not_make_it_lose(begun: type) -> None:
    """(4, 1) stands under the new epoch, and so above any copy of the old one; but its name is the lower one."""
    writer = begun()
    writer.renew(E)
    writer.value(RANK, 101, HIGH, data(4))
    own = at(E, tags((5, RANK)))
    assert writer.value(2, 101, at(E, HIGH), data(4)) == [StoreAll(101, own, NEW), StoreOwn(101, own, NEW)]


@pytest.mark.parametrize("begun", [recording, storing_write, storing_store])
def test_rule_3_a_write_that_is_behind_a_newer_one_stores_that_one(begun: type) -> None:
    """It took effect just before: it needs no copy of its own, but nothing older may come up any more."""
    writer = begun()
    writer.renew(E)
    writer.value(RANK, 101, HIGH, data(4))
    newer = written_in(E, 1)
    effects = writer.value(2, 101, newer, data(6))
    assert effects == [StoreAll(101, newer, data(6)), StoreOwn(101, newer, data(6))]
    writer.ack(2, 101)
    assert writer.ack(3, 101) == [Return(b"", b"")]


def test_rule_3_sector_by_sector() -> None:
    writer = register(count=3)
    writer.store(tags((5, 1), (5, 1), (5, 1)), data(9, 9, 9))
    writer.renew(E)
    newer = written_in(E, 1)
    writer.value(2, 101, tags((6, 2)) + newer + LOW, data(1, 2, 3))
    (everywhere, own) = writer.value(RANK, 101, at(E, HIGH) + HIGH + HIGH, data(4, 5, 6))
    # Of the first sector (6, 2) is the higher name; the highest copy is the restamped (4, 1): an answer under E
    # tells what will ever be of older epochs, and the read that restamped (4, 1) did not see (6, 2) at a majority.
    expected = at(E, tags((5, 1))) + newer + at(E, tags((5, 1)))
    assert everywhere == StoreAll(101, expected, data(9, 2, 9)) and own.tags == expected


@pytest.mark.parametrize("again", [3, 7])
def test_rule_3_as_often_as_it_takes(again: int) -> None:
    writer = storing_store()
    writer.renew(E)
    writer.value(RANK, 101, HIGH, data(4))
    assert writer.renew(again) == ask(102, values=True, own=True), "while it asks"
    writer.value(RANK, 102, HIGH, data(4))
    own = at(again, tags((5, RANK)))
    assert writer.value(2, 102, LOW, data(3))[0] == StoreAll(102, own, NEW)
    writer.ack(2, 102)
    assert writer.renew(again + 1) == ask(103, values=True, own=True), "while it stores"
    writer.value(RANK, 103, own, NEW)
    assert writer.value(2, 103, LOW, data(3))[0] == StoreAll(103, at(again + 1, own), NEW)


def test_rule_3_without_an_own_copy_it_is_a_repair() -> None:
    writer = storing_store()
    writer.renew(E)
    writer.value(2, 101, HIGH, data(4))
    writer.value(3, 101, HIGH, data(4))
    own = at(E, tags((5, RANK)))
    assert writer.own_absent(101) == [StoreAll(101, own, NEW), StoreOwn(101, own, NEW, repair=True)]


def test_rule_3_a_store_of_an_older_epoch_asks_first() -> None:
    """The client has named its tags before somebody attached the disk."""
    writer = register(epoch=E)
    assert writer.store(tags((5, 2)), NEW) == ask(100, values=True, own=True)
    assert writer.value(RANK, 100, HIGH, data(4)) == []
    own = at(E, tags((5, 2)))
    assert writer.value(3, 100, at(E, HIGH), data(4)) == [StoreAll(100, own, NEW), StoreOwn(100, own, NEW)]


def test_a_store_of_this_epoch_does_not_ask() -> None:
    writer = register(epoch=E)
    tag = written_in(E, 5, 2)
    assert writer.store(tag, NEW) == [StoreAll(100, tag, NEW), StoreOwn(100, tag, NEW)]


def test_after_a_renewed_write_nothing_of_it_is_left_for_the_next_operation() -> None:
    one = storing_store()
    one.renew(E)
    one.value(RANK, 101, HIGH, data(4))
    one.value(2, 101, HIGH, data(4))
    one.ack(2, 101)
    assert one.ack(3, 101) == [Return(b"", b"")]
    assert one.read() == ask(102, values=False, own=True)
    one.value(RANK, 102, HIGH, data(4))
    assert one.value(2, 102, HIGH, None) == [Return(HIGH, data(4))]


def test_only_a_newer_epoch_renews() -> None:
    one = register(epoch=E)
    one.read()
    with pytest.raises(AssertionError):
        one.renew(E)


# --- REPAIR -------------------------------------------------------------------------------------------
def test_rule_10_a_repair_stores_here_alone_and_raises_nothing() -> None:
    one = register(epoch=E)
    assert one.repair() == ask(100, values=False, own=True)
    one.own_absent(100)
    one.value(2, 100, HIGH, None)
    assert one.value(3, 100, LOW, None) == ask(101, values=True, own=True)
    one.own_absent(101)
    one.value(2, 101, HIGH, NEW)
    assert one.value(3, 101, LOW, data(3)) == [StoreOwn(101, HIGH, NEW, repair=True)]
    assert one.recording is None, "where there is no room it waits: no other tag would do"
    assert one.store_own(101) == [StoreOwn(101, HIGH, NEW, repair=True)]
    assert one.ack(2, 101) == []
    assert one.ack(RANK, 101) == [Return(b"", b"")]


def test_a_repair_that_meets_a_newer_epoch_asks_again() -> None:
    one = register()
    one.repair()
    one.own_absent(100)
    one.value(2, 100, HIGH, NEW)
    assert one.value(3, 100, HIGH, NEW) == [StoreOwn(100, HIGH, NEW, repair=True)]
    assert one.renew(E) == ask(101, values=True, own=True)
    assert one.ack(RANK, 100) == []
    one.value(2, 101, at(E, HIGH), NEW)
    one.value(3, 101, HIGH, NEW)
    assert one.own_absent(101) == [StoreOwn(101, at(E, HIGH), NEW, repair=True)]


def test_a_repair_of_a_copy_that_is_whole_again_has_nothing_to_do() -> None:
    one = register()
    one.repair()
    one.value(2, 100, HIGH, None)
    assert one.value(RANK, 100, HIGH, NEW) == [StoreOwn(100, HIGH, NEW)], "stored already: done at once"
