"""Writes of zeros: a mark beside the tag, no data, and the room of what was there comes back. docs/storage.md."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_TAG
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.protocol.zeros import is_zeros
from dsreg.register.damage import Kind as DamageKind
from dsreg.register.digests import TagDigests
from dsreg.register.lacking import lacking
from dsreg.storage import OsFiles, Refusal, StableStorage, Ticket, journal
from dsreg.storage.layout import SECTORS, SLOT_SIZE, TAGS, TAGS_STEP_BYTES
from dsreg.storage.slots import CHUNK_SECTORS, ZERO_CRC
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import IDENTITY, checkpoint_now, commit_all, open_storage, stored, tag, value, values
from tests.storage.support import ts_of as tss_of

CHUNKS = 16
MIB = 1 << 20


def zeroed(storage: StableStorage, first: int, count: int, ts: int) -> Ticket:
    ticket = storage.persist(first, count, tag(ts) * count, bytes(count * SECTOR_SIZE))
    commit_all(storage)
    assert ticket.done
    return ticket


def check(storage: StableStorage, first: int, expected: list[tuple[int, bool]]) -> None:
    """The ts of each sector, and whether it is zeros."""
    for wait in (True, False):
        loaded = storage.load(first, len(expected), wait)
        if loaded is None:
            assert not wait
            continue
        assert not loaded.missing and tss_of(loaded.tags) == [ts for ts, _ in expected]
        for index, (ts, zeros) in enumerate(expected):
            data = loaded.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE]
            assert data == (bytes(SECTOR_SIZE) if zeros or not ts else value(first + index, ts)), (first + index, ts)


def home_pages(files: MemoryFiles) -> set[int]:
    return set(files._names[SECTORS].seen.pages)


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview])
def test_zeros_are_told_from_data(data: type, rng: random.Random) -> None:
    for count in (1, 2, 256):
        raw = bytearray(count * SECTOR_SIZE)
        assert is_zeros(data(bytes(raw)))
        raw[rng.choice((0, len(raw) - 1, rng.randrange(len(raw))))] = 1
        assert not is_zeros(data(bytes(raw)))


def test_a_chunk_of_zeros_costs_32_bytes_at_rest_and_64_in_the_journal(tmp_path: Path) -> None:
    storage = StableStorage.open(OsFiles(tmp_path), IDENTITY, 2 * MIB)
    used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    for chunk in range(CHUNKS):
        before = storage.journal_used
        assert zeroed(storage, chunk * CHUNK_SECTORS, CHUNK_SECTORS, 1).ok
        assert storage.journal_used - before == journal.ZEROS_BYTES == 64
    assert storage._table.slots * SLOT_SIZE <= 32 * CHUNKS and storage.sectors_written == 0
    checkpoint_now(storage)
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir()) <= used + TAGS_STEP_BYTES
    assert os.stat(tmp_path / SECTORS).st_size == 0
    storage.close()


def test_zeros_over_data_give_its_room_back(tmp_path: Path) -> None:
    files = OsFiles(tmp_path)
    storage = StableStorage.open(files, IDENTITY, 2 * MIB)
    for first in range(0, 1024, 256):
        assert stored(storage, first, 256, 1).ok
    checkpoint_now(storage)
    os.sync()
    assert os.stat(tmp_path / SECTORS).st_blocks * 512 >= 1024 * SECTOR_SIZE
    for first in range(0, 1024, 256):
        assert zeroed(storage, first, 256 - 1, 2).ok
    storage.close()
    os.sync()
    assert os.stat(tmp_path / SECTORS).st_blocks * 512 <= 64 * 1024
    storage = StableStorage.open(files, IDENTITY)
    assert storage.sectors_written == 4
    check(storage, 500, [(2, True)] * 11 + [(1, False)] + [(2, True)] * 200)
    storage.close()


def is_zero_ts(ts: int) -> bool:
    """Whether the write of this ts is one of zeros, in what follows."""
    return ts % 3 == 0


def held_of(storage: StableStorage, area: int) -> list[bool]:
    return [held != 0 for first in range(0, area, 256) for held in storage._table.held(first, 256)]


def compare(storage: StableStorage, model: dict[int, bytes], first: int, count: int) -> None:
    tags = b"".join(model.get(sector, ZERO_TAG) for sector in range(first, first + count))
    assert storage.tags(first, count) == tags
    check(storage, first, [(ts, is_zero_ts(ts)) for ts in tss_of(tags)])
    crcs = storage.check.crcs(first, count)
    for index, ts in enumerate(tss_of(tags)):
        if ts and is_zero_ts(ts):
            assert crcs[4 * index:4 * index + 4] == ZERO_CRC, "as of zeros that are kept as data"


def compare_all(storage: StableStorage, model: dict[int, bytes], area: int) -> None:
    for first in range(0, area, 256):
        compare(storage, model, first, 256)


def test_any_runs_against_a_model(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    model: dict[int, bytes] = {}
    restamped: set[int] = set()  # as never written: what a home had before stays there
    area = 3 * CHUNK_SECTORS
    for step in range(1, 200):
        epoch, length = step // 40, rng.choice((1, 3, 8, 24, 100, 256))
        first = rng.randrange(area - length + 1)
        if rng.random() < 0.6:
            first = first // 8 * 8
        ts = rng.choice((3 * step, 3 * step, 3 * step + 1, max(3, 3 * step - 30), 0))
        tags = [pack_tag(ts, 1 if ts else 0, 0, epoch)] * length
        if rng.random() < 0.2 and is_zero_ts(ts):  # some of another zero write, or never written
            others = (pack_tag(3 * step + 3, 1, 0, epoch), pack_tag(0, 0, 0, epoch))
            tags = [rng.choice(others) if rng.random() < 0.3 else each for each in tags]
        data = b"".join(
            value(sector, ts) if ts and not is_zero_ts(ts) else bytes(SECTOR_SIZE)
            for sector, ts in enumerate(tss_of(b"".join(tags)), first)
        )
        storage.persist(first, length, b"".join(tags), data)
        for sector, each in enumerate(tags, first):
            model[sector] = max(model.get(sector, ZERO_TAG), each)
            if not each[-1]:
                restamped.add(sector)
        if rng.random() < 0.7:
            commit_all(storage)
            compare(storage, model, max(0, min(first, area - 256)), 256)
            if rng.random() < 0.2 and storage.journal_used:
                checkpoint_now(storage)
        if rng.random() < 0.07:
            commit_all(storage)
            files = files.crash(rng.choice((drop_all, keep_all, random_chooser(rng))))
            storage = open_storage(files)
    commit_all(storage)
    compare_all(storage, model, area)
    ts_by_sector = {sector: ts for sector, each in model.items() for ts in tss_of(each)}
    values_there = sum(ts != 0 and not is_zero_ts(ts) for ts in ts_by_sector.values())
    assert storage.sectors_written == sum(held_of(storage, area)) == values_there
    storage.close()
    again = open_storage(files)
    compare_all(again, model, area)
    for number in home_pages(files) - restamped:
        ts = ts_by_sector[number]
        assert not ts or not is_zero_ts(ts), "what is zeros takes no room"


@pytest.mark.parametrize("before", ["nothing", "data", "zeros", "chunk of zeros"])
@pytest.mark.parametrize("stores", [
    each for number in (1, 2, 3) for each in itertools.product(("data", "zeros"), repeat=number)
])
def test_stores_of_one_commit_in_any_order(stores: tuple[str, ...], before: str) -> None:
    """And after a crash of which anything unsynced, or nothing of it, is left."""
    files = MemoryFiles()
    storage = open_storage(files)
    if before == "data":
        stored(storage, 8, 16, 1)
    elif before != "nothing":
        first, count = (8, 16) if before == "zeros" else (0, 256)
        if before == "zeros":
            stored(storage, 8, 16, 1)
        zeroed(storage, first, count, 2)
    if storage.journal_used:
        checkpoint_now(storage)
    for ts, what in enumerate(stores, 3):
        count = 10 - ts
        data = bytes(count * SECTOR_SIZE) if what == "zeros" else values(10, count, ts)
        storage.persist(10, count, tag(ts) * count, data)
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert all(ticket.ok for ticket in storage.finish_commit(commit)) and storage.next_commit() is None
    expected = []
    for index in range(7):
        last = max(ts for ts in range(3, 3 + len(stores)) if index < 10 - ts)
        expected.append((last, stores[last - 3] == "zeros"))
    check(storage, 10, expected)
    pages = home_pages(files)
    assert {10 + index for index, (_, zeros) in enumerate(expected) if not zeros} <= pages
    assert not {10 + index for index, (_, zeros) in enumerate(expected) if zeros} & pages
    for chooser in (keep_all, drop_all):
        again = open_storage(files := files.crash(chooser))
        check(again, 10, expected)


@pytest.mark.parametrize("before", ["data", "nothing"])
def test_a_crash_at_every_step_leaves_the_old_value_or_zeros(before: str, rng: random.Random) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    if before == "data":
        stored(storage, 3, 20, 1)
        checkpoint_now(storage)
    begin = len(files.log)
    zeroed(storage, 3, 20, 3)
    promised = len(files.log)
    checkpoint_now(storage)
    stored(storage, 5, 2, 4)
    checkpoint_now(storage)
    assert before == "nothing" or any(operation.kind is Kind.PUNCH for operation in files.log[begin:promised])
    for upto in range(begin, len(files.log) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
            found = tss_of(again.tags(3, 20))
            check(again, 3, [(ts, ts == 3) for ts in found])
            assert set(found) <= {1 if before == "data" else 0, 3, 4}
            assert upto < promised or set(found) <= {3, 4}


def test_overwriting_zeros_on_a_full_disk_is_refused_and_loses_nothing() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 16, 1)
    files.capacity = files.used()
    assert zeroed(storage, 0, 8, 2).ok, "it needs no room"
    assert zeroed(storage, 1024, 256, 2).ok, "nor does this: see ahead_of"
    files.capacity = files.used()
    for _ in range(2):
        for first, count in ((0, 1), (0, 8), (4, 8)):
            refused = stored(storage, first, count, 5)
            assert not refused.ok and refused.refusal is Refusal.NO_SPACE
        check(storage, 0, [(2, True)] * 8 + [(1, False)] * 8)
        assert stored(storage, 8, 8, 1).ok
        storage.close()
        storage = open_storage(files)
    assert zeroed(storage, 12, 4, 4).ok and stored(storage, 4, 3, 5).ok, "what was given back is there to be used"
    check(storage, 0, [(2, True)] * 4 + [(5, False)] * 3 + [(2, True)] + [(1, False)] * 4 + [(4, True)] * 4)


def test_what_was_stored_over_zeros_and_not_promised_is_not_there() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    zeroed(storage, 0, 256, 1)
    checkpoint_now(storage)
    begin = len(files.log)
    stored(storage, 9, 2, 2)
    kinds = [(operation.kind, operation.name) for operation in files.log[begin:]]
    home = kinds.index((Kind.WRITE, SECTORS))
    cut = begin + next(at for at in range(home, len(kinds)) if kinds[at][0] is Kind.SYNC)
    after = MemoryFiles.from_log(files.log[:cut]).crash(
        lambda operation: keep_all(operation) if operation.name == SECTORS else 0
    )
    assert {9, 10} <= home_pages(after)
    check(open_storage(after), 0, [(1, True)] * 256)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_data_over_a_mark(count: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 8, 8, 1)
    zeroed(storage, 8, 8, 2)
    assert storage.sectors_written == 0
    stored(storage, 8, count, 4)
    for _ in range(2):
        check(storage, 8, [(4, False)] * count + [(2, True)] * (8 - count))
        assert storage.sectors_written == count
        storage = open_storage(files := files.crash(drop_all))


def test_digests_and_the_next_chunk_know_zeros() -> None:
    """A chunk of zeros differs by its tags, as any other, and is found by whoever compares, also after a start."""
    files, others = MemoryFiles(), MemoryFiles()
    storage, other = open_storage(files), open_storage(others)
    zeroed(storage, 512, 256, 3)
    stored(other, 512, 256, 3)
    for _ in range(2):
        digests = TagDigests(storage)
        assert list(digests.listed(0, 8)) == [2]
        assert digests.of(2) == TagDigests(other).of(2) != b"" and digests.of(1) == b""
        (lack,) = lacking(bytes(16 * 256), {2: storage.tags(512, 256)})
        assert (lack.rank, lack.sectors) == (2, 256), "it is taken from who has it, not made up"
        storage.close()
        storage = open_storage(files)


def test_one_sector_of_a_chunk_of_zeros_is_stored() -> None:
    """Its group gets a slot; the seven others are zeros still, whatever stands in their home."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 8, 1)
    zeroed(storage, 256, 256, 2)
    checkpoint_now(storage)
    home = files.open(SECTORS)
    home.pwritev([b"x" * (16 * SECTOR_SIZE)], 256 * SECTOR_SIZE)
    stored(storage, 258, 1, 4)
    for _ in range(3):
        check(storage, 256, [(2, True)] * 2 + [(4, False)] + [(2, True)] * 253)
        storage = open_storage(files := files.crash(keep_all))


@pytest.mark.parametrize("count", [1, 7, 8, 256])
def test_the_highest_counter_of_an_attachment_is_known_after_a_start(count: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.fence(5, bytes(64))
    commit_all(storage)
    zeros = bytes(count * SECTOR_SIZE)
    for counter, (first, data) in enumerate(((0, values(0, count, 1)), (512, zeros), (0, zeros), (512, zeros)), 1):
        storage.persist(first, count, pack_tag(ts_of(5, counter), ATTACHED, 0, 5) * count, data)
        commit_all(storage)
        assert storage.attached_counter == counter
        for crashed in (False, True):
            files = files.crash(drop_all) if crashed else files
            if not crashed:
                storage.close()
            storage = open_storage(files)
            assert storage.attached_counter == counter


def test_a_read_under_way_when_its_home_is_punched_is_made_again() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 8, 1)
    early = storage.load_job(0, 8)
    storage.persist(0, 8, tag(3) * 8, bytes(8 * SECTOR_SIZE))
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert storage.load(0, 8, wait=True) is None, "the commit is not finished: it may be punching"
    early.run()
    assert storage.finish_load(early) is None and not storage.damaged
    storage.finish_commit(commit)
    assert storage.finish_load(early) is None and not storage.damaged
    check(storage, 0, [(3, True)] * 8)


def test_zeros_do_not_replace_another_value_under_its_tag() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 2, 1)
    storage.close()
    files.damage(SECTORS, 100, 1)
    storage = open_storage(files)
    loaded = storage.load(0, 2, wait=True)
    assert loaded is not None and loaded.missing == (0,)
    refused = storage.persist(0, 1, tag(1), bytes(SECTOR_SIZE), repair=True)
    assert refused.refusal is Refusal.CONTRADICTION
    assert storage.check.found[-1].kind is DamageKind.CONTRADICTION
    assert zeroed(storage, 0, 1, 2).ok
    check(storage, 0, [(2, True), (1, False)])


def test_zeros_that_are_damaged_are_unknown_until_they_are_repaired() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 8, 1)
    zeroed(storage, 2, 4, 3)
    storage.close()
    files.damage(TAGS, 18, 1)  # the byte of the marks
    storage = open_storage(files)
    assert storage.unknown(0, 8) == list(range(8))
    ticket = storage.persist(2, 4, tag(3) * 4, bytes(4 * SECTOR_SIZE), repair=True)
    commit_all(storage)
    assert ticket.ok
    check(storage, 2, [(3, True)] * 4)
    assert storage.unknown(0, 8) == [0, 1, 6, 7]


def test_a_punch_that_is_refused_harms_nothing() -> None:
    files = MemoryFiles()
    files.punches = False
    storage = open_storage(files)
    stored(storage, 0, 8, 1)
    assert zeroed(storage, 0, 4, 3).ok
    assert set(range(8)) <= home_pages(files)
    for _ in range(2):
        check(storage, 0, [(3, True)] * 4 + [(1, False)] * 4)
        storage = open_storage(files := files.crash(drop_all))
        files.punches = False
