"""The file `lives`, and the id of a directory."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib

import pytest

from dsreg.errors import DamagedStorage, NoSpace, StorageError, SyncFailed
from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Life
from dsreg.storage import StableStorage, lives
from dsreg.storage.layout import IDENTITY, IDENTITY_TMP, LEARNED_TMP, LIVES, LIVES_TMP
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import IDENTITY as WHOSE
from tests.storage.support import checkpoint_now, open_storage, stored

ONE, TWO, OTHER = (Life(1, bytes([number]) * 16) for number in (1, 2, 3))
AT = Address(ONE, 1, Place("a.example", 7001))


def opened(files: MemoryFiles, store: bytes = ONE.store) -> StableStorage:
    return StableStorage.open(files, WHOSE, 2 << 20, lambda: store)


def test_layout() -> None:
    raw = lives.encode({3: Life(5, b"c" * 16), 1: ONE}, salt=7)
    body = b"dsregLIV" + struct.pack(">HHHH", 2, 2, 0, 0)
    body += struct.pack(">B7xQ16s", 1, 1, ONE.store) + struct.pack(">B7xQ16s", 3, 5, b"c" * 16)
    assert raw == body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))
    assert lives.decode(raw, 7) == ({1: ONE, 3: Life(5, b"c" * 16)}, {}, {})
    assert lives.decode(lives.encode({}, 7), 7) == ({}, {}, {})


def test_layout_with_addresses() -> None:
    addresses = {2: Address(TWO, 7, Place("b.example", 7001)), 1: Address(ONE, 1, Place("::1", 65535))}
    raw = lives.encode({1: ONE}, 7, addresses=addresses)
    body = b"dsregLIV" + struct.pack(">HHHH", 2, 1, 2, 0) + struct.pack(">B7xQ16s", 1, 1, ONE.store)
    body += struct.pack(">BBH4xQ16sQ", 1, 3, 65535, 1, ONE.store, 1) + b"::1"
    body += struct.pack(">BBH4xQ16sQ", 2, 9, 7001, 1, TWO.store, 7) + b"b.example"
    assert raw == body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))
    assert lives.decode(raw, 7) == ({1: ONE}, {}, addresses)


def test_version_1_is_read_and_written_anew() -> None:
    files = MemoryFiles()
    opened(files).close()
    body = b"dsregLIV" + struct.pack(">HHI", 1, 2, 0)
    body += struct.pack(">B7xQ16s", 1, 1, ONE.store) + struct.pack(">B7xQ16s", 3, 5, b"c" * 16)
    old = body + struct.pack(">I", zlib.crc32(body, zlib.crc32(WHOSE.salt.to_bytes(8))))
    with contextlib.closing(files.open(LIVES)) as file:
        file.truncate(0)
        file.pwritev([old], 0)
        file.fdatasync()
    storage = opened(files)
    assert storage.lives.known == {1: ONE, 3: Life(5, b"c" * 16)} and not storage.lives.addresses
    storage.lives.locate({1: AT})
    files = files.crash(drop_all)
    assert opened(files).lives.addresses == {1: AT}
    assert lives.read(files, WHOSE.salt) == ({1: ONE, 3: Life(5, b"c" * 16)}, {}, {1: AT})


def test_addresses_are_durable_at_once_and_no_sign_of_having_begun() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.locate({1: AT})
    files = files.crash(drop_all)
    storage = opened(files)
    assert storage.lives.addresses == {1: AT} and not storage.lives.begun
    both = {1: AT, 2: Address(TWO, 3, Place("b", 2))}
    storage.lives.locate(both)
    written = len(files.log)
    storage.lives.locate(both)
    assert len(files.log) == written
    storage.lives.remember({2: TWO})
    files = files.crash(drop_all)
    storage = opened(files)
    assert storage.lives.addresses == both and storage.lives.known == {2: TWO}
    storage.close()
    lives.forget(files, WHOSE, 2)
    assert opened(files).lives.addresses == {1: AT}


def test_addresses_may_be_written_with_what_is_kept_next() -> None:
    files = MemoryFiles()
    storage = opened(files)
    written = len(files.log)
    storage.lives.locate_later({1: AT})
    assert storage.lives.addresses == {1: AT} and len(files.log) == written
    storage.lives.remember({2: TWO})
    written = len(files.log)
    storage.lives.locate({1: AT})
    assert len(files.log) == written, "it is there"
    files = files.crash(drop_all)
    storage = opened(files)
    assert storage.lives.addresses == {1: AT}
    storage.lives.locate_later({})
    storage.lives.locate({})
    assert not opened(files.crash(drop_all)).lives.addresses


def test_a_start_is_written_with_the_directory_that_it_is_of() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.remember({2: TWO}, 2, 5)
    starts, written = storage.lives.starts, len(files.log)
    assert starts[2] >= 5
    storage.lives.heard(2, 5)
    assert len(files.log) == written, "it is there"
    storage.lives.remember({3: TWO}, 2, 1)
    assert storage.lives.starts == starts, "never less"
    storage.lives.remember({1: ONE}, 4, 9)
    assert storage.lives.starts == starts, "of a node that is not known there are none"
    assert opened(files.crash(drop_all)).lives.starts == starts


def test_addresses_for_which_there_is_no_room_are_written_with_what_is_next() -> None:
    files = MemoryFiles()
    storage = opened(files)
    files.capacity = files.used()
    with pytest.raises(NoSpace):
        storage.lives.locate({1: AT})
    files.capacity = None
    storage.lives.remember({2: TWO})
    assert opened(files.crash(drop_all)).lives.addresses == {1: AT}


def test_without_room_to_begin_or_to_claim_it_ends_with_what_to_do() -> None:
    """And goes on where it was at the next start."""
    files = MemoryFiles()
    storage = opened(files)
    files.capacity = files.used()
    with pytest.raises(NoSpace, match="no space to record that this node claims the next life of its rank, so it ends. "
                                      "Free some on the file system of its directory, and start it again"):
        storage.lives.claim(2)
    with pytest.raises(NoSpace, match="no space to record that this node has begun, so it ends"):
        storage.lives.begin()
    files.capacity = None
    again = opened(files.crash(drop_all))
    assert not again.lives.begun and not again.lives.claimed and again.lives.own.number == 1
    again.lives.begin()
    assert again.lives.begun


@pytest.mark.parametrize("spoil", ["version", "count", "host", "rank"])
def test_another_layout_is_not_guessed_at(spoil: str) -> None:
    raw = bytearray(lives.encode({1: ONE}, 7, addresses={1: AT}))
    entry = len(raw) - 4 - 40 - len(AT.place.host)
    raw[{"version": 9, "count": 13, "host": entry + 1, "rank": entry}[spoil]] = 8 if spoil != "rank" else 0
    body = bytes(raw[:-4])
    with pytest.raises(DamagedStorage, match="layout"):
        lives.decode(body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8)))), 7)


def test_layout_with_starts() -> None:
    raw = lives.encode({3: TWO}, salt=7, starts={3: 0x1020304050607, 1: 4})
    body = b"dsregLIV" + struct.pack(">HHI", 2, 1, 0) + bytes([3, 1, 2, 3, 4, 5, 6, 7]) + struct.pack(">Q16s", *TWO)
    assert raw == body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))
    assert lives.decode(raw, 7) == ({3: TWO}, {3: 0x1020304050607}, {})


def test_any_damage_is_noticed(rng: random.Random) -> None:
    raw = lives.encode({1: ONE, 2: TWO}, 7, addresses={1: AT})
    for at in range(len(raw)):
        with pytest.raises(DamagedStorage):
            lives.decode(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:], 7)
        with pytest.raises(DamagedStorage):
            lives.decode(raw[:at], 7)
    with pytest.raises(DamagedStorage):
        lives.decode(raw, 8)


def test_ids_differ_and_stay() -> None:
    files, other = MemoryFiles(), MemoryFiles()
    first, second = open_storage(files), open_storage(other)
    assert first.lives.own != second.lives.own and len(first.lives.own.store) == 16
    own = first.lives.own
    first.close()
    assert open_storage(files).lives.own == own


def test_a_new_directory_has_not_begun_and_knows_nobody() -> None:
    files = MemoryFiles()
    storage = opened(files)
    assert not storage.lives.begun and storage.lives.known == {} and storage.lives.own == ONE
    storage.lives.begin()
    assert storage.lives.begun
    files = files.crash(drop_all)
    storage = opened(files, store=OTHER.store)
    assert storage.lives.begun and storage.lives.known == {1: ONE}


def test_what_is_remembered_is_durable_at_once_and_whole(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.begin()
    start = len(files.log)
    storage.lives.remember({2: TWO})
    storage.lives.remember({2: TWO})  # known: nothing to write
    storage.lives.remember({3: OTHER})
    log = files.log
    assert opened(files.crash(drop_all)).lives.known == {1: ONE, 2: TWO, 3: OTHER}
    states = [{1: ONE}, {1: ONE, 2: TWO}, {1: ONE, 2: TWO, 3: OTHER}]
    seen = []
    for upto in range(start, len(log) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            known = opened(MemoryFiles.from_log(log[:upto]).crash(chooser)).lives.known
            assert known in states
            seen.append(states.index(dict(known)))
    assert set(seen) == {0, 1, 2}
    assert sum(operation.kind is Kind.RENAME for operation in log[start:]) == 2


def test_each_write_keeps_all_that_was_written_before(rng: random.Random) -> None:
    """In any order; the node is killed after each."""
    for _ in range(8):
        files = MemoryFiles()
        claimed = ONE
        known: dict[int, Life] = {}
        starts: dict[int, int] = {}
        addresses: dict[int, Address] = {}
        todo = ["claim", "know 2", "know 3", "claim", "start 2", "start 3", "address 1", "address 2", "start 2"]
        rng.shuffle(todo)
        storage = opened(files)
        for number, what in enumerate([*todo, "begin", "know 3", "start 3", "address 3"], 2):
            verb, _, whose = what.partition(" ")
            rank = int(whose or 1)
            if verb == "claim":
                claimed = Life(number, ONE.store)
                storage.lives.claim(number)
            elif verb == "begin":
                known[1] = claimed
                storage.lives.begin()
            elif verb == "know":
                known[rank] = Life(number, TWO.store)
                storage.lives.remember({rank: known[rank]})
            elif verb == "address":
                addresses = {**addresses, rank: Address(ONE, number, AT.place)}
                storage.lives.locate(addresses)
            else:
                storage.lives.heard(rank, number * 100)
                starts |= {rank: -(-number * 100 // 64) * 64} if rank in known else {}
            files = files.crash(drop_all)
            storage = opened(files)
            assert (storage.lives.own, storage.lives.known) == (claimed, known), todo
            assert storage.lives.claimed is (claimed != ONE and 1 not in known), todo
            assert (storage.lives.starts, storage.lives.addresses) == (starts, addresses), todo


def test_not_each_start_of_another_node_is_written() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.remember({2: TWO})
    storage.lives.heard(2, 65)
    written = len(files.log)
    for incarnation in range(66, 129):
        storage.lives.heard(2, incarnation)
    assert len(files.log) == written and storage.lives.starts == {2: 128}
    storage.lives.heard(2, 129)
    assert opened(files.crash(drop_all)).lives.starts == {2: 192}


def test_what_a_crash_has_left_of_a_longer_file_does_no_harm() -> None:
    files = MemoryFiles()
    storage = opened(files)
    with contextlib.closing(files.open(LIVES_TMP, create=True)) as file:
        file.pwritev([b"?" * 4096], 0)
        file.fdatasync()
    storage.lives.remember({2: TWO})
    assert opened(files.crash(drop_all)).lives.known == {2: TWO}


def test_nor_does_it_to_what_is_said_of_learning() -> None:
    files = MemoryFiles()
    storage = open_storage(files, all_unknown=True)
    for name in (LEARNED_TMP, IDENTITY_TMP):
        with contextlib.closing(files.open(name, create=True)) as file:
            file.pwritev([b"?" * 4096], 0)
            file.fdatasync()
    storage.learning.learned(0, 256)
    checkpoint_now(storage)
    assert open_storage(MemoryFiles.from_log(files.log)).learning.left == WHOSE.sectors - 256
    storage.learning.learned(256, WHOSE.sectors - 256)
    checkpoint_now(storage)
    assert open_storage(files.crash(drop_all)).learning.left == 0


def test_a_write_that_fails_is_final() -> None:
    files = MemoryFiles()
    storage = opened(files)
    files.fail(Kind.SYNC, name=LIVES_TMP)
    with pytest.raises(SyncFailed, match="lives"):
        storage.lives.remember({2: TWO})
    with pytest.raises(SyncFailed):
        storage.lives.remember({2: TWO})
    with pytest.raises(SyncFailed):
        storage.tags(0, 1)
    assert storage.lives.known == {}


def test_without_the_file_or_with_one_of_another_directory_it_does_not_start() -> None:
    files = MemoryFiles()
    opened(files).close()
    files.damage(LIVES, 3, 1)
    with pytest.raises(DamagedStorage, match="lives is damaged.*runbook"):
        opened(files)
    files.damage(LIVES, 3, 1)
    opened(files).close()
    lives.write(files, {1: OTHER}, WHOSE.salt)
    with pytest.raises(DamagedStorage, match="of another directory"):
        opened(files)
    files.remove(LIVES)
    with pytest.raises(DamagedStorage, match="lives is gone"):
        opened(files)


def test_an_identity_that_was_taken_away_from_a_used_directory_is_not_made_anew() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.begin()
    storage.close()
    files.remove(IDENTITY)
    with pytest.raises(DamagedStorage, match="has served with"):
        opened(files)
    files = MemoryFiles()
    storage = opened(files)
    stored(storage, 0, 1, ts=1)
    storage.close()
    files.remove(IDENTITY)
    with pytest.raises(StorageError):
        opened(files)


def test_forgetting() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.remember({1: ONE, 2: TWO})
    storage.close()
    assert lives.forget(files, WHOSE, 2) == TWO
    assert lives.forget(files, WHOSE, 2) is None
    assert opened(files.crash(drop_all)).lives.known == {1: ONE}
