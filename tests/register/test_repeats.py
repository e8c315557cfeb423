"""Repeats: what is new, under way and done; bounded per peer."""

from __future__ import annotations

from dsreg.constants import MAX_REMEMBERED_UUIDS, ZERO_TAG
from dsreg.protocol.tags import pack_tag
from dsreg.register.effects import RepeatKey
from dsreg.register.repeats import Repeats, Seen


def key(number: int, rank: int = 2, first: int = 0) -> RepeatKey:
    return RepeatKey(rank, number.to_bytes(16, "big"), 1, first, ZERO_TAG)


def test_new_then_in_progress_then_done() -> None:
    repeats = Repeats()
    assert repeats.see(key(1)) is Seen.NEW
    assert repeats.see(key(1)) is Seen.IN_PROGRESS
    repeats.done(key(1))
    assert repeats.see(key(1)) is Seen.DONE
    assert repeats.see(key(1)) is Seen.DONE


def test_refused_work_may_be_tried_again() -> None:
    repeats = Repeats()
    repeats.see(key(1))
    repeats.forget(key(1))
    assert repeats.see(key(1)) is Seen.NEW


def test_one_uuid_for_two_messages_loses_neither() -> None:
    repeats = Repeats()
    repeats.see(key(1))
    repeats.done(key(1))
    others = (key(1)._replace(rid=2), key(1)._replace(first=1), key(1)._replace(tags=pack_tag(1, 1)))
    assert [repeats.see(other) for other in others] == [Seen.NEW] * 3


def test_peers_do_not_share() -> None:
    repeats = Repeats()
    assert repeats.see(key(1, rank=2)) is Seen.NEW
    assert repeats.see(key(1, rank=3)) is Seen.NEW


def test_the_oldest_falls_out_and_one_peer_pushes_out_no_other() -> None:
    repeats = Repeats(limit=3)
    repeats.see(key(1, rank=3))
    for number in range(1, 5):
        repeats.see(key(number))
    assert repeats.see(key(4)) is Seen.IN_PROGRESS
    assert repeats.see(key(2)) is Seen.IN_PROGRESS
    assert repeats.see(key(1, rank=3)) is Seen.IN_PROGRESS
    assert repeats.see(key(1)) is Seen.NEW


def test_work_that_ends_after_it_fell_out_leaves_nothing() -> None:
    repeats = Repeats(limit=1)
    repeats.see(key(1))
    repeats.see(key(2))
    repeats.done(key(1))
    repeats.forget(key(1))
    assert len(repeats._peers[2]) == 1
    assert repeats.see(key(2)) is Seen.IN_PROGRESS


def test_memory_is_bounded() -> None:
    repeats = Repeats()
    for number in range(2 * MAX_REMEMBERED_UUIDS):
        repeats.see(key(number))
        repeats.done(key(number))
    assert len(repeats._peers[2]) == MAX_REMEMBERED_UUIDS


def test_for_messages_of_an_unknown_peer_nothing_is_kept() -> None:
    repeats = Repeats()
    repeats.done(key(1))
    repeats.forget(key(1))
    assert not repeats._peers
