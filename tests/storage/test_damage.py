"""Bytes that changed on the disk: found, never served, healed where that can be."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DamagedStorage, WrongDirectory
from dsreg.storage import Refusal, StableStorage
from dsreg.storage.journal import RECORD_BYTES, RECORDS_AT
from dsreg.storage.layout import (
    COPY_DISTANCE,
    GROUP_SECTORS,
    IDENTITY,
    JOURNALS,
    LIVES,
    SECTORS,
    SLOT_SIZE,
    STATE,
    TAGS,
)
from dsreg.testing.memory_files import MemoryFiles, drop_all, keep_all
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored, tag, ts_of

GROUPS = 10


def closed(ts: int = 3) -> MemoryFiles:
    """A directory, cleanly closed, with ten groups in slots 0..9, group 4 without its first sector."""
    files = MemoryFiles()
    storage = open_storage(files)
    for group in range(GROUPS):
        stored(storage, group * GROUP_SECTORS + (group == 4), GROUP_SECTORS - (group == 4), ts)
    storage.close()
    return files


def crashed(*batches: int) -> MemoryFiles:
    """A directory after a crash, with one batch of one sector per ts in its journal."""
    files = MemoryFiles()
    storage = open_storage(files)
    for ts in batches:
        stored(storage, ts, 1, ts)
    return files.crash(drop_all)


def sector_damaged(storage: StableStorage, first: int, count: int) -> tuple[int, ...]:
    loaded = storage.load(first, count, wait=True)
    assert loaded is not None
    return loaded.missing


# --- home -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("offset", [0, 1, SECTOR_SIZE - 1])
def test_a_damaged_value_is_missing_until_it_is_stored_again(offset: int) -> None:
    files = closed()
    files.damage(SECTORS, 20 * SECTOR_SIZE + offset, 1)
    storage = open_storage(files)
    assert storage.missing(0, 80) == []
    assert sector_damaged(storage, 16, 16) == (20,)
    assert storage.missing(0, 80) == [20] and storage.unknown(0, 80) == [] and storage.damaged == 1
    assert ts_of(storage.tags(20, 1)) == [3]
    assert store(storage, 20, 1, ts=2).done and storage.missing(20, 1) == [20]
    storage.close()

    storage = open_storage(files)  # found again
    assert sector_damaged(storage, 0, 80) == (20,)
    ticket, repeat = store(storage, 16, 16, ts=3), store(storage, 20, 1, ts=3)  # the same tag heals
    assert not ticket.done and not repeat.done
    commit_all(storage)
    assert ticket.ok and repeat.ok and storage.missing(0, 80) == [] and storage.damaged == 0
    assert contents(storage, 16, 16) == [3] * 16
    files = files.crash(drop_all)
    assert contents(open_storage(files), 16, 16) == [3] * 16


def test_a_newer_value_heals_too() -> None:
    files = closed()
    files.damage(SECTORS, 20 * SECTOR_SIZE, 1)
    storage = open_storage(files)
    assert sector_damaged(storage, 20, 1) == (20,)
    assert stored(storage, 18, 4, ts=4).ok
    assert contents(storage, 16, 8) == [3, 3, 4, 4, 4, 4, 3, 3] and storage.damaged == 0


def test_a_page_that_cannot_be_read_and_a_file_cut_short() -> None:
    files = closed()
    files.unreadable(SECTORS, 5)
    files.open(SECTORS).truncate(70 * SECTOR_SIZE)
    storage = open_storage(files)
    assert sector_damaged(storage, 0, 90) == (5, *range(70, 80))
    assert contents(storage, 6, 60)[0] == 3


def test_zeros_in_place_of_a_value_are_damage() -> None:
    files = closed()
    files.open(SECTORS).pwritev([bytes(SECTOR_SIZE)], 20 * SECTOR_SIZE)
    assert sector_damaged(open_storage(files), 0, 80) == (20,)


# --- tags -----------------------------------------------------------------------------------------
def damage_body(files: MemoryFiles, slot: int) -> None:
    files.damage(TAGS, slot * SLOT_SIZE + 100, 1)


def damage_head(files: MemoryFiles, slot: int) -> None:
    files.damage(TAGS, slot * SLOT_SIZE + 5, 1)


def zero_slot(files: MemoryFiles, slot: int) -> None:
    files.open(TAGS).pwritev([bytes(SLOT_SIZE)], slot * SLOT_SIZE)


def copy_slot(files: MemoryFiles, slot: int) -> None:
    files.open(TAGS).pwritev([files.open(TAGS).pread(SLOT_SIZE, 0)], slot * SLOT_SIZE)


def test_a_slot_whose_group_is_known() -> None:
    files = closed()
    damage_body(files, 4)
    group = list(range(32, 40))
    for _ in range(2):  # the second time from the mark that the first start has left
        storage = open_storage(files)
        assert storage.unknown(0, 256) == group == storage.missing(0, 256)
        assert ts_of(storage.tags(31, 3)) == [3, 0, 0]
        assert sector_damaged(storage, 30, 4) == (32, 33)
        refused = store(storage, 30, 4, ts=9)
        assert refused.done and not refused.ok and refused.refusal is Refusal.UNKNOWN
        assert storage.next_commit() is None
        storage.close()
    storage = open_storage(files)
    # From a majority: a value for some, and "never written" for the first.
    never = storage.persist(32, 1, tag(0, 0), bytes(SECTOR_SIZE), repair=True)
    older = store(storage, 33, 3, ts=2, repair=True)
    commit_all(storage)
    assert never.ok and older.ok and storage.unknown(0, 256) == list(range(36, 40))
    assert contents(storage, 30, 6) == [3, 3, 0, 2, 2, 2]
    assert stored(storage, 32, 2, ts=1).ok
    files = files.crash(drop_all)
    storage = open_storage(files)
    assert storage.unknown(0, 256) == list(range(36, 40)) and contents(storage, 30, 6) == [3, 3, 1, 2, 2, 2]
    stored(storage, 36, 4, ts=5, repair=True)
    storage.close()
    storage = open_storage(files)
    assert storage.damaged == 0 and contents(storage, 32, 8) == [1, 2, 2, 2] + [5] * 4


@pytest.mark.parametrize("damage", [damage_head, zero_slot, copy_slot])
def test_a_slot_whose_group_is_not_known(damage: Callable[[MemoryFiles, int], None]) -> None:
    files = closed()
    damage(files, 2)
    for _ in range(2):
        storage = open_storage(files)
        assert storage.unknown(0, 256) == [*range(16, 24), *range(80, 256)]
        assert contents(storage, 32, 48) == [0] + [3] * 47
        assert sector_damaged(storage, 90, 1) == (90,)
        storage.close()
    storage = open_storage(files)
    assert not store(storage, 90, 1, ts=9).ok
    assert stored(storage, 90, 1, ts=9, repair=True).ok
    zeros = storage.persist(91, 1, tag(0, 0), bytes(SECTOR_SIZE), repair=True)
    commit_all(storage)
    assert zeros.ok and storage.unknown(80, 16) == [*range(80, 90), 92, 93, 94, 95]
    assert stored(storage, 91, 1, ts=1).ok
    storage.close()
    storage = open_storage(files)
    assert storage.unknown(16, 80) == [*range(16, 24), *range(80, 90), 92, 93, 94, 95]
    assert contents(storage, 90, 2) == [9, 1]


def test_a_tag_file_cut_short_and_unreadable() -> None:
    files = closed()
    files.open(TAGS).truncate(3 * SLOT_SIZE)
    assert open_storage(files).unknown(0, 80) == list(range(24, 80))
    files = closed()
    files.unreadable(TAGS, 0)
    assert open_storage(files).unknown(0, 80) == list(range(80))


@pytest.mark.parametrize("damage", [damage_body, damage_head])
def test_the_journal_makes_known_what_it_has(damage: Callable[[MemoryFiles, int], None]) -> None:
    files = closed()
    storage = open_storage(files)
    stored(storage, 16, 4, ts=7)
    files = files.crash(keep_all)
    damage(files, 2)
    storage = open_storage(files)
    assert storage.unknown(0, 80) == list(range(20, 24))
    assert contents(storage, 14, 6) == [3, 3, 7, 7, 7, 7]


# --- journal --------------------------------------------------------------------------------------
def active(files: MemoryFiles) -> str:
    """The journal that the log's last write went to."""
    return next(op.name for op in reversed(files.log) if op.name in JOURNALS)


@pytest.mark.parametrize("offset", [0, 20, 50, 70, 80, 4000])
def test_an_acknowledged_batch_that_cannot_be_read(offset: int) -> None:
    files = crashed(1, 2, 3)
    name = JOURNALS[1]  # the first generation
    files.damage(name, RECORDS_AT + RECORD_BYTES[1] + offset, 1)
    before = [files.open(name).pread(10**7, 0) for name in files.list()]
    with pytest.raises(DamagedStorage, match="batch 2"):
        open_storage(files)
    assert [files.open(name).pread(10**7, 0) for name in files.list()] == before


def test_a_torn_last_batch_is_dropped() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 1, 1, ts=1)
    for sector in (2, 3, 4):
        store(storage, sector, 1, ts=2)
    commit_all(storage)
    files = files.crash(keep_all)
    files.damage(JOURNALS[1], RECORDS_AT + 2 * RECORD_BYTES[1] + 1000, 1)
    storage = open_storage(files)
    assert contents(storage, 0, 6) == [0, 1, 2, 0, 0, 0]
    assert stored(storage, 3, 2, ts=1).ok
    assert contents(open_storage(files.crash(drop_all)), 0, 6) == [0, 1, 2, 1, 1, 0]


def test_the_older_segment_is_checked_to_its_end() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    ts = 0
    while not storage.checkpoint_due(idle=False):
        ts += 1
        store(storage, 0, 200, ts)
        commit = storage.next_commit()
        assert commit is not None
        commit.run()
        storage.finish_commit(commit)
    crashed, damaged = files.crash(drop_all), files.crash(drop_all)
    damaged.damage(JOURNALS[1], RECORDS_AT + (ts - 2) * RECORD_BYTES[200], 1)  # the last record but one
    with pytest.raises(DamagedStorage, match="generation 1"):
        open_storage(damaged)

    # Once a checkpoint has freed a segment, nobody needs what is in it.
    storage = open_storage(crashed)
    assert contents(storage, 0, 200) == [ts] * 200
    stored(storage, 0, 1, ts=ts + 1)
    checkpoint_now(storage)
    stored(storage, 0, 1, ts=ts + 2)
    assert active(crashed) == JOURNALS[0]
    files = crashed.crash(drop_all)
    files.damage(JOURNALS[1], RECORDS_AT, 10000)
    assert contents(open_storage(files), 0, 1) == [ts + 2]


def test_one_copy_of_a_header_is_enough_and_none_is_not() -> None:
    for name in JOURNALS:
        files = crashed(1, 2)
        files.damage(name, 0, 100)
        assert contents(open_storage(files), 1, 2) == [1, 2]
    files = crashed(1, 2)
    files.damage(JOURNALS[1], 0, 100)
    files.damage(JOURNALS[1], COPY_DISTANCE, 100)
    with pytest.raises(DamagedStorage, match="header"):
        open_storage(files)


def test_a_journal_that_cannot_be_read_or_has_gone() -> None:
    files = crashed(1, 2)
    files.unreadable(JOURNALS[1], 2)
    with pytest.raises(DamagedStorage, match="cannot be read"):
        open_storage(files)
    files = crashed(1, 2)
    files.open(JOURNALS[1]).truncate(RECORDS_AT)
    with pytest.raises(DamagedStorage, match="bytes instead of"):
        open_storage(files)


def test_a_journal_stored_as_data_is_no_journal() -> None:
    """Sectors that hold a copy of this node's own journal, and a torn batch around them."""
    files = MemoryFiles()
    storage = open_storage(files)
    for ts in (1, 2, 3):
        stored(storage, ts, 1, ts)
    journal = files.open(JOURNALS[1]).pread(32 * SECTOR_SIZE, 0)
    storage.persist(100, 32, tag(4) * 32, journal)
    commit_all(storage)
    files.damage(JOURNALS[1], RECORDS_AT + 3 * RECORD_BYTES[1] + 10, 1)
    storage = open_storage(files.crash(keep_all))
    assert contents(storage, 0, 5) == [0, 1, 2, 3, 0] and ts_of(storage.tags(100, 1)) == [0]


# --- state, identity, whole files -----------------------------------------------------------------
@pytest.mark.parametrize("copy", [0, COPY_DISTANCE])
def test_one_copy_of_the_state_is_enough(copy: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.reserve(77)
    commit_all(storage)
    files = files.crash(drop_all)
    files.damage(STATE, copy, 512)
    storage = open_storage(files)
    assert (storage.incarnation, storage.ts_reserved) == (2, 77)


def test_no_copy_of_the_state() -> None:
    files = closed()
    files.damage(STATE, 0, 8)
    files.damage(STATE, COPY_DISTANCE, 8)
    with pytest.raises(DamagedStorage, match="state"):
        open_storage(files)


def test_damage_to_the_identity(rng: random.Random) -> None:
    size = closed().open(IDENTITY).size()
    for at in rng.sample(range(size), 20):
        files = closed()
        files.damage(IDENTITY, at, 1)
        with pytest.raises((DamagedStorage, WrongDirectory)):
            open_storage(files)


@pytest.mark.parametrize("name", [IDENTITY, STATE, LIVES, TAGS, SECTORS, *JOURNALS])
def test_a_file_that_is_gone(name: str) -> None:
    files = closed()
    files.remove(name)
    with pytest.raises(DamagedStorage, match=name):
        open_storage(files)
    assert not files.exists(name)


def test_another_format_is_refused() -> None:
    files = closed()
    text = files.open(IDENTITY).pread(10**4, 0)
    files.open(IDENTITY).pwritev([text.replace(b"format = 7", b"format = 8")], 0)
    with pytest.raises(WrongDirectory, match="format 8"):
        open_storage(files)


def last_record(files: MemoryFiles, name: str) -> int:
    """Where the last record of the segment begins."""
    file = files.open(name)
    return file.pread(file.size(), 0).rfind(b"dsregREC")


def test_any_damage_anywhere_is_never_served(rng: random.Random) -> None:
    """A byte or a page somewhere: the storage refuses to start, or says what is lost, or has it all."""
    for _ in range(30):
        files = closed()
        storage = open_storage(files)
        stored(storage, 3, 10, ts=5)
        stored(storage, 200, 1, ts=5)
        files = files.crash(drop_all)
        name = rng.choice([SECTORS, TAGS, STATE, *JOURNALS])
        length = rng.choice((1, 512))
        used = {SECTORS: 80 * SECTOR_SIZE, TAGS: GROUPS * SLOT_SIZE, STATE: 8192}.get(name, 70000)
        begin = rng.randrange(used - length)
        # From the first batch into the head of the last: what is found is one torn batch, and nothing behind it.
        spans = name in JOURNALS and begin < last_record(files, name) < begin + length
        files.damage(name, begin, length)
        try:
            storage = open_storage(files)
        except DamagedStorage:
            continue
        lost = {*sector_damaged(storage, 0, 201), *storage.missing(0, 201)}
        tags = ts_of(storage.tags(0, 201))
        for sector in range(201):
            expected = 5 if 3 <= sector < 13 or sector == 200 else 3 if sector < 80 and sector != 32 else 0
            # The last batch of the journal cannot be told from a torn one.
            dropped = name in JOURNALS and (sector == 200 and tags[sector] == 0 or spans and tags[sector] == 3)
            assert sector in lost or tags[sector] == expected or dropped, (name, sector, tags[sector])
