"""Sectors that were never written, restamped: a tag for all that a chunk has of them, and no data."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dsreg.constants import SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.protocol.tags import pack_tag
from dsreg.storage import Identity, OsFiles, Refusal, StableStorage, Ticket
from dsreg.storage.layout import SLOT_SIZE, TAGS, TAGS_STEP_BYTES
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import MemoryFiles, drop_all, keep_all
from tests.storage.support import (
    IDENTITY,
    checkpoint_now,
    commit_all,
    contents,
    grow,
    open_storage,
    store,
    stored,
    value,
)

CHUNKS = 64
MIB = 1 << 20


def restamped(epoch: int) -> bytes:
    return pack_tag(0, 0, 0, epoch)


def raise_to(storage: StableStorage, first: int, count: int, epoch: int, repair: bool = False) -> Ticket:
    ticket = storage.persist(first, count, restamped(epoch) * count, bytes(count * SECTOR_SIZE), repair)
    commit_all(storage)
    assert ticket.done
    return ticket


def written(storage: StableStorage, sector: int, epoch: int, ts: int) -> Ticket:
    ticket = storage.persist(sector, 1, pack_tag(ts, 1, 0, epoch), value(sector, ts))
    commit_all(storage)
    return ticket


def check(storage: StableStorage, model: dict[int, bytes], first: int, count: int) -> None:
    tags = b"".join(model.get(sector, ZERO_TAG) for sector in range(first, first + count))
    assert storage.tags(first, count) == tags
    assert b"".join(storage.tags(sector, 1) for sector in range(first, first + count)) == tags
    loaded = storage.load(first, count, wait=True)
    assert loaded is not None and loaded.tags == tags and not loaded.missing
    for index in range(count):
        tag = tags[index * TAG_SIZE:(index + 1) * TAG_SIZE]
        expected = bytes(SECTOR_SIZE) if not tag[-1] else value(first + index, int.from_bytes(tag[6:13]))
        assert loaded.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE] == expected, first + index


def test_a_chunk_costs_at_most_32_bytes_in_the_journal_and_at_rest(tmp_path: Path) -> None:
    storage = StableStorage.open(OsFiles(tmp_path), IDENTITY, 2 * MIB)
    used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    for chunk in range(CHUNKS):
        before = storage.journal_used
        assert raise_to(storage, chunk * CHUNK_SECTORS, CHUNK_SECTORS, 1).ok
        assert storage.journal_used - before <= 32
    assert storage._table.slots * SLOT_SIZE <= 32 * CHUNKS
    assert storage.sectors_written == 0
    checkpoint_now(storage)
    now_used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    assert now_used <= used + TAGS_STEP_BYTES, "more of the tags is allocated ahead"
    assert os.stat(tmp_path / "sectors").st_size == 0
    storage.close()


def test_pieces_of_a_chunk_come_together(rng: random.Random) -> None:
    """However it is read: in pieces of at least 8 aligned sectors, under one epoch after the other."""
    storage = open_storage(MemoryFiles())
    for epoch in range(1, 6):
        size = rng.choice((8, 32, 64, 128, 256))
        pieces = list(range(0, CHUNKS * CHUNK_SECTORS, size))
        for first in pieces:
            assert raise_to(storage, first, size, epoch).ok
            assert storage.tags(first, size) == restamped(epoch) * size
        assert storage.tags(CHUNK_SECTORS, CHUNK_SECTORS) == restamped(epoch) * CHUNK_SECTORS
    assert storage._table.slots <= 2 * CHUNKS // 8


def test_any_runs_of_any_epochs_against_a_model(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    model: dict[int, bytes] = {}
    area = 3 * CHUNK_SECTORS
    ts = 0
    for step in range(400):
        epoch = max(1, 1 + step // 80 - (rng.random() < 0.3))
        length = rng.choice((1, 3, 8, 24, 100, 256))
        first = rng.randrange(area - length + 1)
        if rng.random() < 0.6:
            first = first // 8 * 8
        ts += 1
        if rng.random() < 0.4:
            length = min(length, 8)
            tags = [pack_tag(ts, 1, 0, epoch)] * length
        else:
            tags = [restamped(epoch) if rng.random() < 0.99 else pack_tag(ts, 1, 0, epoch) for _ in range(length)]
        data = b"".join(value(first + at, ts) if tag[-1] else bytes(SECTOR_SIZE) for at, tag in enumerate(tags))
        assert storage.persist(first, length, b"".join(tags), data).refusal is None
        for sector, tag in enumerate(tags, first):
            model[sector] = max(model.get(sector, ZERO_TAG), tag)
        if rng.random() < 0.8:
            commit_all(storage)
            check(storage, model, max(0, min(first, area - 256)), 256)
            if rng.random() < 0.1 and storage.journal_used:
                checkpoint_now(storage)
        if rng.random() < 0.05:
            commit_all(storage)
            files = files.crash(rng.choice((drop_all, keep_all)))
            storage = open_storage(files)
    commit_all(storage)
    for first in range(0, area, 256):
        check(storage, model, first, 256)
    assert storage.sectors_written == sum(tag[-1] != 0 for tag in model.values())


def test_a_write_into_a_raised_chunk_wins_and_its_neighbours_stay() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    raise_to(storage, 0, 256, 1)
    checkpoint_now(storage)
    assert written(storage, 9, 1, 5).ok
    for _ in range(2):
        assert storage.tags(8, 3) == restamped(1) + pack_tag(5, 1, 0, 1) + restamped(1)
        assert storage.tags(0, 8) == restamped(1) * 8
        loaded = storage.load(8, 3, wait=True)
        assert loaded is not None and loaded.data == bytes(4096) + value(9, 5) + bytes(4096)
        storage = open_storage(files := files.crash(drop_all))
    assert raise_to(storage, 0, 256, 1).ok, "once more, late: it changes nothing"
    assert storage.tags(9, 1) == pack_tag(5, 1, 0, 1)


def test_what_an_older_epoch_left_is_not_there_under_the_newer_one() -> None:
    """A minority's value of an older epoch: restamped as never written by who has not seen it."""
    files = MemoryFiles()
    storage = open_storage(files)
    assert written(storage, 9, 1, 5).ok
    checkpoint_now(storage)
    assert raise_to(storage, 0, 256, 2).ok
    for _ in range(2):
        loaded = storage.load(0, 256, wait=True)
        assert loaded is not None and loaded.tags == restamped(2) * 256 and loaded.data == bytes(MIB)
        storage = open_storage(files := files.crash(drop_all))
    # Its home holds the old value still; it is claimed like one that was never written.
    files.capacity = 0
    assert written(storage, 9, 2, 6).ok, "its home is allocated"
    refused = written(storage, 17, 2, 6)
    assert not refused.ok and refused.refusal is Refusal.NO_SPACE
    assert storage.tags(17, 1) == restamped(2)


def test_on_a_full_disk_what_was_never_written_can_be_raised() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 8, 3)
    files.capacity = files.used()
    assert stored(storage, 300, 1, 3).refusal is Refusal.NO_SPACE
    for chunk in range(1, 1 + CHUNKS):
        assert raise_to(storage, chunk * CHUNK_SECTORS, CHUNK_SECTORS, 1).ok
    tags, data = pack_tag(3, 1, 0, 1) * 8, b"".join(value(sector, 3) for sector in range(8))
    ticket = storage.persist(0, 8, tags, data)  # what is there already is restamped in its place
    commit_all(storage)
    assert ticket.ok
    storage.close()
    storage = open_storage(files)
    assert storage.tags(256, 256) == restamped(1) * 256 and contents(storage, 0, 8) == [3] * 8


def test_the_tail_of_a_disk_and_its_growth(rng: random.Random) -> None:
    """Chunks and groups that the disk has only a part of; more of it later is as if never read."""
    sectors = 256 + rng.randrange(1, 256)
    files = MemoryFiles()
    storage = open_storage(files, Identity(IDENTITY.cluster, 1, (1, 2, 3), sectors))
    assert raise_to(storage, 256, sectors - 256, 1).ok
    grow(storage, sectors + 100)
    assert storage.tags(256, sectors - 256) == restamped(1) * (sectors - 256)
    assert set(storage.tags(sectors, 8)) <= {0, 1} and storage.load(sectors, 8, wait=True) is not None


def test_a_damaged_state_of_chunks_is_unknown_where_nothing_else_is_known() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 8, 8, 3)
    raise_to(storage, 0, 256, 1)
    assert written(storage, 40, 1, 4).ok
    storage.close()
    files.damage(TAGS, SLOT_SIZE + 100, 1)  # the second slot, after that of the written group
    for _ in range(2):
        storage = open_storage(files)
        known = {*range(8, 16), *range(40, 48)}
        assert storage.unknown(0, 256) == [sector for sector in range(256) if sector not in known]
        assert storage.unknown(2000, 40) == list(range(2000, 2040)) and not storage.unknown(2048, 256)
        assert storage.tags(40, 1) == pack_tag(4, 1, 0, 1)
        refused = storage.persist(0, 256, restamped(2) * 256, bytes(MIB))
        assert refused.refusal is Refusal.UNKNOWN
        storage.close()
    storage = open_storage(files)
    assert raise_to(storage, 0, 8, 1, repair=True).ok and not storage.unknown(0, 16)
    assert raise_to(storage, 100, 1, 1, repair=True).ok
    storage.close()
    storage = open_storage(files)
    assert not storage.unknown(0, 16) and storage.tags(0, 8) == restamped(1) * 8
    assert storage.unknown(96, 8) == [96, 97, 98, 99, 101, 102, 103]
    assert store(storage, 17, 1, 9).refusal is Refusal.UNKNOWN


@pytest.mark.parametrize("tags", [ZERO_TAG, ZERO_TAG * 9])
def test_never_written_and_not_raised_is_nothing_to_store(tags: bytes) -> None:
    storage = open_storage(MemoryFiles())
    assert storage.persist(3, len(tags) // 16, tags, bytes(len(tags) * 256)).done and storage.next_commit() is None


def test_all_slots_that_a_commit_makes_have_been_claimed(rng: random.Random) -> None:
    """Else there may be no room for them when they are to be written, which ends the node."""
    for _ in range(200):
        storage = open_storage(MemoryFiles())
        table = storage._table
        for _ in range(6):
            for _ in range(rng.randrange(1, 6)):
                first = rng.randrange(64) * 8
                count = min(rng.choice((1, 8, 32, 256)), 512 - first)
                tags = restamped(rng.randrange(1, 9)) * count
                if rng.random() < 0.3:
                    tags = pack_tag(rng.randrange(1, 99), 1, 0, rng.randrange(9)) * count
                storage.persist(first, count, tags, bytes(count * SECTOR_SIZE))
            before = table.slots
            while (commit := storage.next_commit()) is not None:
                commit.run()
                storage.finish_commit(commit)
                assert table.slots == before or table.slots * SLOT_SIZE <= commit.tags_wanted
                before = table.slots
