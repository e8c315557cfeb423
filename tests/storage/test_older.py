"""The file `marks`, and giving up an older state of a directory, with a crash at every step."""

from __future__ import annotations

import errno
import itertools

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, ZERO_TAG
from dsreg.errors import NoSpace
from dsreg.protocol.life import Life
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.storage import Identity, StableStorage, Start
from dsreg.storage.layout import LIVES_TMP, MARKS
from dsreg.storage.marks import decode, encode
from dsreg.storage.new_cluster import move, settle
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all

WHOSE = Identity(bytes(16), 1, (1, 2, 3), 64)
HEARD = {2: (Life(1, b"b" * 16), 7), 3: (Life(1 << 40, b"c" * 16), (1 << 56) - 1)}


def opened(files: MemoryFiles, first: int = 1, *, older: bool = False) -> StableStorage:
    ids = itertools.count(first)
    return StableStorage.open(files, WHOSE, MIN_JOURNAL_BYTES, lambda: next(ids).to_bytes(16), Start(older=older))


def test_what_was_heard_is_as_it_was_written() -> None:
    assert decode(encode(HEARD, 9), 9) == HEARD
    assert decode(encode({}, 9), 9) == {}
    for bad in (b"", encode(HEARD, 8), encode(HEARD, 9)[:-1], b"x" + encode(HEARD, 9)[1:]):
        assert decode(bad, 9) is None


@pytest.mark.allow_logs("the file marks is damaged")
def test_the_file_is_not_missed() -> None:
    files = MemoryFiles()
    storage = opened(files)
    assert storage.marks.heard == {} and storage.marks.write(HEARD)
    files = files.crash(drop_all)
    assert opened(files).marks.heard == HEARD
    files = files.crash(drop_all)
    files.damage(MARKS, 20, 4)
    assert opened(files).marks.heard == {}


@pytest.mark.parametrize("claimed", [False, True])
def test_a_crash_while_an_older_state_is_given_up_leaves_the_one_or_the_other(claimed: bool) -> None:
    made = MemoryFiles()
    storage = opened(made)
    storage.persist(3, 1, pack_tag(ts_of(0, 5), 1), bytes(4096))
    if claimed:
        storage.lives.claim(2)
    else:
        storage.lives.begin()
    before = storage.lives.own
    storage.close()
    start = len(made.log)
    made = MemoryFiles.from_log(made.log)
    opened(made, 500, older=True)
    seen = set()
    for upto in range(start, len(made.log) + 1):
        for chooser in (drop_all, keep_all):
            files = MemoryFiles.from_log(made.log[:upto]).crash(chooser)
            storage = opened(files, 900)
            assert storage.tags(3, 1) != ZERO_TAG, "it is a source"
            seen.add(storage.lives.given_up)
            if not storage.lives.given_up:
                assert storage.lives.own == before and not storage.learning.left
                continue
            assert not storage.lives.begun and not storage.lives.claimed
            assert storage.lives.own.number == before.number and storage.lives.own.store != before.store
            assert storage.learning.left == WHOSE.sectors
            storage.lives.claim(before.number + 1)
            again = opened(files.crash(drop_all), 900)
            assert again.lives.claimed and not again.lives.given_up
            assert again.lives.own == Life(before.number + 1, storage.lives.own.store)
    assert seen == {False, True}


def test_without_room_to_give_it_up_the_directory_stays_as_it_was() -> None:
    """The node ends, and finds out again when it is started."""
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.begin()
    own = storage.lives.own
    storage.close()
    files.fail(Kind.WRITE, name=LIVES_TMP, number=errno.ENOSPC)
    with pytest.raises(NoSpace):
        opened(files, 500, older=True)
    storage = opened(files, 900)
    assert storage.lives.own == own and storage.lives.begun and not storage.learning.left


def test_a_recovered_directory_has_a_life_of_which_nobody_has_heard_a_mark() -> None:
    files = MemoryFiles()
    storage = opened(files)
    storage.lives.begin()
    storage.close()
    new = Identity(bytes(8) + b"recovers", 1, (1, 2, 3), 64)
    move(files, WHOSE.cluster, new, learns=False, new_store=lambda: b"n" * 16)
    storage = StableStorage.open(files, new, MIN_JOURNAL_BYTES, lambda: b"m" * 16)
    settle(storage, 1, [])
    assert storage.lives.own == Life(1, b"n" * 16) and storage.lives.begun and not storage.lives.given_up
