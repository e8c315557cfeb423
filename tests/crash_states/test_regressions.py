"""What the exploration has found, each as the shortest case that shows it."""

from __future__ import annotations

import errno

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.errors import NoSpace, StorageError
from dsreg.storage import StableStorage
from dsreg.testing.memory_files import Kind, MemoryFiles
from tests.crash_states.workload import identity


def test_a_larger_disk_that_cannot_be_recorded_for_want_of_space() -> None:
    """Raised a bare OSError, which blamed the node's address: python -m tests.crash_states --workload 1003."""
    files = MemoryFiles()
    StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES).close()
    files.capacity = files.used()
    with pytest.raises(NoSpace):
        StableStorage.open(files, identity(200), MIN_JOURNAL_BYTES)
    files.capacity = None
    storage = StableStorage.open(files, identity(200), MIN_JOURNAL_BYTES)
    assert storage.sectors == 200
    storage.close()


def test_a_larger_disk_that_cannot_be_recorded_for_an_error() -> None:
    files = MemoryFiles()
    StableStorage.open(files, identity(100), MIN_JOURNAL_BYTES).close()
    files.fail(Kind.SYNC, name="identity.toml.tmp", number=errno.EIO)
    with pytest.raises(StorageError):
        StableStorage.open(files, identity(200), MIN_JOURNAL_BYTES)
    StableStorage.open(files, identity(200), MIN_JOURNAL_BYTES).close()
