"""Of the records of a commit: what goes home before the journal and what after it, and which slots are new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dsreg.constants import TAG_SIZE
from dsreg.storage.commit import Record, Span, spans_of
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.slots import CHUNK_KEYS, CHUNK_SECTORS, SLOT_CHUNKS
from dsreg.storage.tags import TagTable

_WHOLE_SECTOR: Sequence[Span] = ((0, 1),)


def place(records: Sequence[Record], table: TagTable) -> tuple[int, set[int]]:
    """Say for each record what goes home before the journal and what after it.

    Returns the bytes that the tag file needs for the slots that are new (0: there are none), and the sectors whose home
    holds a value until the commit overwrites it.
    """
    new: set[int] = set()
    storing: set[int] = set()
    shared: set[int] = set()
    if any(record.dataless for record in records):
        shared = _shared_chunks(records)
        _place_holes(records, table, storing)
    for record in records:
        if record.dataless:
            keys = _keys_of_dataless(record, table, shared)
            record.new_groups = bool(keys)
            new |= keys
            continue
        if record.count == 1 and not table.damaged:
            if not table.holds(record.first):
                record.home_first = _WHOLE_SECTOR
                number = record.first // GROUP_SECTORS
                if table.find(number) is None:
                    new.add(number)
                    record.new_groups = True
            else:
                record.home_after = _WHOLE_SECTOR
                storing.add(record.first)
            continue
        keys = table.new_keys(record.first, record.count)
        record.new_groups = bool(keys)
        new |= keys
        _place_home(record, table, storing)
    return (table.slots + len(new)) * SLOT_SIZE if new else 0, storing


def _chunks_of(record: Record) -> range:
    return range(record.first // CHUNK_SECTORS, (record.first + record.count - 1) // CHUNK_SECTORS + 1)


def _shared_chunks(records: Sequence[Record]) -> set[int]:
    """The chunks that more than one of the records is about."""
    times = Counter(chunk for record in records for chunk in _chunks_of(record))
    return {chunk for chunk, number in times.items() if number > 1}


def _place_holes(records: Sequence[Record], table: TagTable, storing: set[int]) -> None:
    """Say what is punched for zeros: what has a value, or gets one from a record before. Not what a record after it
    stores: that may be home by then, and else needs the space. What counts as never written keeps its space: it was a
    value that a minority had, and is nearly always written again."""
    stored = Counter(
        sector for record in records if not record.dataless
        for sector in range(record.first, record.first + record.count)
    )
    before: Counter[int] = Counter()
    for record in records:
        run = range(record.first, record.first + record.count)
        if not record.dataless:
            before.update(run)
            continue
        if not record.tags[-1]:
            continue
        held = table.held(record.first, record.count)
        if not before and not any(held):
            continue
        storing.update(sector for sector, has_value in zip(run, held, strict=True) if has_value)
        record.punched = spans_of(
            index for index, sector in enumerate(run)
            if (held[index] or before[sector]) and before[sector] == stored[sector]
        )


def _keys_of_dataless(record: Record, table: TagTable, shared: set[int]) -> set[int]:
    """The keys that may get a slot. Where such a record is kept depends on what the chunk says, and which of its groups
    have a slot, when it is put: where another record of the commit may change that before, any place is possible."""
    chunks = _chunks_of(record)
    if shared.isdisjoint(chunks):
        return table.new_keys(record.first, record.count, record.tags[:TAG_SIZE])
    states = {base + chunk // SLOT_CHUNKS for chunk in chunks for base in CHUNK_KEYS}
    return table.new_keys(record.first, record.count) | {key for key in states if table.find(key) is None}


def _place_home(record: Record, table: TagTable, storing: set[int]) -> None:
    first, count = record.first, record.count
    held = table.held(first, count)
    if not table.damaged and not any(held):
        record.home_first = ((0, count),)
        return
    if not table.damaged and 0 not in held:
        record.home_after = ((0, count),)
        storing.update(range(first, first + count))
        return
    has_value = [
        bool(held[index]) and not (table.damaged and table.is_missing(first + index)) for index in range(count)
    ]
    storing.update(first + index for index in range(count) if has_value[index])
    record.home_first = spans_of(index for index in range(count) if not has_value[index])
    record.home_after = spans_of(index for index in range(count) if has_value[index])
