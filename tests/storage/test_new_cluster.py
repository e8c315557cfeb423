"""A directory that becomes one of another cluster: all values stay, nothing else does, whatever a crash leaves."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, NO_OWNER, SECTOR_SIZE
from dsreg.errors import DamagedStorage, StorageLocked, WrongDirectory
from dsreg.protocol.configuration import Ballot, Configuration, Record, Vote
from dsreg.protocol.life import Life
from dsreg.protocol.tags import epoch_of, restamped, unpack_tag
from dsreg.register.quorum import mask
from dsreg.storage import Files, Identity, StableStorage, Start
from dsreg.storage.layout import CONFIGURATION, SECTORS, SLOT_SIZE, TAGS
from dsreg.storage.new_cluster import damaged_sectors, known_to, move, recorded_in, runs_of, settle
from dsreg.testing.memory_files import PAGE, Content, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import IDENTITY, checkpoint_now, commit_all, contents, open_storage, stored

SMALL = Identity(IDENTITY.cluster, 1, (1, 2, 3), 4096)
NEW = Identity(IDENTITY.cluster[:8] + b"another!", 1, (1, 2, 3), 4096)
EPOCH = 9
OWNER = b"\x01" * 64


def store_id(number: int) -> bytes:
    return number.to_bytes(16)


def old_directory() -> MemoryFiles:
    """With values at 0..7, 256..511 and 600, attached in epoch 8, of a node that has served with others."""
    files = MemoryFiles()
    storage = open_storage(files, SMALL)
    storage.lives.begin()
    storage.lives.remember({2: Life(1, bytes(16))})
    for first, count in ((0, 8), (256, 256), (600, 1)):
        stored(storage, first, count, ts=5)
    storage.fence(EPOCH - 1, OWNER)
    commit_all(storage)
    storage.close()
    return files


def recover(files: Files, *, learns: bool = False, number: int = 77) -> StableStorage:
    """All steps; gives the opened directory."""
    numbers = iter(range(number, number + 100))
    move(files, SMALL.cluster, NEW, learns=learns, new_store=lambda: store_id(next(numbers)))
    storage = open_storage(files, NEW)
    settle(storage, EPOCH, [] if learns else damaged_sectors(storage))
    return storage


def check(storage: StableStorage) -> None:
    for first, count in ((0, 8), (256, 256), (600, 1)):
        assert contents(storage, first, count) == [5] * count
    assert contents(storage, 8, 8) == [0] * 8
    assert (storage.epoch, storage.owner) == (EPOCH, NO_OWNER)
    assert storage.lives.begun and storage.lives.known == {1: storage.lives.own}
    assert storage.lives.own.number == 1


def test_all_values_stay_and_nothing_else() -> None:
    files = old_directory()
    before = recorded_in(files)
    storage = recover(files)
    check(storage)
    assert storage.lives.own.store == store_id(77) != before.store
    assert storage.incarnation > 1, "the names of its writes go on"
    stored(storage, 0, 1, ts=6)
    storage.close()
    with pytest.raises(WrongDirectory, match="belongs to cluster"):
        open_storage(files, SMALL)
    again = open_storage(files, NEW)
    assert contents(again, 0, 1) == [6]
    again.close()


def test_another_directory_learns_and_keeps_what_it_has_as_a_source() -> None:
    files = old_directory()
    storage = recover(files, learns=True)
    assert storage.learning.left == SMALL.sectors and storage.lives.begun
    assert storage.unknown(256, 256) == list(range(256, 512)) and unpack_tag(storage.tags(600, 1)).ts == 5
    assert storage.epoch == EPOCH
    storage.close()
    again = open_storage(files, NEW)
    assert again.learning.left == SMALL.sectors
    again.close()


def test_what_a_directory_had_yet_to_learn_is_taken_as_it_is() -> None:
    files = MemoryFiles()
    storage = open_storage(files, SMALL, all_unknown=True)
    storage.lives.begin()
    stored(storage, 3, 1, ts=5)
    storage.close()
    storage = recover(files)
    assert storage.learning.left == 0 and contents(storage, 3, 2) == [5, 0]
    storage.close()


def test_what_is_damaged_reads_as_zeros() -> None:
    files = old_directory()
    files.damage(SECTORS, 257 * SECTOR_SIZE, 10)
    files.damage(SECTORS, 511 * SECTOR_SIZE, 10)
    files.damage(TAGS, 0, SLOT_SIZE)  # of the sectors 0 to 7
    move(files, SMALL.cluster, NEW, learns=False)
    storage = open_storage(files, NEW)
    read: list[int] = []
    damaged = damaged_sectors(storage, read.append)
    assert set(damaged) >= {*range(8), 257, 511} and sum(read) > 0
    assert not {256, *range(258, 511), 600} & set(damaged)
    settle(storage, EPOCH, damaged)
    assert damaged_sectors(storage) == []
    storage.close()
    again = open_storage(files, NEW)
    for sector in (0, 7, 257, 511):
        loaded = again.load(sector, 1, wait=True)
        assert loaded is not None and loaded.data == bytes(SECTOR_SIZE) and not loaded.missing
    assert contents(again, 258, 253) == [5] * 253
    again.close()


def test_what_is_given_up_is_a_write_of_its_own() -> None:
    """The directory was opened anew since the damage was found, and has not read the sectors again, as in
    `dsreg recover`. Another directory may have the lost value: its name must not become that of the zeros."""
    files = old_directory()
    files.damage(SECTORS, 257 * SECTOR_SIZE, 10)
    looked = open_storage(files, SMALL)
    before = looked.tags(257, 1)
    damaged = damaged_sectors(looked)
    looked.close()
    assert damaged == [257]
    move(files, SMALL.cluster, NEW, learns=False)
    storage = open_storage(files, NEW)
    settle(storage, EPOCH, damaged)
    zeros = storage.tags(257, 1)
    name = unpack_tag(zeros)
    assert zeros > restamped(before, EPOCH), "above every copy of the lost value, whoever still has one"
    assert name.epoch == EPOCH and epoch_of(name.ts) == EPOCH and name.wr == NEW.rank
    assert damaged_sectors(storage) == []
    assert unpack_tag(storage.tags(258, 1)).ts == 5, "what is whole keeps its name"
    storage.close()
    again = open_storage(files, NEW)
    loaded = again.load(257, 1, wait=True)
    assert loaded is not None and loaded.data == bytes(SECTOR_SIZE) and not loaded.missing
    assert again.tags(257, 1) == zeros
    again.close()


def test_zeros_that_were_put_for_a_lost_value_stand_whatever_becomes_of_its_home() -> None:
    files = old_directory()
    files.damage(SECTORS, 257 * SECTOR_SIZE, 10)
    storage = recover(files)
    first = storage.tags(257, 1)
    checkpoint_now(storage)
    storage.close()
    files.damage(SECTORS, 257 * SECTOR_SIZE, 10)
    storage = open_storage(files, NEW)
    settle(storage, EPOCH, damaged_sectors(storage))
    assert storage.tags(257, 1) == first and damaged_sectors(storage) == []
    loaded = storage.load(257, 1, wait=True)
    assert loaded is not None and loaded.data == bytes(SECTOR_SIZE) and not loaded.missing
    storage.close()


def test_a_lost_slot_makes_whatever_has_none_readable_again() -> None:
    """Of a damaged head nobody knows to which sectors it belonged."""
    files = old_directory()
    files.damage(TAGS, 0, 16)
    storage = recover(files)
    assert damaged_sectors(storage) == []
    for sector in (0, 7, 8, 4095):
        loaded = storage.load(sector, 1, wait=True)
        assert loaded is not None and loaded.data == bytes(SECTOR_SIZE) and not loaded.missing
    assert contents(storage, 256, 256) == [5] * 256
    storage.close()


def test_others_are_not_touched() -> None:
    files = old_directory()
    for other in (Identity(b"x" * 16, 1, (1, 2, 3), 4096), Identity(NEW.cluster, 2, (1, 2, 3), 4096)):
        log = len(files.log)
        with pytest.raises(WrongDirectory):
            move(files, b"y" * 16, other, learns=False)
        assert len(files.log) == log
    storage = open_storage(files, SMALL)
    with pytest.raises(StorageLocked):
        move(files, SMALL.cluster, NEW, learns=False)
    checkpoint_due = storage.checkpoint_due(idle=True)
    if checkpoint_due:
        checkpoint_now(storage)
    storage.close()
    with pytest.raises(WrongDirectory, match="not a storage directory"):
        recorded_in(MemoryFiles())


def changed_directory(record: Record) -> MemoryFiles:
    """Its node has heard of another configuration than the first one, and seen that the others keep them."""
    files = old_directory()
    storage = open_storage(files, SMALL)
    storage.configuration.remember(record)
    storage.configuration.seen(2, True)
    storage.close()
    return files


THREE, FOUR, LATER = mask((1, 2, 3)), mask((1, 2, 3, 4)), mask((1, 3, 4))
JOINT = Configuration(4, 4096, FOUR, LATER, FOUR)
BALLOT = Ballot(7, b"p" * 16)
VOTED = Record(JOINT, BALLOT, Vote(BALLOT, Configuration(5, 4096, LATER, 0, FOUR)))


def test_what_it_knows_of_the_nodes() -> None:
    files = old_directory()
    assert known_to(files, recorded_in(files)) == Record(Configuration(1, 4096, THREE, 0, THREE))
    files = changed_directory(VOTED)
    assert known_to(files, recorded_in(files)) == VOTED


@pytest.mark.parametrize("learns", [False, True])
def test_number_1_of_the_new_cluster_is_what_it_is_given(learns: bool) -> None:
    """Neither what it knew before counts, nor what it has voted for, nor who was seen to keep configurations."""
    files = changed_directory(VOTED)
    new = Identity(NEW.cluster, 1, (1, 3, 4), 8192)
    move(files, SMALL.cluster, new, learns=learns)
    storage = open_storage(files, new)
    ranks = mask((1, 3, 4))
    assert storage.configuration.record == Record(Configuration(1, 8192, ranks, 0, ranks))
    assert storage.configuration.keep == 0 and not files.exists(CONFIGURATION)
    settle(storage, EPOCH, [])
    storage.configuration.remember(Record(Configuration(2, 8192, ranks, mask((1, 3)), ranks)))
    storage.close()
    again = open_storage(files, new)
    assert again.configuration.record.current.number == 2
    again.close()


def test_runs() -> None:
    assert runs_of([]) == [] and runs_of([3]) == [(3, 1)]
    assert runs_of([1, 2, 5, *range(100, 400)]) == [(1, 2), (5, 1), (100, 256), (356, 44)]


def test_a_new_directory_begins_with_the_epoch() -> None:
    files = MemoryFiles()
    storage = StableStorage.open(files, SMALL, MIN_JOURNAL_BYTES, start=Start(all_unknown=True, epoch=EPOCH))
    assert (storage.epoch, storage.owner) == (EPOCH, NO_OWNER) and storage.learning.left == SMALL.sectors
    storage.close()
    again = StableStorage.open(files, SMALL, MIN_JOURNAL_BYTES, start=Start(epoch=EPOCH + 5))
    assert again.epoch == EPOCH, "one that is there keeps its own"
    again.close()


@pytest.mark.parametrize(("learns", "damages", "record"), [
    (False, True, None), (False, False, VOTED), (True, False, VOTED),
])
def test_a_crash_at_every_step(learns: bool, damages: bool, record: Record | None, rng: random.Random) -> None:
    made = old_directory() if record is None else changed_directory(record)
    if damages:
        made.damage(SECTORS, 257 * SECTOR_SIZE, 10)
    base = contents_of(made)

    def begin() -> MemoryFiles:
        return MemoryFiles.holding({name: content.copy() for name, content in base.items()})

    whole = begin()
    start = len(whole.log)
    recover(whole, learns=learns).close()
    steps = whole.log[start:]
    assert len(steps) > 10
    seen = set()
    for upto in range(len(steps) + 1):
        for chooser in (drop_all, keep_all, random_chooser(rng)):
            files = begin()
            for operation in steps[:upto]:
                files.redo(operation)
            after = files.crash(chooser)
            seen.add(state := state_of(after, learns))
            if state != "finished":
                recover(after, learns=learns, number=500).close()
            storage = open_storage(after, NEW)
            assert storage.lives.begun
            assert storage.configuration.record == Record(Configuration(1, 4096, THREE, 0, THREE))
            assert storage.configuration.keep == 0
            if learns:
                assert storage.learning.left == SMALL.sectors and unpack_tag(storage.tags(600, 1)).ts == 5
            elif damages:
                assert contents(storage, 258, 250) == [5] * 250 and damaged_sectors(storage) == []
                loaded = storage.load(257, 1, wait=True)
                assert loaded is not None and loaded.data == bytes(SECTOR_SIZE)
            else:
                check(storage)
            storage.close()
    assert seen == {"as before", "no node starts with it", "has not begun", "finished"}


def contents_of(files: MemoryFiles) -> dict[str, Content]:
    contents: dict[str, Content] = {}
    for name in files.list():
        file, content = files.open(name), Content()
        raw = file.pread(file.size(), 0)
        for at in range(0, len(raw), PAGE):
            if any(page := raw[at:at + PAGE]):
                content.write(page, at)
        content.size = len(raw)
        contents[name] = content
    return contents


def copy_of(files: MemoryFiles) -> MemoryFiles:
    return MemoryFiles.holding(contents_of(files))


def state_of(files: MemoryFiles, learns: bool) -> str:
    """What a node would find."""
    after = copy_of(files)
    if recorded_in(after).identity == SMALL:
        storage = open_storage(after, SMALL)
        assert storage.lives.begun and storage.lives.known.keys() == {1, 2}
        storage.close()
        return "as before"
    with pytest.raises(WrongDirectory):
        open_storage(after, SMALL)
    try:
        storage = open_storage(after, NEW)
    except DamagedStorage:
        return "no node starts with it"
    begun, left = storage.lives.begun, storage.learning.left
    damaged = damaged_sectors(storage)
    epoch = storage.epoch
    storage.close()
    assert bool(left) == learns
    if not begun:
        return "has not begun"
    assert epoch == EPOCH and (learns or not damaged), "a node would start with it"
    return "finished"
