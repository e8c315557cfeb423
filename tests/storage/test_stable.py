"""What StableStorage promises while nothing breaks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dsreg.constants import MAX_RUN_SECTORS, ZERO_TAG
from dsreg.errors import StorageLocked, SyncFailed, WrongDirectory
from dsreg.storage import Identity, OsFiles, Refusal, StableStorage
from dsreg.storage.layout import MAX_QUEUED_BYTES
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all
from tests.storage.support import (
    IDENTITY,
    checkpoint_now,
    commit_all,
    contents,
    open_storage,
    store,
    stored,
    tag,
    ts_of,
    value,
    values,
)


@pytest.fixture
def storage() -> StableStorage:
    return open_storage(MemoryFiles())


def test_never_written_is_zeros_with_tag_zero(storage: StableStorage) -> None:
    loaded = storage.load(7, 3, wait=False)
    assert loaded is not None
    assert loaded.tags == ZERO_TAG * 3 and loaded.data == bytes(3 * 4096) and loaded.missing == ()
    assert storage.next_commit() is None and storage.next_checkpoint() is None


def test_nothing_is_durable_before_the_commit_has_finished(storage: StableStorage) -> None:
    ticket = store(storage, 3, 2, ts=5)
    assert ts_of(storage.tags(2, 4)) == [0, 0, 0, 0] and ts_of(storage.latest_tags(2, 4)) == [0, 5, 5, 0]
    commit = storage.next_commit()
    assert commit is not None and storage.next_commit() is None
    commit.run()
    assert contents(storage, 2, 4) == [0, 0, 0, 0] and not ticket.done
    assert storage.finish_commit(commit) == [ticket]
    assert ticket.done and ticket.ok and contents(storage, 2, 4) == [0, 5, 5, 0]
    assert storage.sectors_written == 2


def test_a_store_needs_a_higher_tag(storage: StableStorage) -> None:
    stored(storage, 10, 4, ts=5)
    for ts in (4, 5):
        ticket = store(storage, 10, 4, ts)
        assert ticket.done and ticket.ok and storage.next_commit() is None
    assert stored(storage, 8, 4, ts=4).ok  # two new ones, two superseded
    assert contents(storage, 7, 8) == [0, 4, 4, 5, 5, 5, 5, 0]
    assert storage.persist(10, 1, tag(5, wr=0), value(10, 5)).done
    assert not storage.persist(10, 1, tag(5, wr=2), value(10, 5)).done


def test_a_repeat_joins_what_is_queued_or_under_way(storage: StableStorage) -> None:
    first = store(storage, 0, 4, ts=5)
    second = store(storage, 0, 4, ts=5)
    commit = storage.next_commit()
    assert commit is not None and len(commit.records) == 1
    third = store(storage, 2, 4, ts=5)
    commit.run()
    assert storage.finish_commit(commit) == [first, second] and not third.done
    assert commit_all(storage) == [third]


def test_many_for_one_sector_in_one_commit(storage: StableStorage) -> None:
    tickets = [store(storage, 5, count, ts) for ts, count in ((1, 1), (3, 4), (2, 2), (4, 1))]
    assert ts_of(storage.latest_tags(5, 4)) == [4, 3, 3, 3]
    assert set(commit_all(storage)) == set(tickets)
    assert contents(storage, 5, 4) == [4, 3, 3, 3]
    tickets = [store(storage, 5, count, ts) for ts, count in ((5, 2), (6, 1), (7, 4))]
    commit_all(storage)
    assert contents(storage, 5, 4) == [7, 7, 7, 7]


def test_loads_wait_for_stores_that_overwrite(storage: StableStorage) -> None:
    stored(storage, 0, 8, ts=1)
    store(storage, 4, 8, ts=2)
    job = storage.load_job(0, 8)
    commit = storage.next_commit()
    assert commit is not None
    assert storage.load(0, 8, wait=True) is None and storage.load(7, 1, wait=False) is None
    assert contents(storage, 0, 4) == [1] * 4 and contents(storage, 8, 4) == [0] * 4
    commit.run()
    job.run()
    assert job.bad == [4, 5, 6, 7] and storage.finish_load(job) is None and storage.missing(0, 8) == []
    storage.finish_commit(commit)
    assert storage.finish_load(job) is None and storage.missing(0, 8) == []
    assert contents(storage, 0, 12) == [1] * 4 + [2] * 8


def test_a_load_is_of_the_moment_when_it_was_made(storage: StableStorage) -> None:
    stored(storage, 0, 2, ts=1)
    job = storage.load_job(0, 2)
    job.run()
    stored(storage, 0, 2, ts=2)
    loaded = storage.finish_load(job)
    assert loaded is not None and ts_of(loaded.tags) == [1, 1] and loaded.data == values(0, 2, 1)


def test_cold_loads_say_so() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 2, ts=1)
    files.cold = True
    assert storage.load(0, 2, wait=False) is None
    assert contents(storage, 0, 2) == [1, 1]
    assert storage.load(2, 2, wait=False) is not None


def test_long_runs_and_the_queue_bound(storage: StableStorage) -> None:
    assert stored(storage, 100, MAX_RUN_SECTORS, ts=1).ok
    assert contents(storage, 100, MAX_RUN_SECTORS) == [1] * MAX_RUN_SECTORS
    data = b"1" * (MAX_RUN_SECTORS * 4096)
    tickets = [
        storage.persist(index * MAX_RUN_SECTORS, MAX_RUN_SECTORS, tag(2) * MAX_RUN_SECTORS, data)
        for index in range(MAX_QUEUED_BYTES // len(data) + 1)
    ]
    refused = [ticket for ticket in tickets if ticket.done]
    assert refused and all(ticket.refusal is Refusal.BUSY and not ticket.ok for ticket in refused)
    commit_all(storage)
    assert storage.queued_bytes == 0 and all(ticket.done for ticket in tickets) and tickets[0].ok


def test_checkpoints_run_beside_commits(storage: StableStorage) -> None:
    ts = 1
    while not storage.checkpoint_due(idle=False):
        store(storage, 0, 64, ts)
        commit = storage.next_commit()
        assert commit is not None
        commit.run()
        storage.finish_commit(commit)
        ts += 1
    used = storage.journal_used
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None and storage.next_checkpoint() is None
    stored(storage, 32, 64, ts)
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)
    assert 0 < storage.journal_used < used and storage.checkpoints == 1
    assert contents(storage, 0, 96) == [ts - 1] * 32 + [ts] * 64


def test_a_full_journal_waits_for_its_checkpoint() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    checkpoint = None
    for ts in range(1, 100):
        ticket = store(storage, 0, 128, ts)
        commit = storage.next_commit()
        if commit is None:
            break
        commit.run()
        storage.finish_commit(commit)
        checkpoint = checkpoint or storage.next_checkpoint() if storage.checkpoint_due(idle=False) else checkpoint
    assert checkpoint is not None and not ticket.done
    reserved = storage.reserve(1000)  # goes to another file and need not wait
    assert commit_all(storage) == [reserved]
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)
    assert commit_all(storage) == [ticket]
    again = open_storage(files.crash(drop_all))
    assert contents(again, 0, 128) == [ts] * 128 and again.ts_reserved == 1000


def test_reservations_and_incarnations_survive() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    assert (storage.incarnation, storage.ts_reserved) == (1, 0)
    low, high = storage.reserve(50), storage.reserve(100)
    assert not low.done and set(commit_all(storage)) == {low, high}
    assert storage.reserve(100).done and not storage.reserve(101).done
    for incarnation in range(2, 5):
        files = files.crash(drop_all)
        storage = open_storage(files)
        assert (storage.incarnation, storage.ts_reserved) == (incarnation, 100)


@pytest.mark.parametrize("clean", [True, False])
def test_everything_is_there_after_a_restart(clean: bool) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for ts in range(1, 40):
        stored(storage, ts * 7, 40, ts)
    expected = contents(storage, 0, 256), contents(storage, 256, 256)
    written = storage.sectors_written
    if clean:
        store(storage, 600, 2, ts=3)  # close stores what is queued
        storage.close()
        written += 2
    again = open_storage(files.crash(drop_all if clean else keep_all))
    assert (contents(again, 0, 256), contents(again, 256, 256)) == expected
    assert again.sectors_written == written
    assert again.journal_used == 0


# --- identity and lock --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "other",
    [
        Identity(b"other cluster!!!", 1, (1, 2, 3), 1 << 20),
        Identity(IDENTITY.cluster, 2, (1, 2, 3), 1 << 20),
    ],
)
def test_a_directory_of_another_is_refused(other: Identity) -> None:
    files = MemoryFiles()
    open_storage(files).close()
    log = len(files.log)
    with pytest.raises(WrongDirectory):
        open_storage(files, other)
    assert len(files.log) == log
    open_storage(files).close()


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(WrongDirectory, match=r"letter\.txt"):
        open_storage(OsFiles(tmp_path))
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    storage = open_storage(OsFiles(tmp_path))
    code = (
        "import sys; from dsreg.storage import *\n"
        "from dsreg.errors import StorageLocked\n"
        "try: StableStorage.open(OsFiles(sys.argv[1]), Identity(bytes(range(16)), 1, (1, 2, 3), 1 << 20))\n"
        "except StorageLocked as error: print('locked', error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert "locked" in subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout
    storage.close()
    assert "locked" not in subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout
    with pytest.raises(ValueError, match="rank 4"):
        Identity(bytes(16), 4, (1, 2, 3), 1)


def test_an_open_that_fails_releases_the_lock() -> None:
    files = MemoryFiles()
    open_storage(files).close()
    files.fail(Kind.SYNC)
    with pytest.raises(SyncFailed):
        open_storage(files)
    lock = files.lock("lock")
    with pytest.raises(StorageLocked):
        open_storage(files)
    lock.close()
    open_storage(files).close()


# --- space, descriptors ---------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [1, 1000])
def test_space_at_rest(tmp_path: Path, stride: int, rng: random.Random) -> None:
    sectors = 2000
    storage = StableStorage.open(OsFiles(tmp_path), Identity(bytes(16), 1, (1,), sectors * stride), 2 << 20)
    order = list(range(sectors))
    rng.shuffle(order)
    for index in order:
        store(storage, index * stride, 1, ts=1)
        if storage.queued_bytes > 1 << 20:
            commit_all(storage)
    storage.close()
    used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    constant = 2 * (2 << 20) + 65536 + 65536 + 73728  # the journal, one step of tags, the small files, `zeros`
    assert sectors * 4096 <= used <= 1.1 * sectors * 4096 + constant


def test_seven_descriptors_and_all_closed(tmp_path: Path) -> None:
    files = OsFiles(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    storage = open_storage(files)
    stored(storage, 0, 10, ts=1)
    assert len(os.listdir("/proc/self/fd")) == before + 7
    storage.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_is_by_sectors_written_not_by_size() -> None:
    storage = open_storage(MemoryFiles(), Identity(bytes(16), 1, (1,), 1 << 50))
    stored(storage, (1 << 50) - 3, 3, ts=1)
    assert contents(storage, (1 << 50) - 4, 4) == [0, 1, 1, 1]
    checkpoint_now(storage)
    assert len(storage._table.pages.index) == 1 and not storage._pending
