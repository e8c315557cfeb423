"""Which whole chunks have no data, without a value being read: never more than is so, and at once where it is much."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_EXTENTS, SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import SyncFailed
from dsreg.protocol.extents import Extent
from dsreg.protocol.tags import is_uniform, pack_tag
from dsreg.protocol.zeros import is_zeros
from dsreg.storage import Identity, StableStorage
from dsreg.storage.extents import BUDGET, COMPARED
from dsreg.storage.layout import SLOT_SIZE, TAGS
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import checkpoint_now, commit_all, open_storage, store, stored, tag, values

TIB = Identity(bytes(range(16)), 1, (1, 2, 3), (1 << 40) // SECTOR_SIZE)
TIB_CHUNKS = (1 << 40) // SECTOR_SIZE // CHUNK_SECTORS


def put(storage: StableStorage, first: int, count: int, one: bytes, data: bytes) -> None:
    storage.persist(first, count, one * count, data)
    commit_all(storage)


def zero(storage: StableStorage, first: int, count: int, one: bytes) -> None:
    put(storage, first, count, one, bytes(count * SECTOR_SIZE))


def by_sectors(storage: StableStorage, chunk: int) -> bytes | None:
    """The tag of the chunk, as its sectors have it one by one."""
    loaded = storage.load(chunk * CHUNK_SECTORS, CHUNK_SECTORS, wait=True)
    assert loaded is not None
    is_one = is_uniform(loaded.tags) and is_zeros(loaded.data) and not loaded.missing
    return loaded.tags[:TAG_SIZE] if is_one else None


def by_chunks(extents: list[Extent]) -> list[bytes | None]:
    return [tag for chunks, tag in extents for _ in range(chunks)]


def test_an_empty_disk_is_one_extent() -> None:
    assert open_storage(MemoryFiles(), TIB).extents(0, TIB_CHUNKS) == [Extent(TIB_CHUNKS, ZERO_TAG)]


def test_long_zeros_are_one_extent_up_to_what_stands_in_them() -> None:
    storage = open_storage(MemoryFiles(), TIB)
    for chunk in (1000, 1032):
        storage.zero(chunk * CHUNK_SECTORS, 32 * CHUNK_SECTORS, tag(2))
    stored(storage, 1050 * CHUNK_SECTORS + 77, 1, 3)
    assert storage.extents(100, TIB_CHUNKS - 100) == [
        Extent(900, ZERO_TAG), Extent(50, tag(2)), Extent(1, None), Extent(13, tag(2)),
        Extent(TIB_CHUNKS - 1064, ZERO_TAG),
    ]


def test_what_one_chunk_may_be() -> None:
    storage = open_storage(MemoryFiles())
    zero(storage, 0, 256, tag(2))
    zero(storage, 256, 255, tag(2))
    zero(storage, 512, 256, tag(2))
    zero(storage, 600, 1, tag(3))
    stored(storage, 768 + 255, 1, 2)
    zero(storage, 768, 256, tag(5))
    stored(storage, 1024, 256, 5)
    put(storage, 1280, 256, pack_tag(0, 0, 0, 7), bytes(256 * SECTOR_SIZE))
    assert by_chunks(storage.extents(0, 7)) == [
        tag(2), None, None, tag(5), None, pack_tag(0, 0, 0, 7), ZERO_TAG,
    ], "zeros; a sector never written; another tag; zeros over data; data; never written, restamped; never written"
    assert [extent.chunks for extent in storage.extents(0, 7)] == [1, 2, 1, 1, 1, 1]


def test_values_of_one_tag_are_data() -> None:
    """Also where the first sector has none, as one command may store zeros and values in runs of one tag."""
    storage = open_storage(MemoryFiles())
    zero(storage, 0, 8, tag(2))
    put(storage, 8, 248, tag(2), values(8, 248, 2))
    assert storage.extents(0, 1) == [Extent(1, None)]


def test_only_what_is_durable_counts() -> None:
    storage = open_storage(MemoryFiles())
    store(storage, 0, 1, 5)
    assert storage.extents(0, 1) == [Extent(1, ZERO_TAG)]
    commit_all(storage)
    assert storage.extents(0, 1) == [Extent(1, None)]


def test_any_stores_against_the_sectors(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for ts in range(1, 50):
        one = pack_tag(ts, 1, 0, ts // 20)
        chunk = rng.randrange(12)
        match rng.randrange(5):
            case 0:
                storage.zero(chunk * CHUNK_SECTORS, rng.randint(2, 6) * CHUNK_SECTORS, one)
            case 1:
                zero(storage, chunk * CHUNK_SECTORS, CHUNK_SECTORS, one)
            case 2:
                zero(storage, chunk * CHUNK_SECTORS + 8 * rng.randrange(32), rng.choice((1, 8)), one)
            case 3:
                first = chunk * CHUNK_SECTORS + rng.randrange(256)
                put(storage, first, 1, one, values(first, 1, ts))
            case 4:
                zero(storage, chunk * CHUNK_SECTORS, CHUNK_SECTORS, pack_tag(0, 0, 0, ts // 20))
        commit_all(storage)
        if rng.random() < 0.3 and storage.journal_used:
            checkpoint_now(storage)
        if rng.random() < 0.2:
            files = files.crash(rng.choice((drop_all, keep_all, random_chooser(rng))))
            storage = open_storage(files)
        first = rng.randrange(6)
        extents = storage.extents(first, 18)
        said = by_chunks(extents)
        assert said == [by_sectors(storage, chunk) for chunk in range(first, first + 18)]
        assert all(before.tag != after.tag for before, after in zip(extents, extents[1:], strict=False))


# --- what is not known is data ----------------------------------------------------------------------
def test_what_is_to_be_learned_may_have_data() -> None:
    storage = open_storage(MemoryFiles(), all_unknown=True)
    assert storage.learning.learned(2 * CHUNK_SECTORS, 3 * CHUNK_SECTORS)
    assert storage.learning.learned(6 * CHUNK_SECTORS, CHUNK_SECTORS - 1)
    assert storage.extents(0, 8) == [Extent(2, None), Extent(3, ZERO_TAG), Extent(3, None)]
    assert storage.extents(3, 8) == [Extent(2, ZERO_TAG), Extent(6, None)]


def test_a_chunk_of_which_a_tag_is_lost_may_have_data() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    zero(storage, 0, 8, tag(5))
    storage.zero(0, 2 * CHUNK_SECTORS, tag(2))
    zero(storage, 8, 248, tag(5))
    commit_all(storage)
    assert by_chunks(storage.extents(0, 3)) == [tag(5), tag(2), ZERO_TAG]
    storage.close()
    files.open(TAGS).pwritev([b"\xff" * 16], 100)
    storage = open_storage(files)
    assert storage.unknown(7 * 256, 256) and not storage.unknown(8 * 256, 256), "what the slot may have told of"
    assert storage.extents(0, 12) == [Extent(8, None), Extent(4, ZERO_TAG)]


def test_what_has_no_slot_may_have_data_while_nobody_knows_of_what_a_slot_told() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 1, 5)
    storage.close()
    files.open(TAGS).pwritev([b"\xff" * SLOT_SIZE], 0)
    storage = open_storage(files)
    assert storage.unknown(11 * 256, 256)
    assert storage.extents(0, 12) == [Extent(12, None)]


def test_a_chunk_that_has_lost_a_value_is_data() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 255, 1, 5)
    storage._table.lose([255])
    assert storage.missing(0, 256) == [255]
    assert storage.extents(0, 2) == [Extent(1, None), Extent(1, ZERO_TAG)]


def test_a_chunk_of_which_one_tag_is_unknown_may_have_data() -> None:
    storage = open_storage(MemoryFiles())
    zero(storage, 0, 8, tag(2))
    zero(storage, 8, 248, tag(2))
    assert storage.extents(0, 2) == [Extent(1, tag(2)), Extent(1, ZERO_TAG)]
    storage._table.unknown.add(3)
    assert storage.unknown(0, 256) == [3]
    assert storage.extents(0, 2) == [Extent(1, None), Extent(1, ZERO_TAG)]


def test_nothing_is_said_after_a_failure() -> None:
    storage = open_storage(MemoryFiles())
    storage._failure.fail("journal", OSError(5, "no disk"))
    with pytest.raises(SyncFailed):
        storage.extents(0, 1)


# --- bounds -------------------------------------------------------------------------------------------
def test_so_many_chunks_are_looked_at_for_one_question() -> None:
    storage = open_storage(MemoryFiles(), TIB)
    for chunk in range(2 * BUDGET // COMPARED):
        stored(storage, chunk * CHUNK_SECTORS + 8, 1, 5)
    [extent] = storage.extents(0, TIB_CHUNKS)
    assert extent == Extent(BUDGET // COMPARED, None), "the rest with the next question"
    assert storage.extents(2 * BUDGET // COMPARED - 1, 5) == [Extent(1, None), Extent(4, ZERO_TAG)]


def test_so_many_extents_are_said() -> None:
    storage = open_storage(MemoryFiles(), TIB)
    for chunk in range(0, 2 * MAX_EXTENTS, 2):
        stored(storage, chunk * CHUNK_SECTORS, 1, 5)
    assert [extent.chunks for extent in storage.extents(0, TIB_CHUNKS)] == [1] * MAX_EXTENTS
