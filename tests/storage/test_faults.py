"""No room, and disks that report errors."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.errors import NoSpace, SyncFailed
from dsreg.storage import Identity, OsFiles, Refusal
from dsreg.storage.layout import GROUP_SECTORS, JOURNALS, SECTORS, SLOT_SIZE, STATE, TAGS, TAGS_STEP_BYTES
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all
from tests.storage.support import IDENTITY, checkpoint_now, commit_all, contents, open_storage, store, stored

JOURNAL_PAGES = 2 * MIN_JOURNAL_BYTES // SECTOR_SIZE


# --- no room --------------------------------------------------------------------------------------
def test_no_room_refuses_the_new_and_takes_the_old() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 4, ts=1)
    files.capacity = files.used() + 2
    over, new, mixed = (store(storage, *run, ts=2) for run in ((0, 4), (8, 4), (2, 6)))
    commit_all(storage)
    assert over.ok
    for refused in (new, mixed):
        assert refused.done and not refused.ok and refused.refusal is Refusal.NO_SPACE
    assert contents(storage, 0, 16) == [2] * 4 + [0] * 12
    assert stored(storage, 8, 2, ts=2).ok  # into the space that the refused one got
    assert storage.sectors_written == 6
    files.capacity += 100
    assert stored(storage, 4, 6, ts=2).ok
    again = open_storage(files.crash(drop_all))
    assert contents(again, 0, 16) == [2] * 10 + [0] * 6


def test_a_refused_store_leaves_those_it_overlaps_whole() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    files.capacity = files.used() + 16 + 4  # a step of tags and four sectors
    kept, refused = store(storage, 0, 4, ts=1), store(storage, 0, 6, ts=2)
    joined = store(storage, 0, 2, ts=2)
    commit_all(storage)
    assert kept.ok and not refused.ok and not joined.ok
    assert contents(storage, 0, 8) == [1] * 4 + [0] * 4
    assert contents(open_storage(files.crash(drop_all)), 0, 8) == [1] * 4 + [0] * 4


def test_no_room_for_tags_refuses_new_groups_only() -> None:
    files, small = MemoryFiles(), Identity(IDENTITY.cluster, 1, (1, 2, 3), 4096)  # two slots for all its chunks
    storage = open_storage(files, small)
    stored(storage, 0, 1, ts=1)
    room = TAGS_STEP_BYTES // SLOT_SIZE - 2
    next_group = room * GROUP_SECTORS
    for group in range(1, room):  # all but the last two slots of the first step of the tag file
        store(storage, group * GROUP_SECTORS, 1, ts=1)
    commit_all(storage)
    files.fail(Kind.WRITE, name=TAGS, number=errno.ENOSPC)
    old, new = store(storage, 1, 1, ts=1), store(storage, next_group, 3 * GROUP_SECTORS, ts=1)
    commit_all(storage)
    assert old.ok and new.refusal is Refusal.NO_SPACE
    assert stored(storage, next_group, 1, ts=1).ok
    checkpoint_now(storage)
    assert contents(open_storage(files.crash(drop_all), small), next_group, 1) == [1]


def test_no_room_to_create_or_to_recover() -> None:
    files = MemoryFiles(capacity=JOURNAL_PAGES - 10)
    with pytest.raises(NoSpace, match="create"):
        open_storage(files)
    files.capacity = JOURNAL_PAGES + 150
    storage = open_storage(files)
    assert stored(storage, 0, 50, ts=1).ok
    files = files.crash(drop_all)  # home was not synced: its space is gone as well
    files.capacity = files.used() + 10
    with pytest.raises(NoSpace, match="journal"):
        open_storage(files)
    files.capacity += 100
    assert contents(open_storage(files), 0, 50) == [1] * 50


# --- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [
        (Kind.SYNC, JOURNALS[1], errno.EIO),
        (Kind.WRITE, JOURNALS[1], errno.EIO),
        (Kind.WRITE, JOURNALS[1], errno.ENOSPC),
        (Kind.WRITE, SECTORS, errno.EIO),
    ],
)
def test_a_failed_commit_is_final(kind: Kind, name: str, number: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 4, ts=1)
    ticket = store(storage, 0, 4, ts=2)
    commit = storage.next_commit()
    assert commit is not None
    files.fail(kind, name=name, number=number)
    with pytest.raises(SyncFailed, match=os.strerror(number)):
        commit.run()
    syncs = sum(operation.kind is Kind.SYNC for operation in files.log)
    for call in (
        lambda: storage.finish_commit(commit), commit.run, storage.next_commit, storage.next_checkpoint,
        lambda: storage.tags(0, 1), lambda: store(storage, 9, 1, ts=9), lambda: storage.load(0, 1, wait=True),
        lambda: storage.reserve(99),
    ):
        with pytest.raises(SyncFailed):
            call()
    storage.close()  # releases the lock, and does nothing else
    assert not ticket.done and sum(operation.kind is Kind.SYNC for operation in files.log) == syncs
    lost, kept = (contents(open_storage(files.crash(fate)), 0, 4) for fate in (drop_all, keep_all))
    assert lost in ([1] * 4, [2] * 4) and kept in ([1] * 4, [2] * 4)


@pytest.mark.parametrize("name", [SECTORS, TAGS, JOURNALS[1]])
def test_a_failed_checkpoint_is_final(name: str) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 4, ts=1)
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None
    files.fail(Kind.SYNC, name=name)
    with pytest.raises(SyncFailed):
        checkpoint.run()
    with pytest.raises(SyncFailed):
        storage.finish_checkpoint(checkpoint)
    assert contents(open_storage(files.crash(drop_all)), 0, 4) == [1] * 4


def test_a_failed_reservation_is_final() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    ticket = storage.reserve(10)
    commit = storage.next_commit()
    assert commit is not None
    files.fail(Kind.SYNC, name=STATE)
    with pytest.raises(SyncFailed):
        commit.run()
    assert not ticket.done


# --- a real file system that is full ----------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted ext4 of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small ext4 needs root")
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    done = subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a loop device cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)  # lazy: a failed test leaves files open


def test_a_full_ext4_refuses_and_heals(small_disk: Path, rng: random.Random) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 4 << 20)
    files = OsFiles(small_disk / "storage")
    storage = open_storage(files)
    expected: dict[int, int] = {}
    refused: list[int] = []
    order = rng.sample(range(0, 1 << 19, 7), 6000)
    while len(refused) < 50:
        some = [order.pop() for _ in range(25)]
        tickets = [store(storage, sector, 1, ts=1) for sector in some]
        commit_all(storage)
        for sector, ticket in zip(some, tickets, strict=True):
            if ticket.ok:
                expected[sector] = 1
            else:
                refused.append(sector)
    assert len(expected) > 1000
    some = rng.sample(sorted(expected), 200)
    tickets = [store(storage, sector, 1, ts=2) for sector in some]
    commit_all(storage)
    assert all(ticket.ok for ticket in tickets)  # what has its place can be written all the same
    expected.update(dict.fromkeys(some, 2))
    checkpoint_now(storage)
    ballast.unlink()
    tickets = [store(storage, sector, 1, ts=3) for sector in refused]
    commit_all(storage)
    assert all(ticket.ok for ticket in tickets)
    expected.update(dict.fromkeys(refused, 3))
    storage.close()
    storage = open_storage(files)
    for sector, ts in expected.items():
        assert contents(storage, sector, 1) == [ts]
    assert storage.sectors_written == len(expected)
    storage.close()
    files.close()
