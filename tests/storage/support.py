"""What the storage tests share."""

from __future__ import annotations

import struct

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.protocol.configuration import Record
from dsreg.protocol.tags import iter_tags, pack_tag, unpack_tag
from dsreg.storage import Files, Identity, StableStorage, Start, Ticket

IDENTITY = Identity(bytes(range(16)), 1, (1, 2, 3), 1 << 20)


def tag(ts: int, wr: int = 1) -> bytes:
    return pack_tag(ts, wr)


def value(sector: int, ts: int) -> bytes:
    """The one value that is ever written to this sector with this ts. Every 512 bytes of it say so."""
    return struct.pack(">QQ", sector, ts) * (SECTOR_SIZE // 16)


def values(first: int, count: int, ts: int) -> bytes:
    return b"".join(value(first + index, ts) for index in range(count))


def open_storage(
    files: Files, identity: Identity = IDENTITY, *, all_unknown: bool = False, joins: bool = False
) -> StableStorage:
    return StableStorage.open(files, identity, MIN_JOURNAL_BYTES, start=Start(all_unknown, joins=joins))


def grow(storage: StableStorage, sectors: int) -> None:
    """The disk has so many sectors, by a configuration that was chosen."""
    current = storage.configuration.record.current
    storage.configuration.remember(Record(current._replace(number=current.number + 1, sectors=sectors)))
    storage.grow(sectors)


def store(storage: StableStorage, first: int, count: int, ts: int, repair: bool = False) -> Ticket:
    return storage.persist(first, count, tag(ts) * count, values(first, count, ts), repair)


def commit_all(storage: StableStorage) -> list[Ticket]:
    """Run commits until nothing is queued, and checkpoints where the journal needs them."""
    done: list[Ticket] = []
    while True:
        commit = storage.next_commit()
        if commit is not None:
            commit.run()
            done += storage.finish_commit(commit)
        elif storage.checkpoint_due(idle=False):
            checkpoint_now(storage)
        else:
            return done


def checkpoint_now(storage: StableStorage) -> None:
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)


def stored(storage: StableStorage, first: int, count: int, ts: int, repair: bool = False) -> Ticket:
    ticket = store(storage, first, count, ts, repair)
    commit_all(storage)
    assert ticket.done
    return ticket


def ts_of(tags: bytes) -> list[int]:
    return [unpack_tag(tag).ts for tag in iter_tags(tags)]


def contents(storage: StableStorage, first: int, count: int) -> list[int]:
    """The ts of each sector, after checking that its value is the one written with it."""
    loaded = storage.load(first, count, wait=True)
    assert loaded is not None and loaded.missing == ()
    found = ts_of(loaded.tags)
    for index, ts in enumerate(found):
        expected = value(first + index, ts) if ts else bytes(SECTOR_SIZE)
        assert loaded.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE] == expected, (first + index, ts)
    return found
