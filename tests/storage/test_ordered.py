"""Ordered records: long runs to sectors that hold nothing go home first, and the journal gets no data. docs/storage.md,
"Ordered records", by the number of the scenario there."""

from __future__ import annotations

import errno
import random

import pytest

from dsreg.constants import MAX_RUN_SECTORS, MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.errors import DamagedStorage, SyncFailed
from dsreg.protocol.tags import pack_tag
from dsreg.storage import StableStorage, Ticket
from dsreg.storage.commit import Record
from dsreg.storage.layout import JOURNALS, SECTORS
from dsreg.storage.ordered import MIN_BYTES, MIN_SECTORS, Ordering
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored, tag, values
from tests.storage.support import ts_of as tss_of

# The shortest run that is ordered when it is alone.
RUN = MIN_BYTES // SECTOR_SIZE
# More than the journal takes for an ordered record of so many sectors, and much less than their data.
HEAD_BYTES = 64 + 20 * MAX_RUN_SECTORS + 64


def done(files: MemoryFiles, begin: int) -> list[str]:
    """What was written and synced since in homes and journal, in order, without repetitions."""
    said: list[str] = []
    for operation in files.log[begin:]:
        what = f"{operation.kind.value} {operation.name.partition('.')[0]}"
        if operation.name in (SECTORS, *JOURNALS) and said[-1:] != [what]:
            said.append(what)
    return said


ORDERED = ["write sectors", "sync sectors", "write journal", "sync journal"]
TWICE = ["write sectors", "write journal", "sync journal"]  # first writes, whose data is in the journal as well
OVER = ["write journal", "sync journal", "write sectors"]


def zeroed(storage: StableStorage, first: int, count: int, ts: int) -> None:
    ticket = storage.persist(first, count, tag(ts) * count, bytes(count * SECTOR_SIZE))
    commit_all(storage)
    assert ticket.ok


def raised(storage: StableStorage, first: int, count: int, epoch: int) -> None:
    """They count as never written, whatever they were."""
    ticket = storage.persist(first, count, pack_tag(0, 0, 0, epoch) * count, bytes(count * SECTOR_SIZE))
    commit_all(storage)
    assert ticket.ok


def stored_in(storage: StableStorage, first: int, count: int, ts: int, epoch: int) -> None:
    ticket = storage.persist(first, count, pack_tag(ts, 1, 0, epoch) * count, values(first, count, ts))
    commit_all(storage)
    assert ticket.ok


@pytest.mark.parametrize("count", [RUN, MAX_RUN_SECTORS])
def test_the_journal_has_no_data_of_what_held_nothing(count: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    begin = len(files.log)
    assert stored(storage, 500, count, 1).ok
    assert done(files, begin) == ORDERED and storage.journal_used < HEAD_BYTES
    for chooser in (drop_all, keep_all):
        again = open_storage(files := files.crash(chooser))
        assert contents(again, 500, count) == [1] * count and not again.damaged
        assert again.sectors_written == count
        assert tss_of(again.tags(499, 1)) == [0]


def test_several_runs_of_one_commit_are_ordered_together() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    begin = len(files.log)
    number = -(-MIN_BYTES // SECTOR_SIZE // MIN_SECTORS)
    tickets = [store(storage, 100 * index, MIN_SECTORS, 1) for index in range(number)]
    tickets.append(store(storage, 90, 1, 1))
    commit_all(storage)
    assert all(ticket.ok for ticket in tickets) and done(files, begin) == ORDERED
    again = open_storage(files.crash(drop_all))
    for index in range(number):
        assert contents(again, 100 * index, MIN_SECTORS) == [1] * MIN_SECTORS
    assert contents(again, 89, 3) == [0, 1, 0]


@pytest.mark.parametrize("count", [1, MIN_SECTORS - 1, RUN - 1])
def test_little_is_written_to_the_journal(count: int) -> None:
    """It would cost a sync more than it saves."""
    files = MemoryFiles()
    storage = open_storage(files)
    begin = len(files.log)
    assert stored(storage, 0, count, 1).ok
    assert done(files, begin)[:3] == TWICE and storage.journal_used > count * SECTOR_SIZE


def test_the_sync_brings_no_more_along_than_it_is_for() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    assert stored(storage, 0, RUN, 1).ok
    for index in range(RUN + 1):
        assert stored(storage, index % RUN, 1, 2 + index).ok
    begin = len(files.log)
    assert stored(storage, 1000, RUN, 1).ok
    assert done(files, begin)[:3] == TWICE
    checkpoint_now(storage)
    begin = len(files.log)
    assert stored(storage, 2000, RUN, 1).ok
    assert "sync sectors" in done(files, begin), "a checkpoint has synced the others"


BEFORE = ("nothing", "zeros", "value and zeros", "never written after all")


def prepare(storage: StableStorage, before: str, first: int, count: int) -> set[int]:
    """Homes that hold nothing, in all ways there are. The ts that the sectors may have then."""
    if before in ("value and zeros", "never written after all"):
        for sector in range(first, first + count):  # short: with data in the journal
            assert stored(storage, sector, 1, 1).ok
    if before.endswith("zeros"):
        zeroed(storage, first, count, 2)
        return {2}
    if before == "never written after all":
        raised(storage, first, count, 1)
    return {0}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("before", BEFORE)
def test_a_crash_at_every_step(before: str, checkpointed: bool, rng: random.Random) -> None:
    """1, 4, 5, 6: what was there before, or all of the value; and never what only the home has."""
    files = MemoryFiles()
    storage = open_storage(files)
    old = prepare(storage, before, 100, RUN)
    if checkpointed and storage.journal_used:
        checkpoint_now(storage)
        stored(storage, 0, 1, 1)  # in the new segment
    begin = len(files.log)
    stored_in(storage, 100, RUN, 5, 2)
    assert done(files, begin)[:2] == ORDERED[:2]
    promised = len(files.log)
    stored_in(storage, 110, 3, 6, 2)
    after = len(files.log)
    checkpoint_now(storage)
    for upto in range(begin, len(files.log) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
            loaded = again.load(100, RUN, wait=True)
            assert loaded is not None and not loaded.missing
            found = tss_of(loaded.tags)
            expected = b"".join(
                values(sector, 1, ts) if ts > 2 else bytes(SECTOR_SIZE) for sector, ts in enumerate(found, 100)
            )
            assert loaded.data == expected
            assert set(found) in ([old, {5}, {5, 6}] if upto < after else [{5, 6}])
            assert upto < promised or set(found) != old


@pytest.mark.parametrize("before", BEFORE)
def test_records_of_before_and_after_in_one_journal(before: str) -> None:
    """4, 5, 6: what is replayed leaves the home of an ordered record alone, and takes what came after it."""
    files = MemoryFiles()
    storage = open_storage(files)
    prepare(storage, before, 100, RUN)
    stored_in(storage, 100, RUN, 5, 2)
    stored_in(storage, 120, 1, 6, 2)
    stored_in(storage, 121, MIN_SECTORS, 7, 2)
    zeroed_to = 100 + RUN
    ticket = storage.persist(zeroed_to - 3, 3, pack_tag(8, 1, 0, 2) * 3, bytes(3 * SECTOR_SIZE))
    commit_all(storage)
    assert ticket.ok
    expected = [5] * 20 + [6] + [7] * MIN_SECTORS
    expected += [5] * (RUN - 3 - len(expected)) + [8] * 3
    for chooser in (drop_all, keep_all):
        copy = MemoryFiles.from_log(files.log).crash(chooser)
        for _ in range(2):
            again = open_storage(copy)
            loaded = again.load(100, RUN, wait=True)
            assert loaded is not None and not loaded.missing and tss_of(loaded.tags) == expected
            data = [values(sector, 1, ts) for sector, ts in enumerate(expected[:-3], 100)]
            assert loaded.data == b"".join((*data, bytes(3 * SECTOR_SIZE)))
            copy = copy.crash(drop_all)


@pytest.mark.parametrize("held", [RUN, 1])
def test_what_has_a_value_is_not_written_first(held: int, rng: random.Random) -> None:
    """2: a crash before the record is durable leaves the old value whole; also where one sector of the run has one."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 100, held, 1)
    checkpoint_now(storage)
    stored(storage, 0, 1, 1)  # in the new segment
    begin = len(files.log)
    stored(storage, 100, RUN, 2)
    if held == RUN:
        assert done(files, begin) == OVER
    for upto in range(begin, len(files.log) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
            assert set(contents(again, 100, held)) in ({1}, {2})


def test_an_older_directory_stays_a_source() -> None:
    """3: its values are not written over before the journal has the new ones, though every sector is to be learned."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, RUN, 1)
    checkpoint_now(storage)
    stored(storage, 5000, 1, 1)  # in the new segment
    storage.learning.begin()
    begin = len(files.log)
    stored(storage, 0, RUN, 2)
    assert done(files, begin)[:3] == OVER
    for upto in range(begin, len(files.log) + 1):
        again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(keep_all))
        ts = tss_of(again.tags(0, 1))
        assert again.learning.left and ts in ([1], [2]) and tss_of(again.tags(0, RUN)) == ts * RUN
        home = again._directory.home.pread(RUN * SECTOR_SIZE, 0)
        assert home == values(0, RUN, *ts), "what it is to learn, and may be asked for, is there under its tag"


@pytest.mark.parametrize("other", [(100 + RUN - 1, RUN, 2), (100, RUN, 2), (120, 1, 2), (90, 11, 2)])
def test_two_records_of_one_commit_for_a_sector(other: tuple[int, int, int]) -> None:
    """7: neither is ordered, as one home cannot be both."""
    files = MemoryFiles()
    storage = open_storage(files)
    first = store(storage, 100, RUN, 1)
    second = store(storage, *other)
    begin = len(files.log)
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    storage.finish_commit(commit)
    assert first.ok and second.ok and done(files, begin)[:3] == TWICE
    again = open_storage(files.crash(drop_all))
    expected = [2 if other[0] <= sector < other[0] + other[1] else 1 for sector in range(100, 100 + RUN)]
    assert contents(again, 100, RUN) == expected


def test_records_that_share_sectors(rng: random.Random) -> None:
    """7: those that are ordered share none with any other one of the commit."""
    for _ in range(200):
        runs = [(rng.randrange(120), rng.choice((1, 16, 17, 30, 64))) for _ in range(rng.randint(1, 6))]
        runs[0] = runs[0][0], RUN
        records = [Record(first, count, tag(1) * count, values(first, count, 1), Ticket()) for first, count in runs]
        for record in records:
            record.home_first = ((0, record.count),)
        Ordering().choose(records)
        sectors = [set(range(first, first + count)) for first, count in runs]
        for index, record in enumerate(records):
            others = set().union(*sectors[:index], *sectors[index + 1:])
            assert record.ordered == (record.count >= MIN_SECTORS and sectors[index].isdisjoint(others)), runs


def test_a_refused_record_of_the_same_commit() -> None:
    """7: it got as far as half over what another one had written."""
    files = MemoryFiles()
    storage = open_storage(files)
    kept = store(storage, 100, RUN, 1)
    refused = store(storage, 100 + RUN // 2, RUN, 2)
    files.capacity = files.used() + RUN + RUN // 4
    commit_all(storage)
    assert kept.ok and not refused.ok
    for _ in range(2):
        assert contents(storage, 100, RUN) == [1] * RUN
        storage = open_storage(files := files.crash(drop_all))


def test_no_room() -> None:
    """8: refused before anything is promised, and stored once there is room."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, RUN, 1)
    files.capacity = files.used() + RUN // 2
    refused = store(storage, 1000, RUN, 1)
    commit_all(storage)
    assert not refused.ok
    storage = open_storage(files := files.crash(keep_all))
    assert contents(storage, 1000, RUN) == [0] * RUN and contents(storage, 0, RUN) == [1] * RUN
    files.capacity = None
    assert stored(storage, 1000, RUN, 2).ok
    assert contents(open_storage(files.crash(drop_all)), 1000, RUN) == [2] * RUN


def test_a_sync_of_the_homes_that_fails_is_final() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    begin = len(files.log)
    store(storage, 0, RUN, 1)
    files.fail(Kind.SYNC, name=SECTORS)
    commit = storage.next_commit()
    assert commit is not None
    with pytest.raises(SyncFailed):
        commit.run()
    assert done(files, begin) == ["write sectors"], "nothing was said to be there"
    again = open_storage(files.crash(drop_all))
    assert contents(again, 0, RUN) == [0] * RUN


def test_a_home_that_is_damaged_later_is_found() -> None:
    """9: the record has the checksums, though not the data; it is missing until it is repaired."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, RUN, 1)
    files.damage(SECTORS, 5 * SECTOR_SIZE + 17, 1)
    for _ in range(2):
        loaded = storage.load(0, RUN, wait=True)
        assert loaded is not None and loaded.missing == (5,)
        storage = open_storage(files := files.crash(drop_all))
    loaded = storage.load(0, RUN, wait=True)
    assert stored(storage, 0, RUN, 1, repair=True).ok
    assert contents(open_storage(files.crash(drop_all)), 0, RUN) == [1] * RUN


def test_a_damaged_record_that_was_acknowledged() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for first in (0, 1000, 2000):
        stored(storage, first, RUN, 1)
    storage = open_storage(keep := files.crash(drop_all))
    stored(storage, 3000, RUN, 1)
    at = storage.journal_used
    stored(storage, 4000, RUN, 1)
    stored(storage, 5000, RUN, 1)
    name = JOURNALS[storage._segment.generation % 2]
    keep.damage(name, 8192 + at + 70, 1)
    with pytest.raises(DamagedStorage, match="acknowledged"):
        open_storage(keep.crash(keep_all))


def test_a_segment_is_full_when_it_speaks_of_as_much_as_it_could_hold() -> None:
    """So that tags are written as often as with the data in the journal, and not all kept in memory."""
    storage = open_storage(MemoryFiles())
    most = 0
    for index in range(4 * MIN_JOURNAL_BYTES // (MAX_RUN_SECTORS * SECTOR_SIZE)):
        assert stored(storage, index * MAX_RUN_SECTORS, MAX_RUN_SECTORS, 1).ok
        most = max(most, len(storage._table.pages.dirty))
    assert storage.checkpoints >= 2 and most <= 2 * MIN_JOURNAL_BYTES // (8 * SECTOR_SIZE)


def test_a_punch_that_fails_for_want_of_room_does_not_matter() -> None:
    """A home of zeros that has its old value still is written over, and is the new one's."""
    files = MemoryFiles()
    files.punches = False
    storage = open_storage(files)
    stored(storage, 0, RUN, 1)
    zeroed(storage, 0, RUN, 2)
    begin = len(files.log)
    assert stored(storage, 0, RUN, 3).ok and done(files, begin)[:2] == ORDERED[:2]
    assert contents(open_storage(files.crash(drop_all)), 0, RUN) == [3] * RUN


def test_errors_of_space_are_of_one_record() -> None:
    """One is refused by the disk, the others of the commit are ordered all the same."""
    files = MemoryFiles()
    storage = open_storage(files)
    tickets = [store(storage, 1000 * index, RUN, 1) for index in range(3)]
    files.fail(Kind.WRITE, nth=2, name=SECTORS, number=errno.ENOSPC)
    begin = len(files.log)
    commit_all(storage)
    assert [ticket.ok for ticket in tickets] == [True, False, True] and done(files, begin) == ORDERED
    again = open_storage(files.crash(drop_all))
    assert [contents(again, 1000 * index, 1) for index in range(3)] == [[1], [0], [1]]
