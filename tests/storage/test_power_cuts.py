"""What there are two copies of survives power cuts that leave garbage, or nothing that can be read, where the disk was
writing: `state` and the headers of the journal. All cuts, two in a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from dsreg.storage import journal
from dsreg.storage import state as state_file
from dsreg.storage.files import File
from dsreg.storage.journal import SegmentHeader
from dsreg.storage.state import State
from dsreg.testing.memory_files import ATOMIC_BYTES, PAGE, Kind, MemoryFiles, drop_all, keep_all

SIZE = 4 * PAGE
SALT = 7
UNREADABLE = -1
# Writes and reads the version of this number.
Write = Callable[[File, int], None]
Read = Callable[[File], int]


def write_state(file: File, number: int) -> None:
    state_file.write(file, State(seq=number), SALT)


def read_state(file: File) -> int:
    return state_file.read(file, SALT).seq


def write_header(file: File, number: int) -> None:
    journal.write_header(file, SALT, SegmentHeader(number, False, 1, 0))


def read_header(file: File) -> int:
    header = journal.read_header(file, SALT)
    assert header is not None, "both copies are lost"
    return header.generation


COPIED = pytest.mark.parametrize(("write", "read"), [(write_state, read_state), (write_header, read_header)])


def cuts(files: MemoryFiles, write: Write, number: int) -> Iterator[MemoryFiles]:
    """The directory after each power cut within the writing of that version: what is not synced is there or not, or is
    garbage (512 bytes or 4096), or cannot be read."""
    scratch = copy_of(files)
    begin = len(scratch.log)
    write(scratch.open("a"), number)
    log = scratch.log[begin:]
    spoils = (0, ATOMIC_BYTES, PAGE, UNREADABLE)
    for upto, chooser, spoil in itertools.product(range(len(log) + 1), (drop_all, keep_all), spoils):
        before = copy_of(files)
        pending = []
        for operation in log[:upto]:
            pending = [] if operation.kind is Kind.SYNC else [*pending, operation]
            before.redo(operation)
        after = before.crash(chooser)
        after._unreadable = set(before._unreadable)
        for operation in pending:
            size = PAGE if spoil == UNREADABLE else spoil
            if size:
                after.damage("a", operation.offset // size * size, size)
            if spoil == UNREADABLE:
                after.unreadable("a", operation.offset // PAGE)
        yield after


def copy_of(files: MemoryFiles) -> MemoryFiles:
    copied = MemoryFiles.holding({"a": files._names["a"].durable})
    copied._unreadable = set(files._unreadable)
    return copied


def begun(write: Write) -> MemoryFiles:
    files = MemoryFiles()
    file = files.open("a", create=True)
    files.sync_dir()
    file.allocate(0, SIZE)
    write(file, 1)
    return files


@COPIED
def test_the_old_version_or_the_new_one_is_there_after_two_power_cuts(write: Write, read: Read) -> None:
    checked = 0
    for once in cuts(begun(write), write, 2):
        found = read(once.open("a"))
        assert found in (1, 2)
        for twice in cuts(once, write, found + 1):
            assert found <= read(twice.open("a")) <= found + 1
            file = twice.open("a")
            write(file, found + 2)
            assert read(file) == found + 2
            checked += 1
    assert checked > 1000
