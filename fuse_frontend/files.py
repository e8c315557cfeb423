"""The mounted file system: a directory with one file, `disk.img`, which is the disk. Every decision, and no binding.

A binding (`direct`, `library`) brings the requests of the kernel and carries the answers back. Names and attributes are
answered at once, or with a RequestError; reads, writes and fsyncs by a call of `answer(result, code)`: `code` is 0, or
the errno that stands for the failure.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from dsreg.block_device import errno_of
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.errors import DsregError
from dsreg.store import Buffer, Done, Flush, Read, Request, Write
from fuse_frontend.mounts import IMAGE_NAME
from fuse_frontend.requests import ROOT_INODE, Attributes, Entry, RequestError, SetAttr, Space
from fuse_frontend.stall import StallWatch

log = logging.getLogger(__name__)

IMAGE_NAME_BYTES = IMAGE_NAME.encode()
IMAGE_INODE = ROOT_INODE + 1
# The handle of a file that was opened with O_SYNC or O_DSYNC, which the kernel leaves to the server.
SYNC_HANDLE = 1 << 32
# Names never change; times of the image do, and the kernel itself forgets attributes after a write.
ENTRY_TIMEOUT_S = 3600
ATTR_TIMEOUT_S = 1
# At most one log line a second per kind of error: a file system on a dead disk asks thousands of times.
ERROR_LOG_INTERVAL_S = 1.0

# What was read, or b"", and 0; or b"" and an errno.
Answer = Callable[[Buffer, int], None]
# How many bytes were written, and 0; or 0 and an errno.
Written = Callable[[int, int], None]


class Disk(Protocol):
    """What the file system needs of a block device: dsreg.block_device.BlockDevice has it."""

    @property
    def size(self) -> int: ...

    @property
    def is_cached(self) -> bool: ...

    @property
    def obstacle(self) -> str: ...

    def submit(self, request: Request, done: Done) -> None: ...

    def end_turn(self) -> None: ...


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


class DiskFiles:
    """`uid` and `gid` own the files."""

    def __init__(self, disk: Disk, uid: int, gid: int) -> None:
        self.disk = disk
        self.end_turn = disk.end_turn  # what has been asked in a turn of the event loop is sent
        self.stall_watch = StallWatch(why=lambda: disk.obstacle)
        self.error_log = ErrorLog()
        self._size = disk.size  # for ever
        self._last_request = 0
        self._uid = uid
        self._gid = gid
        self._mounted_ns = time.time_ns()
        self._atime_ns = self._mtime_ns = self._ctime_ns = self._mounted_ns

    def failure(self, operation: str, error: Exception) -> int:
        """The errno that stands for `error`, with which a request has ended: what the disk says is a log line, a bug is
        EIO and a traceback. One process gets an error for one request; everybody else's requests go on."""
        if isinstance(error, RequestError):
            return error.code
        if isinstance(error, DsregError):
            code = errno_of(error)
            self.error_log.error(operation, error, code)
            return code
        log.error("%s: a bug in the file system; the request is answered with EIO", operation, exc_info=error)
        return errno.EIO

    # --- the disk -----------------------------------------------------------------------------
    def read(self, offset: int, size: int, answer: Answer) -> None:
        """Up to `size` bytes (at most 1 MiB); fewer only where the disk ends."""
        length = min(size, self._size - offset)
        if length <= 0:
            answer(b"", 0)
            return
        self._submit(Read(offset, length), "a read", offset, length, answer)

    def write(self, handle: int, offset: int, data: bytes, answer: Written) -> None:
        """Fewer bytes are written than given only where the disk ends; ENOSPC behind its end."""
        room = self._size - offset
        if room < len(data):
            if room <= 0:
                answer(0, errno.ENOSPC)
                return
            data = data[:room]
        request = Write(offset, data, handle == SYNC_HANDLE)
        self._submit(request, "a write", offset, len(data), partial(self._written, answer, len(data)))

    def fsync(self, answer: Answer) -> None:
        """Answered when every write that was under way has ended, whoever began it, and is durable."""
        self._submit(Flush(), "an fsync", 0, 0, answer)

    def _submit(self, request: Request, what: str, offset: int, length: int, answer: Answer) -> None:
        number = self._last_request = self._last_request + 1
        started = self.stall_watch.started
        started[number] = (self.stall_watch.clock(), what, offset, length)

        def done(data: Buffer, error: DsregError | None) -> None:
            del started[number]
            answer(data, 0 if error is None else self.failure(what.split()[1], error))

        try:
            self.disk.submit(request, done)
        except BaseException:
            started.pop(number, None)
            raise

    def _written(self, answer: Written, length: int, nothing: Buffer, code: int) -> None:
        if not code:
            self._mtime_ns = self._ctime_ns = time.time_ns()
        answer(0 if code else length, code)

    # --- names and attributes -----------------------------------------------------------------
    def lookup(self, parent: int, name: bytes) -> Attributes:
        if name in (b".", b".."):
            return self.attributes(parent)  # the root is its own parent as far as FUSE sees
        if parent == ROOT_INODE and name == IMAGE_NAME_BYTES:
            return self.attributes(IMAGE_INODE)
        raise RequestError(errno.ENOENT)

    def attributes(self, inode: int) -> Attributes:
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

    def set_attributes(self, inode: int, asked: SetAttr, now_ns: int) -> Attributes:
        """The size is what it is; times may be set (touch, cp -p); nothing else may. `now_ns`: since 1970."""
        if any(change is not None for change in (asked.mode, asked.uid, asked.gid)):
            raise RequestError(errno.EPERM)
        if asked.size is not None and (inode != IMAGE_INODE or asked.size != self._size):
            raise RequestError(errno.EPERM)
        if inode == IMAGE_INODE:
            if asked.atime_ns is not None:
                self._atime_ns = asked.atime_ns
            if asked.mtime_ns is not None:
                self._mtime_ns = asked.mtime_ns
            self._ctime_ns = now_ns
        return self.attributes(inode)

    def space(self) -> Space:
        return Space(self._size // SECTOR_SIZE, 0, 1, 0, SECTOR_SIZE)

    def open(self, inode: int, flags: int) -> int:
        """The handle. O_TRUNC is refused: the kernel would take the size for 0, and a loop device would read
        nothing."""
        if inode != IMAGE_INODE:
            raise RequestError(errno.EISDIR if inode == ROOT_INODE else errno.ENOENT)
        if flags & os.O_TRUNC:
            raise RequestError(errno.EPERM)
        return SYNC_HANDLE if self.disk.is_cached and flags & os.O_DSYNC else IMAGE_INODE

    # --- the directory ------------------------------------------------------------------------
    def open_directory(self, inode: int) -> int:
        if inode != ROOT_INODE:
            raise RequestError(errno.ENOTDIR)
        return ROOT_INODE

    def entries(self, after: int) -> list[Entry]:
        """Those behind the entry of this number, 0 for all."""
        return [Entry(IMAGE_NAME_BYTES, self.attributes(IMAGE_INODE), 1)] if after == 0 else []
