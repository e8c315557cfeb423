"""What healing sees of the storage: where anything is, what is lost, and what has changed."""

from __future__ import annotations

import random

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.protocol.tags import pack_tag
from dsreg.register.digests import TagDigests
from dsreg.storage import Identity, StableStorage
from dsreg.storage.index import REGION_BITS, SlotIndex
from dsreg.testing.memory_files import MemoryFiles
from tests.storage.support import checkpoint_now, commit_all

CHUNK = 256
SECTORS = 3000 * CHUNK


def opened(files: MemoryFiles) -> StableStorage:
    return StableStorage.open(files, Identity(bytes(16), 1, (1, 2, 3), SECTORS), MIN_JOURNAL_BYTES)


def store(storage: StableStorage, first: int, count: int, tag: bytes) -> None:
    storage.persist(first, count, tag * count, bytes(count * SECTOR_SIZE))
    commit_all(storage)


def test_the_next_key(rng: random.Random) -> None:
    index = SlotIndex()
    keys = sorted(rng.sample(range(20 << REGION_BITS), 300))
    shuffled = rng.sample(keys, len(keys))
    for slot, key in enumerate(shuffled):
        index.add(key, slot)
        if slot % 10 == 9:
            there = sorted(shuffled[:slot + 1])
            for wanted in (*rng.sample(range(20 << REGION_BITS), 20), *rng.sample(there, 5), 0, 20 << REGION_BITS):
                assert index.following(wanted) == next((each for each in there if each >= wanted), None)


def test_the_next_chunk_leaves_out_nothing_that_has_a_tag(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = opened(files)
    assert storage.next_chunk(0) is None
    written = set()
    for counter in range(1, 60):
        chunk = rng.randrange(3000)
        written.add(chunk)
        if rng.random() < 0.3:
            store(storage, chunk * CHUNK, CHUNK, pack_tag(0, 0, 0, counter))  # never written, and restamped
        else:
            store(storage, chunk * CHUNK + rng.randrange(CHUNK), 1, pack_tag(counter, 1))
    for again in (False, True):
        if again:
            checkpoint_now(storage)
            storage.close()
            storage = opened(files)
        for chunk in (*rng.sample(range(3000), 300), *written):
            found = storage.next_chunk(chunk)
            first = next((each for each in sorted(written) if each >= chunk), None)
            assert found is None and first is None or found is not None and found >= chunk
            assert first is None or found is not None and found <= first
        digests = TagDigests(storage)
        assert set(digests.listed(0, digests.chunks)) == written
    assert storage.next_chunk(3000) is None
    storage.close()


def test_what_is_stored_is_told_once_it_is_durable() -> None:
    storage = opened(MemoryFiles())
    told: list[tuple[int, int, bytes]] = []
    storage.on_stored = lambda first, count: told.append((first, count, storage.tags(first, count)))
    storage.persist(300, 2, pack_tag(5, 1) * 2, bytes(2 * SECTOR_SIZE))
    assert told == []
    commit_all(storage)
    assert told == [(300, 2, pack_tag(5, 1) * 2)]
    storage.close()


def test_what_is_lost_is_listed() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.persist(5, 1, pack_tag(5, 1), b"x" * SECTOR_SIZE)
    commit_all(storage)
    checkpoint_now(storage)
    assert storage.lost() == []
    files.open("sectors").pwritev([b"y"], 5 * SECTOR_SIZE)
    assert storage.load(5, 1, wait=True).missing == (5,)  # type: ignore[union-attr]
    assert storage.lost() == [5]
    store(storage, 5, 1, pack_tag(6, 1))
    assert storage.lost() == []
    storage.close()
