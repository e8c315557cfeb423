"""The file `configuration`: what a node has heard, promised and voted about the members and the size."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import struct
import zlib

import pytest

from dsreg.errors import DamagedStorage, NoSpace, SyncFailed
from dsreg.protocol.configuration import NO_BALLOT, Ballot, Configuration, Record, Vote
from dsreg.register.quorum import mask
from dsreg.storage.configuration import Kept, decode, encode
from dsreg.storage.identity import FORMAT
from dsreg.storage.identity import read as read_identity
from dsreg.storage.layout import CONFIGURATION, CONFIGURATION_TMP, IDENTITY
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import IDENTITY as WHOSE
from tests.storage.support import open_storage

THREE, FOUR = mask((1, 2, 3)), mask((1, 2, 3, 4))
FIRST = Configuration(1, WHOSE.sectors, THREE, 0, THREE)
JOINT = Configuration(2, WHOSE.sectors, THREE, FOUR, FOUR)
BALLOT = Ballot(7, b"p" * 16)
PROMISED = Record(FIRST, BALLOT)
VOTED = Record(FIRST, BALLOT, Vote(BALLOT, JOINT))
HEARD = Record(JOINT)


def test_layout() -> None:
    def ranks(bits: int) -> bytes:
        return bits.to_bytes(32)

    first = struct.pack(">QQ", 1, 1 << 20) + ranks(0b1110) + ranks(0) + ranks(0b1110)
    joint = struct.pack(">QQ", 2, 1 << 20) + ranks(0b1110) + ranks(0b11110) + ranks(0b11110)
    ballot = struct.pack(">Q", 7) + b"p" * 16
    body = b"dsregCFG" + struct.pack(">HHI", 2, 1, 0) + first + ballot + ballot + joint + ranks(0b1010)
    assert encode(Kept(VOTED, 0b1010), 7) == body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))
    body = b"dsregCFG" + struct.pack(">HHI", 2, 0, 0) + joint + bytes(24 + 24 + 112 + 32)
    assert encode(Kept(HEARD), 7) == body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))
    for record in (PROMISED, VOTED, HEARD):
        assert decode(encode(Kept(record, THREE), 7), 7) == Kept(record, THREE)


def test_any_damage_is_noticed(rng: random.Random) -> None:
    raw = encode(Kept(VOTED), 7)
    for at in range(len(raw)):
        with pytest.raises(DamagedStorage):
            decode(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:], 7)
        with pytest.raises(DamagedStorage):
            decode(raw[:at], 7)
    with pytest.raises(DamagedStorage):
        decode(raw, 8)


def with_checksum(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body, zlib.crc32((7).to_bytes(8))))


@pytest.mark.parametrize("at", [9, 11], ids=["version", "flags"])
def test_another_layout_is_not_guessed_at(at: int) -> None:
    raw = bytearray(encode(Kept(VOTED), 7))
    raw[at] = 9
    with pytest.raises(DamagedStorage, match="layout"):
        decode(with_checksum(bytes(raw[:-4])), 7)


@pytest.mark.parametrize(
    "impossible",
    [Record(FIRST._replace(ranks=0)), VOTED._replace(voted=Vote(BALLOT, JOINT._replace(number=3)))],
)
def test_nor_is_what_was_never_written(impossible: Record) -> None:
    with pytest.raises(DamagedStorage, match="never writes"):
        decode(encode(Kept(impossible), 7), 7)


def test_a_directory_begins_at_number_1_without_a_file() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    assert storage.configuration.record == Record(FIRST, NO_BALLOT) and not files.exists(CONFIGURATION)
    storage.configuration.remember(Record(FIRST))
    assert not files.exists(CONFIGURATION) and not read_identity(files).configured


@pytest.mark.parametrize("record", [PROMISED, VOTED, HEARD])
def test_what_is_remembered_is_durable_at_once(record: Record) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.configuration.remember(record)
    assert storage.configuration.record == record
    for chooser in (drop_all, keep_all):
        assert open_storage(files.crash(chooser)).configuration.record == record


def test_what_a_crash_has_left_of_a_longer_file_does_no_harm() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    with contextlib.closing(files.open(CONFIGURATION_TMP, create=True)) as file:
        file.pwritev([b"?" * 4096], 0)
        file.fdatasync()
    storage.configuration.remember(VOTED)
    assert open_storage(files.crash(drop_all)).configuration.record == VOTED


def test_a_version_that_does_not_know_the_file_does_not_use_the_directory() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    with contextlib.closing(files.open(IDENTITY)) as file:
        assert b"configured" not in file.pread(4096, 0)
    storage.configuration.remember(PROMISED)
    with contextlib.closing(files.open(IDENTITY)) as file:
        assert b"configured = true\n" in file.pread(4096, 0)


def test_a_directory_that_learns_may_have_one_as_well() -> None:
    files = MemoryFiles()
    storage = open_storage(files, all_unknown=True)
    storage.configuration.remember(VOTED)
    files = files.crash(drop_all)
    storage = open_storage(files)
    assert storage.configuration.record == VOTED and storage.learning.left == WHOSE.sectors


@pytest.mark.parametrize("all_unknown", [False, True])
def test_a_crash_at_any_moment_leaves_one_record_or_the_next(rng: random.Random, all_unknown: bool) -> None:
    files = MemoryFiles()
    storage = open_storage(files, all_unknown=all_unknown)
    first, records = storage.configuration.record, [PROMISED, VOTED, HEARD]
    start, durable_at = len(files.log), []
    for record in records:
        storage.configuration.remember(record)
        durable_at.append(len(files.log))
    states, seen = [first, *records], set()
    for upto in range(start, len(files.log) + 1):
        certain = sum(upto >= at for at in durable_at)
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            opened = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
            found = states.index(opened.configuration.record)
            assert certain <= found <= certain + 1
            assert bool(opened.learning.left) == all_unknown
            seen.add(found)
    assert seen == {0, 1, 2, 3}


def test_without_room_nothing_is_remembered_and_later_it_is() -> None:
    for record in (PROMISED, HEARD):
        files = MemoryFiles()
        storage = open_storage(files)
        files.capacity = files.used()
        with pytest.raises(NoSpace):
            storage.configuration.remember(record)
        assert storage.configuration.record == Record(FIRST)
        assert open_storage(files.crash(drop_all)).configuration.record == Record(FIRST)
    files = files.crash(drop_all)
    files.capacity = None
    storage = open_storage(files)
    storage.configuration.remember(VOTED)
    assert open_storage(files.crash(drop_all)).configuration.record == VOTED


def test_a_write_that_fails_is_final() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    files.fail(Kind.SYNC, name=CONFIGURATION_TMP)
    for _ in range(2):
        with pytest.raises(SyncFailed):
            storage.configuration.remember(PROMISED)
    assert storage.configuration.record == Record(FIRST)
    with pytest.raises(SyncFailed):
        storage.tags(0, 1)


def test_one_that_is_gone_is_not_taken_for_one_that_never_was() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.configuration.remember(PROMISED)
    storage.close()
    files.remove(CONFIGURATION)
    with pytest.raises(DamagedStorage, match="configuration is gone"):
        open_storage(files)


# --- who keeps configurations ---------------------------------------------------------------------------
def test_who_was_seen_to_keep_configurations_is_kept_without_a_bar_to_older_versions() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.configuration.seen(2, True)
    storage.configuration.seen(3, True)
    assert not read_identity(files).configured
    files = files.crash(drop_all)
    storage = open_storage(files)
    assert storage.configuration.keep == mask((2, 3)) and storage.configuration.record == Record(FIRST)
    storage.configuration.seen(3, False)
    storage.configuration.remember(VOTED)
    files = files.crash(drop_all)
    storage = open_storage(files)
    assert storage.configuration.keep == mask((2,)) and storage.configuration.record == VOTED
    storage.configuration.seen(3, True)
    storage = open_storage(files.crash(drop_all))
    assert storage.configuration.keep == mask((2, 3)) and storage.configuration.record == VOTED


def test_what_is_seen_is_written_once() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.configuration.seen(2, True)
    written = len(files.log)
    storage.configuration.seen(2, True)
    storage.configuration.seen(3, False)
    assert len(files.log) == written


@pytest.mark.parametrize("what", ["gone", "damaged", "unfinished"])
def test_before_a_directory_is_configured_its_file_may_be_anything(what: str) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    if what == "unfinished":  # the crash came before identity.toml said that there is one
        files.fail(Kind.SYNC, name="identity.toml.tmp")
        with pytest.raises(SyncFailed):
            storage.configuration.remember(VOTED)
    else:
        storage.configuration.seen(2, True)
    files = files.crash(drop_all)
    if what == "gone":
        files.remove(CONFIGURATION)
    elif what == "damaged":
        with contextlib.closing(files.open(CONFIGURATION)) as file:
            file.pwritev([b"?"], 20)
    storage = open_storage(files)
    assert storage.configuration.record == Record(FIRST) and storage.configuration.keep == 0


# --- directories that were made to join -----------------------------------------------------------------
UNTOLD = Record(Configuration(0, WHOSE.sectors, 0, 0, 0))


def test_one_that_was_made_to_join_has_no_first_configuration_until_it_is_told_one(rng: random.Random) -> None:
    files = MemoryFiles()
    start = len(files.log)
    storage = open_storage(files, joins=True)
    assert storage.configuration.record == UNTOLD
    storage.configuration.seen(2, True)
    storage.configuration.remember(HEARD)
    told, seen = len(files.log), set()
    for upto in range(start, told + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            left = MemoryFiles.from_log(files.log[:upto]).crash(chooser)
            opened = open_storage(left, joins=not left.exists(IDENTITY))  # without the option from then on
            assert opened.configuration.record in (UNTOLD, HEARD), "never what its cluster.toml has"
            assert upto < told or opened.configuration.record == HEARD
            seen.add(opened.configuration.record)
    assert seen == {UNTOLD, HEARD}


def test_one_that_was_never_used_is_made_to_join_and_one_that_was_is_not() -> None:
    files = MemoryFiles()
    assert open_storage(files).configuration.record == Record(FIRST)
    files = files.crash(drop_all)
    assert open_storage(files, joins=True).configuration.record == UNTOLD
    files = files.crash(drop_all)
    assert open_storage(files).configuration.record == UNTOLD
    for how in ("begun", "claimed", "told"):
        files = MemoryFiles()
        storage = open_storage(files)
        if how == "begun":
            storage.lives.begin()
        elif how == "claimed":
            storage.lives.claim(2)
        else:
            storage.configuration.remember(HEARD)
        record = storage.configuration.record
        assert open_storage(files.crash(drop_all), joins=True).configuration.record == record


def test_a_version_that_does_not_know_of_joining_does_not_use_the_directory() -> None:
    files = MemoryFiles()
    open_storage(files, joins=True)
    with contextlib.closing(files.open(IDENTITY)) as file:
        said = file.pread(4096, 0)
    assert b"joining = true\n" in said and f"format = {FORMAT}\n".encode() in said, "no version before knows it"


def test_the_list_and_the_size_in_cluster_toml_change_and_the_directory_keeps_its_own() -> None:
    files = MemoryFiles()
    open_storage(files)
    for ranks in ((1, 2, 3, 4, 5), (1,)):
        storage = open_storage(files.crash(drop_all), identity=dataclasses.replace(WHOSE, ranks=ranks))
        assert storage.configuration.record == Record(FIRST)
    larger = dataclasses.replace(WHOSE, ranks=(1, 2, 3, 4, 5), sectors=WHOSE.sectors + 1)
    files = files.crash(drop_all)
    storage = open_storage(files, identity=larger)
    assert storage.sectors == WHOSE.sectors and storage.configuration.record == Record(FIRST)
    assert read_identity(files).identity == WHOSE
