"""Directories of older formats, made by the version of their time (make_old_format.py): opened, upgraded, all there."""

from __future__ import annotations

import os
import random
import tarfile
from pathlib import Path

import pytest

from dsreg.errors import WrongDirectory
from dsreg.protocol.configuration import NO_BALLOT
from dsreg.protocol.life import Life
from dsreg.protocol.tags import pack_tag, unpack_tag
from dsreg.storage import Files, Identity, OsFiles, StableStorage, identity
from dsreg.storage.layout import IDENTITY
from dsreg.testing.memory_files import Content, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.make_old_format import (
    CONTENTS,
    DISK,
    EPOCH,
    KILLED,
    LEARNED,
    OLD_FORMATS,
    OWNER,
    PROMISED,
    RESERVED,
    RESTAMPED,
)
from tests.storage.support import contents, open_storage, stored, values

STORE = bytes(range(100, 116))
OLD = (
    "format-2-closed", "format-2-killed", "format-3-closed", "format-3-killed", "format-4-learning",
    "format-5-configured", "format-6-closed", "format-6-killed",
)
PAGE = 4096


def contents_of(name: str) -> dict[str, Content]:
    found: dict[str, Content] = {}
    with tarfile.open(OLD_FORMATS / f"{name}.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            content = found[member.name] = Content()
            while page := file.read(PAGE):
                if any(page):
                    content.write(page, content.size)
                else:
                    content.size += len(page)
    return found


def opened(files: Files) -> StableStorage:
    return StableStorage.open(files, DISK, new_store=lambda: STORE)


def check(storage: StableStorage, name: str) -> None:
    """All that the old version had is there."""
    assert storage.learning.left == (DISK.sectors - LEARNED if name == "format-4-learning" else 0)
    assert storage.configuration.record.promised == (PROMISED if name == "format-5-configured" else NO_BALLOT)
    if storage.learning.left:
        assert storage.unknown(LEARNED - 1, 2) == [LEARNED]
        storage.learning.learned(LEARNED, DISK.sectors - LEARNED)
    expected: dict[int, int] = {}
    for first, count, ts in CONTENTS + (KILLED if name.endswith("killed") else ()):
        expected.update(dict.fromkeys(range(first, first + count), ts))
    for sector in range(RESTAMPED[0]):
        assert contents(storage, sector, 1) == [expected.get(sector, 0)], sector
    for sector in (5000, 5001, 5003, 7777, *range(7999, 8065), DISK.sectors - 1):
        assert contents(storage, sector, 1) == [expected.get(sector, 0)], sector
    first, count, ts = RESTAMPED
    loaded = storage.load(first, count, wait=True)
    assert loaded is not None and loaded.data == values(first, count, ts) and not loaded.missing
    assert loaded.tags == pack_tag(ts, 1, 0, EPOCH) * count
    assert unpack_tag(loaded.tags[:16]).epoch == EPOCH
    assert (storage.epoch, storage.owner) == (EPOCH, OWNER)
    assert storage.ts_reserved == RESERVED and storage.incarnation > 2
    assert storage.sectors_written == len(expected) + count


@pytest.mark.parametrize("name", OLD)
def test_an_old_directory_is_upgraded_and_has_everything(name: str, tmp_path: Path) -> None:
    for file, content in contents_of(name).items():
        with open(tmp_path / file, "wb") as out:
            os.truncate(out.fileno(), content.size)
            for number, page in content.pages.items():
                out.seek(number * PAGE)
                out.write(page[:content.size - number * PAGE])
    assert f"format = {name[7]}\n".encode() in (tmp_path / IDENTITY).read_bytes()
    storage = opened(OsFiles(tmp_path))
    check(storage, name)
    if name.startswith("format-2"):
        assert storage.lives.own == Life(1, STORE)
        assert storage.lives.begun, "what was in use before counts as used"
    own = storage.lives.own
    stored(storage, 4000, 1, ts=3)
    storage.close()
    assert b"format = 7\n" in (tmp_path / IDENTITY).read_bytes()
    again = StableStorage.open(OsFiles(tmp_path), DISK)
    assert again.lives.own == own and contents(again, 4000, 1) == [3]
    again.close()


@pytest.mark.parametrize("name", OLD)
def test_a_crash_anywhere_in_the_upgrade(name: str, rng: random.Random) -> None:
    before = contents_of(name)
    whole = MemoryFiles.holding(before)
    check(opened(whole), name)
    log = whole.log
    for upto in range(len(log) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            files = MemoryFiles.holding(before)
            for operation in log[:upto]:
                files.redo(operation)
            after = files.crash(chooser)
            storage = StableStorage.open(after, DISK)
            assert storage.lives.begun == name.startswith("format-2")
            assert storage.lives.known == ({1: storage.lives.own} if storage.lives.begun else {})
            storage.lives.remember({2: Life(1, bytes(16))})
            check(storage, name)
            own = storage.lives.own
            after = after.crash(keep_all)
            assert opened(after).lives.own == own, "the id stays once it has been told to others"


def test_an_old_directory_of_another_node_is_not_touched() -> None:
    files = MemoryFiles.holding(contents_of("format-2-closed"))
    with pytest.raises(WrongDirectory, match="rank 1, not 2"):
        open_storage(files, Identity(DISK.cluster, 2, DISK.ranks, DISK.sectors))
    assert files.log == []


@pytest.mark.parametrize("number", [1, 8, 99])
def test_a_format_that_there_is_no_way_from_is_refused_with_what_to_do(number: int) -> None:
    files = MemoryFiles()
    open_storage(files).close()
    text = files.open(IDENTITY).pread(10**4, 0)
    new = text.replace(b"format = 7", b"format = %d" % number).replace(b"dsreg 0.", b"dsreg 9.")
    files.open(IDENTITY).truncate(0)
    files.open(IDENTITY).pwritev([new], 0)
    with pytest.raises(WrongDirectory, match=rf"format {number}, written by dsreg 9\.\d.*start this node with"):
        open_storage(files)


def test_what_an_older_version_wrote_is_read_as_it_is() -> None:
    raw = contents_of("format-2-closed")[IDENTITY].read(10**4, 0)
    recorded = identity.decode(raw)
    assert (recorded.format, recorded.store, recorded.identity) == (2, b"", DISK)
