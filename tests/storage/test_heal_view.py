"""What healing sees of the storage: where anything is, what is lost, and what has changed."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.protocol.messages import DigestQuery
from dsreg.protocol.tags import pack_tag
from dsreg.register.digests import UNKNOWN, TagDigests
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


@pytest.mark.parametrize("seed", range(12))
def test_what_the_digests_leave_out_was_never_written(seed: int) -> None:
    """With slots that are lost, chunks that are to be learned, and both: whoever learns relies on it."""
    rng = random.Random(seed)
    files = MemoryFiles()
    storage = opened(files)
    for counter in range(1, 30):
        store(storage, rng.randrange(SECTORS), 1, pack_tag(counter, 1))
    storage.close()
    if seed % 2:
        files.damage("tags", 256 * rng.randrange(20) + 5, 3)  # nobody knows whose that slot was
    storage = opened(files)
    if seed % 3:
        storage.learning.begin()
        for _ in range(rng.randrange(6)):
            chunk = rng.randrange(3000)
            storage.learning.learned(chunk * CHUNK, min(rng.randrange(1, 900), 3000 - chunk) * CHUNK)
    digests = TagDigests(storage)
    written, lost, unwritten = set(), set(), set()
    at = questions = 0
    while at < digests.chunks:
        answer = digests.answer(1, DigestQuery(2, 7, at, min(4096, digests.chunks - at)))
        assert at + answer.count <= answer.following <= digests.chunks
        for chunk in range(at, answer.following):
            digest = answer.digests.get(min(chunk, at + answer.count - 1) if chunk >= at + answer.count else chunk, b"")
            if chunk >= at + answer.count and digest != UNKNOWN:
                digest = b""
            (lost if digest == UNKNOWN else written if digest else unwritten).add(chunk)
        at, questions = answer.following, questions + 1
    assert len(written) + len(lost) + len(unwritten) == digests.chunks and questions < 100
    for chunk in range(digests.chunks):
        tags, unknown = storage.tags(chunk * CHUNK, CHUNK), storage.unknown(chunk * CHUNK, CHUNK)
        assert (chunk in lost) == bool(unknown), chunk
        assert unknown or (chunk in written) == any(tags), chunk
