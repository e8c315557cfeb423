"""The FUSE requests of a directory with one file, `disk.img`, answered by a block device."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import trio

from dsreg.block_device import errno_of
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.core.messages import Buffer
from dsreg.errors import DsregError
from fuse_frontend import kernel
from fuse_frontend.kernel import ROOT_INODE, Attributes, Opcode, Request, RequestError, opcode_name
from fuse_frontend.mounts import IMAGE_NAME
from fuse_frontend.session import Session
from fuse_frontend.stall import StallWatch

log = logging.getLogger(__name__)

IMAGE_NAME_BYTES = IMAGE_NAME.encode()
IMAGE_INODE = ROOT_INODE + 1
# The handle of a file that was opened with O_SYNC or O_DSYNC, which the kernel leaves to the server.
SYNC_HANDLE = 1 << 32
# Names never change; times of the image do, and the kernel itself forgets attributes after a write.
ENTRY_TIMEOUT_S = 3600
ATTR_TIMEOUT_S = 1
# No page cache, which in front of a shared register would break its atomicity. Several writes at once: the lock of the
# block device keeps them apart where they overlap. And no request for a close, which has nothing to wait for: what was
# written was durable when it was answered; with a cache it is not, but whoever wants that asks for it by fsync, as on
# any disk. (It would come from every process that got the descriptor by fork, too, when that executes a program.)
OPEN_FLAGS = kernel.FOPEN_DIRECT_IO | kernel.FOPEN_PARALLEL_DIRECT_WRITES | kernel.FOPEN_NOFLUSH
# Nothing comes or goes here.
REFUSED = (Opcode.CREATE, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.UNLINK, Opcode.RMDIR,
           Opcode.RENAME, Opcode.RENAME2)
# At most one log line a second per kind of error: a file system on a dead disk asks thousands of times.
ERROR_LOG_INTERVAL_S = 1.0

Done = Callable[[Buffer, DsregError | None], None]


class Disk(Protocol):
    """What the handlers need of a block device. Offsets and lengths in bytes, of any alignment.

    `begin_read` and `begin_write` return True when they have begun: then `done(data, None)` or `done(b"", error)` is
    called once, at once or later, in trio's thread. False: this one has to wait for something first, and needs a task.
    What was begun in a turn is sent by `flush_turn`, if not earlier.
    """

    @property
    def size(self) -> int: ...

    @property
    def is_cached(self) -> bool: ...

    @property
    def is_flushed(self) -> bool: ...

    @property
    def obstacle(self) -> str: ...

    def begin_read(self, offset: int, length: int, done: Done) -> bool: ...

    def begin_write(self, offset: int, data: bytes, done: Done) -> bool: ...

    def flush_turn(self) -> None: ...

    async def read(self, offset: int, length: int) -> Buffer: ...

    async def write(self, offset: int, data: bytes) -> None: ...

    async def flush(self) -> None: ...


class ErrorLog:
    """Log lines for failed requests, at most one a second per kind; the rest is counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}  # kind: time of the last line, suppressed since

    def error(self, operation: str, error: DsregError, code: int) -> None:
        kind = type(error).__name__
        now = self._clock()
        last, suppressed = self._last.get(kind, (now - ERROR_LOG_INTERVAL_S, 0))
        if now - last < ERROR_LOG_INTERVAL_S:
            self._last[kind] = (last, suppressed + 1)
            return
        more = f" ({suppressed} more like it)" if suppressed else ""
        log.error("%s: %s: %s -> %s%s", operation, kind, error, errno.errorcode[code], more)
        self._last[kind] = (now, 0)


class DiskOperations:
    """The file system on one connection to the kernel (`fd`, see Session). `uid` and `gid` own the files."""

    def __init__(self, disk: Disk, fd: int, uid: int, gid: int) -> None:
        self.disk = disk
        self.session = Session(fd, self)
        self.stall_watch = StallWatch(why=lambda: disk.obstacle)
        self.error_log = ErrorLog()
        self._size = disk.size  # for ever
        self._unbegun = 0  # writes handed to tasks that have not run yet: the disk knows nothing of them
        self._uid = uid
        self._gid = gid
        self._mounted_ns = time.time_ns()
        self._atime_ns = self._mtime_ns = self._ctime_ns = self._mounted_ns
        self._handlers: dict[int, Callable[[Request], Buffer | None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.STATFS: self._statfs,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.OPEN: self._open,
            Opcode.FSYNC: self._fsync,
            **dict.fromkeys((Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FSYNCDIR), _nothing_to_do),
            **dict.fromkeys(REFUSED, _refuse),
        }

    def other(self, request: Request) -> Buffer | None:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise RequestError(errno.ENOSYS)
        return handler(request)

    def failed(self, unique: int, opcode: int, error: Exception) -> int:
        """Errors of the disk are a log line; a bug is EIO and a traceback."""
        self.stall_watch.started.pop(unique, None)
        if isinstance(error, RequestError):
            return error.code
        name = opcode_name(opcode)
        if isinstance(error, DsregError):
            code = errno_of(error)
            self.error_log.error(name, error, code)
            return code
        log.error("%s: a bug in the file system; the request is answered with EIO", name, exc_info=error)
        return errno.EIO

    def end_of_turn(self) -> None:
        self.disk.flush_turn()

    # --- the disk -----------------------------------------------------------------------------
    def read(self, unique: int, fh: int, offset: int, size: int) -> None:
        """Up to `size` bytes (at most 1 MiB); fewer only where the disk ends."""
        length = min(size, self._size - offset)
        if length <= 0:
            self.session.answer(unique)
            return
        self.stall_watch.started[unique] = (self.stall_watch.clock(), "a read", offset, length)
        if not self.disk.begin_read(offset, length, partial(self._read_done, unique)):
            self.session.later(unique, Opcode.READ, partial(self._read_in_a_task, unique, offset, length))

    def _read_done(self, unique: int, data: Buffer, error: DsregError | None) -> None:
        if error is None:
            del self.stall_watch.started[unique]
            self.session.answer(unique, data)
        else:
            self.session.fail(unique, Opcode.READ, error)

    async def _read_in_a_task(self, unique: int, offset: int, length: int) -> None:
        self._read_done(unique, await self.disk.read(offset, length), None)

    def write(self, unique: int, fh: int, offset: int, data: bytes) -> None:
        """Answered with the number of bytes written: fewer than given only where the disk ends, ENOSPC behind it."""
        room = self._size - offset
        if room < len(data):
            if room <= 0:
                raise RequestError(errno.ENOSPC)
            data = data[:room]
        length = len(data)
        self.stall_watch.started[unique] = (self.stall_watch.clock(), "a write", offset, length)
        if fh == SYNC_HANDLE or not self.disk.begin_write(offset, data, partial(self._write_done, unique, length)):
            self._unbegun += 1
            self.session.later(unique, Opcode.WRITE, partial(self._write_in_a_task, unique, fh, offset, data))

    def _write_done(self, unique: int, length: int, data: Buffer, error: DsregError | None) -> None:
        if error is None:
            del self.stall_watch.started[unique]
            self._mtime_ns = self._ctime_ns = time.time_ns()
            self.session.answer_write(unique, length)
        else:
            self.session.fail(unique, Opcode.WRITE, error)

    async def _write_in_a_task(self, unique: int, fh: int, offset: int, data: bytes) -> None:
        self._unbegun -= 1
        await self.disk.write(offset, data)
        if fh == SYNC_HANDLE:
            await self.disk.flush()
        self._write_done(unique, len(data), b"", None)

    def _fsync(self, request: Request) -> Buffer | None:
        """Answered when every write that was under way has ended, whoever began it, and is durable."""
        if self.disk.is_flushed and not self._unbegun:
            return b""
        self.stall_watch.started[request.unique] = (self.stall_watch.clock(), "an fsync", 0, 0)
        self.session.later(request.unique, request.opcode, partial(self._fsync_in_a_task, request.unique))
        return None

    async def _fsync_in_a_task(self, unique: int) -> None:
        await trio.lowlevel.checkpoint()  # every task started before this one has begun its write then
        await self.disk.flush()
        del self.stall_watch.started[unique]
        self.session.answer(unique)

    def _open(self, request: Request) -> bytes:
        """O_TRUNC is refused: the kernel would take the size for 0, and a loop device would read nothing."""
        flags = kernel.open_in(request.body)
        if request.inode != IMAGE_INODE:
            raise RequestError(errno.EISDIR if request.inode == ROOT_INODE else errno.ENOENT)
        if flags & os.O_TRUNC:
            raise RequestError(errno.EPERM)
        is_sync = self.disk.is_cached and flags & os.O_DSYNC
        return kernel.open_out(SYNC_HANDLE if is_sync else IMAGE_INODE, OPEN_FLAGS)

    # --- names and attributes -----------------------------------------------------------------
    def _lookup(self, request: Request) -> bytes:
        [name] = kernel.names_in(request.body, 0, 1)
        if name in (b".", b".."):
            return kernel.entry_out(self._attributes(request.inode))  # the root is its own parent as far as FUSE sees
        if request.inode == ROOT_INODE and name == IMAGE_NAME_BYTES:
            return kernel.entry_out(self._attributes(IMAGE_INODE))
        raise RequestError(errno.ENOENT)

    def _getattr(self, request: Request) -> bytes:
        return kernel.attr_out(self._attributes(request.inode))

    def _setattr(self, request: Request) -> bytes:
        """The size is what it is; times may be set (touch, cp -p); nothing else may."""
        now_ns = time.time_ns()
        asked = kernel.setattr_in(request.body, now_ns)
        if any(change is not None for change in (asked.mode, asked.uid, asked.gid)):
            raise RequestError(errno.EPERM)
        if asked.size is not None and (request.inode != IMAGE_INODE or asked.size != self._size):
            raise RequestError(errno.EPERM)
        if request.inode == IMAGE_INODE:
            if asked.atime_ns is not None:
                self._atime_ns = asked.atime_ns
            if asked.mtime_ns is not None:
                self._mtime_ns = asked.mtime_ns
            self._ctime_ns = now_ns
        return kernel.attr_out(self._attributes(request.inode))

    def _attributes(self, inode: int) -> Attributes:
        if inode == ROOT_INODE:
            mode, links, size, block_size = stat.S_IFDIR | 0o555, 2, 0, SECTOR_SIZE
            times = (self._mounted_ns,) * 3
        elif inode == IMAGE_INODE:
            mode, links, size, block_size = stat.S_IFREG | 0o600, 1, self._size, MAX_RUN_BYTES
            times = (self._atime_ns, self._mtime_ns, self._ctime_ns)
        else:
            raise RequestError(errno.ENOENT)
        return Attributes(
            inode, mode, links, size, block_size, self._uid, self._gid, *times, ENTRY_TIMEOUT_S, ATTR_TIMEOUT_S
        )

    def _statfs(self, request: Request) -> bytes:
        return kernel.statfs_out(
            blocks=self._size // SECTOR_SIZE, free=0, files=1, free_files=0, block_size=SECTOR_SIZE
        )

    # --- the directory ------------------------------------------------------------------------
    def _opendir(self, request: Request) -> bytes:
        if request.inode != ROOT_INODE:
            raise RequestError(errno.ENOTDIR)
        return kernel.open_out(ROOT_INODE, 0)

    def _readdir(self, request: Request) -> bytes:
        asked = kernel.readdir_in(request.body)
        entry = kernel.dirent(self._attributes(IMAGE_INODE), IMAGE_NAME_BYTES, 1)
        return entry if asked.offset == 0 and len(entry) <= asked.size else b""


def _nothing_to_do(request: Request) -> bytes:
    return b""


def _refuse(request: Request) -> bytes:
    raise RequestError(errno.EPERM)
