"""The file systems that people have, really mounted: how large a file may be, and what a full one does to a node."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.constants import MAX_RUN_SECTORS, MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.errors import NoSpace, StorageError
from dsreg.protocol.configuration import Record
from dsreg.protocol.tags import pack_tag
from dsreg.storage import Identity, OsFiles, Refusal, StableStorage
from dsreg.storage.layout import IDENTITY, JOURNALS, SECTORS, STATE, TAGS
from tests.storage.file_systems import KINDS, MIB, mounted, why_not
from tests.storage.support import checkpoint_now, commit_all, contents, stored, ts_of

TIB = 1 << 40
# The smallest that their mkfs makes, or little more.
SIZES = {"btrfs": 128 * MIB, "xfs": 320 * MIB, "ext4": 64 * MIB, "tmpfs": 64 * MIB}
RUN = MAX_RUN_SECTORS


def kinds(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.skipif(why_not(name) is not None, reason=str(why_not(name))))
            for name in names]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounted(request.param, SIZES[request.param], tmp_path) as mountpoint:
        yield mountpoint


def of_size(size_bytes: int) -> Identity:
    return Identity(bytes(16), 1, (1,), size_bytes // SECTOR_SIZE)


def opened(directory: Path, identity: Identity) -> tuple[StableStorage, OsFiles]:
    files = OsFiles(directory)
    try:
        return StableStorage.open(files, identity, MIN_JOURNAL_BYTES), files
    except BaseException:
        files.close()
        raise


# --- the largest file -----------------------------------------------------------------------------------
@pytest.mark.parametrize("place", kinds("ext4"), indirect=True)
def test_a_disk_that_no_file_of_ext4_can_hold_is_refused_at_the_start(place: Path) -> None:
    """And the largest one that fits is used to its last sector."""
    for _ in range(2):  # what the refused attempt leaves is in nobody's way
        with pytest.raises(StorageError, match=f"has {16 * TIB - 4096}, which is {2**32 - 1} sectors"):
            opened(place / "node", of_size(16 * TIB))
        assert not (place / "node" / IDENTITY).exists()
    storage, files = opened(place / "node", of_size(16 * TIB - 4096))
    assert stored(storage, 2**32 - 2, 1, ts=7).ok
    storage.close()
    storage, again = opened(place / "node", of_size(16 * TIB - 4096))
    assert contents(storage, 2**32 - 2, 1) == [7]
    assert storage.configuration.largest == 2**32 - 1
    current = storage.configuration.record.current
    with pytest.raises(NoSpace, match=f"a disk of {2**32} sectors needs a longer file .* which is {2**32 - 1} sectors"):
        storage.configuration.remember(Record(current._replace(number=2, sectors=2**32)))
    storage.close()
    for each in (files, again):
        each.close()


@pytest.mark.parametrize("place", kinds("btrfs", "xfs", "tmpfs"), indirect=True)
def test_others_hold_a_disk_of_16_tib_and_more(place: Path) -> None:
    storage, files = opened(place / "node", of_size(64 * TIB))
    for sector in (2**32 - 1, 2**34 - 1):
        assert stored(storage, sector, 1, ts=3).ok and contents(storage, sector, 1) == [3]
    storage.close()
    files.close()


def test_the_limit_of_the_process_counts_as_well(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * MIB, hard))
    try:
        with pytest.raises(StorageError, match=f"ulimit -f.* has {64 * MIB}, which is 16384 sectors"):
            opened(tmp_path / "node", of_size(65 * MIB))
        storage, files = opened(tmp_path / "node", of_size(64 * MIB))
        assert stored(storage, 16383, 1, ts=1).ok
        storage.close()
        files.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- full ---------------------------------------------------------------------------------------------
def write_until_refused(storage: StableStorage, ts: int) -> int:
    """Runs of random data, until three in a row are refused: how many runs were stored, from sector 0 on."""
    run = refused = 0
    while refused < 3:
        ticket = storage.persist(run * RUN, RUN, pack_tag(ts, 1) * RUN, os.urandom(RUN * SECTOR_SIZE))
        commit_all(storage)
        assert ticket.done and ticket.refusal in (None, Refusal.NO_SPACE)
        run, refused = (run + 1, 0) if ticket.ok else (run, refused + 1)
    return run


@pytest.mark.parametrize("place", kinds(*KINDS), indirect=True)
def test_a_full_file_system_refuses_what_is_new_and_takes_what_is_not(place: Path, rng: random.Random) -> None:
    """Whatever is written over needs no room: in `sectors`, and in the journal, `state` and `tags` that go with it.
    Some file systems copy what is written over; one that is full then has no room for that."""
    identity = of_size(1 << 30)
    storage, files = opened(place / "node", identity)
    runs = write_until_refused(storage, ts=1)
    assert runs * RUN * SECTOR_SIZE >= SIZES[place.name.removesuffix("-mount")] // 8
    chosen = rng.sample(range(runs), 6)  # on a full btrfs each takes a second
    for ts in (2, 3):
        for run in chosen:
            assert stored(storage, run * RUN, RUN, ts=ts).ok, (ts, run)
        promises = [storage.reserve(storage.ts_reserved + 1), storage.fence(ts, bytes(64))]
        commit_all(storage)
        assert all(promise.done for promise in promises)
    if storage.checkpoint_due(idle=True):
        checkpoint_now(storage)
    storage.close()
    storage, again = opened(place / "node", identity)  # a start needs no room either
    for run in range(runs):
        loaded = storage.load(run * RUN, RUN, wait=True)
        assert loaded is not None and not loaded.missing
        assert ts_of(loaded.tags) == [3 if run in chosen else 1] * RUN
    storage.close()
    for each in (files, again):
        each.close()


@pytest.mark.parametrize("place", kinds("btrfs"), indirect=True)
def test_nothing_is_copied_on_write_where_that_can_be_had(place: Path) -> None:
    storage, files = opened(place / "node", of_size(64 * MIB))
    storage.close()
    files.close()
    listed = os.popen(f"lsattr {place / 'node'}").read()
    flags = {Path(line.split()[1]).name: line.split()[0] for line in listed.splitlines()}
    assert all("C" in flags[name] for name in (*JOURNALS, TAGS, SECTORS, STATE)), listed
