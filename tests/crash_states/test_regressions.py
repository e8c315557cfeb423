"""What the exploration has found, each as the shortest case that shows it."""

from __future__ import annotations

import errno

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.errors import NoSpace, StorageError
from dsreg.protocol.configuration import Record
from dsreg.storage import StableStorage
from dsreg.testing.memory_files import Kind, MemoryFiles
from tests.crash_states.workload import identity


def larger_of(storage: StableStorage) -> Record:
    """That a disk of twice the size was chosen."""
    current = storage.configuration.record.current
    return Record(current._replace(number=current.number + 1, sectors=2 * current.sectors))


def test_a_larger_disk_that_cannot_be_recorded_for_want_of_space() -> None:
    """Raised a bare OSError, which blamed the node's address: python -m tests.crash_states --workload 1003."""
    files = MemoryFiles()
    storage = StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES)
    files.capacity = files.used()
    with pytest.raises(NoSpace):
        storage.configuration.remember(larger_of(storage))
    files.capacity = None
    storage.close()
    storage = StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES)
    assert storage.sectors == 100
    storage.configuration.remember(larger_of(storage))
    storage.close()
    storage = StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES)
    assert storage.sectors == 200
    storage.close()


@pytest.mark.parametrize("name", ["identity.toml.tmp", "configuration.tmp"])
def test_a_larger_disk_that_cannot_be_recorded_for_an_error(name: str) -> None:
    files = MemoryFiles()
    storage = StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES)
    files.fail(Kind.SYNC, name=name, number=errno.EIO)
    with pytest.raises(StorageError):
        storage.configuration.remember(larger_of(storage))
    storage.close()
    assert StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES).sectors in (100, 200)
