"""The FUSE requests of a directory with one file, `disk.img`, answered by a block device.

Nothing but FUSEError leaves a handler: pyfuse3 ends its main loop on anything else, and what is left then
is a mount on which every process hangs.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT

from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.errors import DsregError, NoSpace, OutOfRange
from fuse_frontend.mounts import IMAGE_NAME
from fuse_frontend.stall import StallWatch

log = logging.getLogger(__name__)

IMAGE_NAME_BYTES = IMAGE_NAME.encode()
IMAGE_INODE = InodeT(pyfuse3.ROOT_INODE + 1)
# The handle of a file that was opened with O_SYNC or O_DSYNC, which the kernel leaves to the server.
SYNC_HANDLE = 1 << 32
# Names never change; times of the image do, and the kernel itself forgets attributes after a write.
ENTRY_TIMEOUT_S = 3600
ATTR_TIMEOUT_S = 1
# At most one log line a second per kind of error: a file system on a dead disk asks thousands of times.
ERROR_LOG_INTERVAL_S = 1.0

P = ParamSpec("P")
R = TypeVar("R")


class Disk(Protocol):
    """What the handlers need of a block device. Offsets and lengths in bytes, of any alignment."""

    @property
    def size(self) -> int: ...

    @property
    def is_cached(self) -> bool: ...

    async def read(self, offset: int, length: int) -> bytes: ...

    async def write(self, offset: int, data: bytes) -> None: ...

    async def flush(self) -> None: ...


def errno_of(error: DsregError) -> int:
    """The errno that stands for `error` at a system call."""
    if isinstance(error, NoSpace):
        return errno.ENOSPC
    if isinstance(error, OutOfRange):
        return errno.EINVAL
    return errno.EIO


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


def handler(
    method: Callable[Concatenate[DiskOperations, P], Awaitable[R]],
) -> Callable[Concatenate[DiskOperations, P], Coroutine[Any, Any, R]]:
    """Turn every error of a handler into a FUSEError and a log line; a bug becomes EIO and a traceback."""

    @functools.wraps(method)
    async def answer(self: DiskOperations, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except DsregError as error:
            code = errno_of(error)
            self.error_log.error(method.__name__, error, code)
            raise FUSEError(code) from None
        except Exception:
            # One process gets EIO for one request; everybody else's requests go on.
            log.exception("%s: a bug in the file system; the request is answered with EIO", method.__name__)
            raise FUSEError(errno.EIO) from None

    return cast("Callable[Concatenate[DiskOperations, P], Coroutine[Any, Any, R]]", answer)


def refuse(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A handler that says that the operation `name` is not permitted: nothing comes or goes here."""

    async def refused(self: DiskOperations, *args: object) -> None:
        raise FUSEError(errno.EPERM)

    refused.__name__ = name
    return handler(refused)


class DiskOperations(pyfuse3.Operations):
    """The handlers. `uid` and `gid` own the files."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # a cache in front of a shared register would break its atomicity

    def __init__(self, disk: Disk, uid: int, gid: int) -> None:
        super().__init__()
        self.disk = disk
        self.stall_watch = StallWatch()
        self.error_log = ErrorLog()
        self._uid = uid
        self._gid = gid
        self._mounted_ns = time.time_ns()
        self._atime_ns = self._mtime_ns = self._ctime_ns = self._mounted_ns

    # --- names and attributes -----------------------------------------------------------------
    @handler
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: object = None) -> EntryAttributes:
        if name in (b".", b".."):
            return self._attributes(parent_inode)  # the root is its own parent as far as FUSE sees
        if parent_inode == pyfuse3.ROOT_INODE and name == IMAGE_NAME_BYTES:
            return self._attributes(IMAGE_INODE)
        raise FUSEError(errno.ENOENT)

    @handler
    async def getattr(self, inode: InodeT, ctx: object = None) -> EntryAttributes:
        return self._attributes(inode)

    @handler
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object = None
    ) -> EntryAttributes:
        """The size is what it is; times may be set (touch, cp -p); nothing else may."""
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise FUSEError(errno.EPERM)
        if fields.update_size and (inode != IMAGE_INODE or attr.st_size != self.disk.size):
            raise FUSEError(errno.EPERM)
        if inode == IMAGE_INODE:
            if fields.update_atime:
                self._atime_ns = attr.st_atime_ns
            if fields.update_mtime:
                self._mtime_ns = attr.st_mtime_ns
            self._ctime_ns = time.time_ns()
        return self._attributes(inode)

    def _attributes(self, inode: InodeT) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.generation = 0
        entry.entry_timeout = ENTRY_TIMEOUT_S
        entry.attr_timeout = ATTR_TIMEOUT_S
        entry.st_uid = self._uid
        entry.st_gid = self._gid
        entry.st_rdev = 0
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode = stat.S_IFDIR | 0o555
            entry.st_nlink = 2
            entry.st_size = 0
            entry.st_blocks = 0
            entry.st_blksize = SECTOR_SIZE
            entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._mounted_ns
        elif inode == IMAGE_INODE:
            entry.st_mode = stat.S_IFREG | 0o600
            entry.st_nlink = 1
            entry.st_size = self.disk.size
            entry.st_blocks = self.disk.size // 512
            entry.st_blksize = MAX_RUN_BYTES
            entry.st_atime_ns = self._atime_ns
            entry.st_mtime_ns = self._mtime_ns
            entry.st_ctime_ns = self._ctime_ns
        else:
            raise FUSEError(errno.ENOENT)
        return entry

    @handler
    async def statfs(self, ctx: object = None) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = SECTOR_SIZE
        data.f_blocks = self.disk.size // SECTOR_SIZE
        data.f_bfree = data.f_bavail = 0
        data.f_files = 1
        data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    # --- the directory ------------------------------------------------------------------------
    @handler
    async def opendir(self, inode: InodeT, ctx: object = None) -> int:
        if inode != pyfuse3.ROOT_INODE:
            raise FUSEError(errno.ENOTDIR)
        return int(inode)

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id == 0:
            pyfuse3.readdir_reply(token, IMAGE_NAME_BYTES, self._attributes(IMAGE_INODE), 1)

    @handler
    async def releasedir(self, fh: int) -> None:
        pass

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    # --- the disk -----------------------------------------------------------------------------
    @handler
    async def open(self, inode: InodeT, flags: int, ctx: object = None) -> FileInfo:
        """O_TRUNC is refused: the kernel would take the size for 0, and a loop device would read nothing."""
        if inode != IMAGE_INODE:
            raise FUSEError(errno.EISDIR if inode == pyfuse3.ROOT_INODE else errno.ENOENT)
        if flags & os.O_TRUNC:
            raise FUSEError(errno.EPERM)
        is_sync = self.disk.is_cached and flags & os.O_DSYNC
        return FileInfo(fh=SYNC_HANDLE if is_sync else inode, direct_io=True, keep_cache=False)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Up to `size` bytes (at most 1 MiB); fewer only where the disk ends."""
        length = min(size, self.disk.size - off)
        if length <= 0:
            return b""
        with self.stall_watch.request(f"a read of {length} bytes at {off}"):
            return await self.disk.read(off, length)

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """The number of bytes written: fewer than given only where the disk ends, and ENOSPC behind its end."""
        room = self.disk.size - off
        if room <= 0:
            raise FUSEError(errno.ENOSPC)
        data = buf if len(buf) <= room else buf[:room]
        with self.stall_watch.request(f"a write of {len(data)} bytes at {off}"):
            await self.disk.write(off, data)
            if fh == SYNC_HANDLE:
                await self.disk.flush()
        self._mtime_ns = self._ctime_ns = time.time_ns()
        return len(data)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Every write that was under way has ended, whoever began it, and is durable."""
        with self.stall_watch.request("an fsync"):
            await self.disk.flush()

    @handler
    async def flush(self, fh: int) -> None:
        """A descriptor was closed. What its owner wrote was durable when it was answered: nothing is left to do. With
        a cache it is not, but whoever wants that asks for it by fsync, as on any disk.

        It comes from every process that got the descriptor by fork, too, when that executes a program. If it
        waited for writes of others, no such process could start a program while the quorum is lost.
        """

    @handler
    async def release(self, fh: int) -> None:
        pass

    # --- what a disk has no use for -----------------------------------------------------------
    create = refuse("create")
    mknod = refuse("mknod")
    mkdir = refuse("mkdir")
    symlink = refuse("symlink")
    link = refuse("link")
    unlink = refuse("unlink")
    rmdir = refuse("rmdir")
    rename = refuse("rename")
