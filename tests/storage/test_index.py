"""The tags of a directory with an index: not read at the start, and as good as if they had been."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.storage import index_file, pages, tags_file
from dsreg.storage.files import File, pread_or_zeros
from dsreg.storage.index import REGION_BITS, SlotIndex
from dsreg.storage.layout import GROUP_SECTORS, INDEX, SLOT_SIZE, TAGS
from dsreg.testing.memory_files import MemoryFiles, drop_all, keep_all
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored
from tests.storage.support import ts_of as all_ts

TAIL = 16


@pytest.fixture(autouse=True)
def small_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "MIN_TAIL_SLOTS", TAIL)


@pytest.fixture
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any page of tags stays in memory."""
    monkeypatch.setattr(pages, "MIN_CLEAN_PAGES", 2)
    monkeypatch.setattr(pages, "_SLACK", 2)


def indexed(groups: int = 100) -> MemoryFiles:
    """A directory with an index; group i has its first sector written with ts i + 1."""
    files = MemoryFiles()
    storage = open_storage(files)
    for group in range(groups):
        store(storage, group * GROUP_SECTORS, 1, group + 1)
    commit_all(storage)
    storage.close()
    assert files.exists(INDEX)
    return files


@pytest.fixture
def at_start(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many slots the starts have read the keys."""
    slots: list[int] = []

    def read(file: File, length: int, offset: int) -> bytes:
        slots.append(length // SLOT_SIZE)
        return pread_or_zeros(file, length, offset)

    monkeypatch.setattr(tags_file, "pread_or_zeros", read)
    return slots


def test_an_index_against_a_dict(rng: random.Random) -> None:
    index, model = SlotIndex(), {}
    for slot in range(3000):
        key = rng.choice((rng.randrange(1 << REGION_BITS), rng.randrange(1 << 40), 1 << 56 | rng.randrange(99)))
        if key not in model:
            index.add(key, slot)
            model[key] = slot
    assert dict(index.items()) == model and len(index) == len(model)
    assert all(index.get(key) == slot for key, slot in model.items())
    assert index.get(1 << 57) is None and [key for key, _ in index.items()] == sorted(model)


@pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 20])
def test_a_file_and_back(rng: random.Random, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(index_file, "_PIECE_BYTES", piece_bytes)
    files, index = MemoryFiles(), SlotIndex()
    file = files.open(TAGS, create=True)
    file.pwritev([rng.randbytes(500 * SLOT_SIZE)], 0)
    keys = rng.sample(range(1 << 16), 500)
    for slot, key in enumerate(keys):
        if slot not in (3, 450):
            index.add(key, slot)
    index_file.write(files, file, index, 400, [3, 450], 7)
    found = index_file.read(files, file, 400, 7)
    assert found is not None and (found.slots, found.lost) == (400, [3])
    assert dict(found.keys.items()) == {key: slot for slot, key in enumerate(keys[:400]) if slot != 3}
    assert index_file.read(files, file, 399, 7) is None, "of more slots than there certainly are"
    assert index_file.read(files, file, 400, 8) is None, "of another node"
    file.pwritev([bytes(16)], 399 * SLOT_SIZE)
    assert index_file.read(files, file, 400, 7) is None, "of other tags"


def test_a_start_reads_what_the_index_does_not_have(few_pages: None, at_start: list[int]) -> None:
    files = indexed()
    storage = open_storage(files)
    for group in range(100, 110):
        store(storage, group * GROUP_SECTORS, 1, group + 1)
    commit_all(storage)
    checkpoint_now(storage)
    files = files.crash(drop_all)
    at_start.clear()
    storage = open_storage(files)
    assert at_start == [10] and storage.sectors_written == 110
    for group in range(120):
        assert contents(storage, group * GROUP_SECTORS, 2) == [group + 1 if group < 110 else 0, 0]
    assert storage.damaged == 0 and len(storage._table.pages.resident) < 10


def test_what_is_in_memory_is_bounded_and_nothing_is_forgotten(few_pages: None, rng: random.Random) -> None:
    """Pages come and go, while checkpoints write them."""
    files = MemoryFiles()
    storage = open_storage(files)
    model: dict[int, int] = {}
    for ts in range(1, 1500):
        sector = rng.randrange(200) * 100
        if rng.random() < 0.6:
            store(storage, sector, 1, ts)
            model[sector] = ts
        commit_all(storage)
        assert all_ts(storage.tags(sector, 1)) == [model.get(sector, 0)]
        if rng.random() < 0.05 and (checkpoint := storage.next_checkpoint()) is not None:
            for _ in range(40):  # while it has not been written
                other = rng.randrange(200) * 100
                assert all_ts(storage.tags(other, 1)) == [model.get(other, 0)]
            checkpoint.run()
            storage.finish_checkpoint(checkpoint)
            assert len(storage._table.pages.resident) <= 60
        if rng.random() < 0.01:
            files = files.crash(rng.choice((drop_all, keep_all)))
            storage = open_storage(files)
    for sector, ts in model.items():
        assert contents(storage, sector, 1) == [ts]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "stale"])
def test_an_index_that_does_not_hold_is_not_used(damage: str, rng: random.Random) -> None:
    files = indexed()
    file = files.open(INDEX)
    if damage == "cut":
        file.truncate(file.size() - 3)
    elif damage == "flipped":
        files.damage(INDEX, rng.randrange(file.size()), 1)
    elif damage == "gone":
        files.remove(INDEX)
    else:  # of a directory whose slots were given to other groups
        other = indexed(60)
        copy = other.open(INDEX).pread(1 << 20, 0)
        files.open(TAGS).pwritev([bytes(SLOT_SIZE)], 59 * SLOT_SIZE)
        file.truncate(0)
        file.pwritev([copy], 0)
    storage = open_storage(files)
    if damage == "stale":
        assert storage.unknown(59 * GROUP_SECTORS, 1) and contents(storage, 60 * GROUP_SECTORS, 1) == [61]
        return
    assert storage.sectors_written == 100 and not storage.damaged
    for group in range(100):
        assert contents(storage, group * GROUP_SECTORS, 1) == [group + 1]


@pytest.mark.parametrize("at", [100, 5], ids=["body", "head"])
def test_damage_is_found_when_the_slot_is_used(at: int) -> None:
    files = indexed()
    files.damage(TAGS, 40 * SLOT_SIZE + at, 1)
    for _ in range(2):
        storage = open_storage(files)
        assert storage.unknown(39 * GROUP_SECTORS, 24) == list(range(40 * GROUP_SECTORS, 41 * GROUP_SECTORS))
        assert all_ts(storage.tags(40 * GROUP_SECTORS, 1)) == [0] and storage.damaged == 8
        assert store(storage, 40 * GROUP_SECTORS, 1, 99).done
        assert contents(storage, 41 * GROUP_SECTORS, 1) == [42]
        storage.close()
    storage = open_storage(files)
    assert stored(storage, 40 * GROUP_SECTORS, 8, 50, repair=True).ok
    storage.close()
    storage = open_storage(files)
    assert contents(storage, 40 * GROUP_SECTORS, 8) == [50] * 8 and storage.damaged == 0


def test_a_persist_finds_the_damage_first() -> None:
    files = indexed()
    files.damage(TAGS, 40 * SLOT_SIZE + 100, 1)
    storage = open_storage(files)
    ticket = store(storage, 40 * GROUP_SECTORS + 3, 1, 9)
    assert ticket.done and not ticket.ok, "its tag may have been higher"


def test_the_counter_of_the_attachment_is_there_without_reading_all(at_start: list[int]) -> None:
    files = indexed()
    storage = open_storage(files)
    storage.fence(3, b"o" * 64)
    commit_all(storage)
    mine = pack_tag(ts_of(3, 77), ATTACHED, 0, 3)
    storage.persist(8, 1, mine, bytes(SECTOR_SIZE))
    commit_all(storage)
    for _ in range(3):
        assert storage.attached_counter == 77
        files = files.crash(drop_all)
        at_start.clear()
        storage = open_storage(files)
        assert at_start == []
    storage.persist(16, 1, pack_tag(ts_of(3, 80), ATTACHED, 0, 3), bytes(SECTOR_SIZE))
    commit_all(storage)
    checkpoint_now(storage)
    for sector in (24, 32):  # into the next segment, and, while a checkpoint of that is under way, the one after it
        storage.persist(sector, 1, pack_tag(ts_of(3, 1), 1, 0, 3), bytes(SECTOR_SIZE))
        commit_all(storage)
        assert storage.next_checkpoint() is not None or sector == 32
    assert open_storage(files.crash(drop_all)).attached_counter == 80


def test_no_room_for_an_index_is_no_harm() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for group in range(100):
        store(storage, group * GROUP_SECTORS, 1, group + 1)
    commit_all(storage)
    files.capacity = files.used()
    checkpoint_now(storage)
    assert not files.exists(INDEX)
    files.capacity = None
    assert stored(storage, 0, 1, 1000).ok
    checkpoint_now(storage)
    assert files.exists(INDEX)


def test_memory_by_the_index(rng: random.Random) -> None:
    """6 bytes a key, whatever the order: far below what a sector may cost, 25 bytes dense and 60 alone in its group."""
    index = SlotIndex()
    keys = list(range(100_000))
    rng.shuffle(keys)
    for slot, key in enumerate(keys):
        index.add(key, slot)
    used = sum(lows.buffer_info()[1] * 2 + slots.buffer_info()[1] * 4 for lows, slots in index.regions.values())
    assert used == 600_000



def test_a_lost_slot_is_lost_after_a_start_by_the_index_as_well(at_start: list[int]) -> None:
    files = indexed()
    files.damage(TAGS, 40 * SLOT_SIZE + 5, 1)
    files.remove(INDEX)
    for start in range(3):
        at_start.clear()
        storage = open_storage(files)
        assert bool(at_start) is (start == 0), "later ones have the index"
        assert storage.unknown(40 * GROUP_SECTORS, 1) and storage.unknown(1000 * GROUP_SECTORS, 1)
        assert storage.persist(1000 * GROUP_SECTORS, 1, pack_tag(9, 1), bytes(SECTOR_SIZE)).done
        assert not storage.unknown(41 * GROUP_SECTORS, 1)
        storage.close()


@pytest.mark.parametrize("groups", [100, 2 * TAIL - 1, 0])
def test_raised_sectors_are_raised_after_a_start_by_the_index(groups: int) -> None:
    """Their slot is in the index, or behind it, or in the journal."""
    restamped = pack_tag(0, 0, 0, 5)
    files = indexed(100)
    storage = open_storage(files)
    for group in range(100, 100 + groups):
        store(storage, group * GROUP_SECTORS, 1, group + 1)
        if group == 100:
            storage.persist(1 << 16, 256, restamped * 256, bytes(256 * SECTOR_SIZE))
    if not groups:
        storage.persist(1 << 16, 256, restamped * 256, bytes(256 * SECTOR_SIZE))
    commit_all(storage)
    for _ in range(3):
        storage.close()
        storage = open_storage(files)
        assert storage.tags(1 << 16, 256) == restamped * 256


def test_the_counter_of_the_attachment_is_the_highest_of_a_run() -> None:
    files = indexed()
    storage = open_storage(files)
    storage.fence(3, b"o" * 64)
    mine = b"".join(pack_tag(ts_of(3, counter), ATTACHED, 0, 3) for counter in (7, 9, 8))
    storage.persist(8, 3, mine, bytes(3 * SECTOR_SIZE))
    commit_all(storage)
    assert storage.attached_counter == 9
    assert open_storage(files.crash(drop_all)).attached_counter == 9
