"""A start with zeros in the journal: docs/storage.md, "Zeros"."""

from __future__ import annotations

import tracemalloc

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.protocol.zeros import zeros
from dsreg.storage import journal
from dsreg.storage.layout import JOURNALS
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import Chooser, Kind, MemoryFiles, drop_all, keep_all
from tests.storage.support import checkpoint_now, commit_all, open_storage, stored, tag
from tests.storage.test_zeros import check, zeroed


@pytest.mark.parametrize("chooser", [keep_all, drop_all])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_start_on_a_disk_that_is_full_of_what_came_in_place_of_trimmed_values(
    chooser: Chooser, checkpointed: bool
) -> None:
    """The journal has the trimmed values still, for which there is no room any more; or the homes have them, and the
    others need their room."""
    files = MemoryFiles()
    storage = open_storage(files)
    for first in range(0, 64, 8):  # short runs: with their data in the journal
        assert stored(storage, first, 8, 1).ok
    stored(storage, 1024, 1, 1)
    if checkpointed:
        checkpoint_now(storage)
    files.capacity = files.used()
    assert zeroed(storage, 0, 64, 2).ok
    for first in range(1024, 1088, 8):
        assert stored(storage, first, 8, 3).ok, "what was given back is there to be used"
    assert not stored(storage, 2048, 8, 3).ok, "it is full"
    for _ in range(2):
        files = files.crash(chooser)
        storage = open_storage(files)
        check(storage, 0, [(2, True)] * 64)
        check(storage, 1024, [(3, False)] * 64)
        assert files.used() <= (files.capacity or 0)


def test_a_start_takes_little_memory_for_a_record_of_zeros() -> None:
    """A journal has up to half a million of them."""
    files = MemoryFiles()
    storage = open_storage(files)
    number = 2000
    for chunk in range(number):
        storage.persist(chunk * CHUNK_SECTORS, CHUNK_SECTORS, tag(1) * CHUNK_SECTORS, zeros(CHUNK_SECTORS))
        if chunk % 100 == 99:
            commit_all(storage)
    assert storage.journal_used == number * journal.ZEROS_BYTES and not storage.checkpoints
    segment = files.open(JOURNALS[storage._segment.generation % 2]).pread(MIN_JOURNAL_BYTES, 0)
    tracemalloc.start()
    try:
        entries, _ = journal.read_entries(segment, storage._segment, storage._directory.salt)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(entries) == number and taken < 512 * number
    storage = open_storage(files.crash(drop_all))
    for chunk in range(number):
        assert storage.tags(chunk * CHUNK_SECTORS, CHUNK_SECTORS) == tag(1) * CHUNK_SECTORS


def test_a_start_punches_the_home_of_no_value() -> None:
    """Zeros in the journal, and a value after them."""
    files = MemoryFiles()
    storage = open_storage(files)
    assert stored(storage, 0, 8, 1).ok and zeroed(storage, 0, 8, 2).ok and stored(storage, 2, 3, 3).ok
    files = files.crash(keep_all)
    check(open_storage(files), 0, [(2, True)] * 2 + [(3, False)] * 3 + [(2, True)] * 3)
    punched = {
        operation.offset // SECTOR_SIZE + index for operation in files.log if operation.kind is Kind.PUNCH
        for index in range(operation.length // SECTOR_SIZE)
    }
    assert punched == {0, 1, 5, 6, 7}
