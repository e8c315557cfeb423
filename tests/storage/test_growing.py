"""A disk that grows, in its directory: whatever size the node is started with, and what is to be learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsreg.constants import TAG_SIZE
from dsreg.protocol.configuration import Record
from dsreg.storage import Identity
from dsreg.storage import identity as identity_file
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.storage.support import IDENTITY, checkpoint_now, contents, grow, open_storage, stored
from tests.storage.test_learning import SMALL, killed, unknown_disk


def test_a_disk_grows_for_good() -> None:
    """Whatever size the node is started with: a directory says itself how large the disk is."""
    files = MemoryFiles()
    storage = open_storage(files)
    assert stored(storage, (1 << 20) - 1, 1, ts=1).ok
    grow(storage, 1 << 21)
    assert stored(storage, (1 << 21) - 1, 1, ts=2).ok
    assert storage.tags(1 << 20, 256) == bytes(256 * TAG_SIZE) and not storage.unknown(1 << 20, 256)
    for sectors in (1 << 20, 1 << 21, 1 << 22, 7):  # the first time from the journal: it was not closed
        files = files.crash(drop_all)
        storage = open_storage(files, Identity(IDENTITY.cluster, 1, (1, 2, 3), sectors))
        assert storage.sectors == 1 << 21
        assert [contents(storage, (1 << bits) - 1, 1) for bits in (20, 21)] == [[1], [2]]


def test_the_last_group_of_a_disk_grows_as_well() -> None:
    """Damage to it is damage to what was there."""
    files = MemoryFiles()
    identity = Identity(IDENTITY.cluster, 1, (1, 2, 3), 1003)
    storage = open_storage(files, identity)
    assert stored(storage, 1000, 3, ts=1).ok
    told = []
    storage.on_stored = lambda first, count: told.append((first, count))
    grow(storage, 1006)
    assert told == [(1002, 1)], "its chunk has other tags"
    assert stored(storage, 1004, 2, ts=2).ok
    storage.close()
    storage = open_storage(files, identity)
    assert contents(storage, 1000, 6) == [1, 1, 1, 0, 2, 2]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.allow_logs("there is data beyond the 1048576 sectors of the disk")
def test_what_an_older_version_has_stored_beyond_the_recorded_size_is_kept(closed: bool) -> None:
    """Of a cluster whose members had changed, which then got a larger disk as it was done before: by cluster.toml
    alone. The disk is as large as its configuration says, and larger again, with all that is there, once one says so.
    """
    files = MemoryFiles()
    storage = open_storage(files)
    current = storage.configuration.record.current
    storage.configuration.remember(Record(current._replace(number=3)))
    larger = replace(identity_file.read(files), identity=replace(IDENTITY, sectors=1 << 21))
    identity_file.write(files, larger)
    storage.grow(1 << 21)
    assert stored(storage, 5, 1, ts=1).ok and stored(storage, (1 << 21) - 1, 1, ts=2).ok
    if closed:
        storage.close()
    for _ in range(2):
        files = files.crash(drop_all)
        storage = open_storage(files)
        assert storage.sectors == 1 << 20 and contents(storage, 5, 1) == [1]
        assert storage.lost() == [] and storage.unknown(0, 256) == [] and storage.next_chunk(1) is None
    grow(storage, 1 << 21)
    for _ in range(2):
        assert contents(storage, (1 << 21) - 1, 1) == [2] and storage.next_chunk(1) == (1 << 21) // 256 - 1
        storage.close()
        storage = open_storage(files)


# --- while it learns --------------------------------------------------------------------------------
def test_a_disk_that_grows_meanwhile_has_more_to_learn() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files, SMALL)
    storage.learning.learned(0, 60)
    grow(storage, 80)
    for _ in range(2):
        assert storage.learning.left == 20 and storage.unknown(0, 80) == list(range(60, 80))
        assert storage.learning.chunks(0) == storage.unknown_chunks(0, 1) == (0, 1)
        storage.close()
        storage = open_storage(files, SMALL)
    storage.learning.learned(60, 20)
    storage.close()
    storage = open_storage(files, SMALL)
    assert storage.learning.left == 0 and not storage.learning.is_recorded


def test_a_disk_that_grows_when_all_is_learned_has_nothing_more_to_learn() -> None:
    """Also if that is not recorded yet; a crash before that errs on the side of unknown."""
    files = MemoryFiles()
    storage = unknown_disk(files, SMALL)
    storage.learning.learned(0, SMALL.sectors)
    grow(storage, 80)
    assert storage.learning.left == 0 and storage.unknown(0, 80) == []
    assert open_storage(killed(files), SMALL).learning.left == 80
    checkpoint_now(storage)
    storage = open_storage(killed(files), SMALL)
    assert storage.learning.left == 0 and not storage.learning.is_recorded
