"""The files of a storage directory: created once, crash-safely, and opened under the lock."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DamagedStorage, NoSpace, StorageError, WrongDirectory
from dsreg.storage import identity as identity_file
from dsreg.storage import lives as lives_file
from dsreg.storage import state as state_file
from dsreg.storage import zeros_file
from dsreg.storage.failure import NO_SPACE
from dsreg.storage.files import File, Files, Lock
from dsreg.storage.identity import Identity, Recorded
from dsreg.storage.journal import RECORDS_AT
from dsreg.storage.layout import IDENTITY, INDEX, JOURNALS, LIVES, LOCK, OUR_NAMES, SECTORS, STATE, TAGS, ZEROS
from dsreg.storage.state import State
from dsreg.storage.upgrade import upgrade

# The root of a file system has it; such a directory counts as empty.
_HARMLESS = frozenset({"lost+found"})
_FOREIGN_SHOWN = 3  # names of what is in the way: enough to know the directory by
_ZEROS = bytes(1024 * 1024)


class Start(NamedTuple):
    """What a start of the node asks of its directory. Of one that is made by it: every sector is unknown until it is
    learned (`all_unknown`), and it has promised `epoch`, of no owner. Of one that has never been used: it `joins`, and
    does not take the ranks that it was made for for the first configuration. `older`: this state of it is given up, see
    dsreg.storage.older."""

    all_unknown: bool = False
    epoch: int = 0
    joins: bool = False
    older: bool = False


# Nothing but to go on where it was, or to begin as a member of a new cluster.
USUAL: Final = Start()


@dataclass(slots=True)
class Directory:
    """The open files of one storage directory: seven descriptors."""

    files: Files
    lock: Lock
    recorded: Recorded
    journals: tuple[File, File]
    tags: File
    home: File
    state: File
    zeros: File

    @property
    def salt(self) -> int:
        return self.recorded.identity.salt

    def close(self) -> None:
        """Close everything; the lock last."""
        for file in (*self.journals, self.tags, self.home, self.state, self.zeros):
            file.close()
        self.lock.close()


def open_directory(
    files: Files, identity: Identity, journal_bytes: int, new_store: Callable[[], bytes], start: Start
) -> Directory:
    """Lock the directory, create what is not there yet, check whose it is, open its files. `new_store` gives the id of
    a new directory, 16 random bytes.

    Raises StorageLocked, WrongDirectory, DamagedStorage, NoSpace.
    """
    _refuse_foreign(files)
    lock = files.lock(LOCK)
    opened: list[File] = []
    try:
        if not files.exists(IDENTITY):
            _check_limit_of_new(files, identity)
            store = new_store()
            made = Recorded(
                identity, journal_bytes, store, learning=store if start.all_unknown else b"", joining=start.joins
            )
            _create(files, made, start.epoch)
        recorded = identity_file.read(files)
        identity_file.check(recorded.identity, identity)
        recorded = upgrade(files, recorded, new_store)
        for name in (*JOURNALS, TAGS, SECTORS, STATE, ZEROS):
            opened.append(_open(files, name))
        journals = (opened[0], opened[1])
        for name, file in zip(JOURNALS, journals, strict=True):
            if file.size() != recorded.journal_bytes:
                raise DamagedStorage(f"{name} has {file.size()} bytes instead of {recorded.journal_bytes}: restore it")
        return Directory(files, lock, recorded, journals, *opened[2:])
    except BaseException:
        for file in opened:
            file.close()
        lock.close()
        raise


def record_joining(directory: Directory) -> None:
    """The directory has never been used, and its node is to be told which nodes there are: whatever list it was made
    with does not count any more."""
    directory.recorded = dataclasses.replace(directory.recorded, joining=True)
    identity_file.write(directory.files, directory.recorded)


def _check_limit_of_new(files: Files, identity: Identity) -> None:
    file = _open(files, SECTORS, create=True)
    try:
        check_limit(file, identity.sectors)
    finally:
        file.close()


def check_limit(home: File, sectors: int) -> None:
    """Raise StorageError unless a disk of so many sectors fits the file `sectors`: else the last could never be
    stored."""
    largest = home.largest()
    if largest < sectors * SECTOR_SIZE:
        raise StorageError(
            f"a disk of {sectors} sectors needs a file of {sectors * SECTOR_SIZE} bytes, and the "
            f"largest one that the file system (or ulimit -f) allows here has {largest}, which is "
            f"{largest // SECTOR_SIZE} sectors: make the disk smaller, or put the directory on another file system, "
            "such as XFS"
        )


def _open(files: Files, name: str, create: bool = False) -> File:
    try:
        return files.open(name, create)
    except FileNotFoundError as error:
        raise DamagedStorage(f"the file {name} is gone: restore it, or replace this node") from error


def _refuse_foreign(files: Files) -> None:
    """Raise WrongDirectory if others have put things here and we have not."""
    names = set(files.list()) - _HARMLESS
    if IDENTITY not in names and not names <= OUR_NAMES:
        foreign = sorted(names - OUR_NAMES)
        more = f" and {len(foreign) - _FOREIGN_SHOWN} more" if len(foreign) > _FOREIGN_SHOWN else ""
        raise WrongDirectory(f"the directory is neither empty nor a storage directory: it holds "
                             f"{', '.join(foreign[:_FOREIGN_SHOWN])}{more}; choose an empty directory")


def _create(files: Files, recorded: Recorded, epoch: int) -> None:
    """Make all files, identity.toml last. What an earlier attempt left is made anew.

    None is to be copied on write: what overwrites must not need room.

    Nothing is ever stored before identity.toml is there. So if it is not but something is stored, it was
    taken away, and creating would destroy the data.
    """
    _refuse_to_destroy(files, recorded.identity.salt)
    try:
        if files.exists(INDEX):  # of a directory that was taken away from around it
            files.remove(INDEX)
        for name in JOURNALS:
            with _created(files, name) as file:
                _fill_with_zeros(file, recorded.journal_bytes)
        for name in (TAGS, SECTORS):
            with _created(files, name):
                pass  # they grow
        with _created(files, ZEROS) as file:
            zeros_file.begin(file, recorded.identity.salt)
        with _created(files, STATE) as file:
            state_file.write(file, State(seq=1, epoch=epoch), recorded.identity.salt)
        lives_file.write(files, {}, recorded.identity.salt)  # syncs the names of all the others as well
        identity_file.write(files, recorded)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpace(f"no space to create the storage directory: {error}") from error
        raise


@contextlib.contextmanager
def _created(files: Files, name: str) -> Iterator[File]:
    """An empty file that is written in place."""
    file = files.open(name, create=True)
    try:
        if file.size():
            file.truncate(0)
        file.write_in_place()
        yield file
    finally:
        file.close()


def _fill_with_zeros(file: File, size: int) -> None:
    """Zeros, not mere allocation: the first write to allocated but unwritten space costs a sync of metadata."""
    file.allocate(0, size)
    for at in range(0, size, len(_ZEROS)):
        file.pwritev([memoryview(_ZEROS)[:size - at]], at)
    file.fdatasync()


def _refuse_to_destroy(files: Files, salt: int) -> None:
    if files.exists(LIVES) and lives_file.read(files, salt).lives:
        raise DamagedStorage(f"{IDENTITY} is gone from a directory that this node has served with: restore it")
    for name in (*JOURNALS, TAGS, SECTORS):
        if not files.exists(name):
            continue
        file = files.open(name)
        try:
            if any(file.pread(RECORDS_AT + SECTOR_SIZE, 0)) or name in (TAGS, SECTORS) and file.size():
                raise DamagedStorage(f"{IDENTITY} is gone from a directory that holds data ({name}): restore it")
        finally:
            file.close()
