"""RecordBound: short records where connections break, long ones where they do not."""

from __future__ import annotations

from dsreg.protocol.record_bound import FIRST_BOUND, HEARD_AT_FIRST, HEARD_LATER, RecordBound
from dsreg.protocol.sealed import MAX_RECORD_BYTES

MANY = 100 * HEARD_LATER


def heard(records: RecordBound, times: int) -> int:
    for _ in range(times):
        records.heard()
    return records.bound


def grows_fast_to(records: RecordBound) -> int:
    """The bound from which on it grows slowly."""
    records.opened()
    while True:
        before = records.bound
        if before == MAX_RECORD_BYTES or heard(records, HEARD_AT_FIRST) == before:
            return before


def test_it_begins_with_one_frame_and_grows_with_what_is_heard() -> None:
    records = RecordBound()
    assert records.bound == FIRST_BOUND
    assert heard(records, HEARD_AT_FIRST - 1) == FIRST_BOUND
    assert heard(records, 1) == 2 * FIRST_BOUND
    assert heard(records, HEARD_AT_FIRST) == 4 * FIRST_BOUND
    assert heard(records, MANY) == MAX_RECORD_BYTES
    records.opened()
    assert records.bound == FIRST_BOUND


def test_a_connection_that_breaks_halves_what_the_next_one_grows_to_fast() -> None:
    records = RecordBound()
    records.broke(100_000)
    first = grows_fast_to(records)
    assert 25_000 < first <= 50_000
    records.broke(first)
    assert grows_fast_to(records) <= first // 2
    for _ in range(20):
        records.broke(0)
    assert grows_fast_to(records) == FIRST_BOUND


def test_it_grows_slowly_beyond_what_broke() -> None:
    records = RecordBound()
    for _ in range(20):
        records.broke(MAX_RECORD_BYTES)
    records.opened()
    assert heard(records, HEARD_LATER - 1) == FIRST_BOUND
    assert heard(records, 1) == 2 * FIRST_BOUND
    assert heard(records, MANY) == MAX_RECORD_BYTES
    assert grows_fast_to(records) > MAX_RECORD_BYTES // 4, "what has been reached since is reached fast again"


def test_a_break_after_small_records_says_nothing_against_twice_that() -> None:
    records = RecordBound()
    records.broke(10)
    assert grows_fast_to(records) == FIRST_BOUND
