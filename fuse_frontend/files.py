"""The mounted file system: a directory with one file, `disk.img`, which is the disk. Every decision, and no binding.

A binding (`direct`, `library`) brings the requests of the kernel and carries the answers back. Names and attributes are
answered at once, or with a RequestError; reads, writes and fsyncs by a call of `answer(result, code)`: `code` is 0, or
the errno that stands for the failure.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from functools import partial

from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.store import Buffer, Flush, Read, Trim, Write, Zero
from dsreg.volume import Answer, Volume
from fuse_frontend.mounts import IMAGE_NAME
from fuse_frontend.requests import (
    KEEP_SIZE,
    PUNCH_HOLE,
    ROOT_INODE,
    ZERO_RANGE,
    Allocate,
    Attributes,
    Entry,
    RequestError,
    Seek,
    SetAttr,
    Space,
)
from fuse_frontend.seeking import Found, seek

IMAGE_NAME_BYTES = IMAGE_NAME.encode()
IMAGE_INODE = ROOT_INODE + 1
# The handle of a file that was opened with O_SYNC or O_DSYNC, which the kernel leaves to the server.
SYNC_HANDLE = 1 << 32
# Names never change. Times of the image do, and its size when the disk grows: that is seen so much later at most. The
# kernel itself forgets attributes after a write.
ENTRY_TIMEOUT_S = 3600
ATTR_TIMEOUT_S = 1
# How many bytes were written, and 0; or 0 and an errno.
Written = Callable[[int, int], None]


class DiskFiles:
    """`uid` and `gid` own the files."""

    def __init__(self, volume: Volume, uid: int, gid: int) -> None:
        self.volume = volume
        self.end_turn = volume.end_turn
        self._uid = uid
        self._gid = gid
        self._mounted_ns = time.time_ns()
        self._atime_ns = self._mtime_ns = self._ctime_ns = self._mounted_ns

    def failure(self, operation: str, error: Exception) -> int:
        """The errno that stands for `error`, with which a request has ended: see Volume."""
        return error.code if isinstance(error, RequestError) else self.volume.failure(operation, error)

    # --- the disk -----------------------------------------------------------------------------
    def read(self, offset: int, size: int, answer: Answer) -> None:
        """Up to `size` bytes (at most 1 MiB); fewer only where the disk ends."""
        length = min(size, self.volume.size - offset)
        if length <= 0:
            answer(b"", 0)
            return
        self.volume.submit(Read(offset, length), answer)

    def write(self, handle: int, offset: int, data: bytes, answer: Written) -> None:
        """Fewer bytes are written than given only where the disk ends; ENOSPC behind its end."""
        room = self.volume.size - offset
        if room < len(data):
            if room <= 0:
                answer(0, errno.ENOSPC)
                return
            data = data[:room]
        request = Write(offset, data, handle == SYNC_HANDLE)
        self.volume.submit(request, partial(self._written, answer, len(data)))

    def fsync(self, answer: Answer) -> None:
        """Answered when every write that was under way has ended, whoever began it, and is durable."""
        self.volume.submit(Flush(), answer)

    def allocate(self, asked: Allocate, answer: Answer) -> None:
        """A hole or zeros in a range, as far as it is on the disk; the disk does not grow: ENOSPC where it would.

        Room is not reserved: the disk is thin, and what was only allocated is over at once.
        """
        size, zeros = asked.mode & KEEP_SIZE, asked.mode & ~KEEP_SIZE
        if zeros not in (0, PUNCH_HOLE, ZERO_RANGE) or zeros == PUNCH_HOLE and not size:
            answer(b"", errno.EOPNOTSUPP)
            return
        length = min(asked.length, self.volume.size - asked.offset)
        if length < asked.length and not (size and zeros):
            answer(b"", errno.ENOSPC)
        elif length <= 0 or not zeros:
            answer(b"", 0)
        else:
            is_synchronous = asked.handle == SYNC_HANDLE
            # A trim is not made durable by itself; the zeros of a hole may be.
            is_trim = zeros == PUNCH_HOLE and not is_synchronous
            request = Trim(asked.offset, length) if is_trim else Zero(asked.offset, length, is_synchronous)
            self.volume.submit(request, partial(self._zeroed, answer))

    def seek(self, asked: Seek, answer: Found) -> None:
        """Where data, or a hole, begins next: see seeking."""
        seek(self.volume, asked, answer)

    def _zeroed(self, answer: Answer, nothing: Buffer, code: int) -> None:
        self._changed(code)
        answer(b"", code)

    def _written(self, answer: Written, length: int, nothing: Buffer, code: int) -> None:
        self._changed(code)
        answer(0 if code else length, code)

    def _changed(self, code: int) -> None:
        """The data, unless that has failed."""
        if not code:
            self._mtime_ns = self._ctime_ns = time.time_ns()

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
            mode, links, size, block_size = stat.S_IFREG | 0o600, 1, self.volume.size, MAX_RUN_BYTES
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
        if asked.size is not None and (inode != IMAGE_INODE or asked.size != self.volume.size):
            raise RequestError(errno.EPERM)
        if inode == IMAGE_INODE:
            if asked.atime_ns is not None:
                self._atime_ns = asked.atime_ns
            if asked.mtime_ns is not None:
                self._mtime_ns = asked.mtime_ns
            self._ctime_ns = now_ns
        return self.attributes(inode)

    def space(self) -> Space:
        return Space(self.volume.size // SECTOR_SIZE, 0, 1, 0, SECTOR_SIZE)

    def open(self, inode: int, flags: int) -> int:
        """The handle. O_TRUNC is refused: the kernel would take the size for 0, and a loop device would read
        nothing."""
        if inode != IMAGE_INODE:
            raise RequestError(errno.EISDIR if inode == ROOT_INODE else errno.ENOENT)
        if flags & os.O_TRUNC:
            raise RequestError(errno.EPERM)
        return SYNC_HANDLE if self.volume.is_cached and flags & os.O_DSYNC else IMAGE_INODE

    # --- the directory ------------------------------------------------------------------------
    def open_directory(self, inode: int) -> int:
        if inode != ROOT_INODE:
            raise RequestError(errno.ENOTDIR)
        return ROOT_INODE

    def entries(self, after: int) -> list[Entry]:
        """Those behind the entry of this number, 0 for all."""
        return [Entry(IMAGE_NAME_BYTES, self.attributes(IMAGE_INODE), 1)] if after == 0 else []
