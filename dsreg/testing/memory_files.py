"""A directory in memory that implements `dsreg.storage.files.Files` and can lose power.

What is written is seen at once, and is on the "disk" only after a sync. `log` has every operation that changed
something, in order; `MemoryFiles.from_log(log[:n])` is the directory as it was after n of them, and `crash` turns
one into what a power loss leaves: of everything not synced a chooser says what reached the disk. Thus a workload
runs once, and all its crash states can be visited.

One simplification: names created, renamed or removed but not synced survive as a prefix of their order.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from dsreg.errors import StorageLocked
from dsreg.storage.files import Buffer
from dsreg.testing.operations import (
    ATOMIC_BYTES,
    PAGE,
    Chooser,
    Content,
    Kind,
    Operation,
    drop_all,
    keep_all,
    pages_of,
    random_chooser,
)

__all__ = [
    "ATOMIC_BYTES",
    "PAGE",
    "Chooser",
    "Content",
    "Kind",
    "MemoryFile",
    "MemoryFiles",
    "Operation",
    "drop_all",
    "keep_all",
    "random_chooser",
]


class _Inode:
    def __init__(self) -> None:
        self.seen = Content()
        self.durable = Content()
        self.unsynced: list[Operation] = []


class MemoryFile:
    """An open file. Dead after a crash of its directory: every call raises OSError(EBADF)."""

    def __init__(self, files: MemoryFiles, name: str, inode: _Inode) -> None:
        self._files = files
        self._name = name
        self._inode = inode
        self._closed = False

    def _check(self) -> None:
        if self._closed or self._files.dead:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _change(self, operation: Operation, grow: int) -> None:
        self._check()
        self._files.inject(Kind.WRITE if operation.kind is Kind.ALLOCATE else operation.kind, operation.name)
        self._files.take_space(grow)
        self._inode.seen.apply(operation, keep_all(operation))
        self._inode.unsynced.append(operation)
        self._files.record(operation)

    def _new_pages(self, offset: int, length: int) -> int:
        if self._files.capacity is None:
            return 0
        return sum(number not in self._inode.seen.pages for number, *_ in pages_of(offset, length))

    def pread(self, length: int, offset: int) -> bytes:
        self._check()
        self._files.check_readable(self._name, offset, length)
        return self._inode.seen.read(length, offset)

    def pread_nowait(self, length: int, offset: int) -> bytes:
        self._check()
        data = self._inode.seen.read(length, offset)
        if self._files.cold or len(data) < length:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        try:
            self._files.check_readable(self._name, offset, length)
        except OSError as error:  # as OsFile: the blocking read tells what it is
            raise BlockingIOError(error.errno, "not readable without waiting") from error
        return data

    def drop_cached(self, length: int, offset: int) -> None:
        self._check()

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Out of space, it writes what there is room for and then raises, as a file system does."""
        data = b"".join(buffers)
        if not data:
            return
        self._files.check_writable(self._name, offset, len(data))
        grow = self._new_pages(offset, len(data))
        room = self._files.room()
        if grow > room:
            new = [at for number, _, _, at in pages_of(offset, len(data)) if number not in self._inode.seen.pages]
            if new[room]:
                self._change(Operation(Kind.WRITE, self._name, offset, data[:new[room]]), room)
        self._change(Operation(Kind.WRITE, self._name, offset, data), grow)

    def fdatasync(self) -> None:
        self._check()
        self._files.inject(Kind.SYNC, self._name)
        for operation in self._inode.unsynced:
            self._inode.durable.apply(operation, keep_all(operation))
        self._inode.unsynced.clear()
        self._files.record(Operation(Kind.SYNC, self._name))

    def allocate(self, offset: int, length: int) -> None:
        operation = Operation(Kind.ALLOCATE, self._name, offset, length=length)
        self._change(operation, self._new_pages(offset, length))

    def punch(self, offset: int, length: int) -> bool:
        if not self._files.punches:
            return False
        self._change(Operation(Kind.PUNCH, self._name, offset, length=length), 0)
        return True

    def largest(self) -> int:
        return self._files.largest

    def write_in_place(self) -> None:
        assert not self._inode.seen.size, "a file system takes this for an empty file only"

    def truncate(self, size: int) -> None:
        self._change(Operation(Kind.TRUNCATE, self._name, size), 0)

    def size(self) -> int:
        self._check()
        return self._inode.seen.size

    def allocated(self) -> int:
        self._check()
        return len(self._inode.seen.pages) * PAGE

    def close(self) -> None:
        self._closed = True


class _MemoryLock:
    def __init__(self, held: set[str], name: str) -> None:
        self._held = held
        self._name = name

    def close(self) -> None:
        self._held.discard(self._name)


class MemoryFiles:
    """See the module. `capacity`: pages of 4096 bytes that all files together may take, None for any number.
    `cold`: nothing is in the page cache, so pread_nowait always raises.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.cold = False
        self.largest = (1 << 63) - 1  # bytes that a file may come to
        self.punches = True  # whether the file system knows how to
        self.dead = False
        self.log: list[Operation] = []
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._unsynced: list[tuple[Operation, dict[str, _Inode]]] = []
        self._locked: set[str] = set()
        self._faults: list[tuple[Kind, str, int, int]] = []
        self._unreadable: set[tuple[str, int]] = set()

    # --- Files ------------------------------------------------------------------------------------
    def open(self, name: str, create: bool = False) -> MemoryFile:
        if name not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._names[name] = _Inode()
            self._renamed(Operation(Kind.CREATE, name))
        return MemoryFile(self, name, self._names[name])

    def exists(self, name: str) -> bool:
        return name in self._names

    def list(self) -> list[str]:
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        if old not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self._names[new] = self._names.pop(old)
        self._renamed(Operation(Kind.RENAME, old, new=new))

    def remove(self, name: str) -> None:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        del self._names[name]
        self._renamed(Operation(Kind.REMOVE, name))

    def sync_dir(self) -> None:
        self.inject(Kind.SYNC_DIR, "")
        self._durable_names = dict(self._names)
        self._unsynced.clear()
        self.record(Operation(Kind.SYNC_DIR))

    def lock(self, name: str) -> _MemoryLock:
        self.open(name, create=True).close()
        if name in self._locked:
            raise StorageLocked("the directory is in use")
        self._locked.add(name)
        return _MemoryLock(self._locked, name)

    def close(self) -> None:
        """Nothing to do: nothing is held."""

    def _renamed(self, operation: Operation) -> None:
        self._unsynced.append((operation, dict(self._names)))
        self.record(operation)

    # --- for its files ----------------------------------------------------------------------------
    def record(self, operation: Operation) -> None:
        self.log.append(operation)

    def take_space(self, pages: int) -> None:
        """Raise OSError(ENOSPC) if there is no room for so many more."""
        if pages > self.room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def room(self) -> int:
        """Pages that are free."""
        return sys.maxsize if self.capacity is None else max(0, self.capacity - self.used())

    def inject(self, kind: Kind, name: str) -> None:
        """Raise the error that was asked for, if this is the operation that it was asked for."""
        for index, (at_kind, at_name, nth, number) in enumerate(self._faults):
            if at_kind is kind and at_name in ("", name):
                self._faults[index] = (at_kind, at_name, nth - 1, number)
                if nth == 1:
                    del self._faults[index]
                    raise OSError(number, os.strerror(number))

    def check_readable(self, name: str, offset: int, length: int) -> None:
        if self._unreadable and any((name, number) in self._unreadable for number, *_ in pages_of(offset, length)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def check_writable(self, name: str, offset: int, length: int) -> None:
        """Of a page that cannot be read no part can be written, as the rest of it has to be read first. Written as a
        whole it can be read again."""
        for number, *_ in pages_of(offset, length) if self._unreadable else ():
            if (name, number) not in self._unreadable:
                continue
            if not offset <= number * PAGE <= (number + 1) * PAGE <= offset + length:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._unreadable.discard((name, number))

    # --- for tests --------------------------------------------------------------------------------
    def fail(self, kind: Kind, nth: int = 1, name: str = "", number: int = errno.EIO) -> None:
        """The nth operation of this kind from now on, on the file of that name or on any, raises OSError."""
        self._faults.append((kind, name, nth, number))

    def damage(self, name: str, offset: int, length: int) -> None:
        """Invert bytes, on the disk and in the cache alike."""
        inode = self._names[name]
        for content in (inode.seen, inode.durable):
            old = content.read(length, offset)
            content.write(bytes(byte ^ 0xFF for byte in old), offset)

    def unreadable(self, name: str, page: int) -> None:
        """Reads of this page of 4096 bytes raise EIO from now on."""
        self._unreadable.add((name, page))

    def used(self) -> int:
        """Pages taken by all files."""
        return sum(len(inode.seen.pages) for inode in self._names.values())

    def crash(self, chooser: Chooser) -> MemoryFiles:
        """What a power loss leaves, as a directory of its own; this one is dead from now on."""
        self.dead = True
        survivors = dict(self._durable_names)
        for operation, names in self._unsynced:
            if not chooser(operation):
                break
            survivors = names
        after = MemoryFiles(self.capacity)
        for name, inode in survivors.items():
            copy = _Inode()
            copy.durable = inode.durable.copy()
            for operation in inode.unsynced:
                copy.durable.apply(operation, chooser(operation))
            copy.seen = copy.durable.copy()
            after._names[name] = copy
        after._durable_names = dict(after._names)
        return after

    @classmethod
    def holding(cls, contents: Mapping[str, Content]) -> MemoryFiles:
        """A directory of these files, all of it durable. The contents are copied."""
        files = cls()
        for name, content in contents.items():
            inode = files._names[name] = _Inode()
            inode.seen, inode.durable = content.copy(), content.copy()
        files._durable_names = dict(files._names)
        return files

    @classmethod
    def from_log(cls, log: Iterable[Operation]) -> MemoryFiles:
        """The directory after these operations, from an empty one."""
        files = cls()
        for operation in log:
            files.redo(operation)
        return files

    def redo(self, operation: Operation) -> None:
        """Carry out one operation of a log."""
        kind, name = operation.kind, operation.name
        if kind is Kind.RENAME:
            self.rename(name, operation.new)
        elif kind is Kind.REMOVE:
            self.remove(name)
        elif kind is Kind.SYNC_DIR:
            self.sync_dir()
        else:
            file = self.open(name, create=True)
            if kind is Kind.WRITE:
                file.pwritev([operation.data], operation.offset)
            elif kind is Kind.TRUNCATE:
                file.truncate(operation.offset)
            elif kind is Kind.ALLOCATE:
                file.allocate(operation.offset, operation.length)
            elif kind is Kind.PUNCH:
                file.punch(operation.offset, operation.length)
            elif kind is Kind.SYNC:
                file.fdatasync()
