"""What a scrub finds on the disk: slots of tags, and values."""

from __future__ import annotations

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_TAG
from dsreg.protocol.tags import pack_tag
from dsreg.register.damage import Damage, Kind
from dsreg.storage import Refusal, StableStorage
from dsreg.storage.layout import GROUP_SECTORS, SECTORS, SLOT_SIZE, TAGS
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored, tag, value

GROUPS = 10


def begun() -> tuple[MemoryFiles, StableStorage]:
    """Ten groups, in slots 0..9, at rest."""
    files = MemoryFiles()
    storage = open_storage(files)
    for group in range(GROUPS):
        stored(storage, group * GROUP_SECTORS, GROUP_SECTORS, 3)
    checkpoint_now(storage)
    assert not storage.checkpoint_due(idle=True)
    return files, storage


def verify(storage: StableStorage, first: int, count: int) -> list[Damage]:
    """As a node does it; gives what was found."""
    slots = storage.check.slot_job(first, count)
    slots.run()
    assert storage.check.finish(slots)
    values = storage.load_job(first, count)
    values.run_from_disk()
    assert storage.finish_load(values) is not None
    found = list(storage.check.found)
    storage.check.found.clear()
    return found


def raw(files: MemoryFiles, name: str) -> bytes:
    file = files.open(name)
    return file.pread(file.size(), 0)


def test_nothing_is_found_where_nothing_is_damaged() -> None:
    _, storage = begun()
    assert verify(storage, 0, 256) == []


@pytest.mark.parametrize("offset", [0, 5, 40, 180, SLOT_SIZE - 1])
def test_a_slot_that_is_damaged_in_the_file_alone_is_written_anew(offset: int) -> None:
    files, storage = begun()
    before = raw(files, TAGS)
    files.damage(TAGS, 4 * SLOT_SIZE + offset, 1)
    assert verify(storage, 0, 256) == [Damage(Kind.TAG, 4 * GROUP_SECTORS, GROUP_SECTORS)]
    assert storage.missing(0, 256) == []  # it is known in memory
    assert storage.checkpoint_due(idle=True) and not storage.checkpoint_due(idle=False)
    checkpoint_now(storage)
    assert raw(files, TAGS) == before and verify(storage, 0, 256) == []
    stored(storage, 0, 1, 4)
    storage.close()
    assert contents(open_storage(files), 0, 80) == [4] + [3] * 79


def test_it_is_also_written_when_the_node_ends() -> None:
    files, storage = begun()
    before = raw(files, TAGS)
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)
    verify(storage, 0, 256)
    storage.close()
    assert raw(files, TAGS) == before


def test_a_commit_fills_the_journal_while_such_a_slot_is_written() -> None:
    """The checkpoint that writes it frees no segment, whatever has become full meanwhile."""
    files, storage = begun()
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)
    verify(storage, 0, 256)
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None and not checkpoint.frees
    checkpoint.run()
    ts = 4
    while storage._sealed is None:
        store(storage, 256, 256, ts)
        commit = storage.next_commit()
        assert commit is not None
        commit.run()
        storage.finish_commit(commit)
        ts += 1
    storage.finish_checkpoint(checkpoint)
    assert storage._sealed is not None and storage.checkpoint_due(idle=False)
    commit_all(storage)
    assert contents(open_storage(files.crash(drop_all)), 256, 1) == [ts - 1]


def test_a_slot_that_is_not_in_memory_is_unknown() -> None:
    files, storage = begun()
    storage._table.pages._drop(0)
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)
    assert verify(storage, 0, 256) == [Damage(Kind.TAG, 4 * GROUP_SECTORS, GROUP_SECTORS)]
    assert storage.unknown(0, 256) == list(range(4 * GROUP_SECTORS, 5 * GROUP_SECTORS))
    assert verify(storage, 0, 256) == []  # that is known


def test_a_slot_of_chunks() -> None:
    files, storage = begun()
    storage.persist(512, 256, (bare := pack_tag(0, 0, epoch=3)) * 256, bytes(256 * SECTOR_SIZE))
    commit_all(storage)
    checkpoint_now(storage)
    before = raw(files, TAGS)
    files.damage(TAGS, GROUPS * SLOT_SIZE + 40, 1)
    assert verify(storage, 512, 256) == [Damage(Kind.TAG, 0, 8 * 256)]
    assert storage.tags(512, 1) == bare
    checkpoint_now(storage)
    assert raw(files, TAGS) == before


def test_slots_that_were_written_meanwhile_are_looked_at_again() -> None:
    files, storage = begun()
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)  # as a read sees it that meets half of a write
    job = storage.check.slot_job(0, 256)
    stored(storage, 4 * GROUP_SECTORS, 1, 4)
    job.run()
    assert job.bad == [4]
    checkpoint_now(storage)
    assert not storage.check.finish(job) and storage.check.found == []
    assert verify(storage, 0, 256) == []


def test_slots_that_wait_to_be_written_are_not_read() -> None:
    files, storage = begun()
    stored(storage, 4 * GROUP_SECTORS, 1, 4)
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)
    assert verify(storage, 0, 256) == []
    checkpoint_now(storage)
    assert verify(storage, 0, 256) == []


def test_slots_that_are_being_written_are_not_read() -> None:
    files, storage = begun()
    stored(storage, 4 * GROUP_SECTORS, 1, 4)
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None
    files.damage(TAGS, 4 * SLOT_SIZE + 40, 1)  # half of it is there
    assert verify(storage, 0, 256) == []
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)
    assert verify(storage, 0, 256) == []


def test_a_value_is_found_once() -> None:
    files, storage = begun()
    files.damage(SECTORS, 20 * SECTOR_SIZE + 7, 1)
    assert verify(storage, 0, 256) == [Damage(Kind.VALUE, 20, 1)]
    assert storage.missing(0, 256) == [20]
    assert verify(storage, 0, 256) == []
    ticket = store(storage, 20, 1, 3)
    commit_all(storage)
    assert ticket.ok and storage.missing(0, 256) == [] and verify(storage, 0, 256) == []


def test_what_home_holds_of_a_sector_that_was_never_written_is_no_damage() -> None:
    files, storage = begun()
    stored(storage, 101, 1, 3)
    files.open(SECTORS).pwritev([b"x" * SECTOR_SIZE], 100 * SECTOR_SIZE)
    assert storage.tags(100, 1) == ZERO_TAG and verify(storage, 0, 256) == []


def test_a_value_that_was_stored_meanwhile_is_no_damage() -> None:
    _, storage = begun()
    job = storage.load_job(0, 256)
    stored(storage, 20, 1, 4)
    job.run_from_disk()
    assert job.bad == [20] and storage.finish_load(job) is None
    assert storage.check.found == [] and storage.missing(0, 256) == []


# --- under a tag that is there --------------------------------------------------------------------
def lost() -> StableStorage:
    files, storage = begun()
    files.damage(SECTORS, 20 * SECTOR_SIZE + 7, 1)
    verify(storage, 0, 256)
    return storage


@pytest.mark.parametrize(("first", "count"), [(20, 1), (16, 8)])
@pytest.mark.parametrize("repair", [False, True])
def test_another_value_does_not_take_the_place_of_one_that_is_lost(first: int, count: int, repair: bool) -> None:
    storage = lost()
    ticket = storage.persist(first, count, tag(3) * count, value(0, 9) * count, repair)
    commit_all(storage)
    assert ticket.done and not ticket.ok and ticket.refusal is Refusal.CONTRADICTION
    [found] = storage.check.found
    assert found[:3] == (Kind.CONTRADICTION, 20, 1) and "checksum" in str(found)
    assert storage.missing(0, 80) == [20] and contents(storage, 16, 4) == [3] * 4


def test_a_newer_value_does() -> None:
    storage = lost()
    assert stored(storage, 20, 1, 4).ok and storage.missing(0, 80) == [] and storage.check.found == []
