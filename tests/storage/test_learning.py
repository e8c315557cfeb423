"""A directory in which every sector is unknown until it is learned."""

from __future__ import annotations

import dataclasses
import errno
import random

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_TAG
from dsreg.errors import DamagedStorage, NoSpace, SyncFailed
from dsreg.runs import Runs
from dsreg.storage import StableStorage, identity, learning
from dsreg.storage.commit import Refusal
from dsreg.storage.layout import IDENTITY as IDENTITY_FILE
from dsreg.storage.layout import LEARNED, TAGS
from dsreg.testing.memory_files import Chooser, Kind, MemoryFiles, drop_all, keep_all, random_chooser
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
    values,
)

DISK = IDENTITY.sectors
SMALL = dataclasses.replace(IDENTITY, sectors=64)
SEEDS = range(6)


def unknown_disk(files: MemoryFiles | None = None, disk: identity.Identity = IDENTITY) -> StableStorage:
    return open_storage(files or MemoryFiles(), disk, all_unknown=True)


def is_marked(files: MemoryFiles) -> bool:
    raw = files.open(IDENTITY_FILE).pread(10**4, 0)
    return b"learning = " in raw


def killed(files: MemoryFiles) -> MemoryFiles:
    """The directory as the next process finds it: nothing was lost but the process."""
    return MemoryFiles.from_log(files.log)


def chooser_of(seed: int) -> Chooser:
    """What a power cut leaves."""
    rng = random.Random(seed)
    return (keep_all, drop_all, *[random_chooser(rng)] * len(SEEDS))[seed]


# --- what is unknown ------------------------------------------------------------------------------
def test_in_a_new_life_every_sector_is_unknown_until_it_is_learned() -> None:
    storage = unknown_disk()
    assert storage.learning.left == DISK and storage.learning.is_recorded
    for first in (0, 1000, DISK - 256):
        assert storage.unknown(first, 256) == storage.missing(first, 256) == list(range(first, first + 256))
    assert storage.lost() == [] and storage.damaged == 0
    assert storage.learning.chunks(0) == (0, DISK // 256)
    assert storage.learning.learned(256, 256)
    assert storage.unknown(250, 20) == list(range(250, 256)) and storage.unknown(256, 256) == []
    assert storage.learning.left == DISK - 256
    assert storage.learning.chunks(1) == (2, DISK // 256) and storage.learning.chunks(0) == (0, 1)


def test_otherwise_nothing_is_unknown_and_an_existing_directory_stays_as_it_is() -> None:
    files = MemoryFiles()
    for all_unknown in (False, True):
        storage = open_storage(files, all_unknown=all_unknown)
        assert storage.unknown(0, 256) == [] and storage.learning.left == 0 and not storage.learning.is_recorded
        assert storage.learning.chunks(0) is None and storage.learning.learned(0, 8)
        storage.close()
    assert not is_marked(files) and not files.exists(LEARNED)


def test_what_is_stored_in_this_life_is_kept_and_stays_unknown() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    assert stored(storage, 5, 3, ts=7).ok
    assert storage.persist(20, 8, ZERO_TAG * 8, bytes(8 * SECTOR_SIZE)).ok  # nothing to store
    assert storage.unknown(5, 3) == [5, 6, 7]
    assert stored(storage, 5, 3, ts=6).ok  # an older one is over, and acknowledged
    for again in (storage, open_storage(killed(files), all_unknown=True), open_storage(killed(files))):
        assert ts_of(again.tags(4, 5)) == [0, 7, 7, 7, 0]  # what it may say at least
        loaded = again.load(5, 3, wait=True)
        assert loaded is not None and loaded.missing == (5, 6, 7)
        assert again.damaged_of(0, 256) == []


def test_a_damaged_tag_of_this_life_takes_repairs_only() -> None:
    """What is lost by damage may have been acknowledged in this life."""
    files = MemoryFiles()
    storage = unknown_disk(files)
    assert stored(storage, 0, 8, ts=7).ok
    storage.close()
    files.damage(TAGS, 100, 1)
    storage = open_storage(files)
    assert store(storage, 0, 1, ts=9).refusal is Refusal.UNKNOWN
    assert stored(storage, 8, 1, ts=9).ok
    assert storage.damaged_of(0, 256) == list(range(8))
    assert storage.learning.learned(0, 256) and storage.unknown(0, 256) == list(range(8))
    assert stored(storage, 0, 8, ts=9, repair=True).ok
    assert storage.unknown(0, 256) == []


def test_it_is_not_learned_below_what_was_told() -> None:
    storage = unknown_disk()
    stored(storage, 0, 2, ts=7)
    assert not storage.learning.learned(0, 2, tag(7) + tag(8))
    assert storage.unknown(0, 2) == [0, 1]
    ticket = store(storage, 1, 1, ts=8)
    assert not storage.learning.learned(0, 2, tag(7) + tag(8))  # queued is not stored
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert not storage.learning.learned(0, 2, tag(7) + tag(8))
    storage.finish_commit(commit)
    assert ticket.ok and storage.learning.learned(0, 2, tag(7) + tag(8))
    assert storage.unknown(0, 3) == [2] and contents(storage, 0, 2) == [7, 8]
    assert storage.learning.learned(2, 1, ZERO_TAG) and contents(storage, 2, 1) == [0]


def test_it_does_not_answer_for_the_last_sector_that_is_left() -> None:
    storage = unknown_disk()
    storage.learning.learned(0, 700)
    storage.learning.learned(701, DISK - 701)
    assert storage.learning.left == 1
    assert storage.unknown(512, 256) == storage.missing(700, 1) == storage.learning.of(600, 200) == [700]
    assert storage.learning.chunks(0) == (2, 3) and storage.learning.chunks(3) is None


def test_a_run_of_both_is_stored_and_read_as_ever() -> None:
    storage = unknown_disk()
    storage.learning.learned(0, 4)
    ticket = storage.persist(0, 8, tag(5) * 8, values(0, 8, 5))
    commit_all(storage)
    assert ticket.ok and contents(storage, 0, 4) == [5] * 4 and storage.unknown(0, 8) == [4, 5, 6, 7]


# --- what stays after a crash ---------------------------------------------------------------------
def test_what_was_learned_is_there_again_after_a_checkpoint_and_no_more_than_that() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    stored(storage, 0, 8, ts=3)
    storage.learning.learned(0, 256, tag(3) * 8 + ZERO_TAG * 248)
    checkpoint_now(storage)  # with a segment
    assert storage.journal_used == 0 and not storage.checkpoint_due(idle=True)
    storage.learning.learned(1 << 16, 1 << 18)
    assert storage.checkpoint_due(idle=True) and not storage.checkpoint_due(idle=False)
    checkpoint_now(storage)  # alone
    storage.learning.learned(512, 256)
    again = open_storage(killed(files))
    assert again.learning.left == DISK - 256 - (1 << 18)
    assert again.unknown(255, 3) == [256, 257] and again.unknown(512, 1) == [512]
    assert contents(again, 0, 9) == [3] * 8 + [0]


def test_commits_may_fill_a_segment_while_only_what_was_learned_is_written() -> None:
    storage = unknown_disk()
    storage.learning.learned(0, 256)
    checkpoint = storage.next_checkpoint()
    assert checkpoint is not None and not checkpoint.frees
    for ts in (1, 2):  # as much as two segments hold
        store(storage, 0, 256, ts)
        while (commit := storage.next_commit()) is not None:
            commit.run()
            storage.finish_commit(commit)
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)
    assert storage.checkpoint_due(idle=False)  # the segment is still to be freed
    checkpoint_now(storage)
    assert contents(storage, 0, 256) == [2] * 256


def test_the_mark_goes_when_all_is_learned_and_not_before() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    stored(storage, 0, 8, ts=3)
    storage.learning.learned(0, DISK - 1)
    checkpoint_now(storage)
    assert is_marked(files) and files.exists(LEARNED)
    storage.learning.learned(DISK - 1, 1)
    assert storage.learning.left == 0 and storage.unknown(DISK - 256, 256) == []
    assert storage.learning.is_recorded and open_storage(killed(files)).learning.left == 1
    checkpoint_now(storage)
    assert not storage.learning.is_recorded and not is_marked(files) and not files.exists(LEARNED)
    assert storage.next_checkpoint() is None
    assert stored(storage, 9, 1, ts=4).ok and contents(storage, 8, 2) == [0, 4]
    again = open_storage(killed(files))
    assert again.learning.left == 0 and contents(again, 0, 10) == [3] * 8 + [0, 4]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_while_the_mark_goes_leaves_it_or_not(seed: int) -> None:
    files = MemoryFiles()
    storage = unknown_disk(files, SMALL)
    stored(storage, 0, 8, ts=3)
    storage.learning.learned(0, 60)
    checkpoint_now(storage)
    storage.learning.learned(60, 4)
    begun = len(files.log)
    storage.close()
    found = set()
    for upto in range(begun, len(files.log) + 1):
        left = MemoryFiles.from_log(files.log[:upto]).crash(chooser_of(seed))
        again = open_storage(left, SMALL)
        assert again.learning.left == (4 if is_marked(left) else 0)
        assert contents(again, 0, 9) == [3] * 8 + [0]
        found.add(again.learning.left)
    assert found == {0, 4}


def test_all_is_recorded_as_learned_and_the_mark_is_still_there() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files, SMALL)
    storage.learning.learned(0, 60)
    checkpoint_now(storage)
    id_ = identity.read(files).learning
    known = Runs()
    known.add(0, SMALL.sectors)
    copy = killed(files)
    copy.open(LEARNED).pwritev([learning.encode(id_, known, SMALL.salt)], 0)
    again = open_storage(copy, SMALL)
    assert is_marked(copy) and again.learning.left == 0 and again.checkpoint_due(idle=True)
    again.close()
    assert not is_marked(copy)


def test_no_record_of_what_was_learned_or_a_damaged_one_means_that_nothing_was() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    storage.learning.learned(0, 1 << 19)
    storage.close()
    assert open_storage(killed(files)).learning.left == DISK - (1 << 19)
    size = files.open(LEARNED).size()
    for at in range(size):
        copy = killed(files)
        copy.damage(LEARNED, at, 1)
        assert open_storage(copy).learning.left == DISK, at
    for cut in (0, 1, size - 1):
        copy = killed(files)
        copy.open(LEARNED).truncate(cut)
        assert open_storage(copy).learning.left == DISK
    copy = killed(files)
    copy.unreadable(LEARNED, 0)
    assert open_storage(copy).learning.left == DISK
    copy.remove(LEARNED)
    assert open_storage(killed(copy)).learning.left == DISK


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_while_more_is_recorded_leaves_what_was_recorded_before_or_all_of_it(seed: int) -> None:
    files = MemoryFiles()
    storage = unknown_disk(files, SMALL)
    storage.learning.learned(0, 4)
    checkpoint_now(storage)
    storage.learning.learned(8, 4)
    begun = len(files.log)
    checkpoint_now(storage)
    found = []
    for upto in range(begun, len(files.log) + 1):
        left = MemoryFiles.from_log(files.log[:upto]).crash(chooser_of(seed))
        found.append(open_storage(left, SMALL).learning.left)
    assert set(found) == {60, 56} and found[-1] == 56


@pytest.mark.parametrize("line", [b"", b'learning = ""\n', b'learning = "00"\n'])
def test_a_mark_that_says_nothing_is_damage(line: bytes) -> None:
    files = MemoryFiles()
    unknown_disk(files, SMALL).close()
    recorded = identity.read(files)
    raw = identity.encode(recorded)
    text = b"".join(each for each in raw.splitlines(True) if not each.startswith((b"learning", b"check"))) + line
    if not line:  # what format 4 always had
        text = text.replace(b"format = 7", b"format = 4")
    with pytest.raises(DamagedStorage, match="invalid values"):
        identity.decode(text + b'check = "%08x"\n' % identity.zlib.crc32(text))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_while_it_is_made_leaves_no_directory_or_an_unknown_one(seed: int) -> None:
    files = MemoryFiles()
    unknown_disk(files, SMALL)
    made = 0
    for upto in range(len(files.log) + 1):
        left = MemoryFiles.from_log(files.log[:upto]).crash(chooser_of(seed))
        exists = left.exists(IDENTITY_FILE)
        made += exists
        assert open_storage(left, SMALL, all_unknown=not exists).learning.left == SMALL.sectors, upto
    assert made


@pytest.mark.parametrize("seed", SEEDS)
def test_a_directory_turns_unknown_in_one_step_and_keeps_its_values(seed: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files, SMALL)
    stored(storage, 0, 8, ts=3)
    checkpoint_now(storage)
    stored(storage, 4, 8, ts=4)
    begun = len(files.log)
    storage.learning.begin()
    assert storage.learning.left == SMALL.sectors and storage.unknown(0, 64) == list(range(64))
    expected = [3] * 4 + [4] * 8 + [0]
    for upto in range(begun, len(files.log) + 1):
        left = MemoryFiles.from_log(files.log[:upto]).crash(chooser_of(seed))
        again = open_storage(left, SMALL)
        assert again.learning.left == (SMALL.sectors if is_marked(left) else 0)
        assert is_marked(left) or upto < len(files.log)
        assert ts_of(again.tags(0, 13)) == expected
        assert again.learning.learned(0, 64, tag(3) * 4 + tag(4) * 8 + ZERO_TAG * 52)
        assert contents(again, 0, 13) == expected


def test_what_was_learned_before_does_not_count_after_a_new_beginning() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    storage.learning.learned(0, 1 << 19)
    checkpoint_now(storage)
    storage.learning.begin()
    assert files.exists(LEARNED) and open_storage(killed(files)).learning.left == DISK
    storage.learning.learned(0, 1)
    checkpoint_now(storage)
    assert open_storage(killed(files)).learning.left == DISK - 1


# --- no space, errors -----------------------------------------------------------------------------
def test_without_room_what_was_learned_is_recorded_later() -> None:
    files = MemoryFiles()
    storage = unknown_disk(files)
    storage.learning.learned(0, 256)
    files.capacity = files.used()
    checkpoint_now(storage)
    assert storage.learning.is_unsaid and open_storage(killed(files)).learning.left == DISK
    storage.close()  # and does not try for ever
    files.capacity = None
    storage = open_storage(files)
    storage.learning.learned(0, DISK)
    files.capacity = files.used()
    checkpoint_now(storage)
    assert storage.learning.is_recorded and is_marked(files)
    files.capacity = None
    checkpoint_now(storage)
    assert not storage.learning.is_recorded and not is_marked(files)


def test_a_beginning_without_room_changes_nothing_and_an_error_is_final() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    files.capacity = files.used()
    with pytest.raises(NoSpace):
        storage.learning.begin()
    assert storage.learning.left == 0 and not is_marked(files)
    files.capacity = None
    files.fail(Kind.SYNC_DIR, number=errno.EIO)
    with pytest.raises(SyncFailed):
        storage.learning.begin()
    with pytest.raises(SyncFailed):
        storage.unknown(0, 1)


# --- a large disk ---------------------------------------------------------------------------------
def test_a_tebibyte_takes_no_more_than_a_small_disk() -> None:
    large = dataclasses.replace(IDENTITY, sectors=1 << 28)
    files, small = MemoryFiles(), MemoryFiles()
    storage = unknown_disk(files, large)
    unknown_disk(small, SMALL).close()
    for first in range(0, 1 << 28, 1 << 20):  # every other run, so that none is joined to another
        storage.learning.learned(first, 1 << 19)
    assert storage.learning.left == 1 << 27
    assert storage.unknown((1 << 19) - 1, 2) == [1 << 19]
    stored(storage, 1 << 27, 1, ts=1)
    storage.close()
    assert files.open(LEARNED).size() < 5000
    files.remove(LEARNED)
    assert files.used() <= small.used() + 90  # allocated ahead of `tags` and `zeros` for so many chunks; and a sector
