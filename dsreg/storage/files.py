"""The seam to the operating system: one directory of files, and nothing else of it.

`Files` and `File` say what the storage needs; `OsFiles` is the real thing and
`dsreg.testing.memory_files.MemoryFiles` a fake that can lose power. One contract test runs on both.
All calls block; offsets and lengths are in bytes. Whatever the system refuses is raised as OSError.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import resource
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dsreg.errors import StorageLocked

Buffer = bytes | bytearray | memoryview

# pwritev takes at most this many buffers at once (IOV_MAX of Linux).
MAX_BUFFERS = 1024
# The kernel keeps in one piece what is written in one piece, up to megabytes, and looks at all of its blocks at each
# later write into it: 13 us for 4 KiB into a piece of 1 MiB, 4 us into one of this size.
PIECE_BYTES = 64 * 1024
# It lets go of such a piece, or of what it has read ahead in one, only as a whole: no larger than this, aligned.
DROPPED_BYTES = 1 << 20
_MAX_OFFSET = (1 << 63) - 1
# From linux/fs.h: _IOR('f', 1, long), _IOW('f', 2, long) and a flag, which btrfs has.
_LONG_SIZE = struct.calcsize("l")
_FS_IOC_GETFLAGS = 2 << 30 | _LONG_SIZE << 16 | ord("f") << 8 | 1
_FS_IOC_SETFLAGS = 1 << 30 | _LONG_SIZE << 16 | ord("f") << 8 | 2
_FS_NOCOW_FL = 0x00800000
# The unit of st_blocks: stat(2).
_STAT_BLOCK_BYTES = 512
# From linux/falloc.h.
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
# Why a file system may refuse to punch: it does not know how, or has no room to note it.
_NO_PUNCH = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT})


def _libc_fallocate() -> Callable[[int, int, int, int], int]:
    """Python has no fallocate with a mode. Lengths are of 64 bits also where those of the system are of 32."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function


_fallocate: Final = _libc_fallocate()


class File(Protocol):
    """One open file. Reads and writes carry their own offset, so threads may share it."""

    def pread(self, length: int, offset: int) -> bytes:
        """The bytes from `offset` on; fewer than `length` only at the end of the file."""

    def pread_nowait(self, length: int, offset: int) -> Buffer:
        """As pread, but raises BlockingIOError where not all `length` bytes are in memory."""

    def drop_cached(self, length: int, offset: int) -> None:
        """Have what is read next come from the disk, not from memory, as far as nothing waits to be written there.
        What is around it may be dropped as well."""

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers, one after the other, from `offset` on. Complete, or raises."""

    def fdatasync(self) -> None:
        """Return once everything written so far, and the size, is on stable storage."""

    def allocate(self, offset: int, length: int) -> None:
        """Reserve the space: a later write there does not run out of it. The file grows with it."""

    def punch(self, offset: int, length: int) -> bool:
        """Give the space of these bytes back; they read as zeros then. The size stays. False: the file system does not
        do that, or has no room to note it; what is there may stay as it is."""

    def size(self) -> int: ...

    def allocated(self) -> int:
        """Bytes of the disk that it takes: fewer than its size where it has holes."""

    def largest(self) -> int:
        """The largest size in bytes that the file may come to: a write beyond it would fail, now and ever."""

    def write_in_place(self) -> None:
        """Of an empty file: have the file system write over what the file has, not beside it (copy on write), so that
        overwriting needs no room. Without effect where the file system has no such switch."""

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A held lock; closing it releases it."""

    def close(self) -> None: ...


class Files(Protocol):
    """One directory, for the exclusive use of whoever holds its lock."""

    def open(self, name: str, create: bool = False) -> File:
        """Open for reading and writing. Raises FileNotFoundError unless it exists or `create`."""

    def exists(self, name: str) -> bool: ...

    def list(self) -> list[str]:
        """The names in the directory, sorted."""

    def rename(self, old: str, new: str) -> None:
        """Atomically, replacing `new`."""

    def remove(self, name: str) -> None: ...

    def sync_dir(self) -> None:
        """Return once all names created, renamed and removed so far are on stable storage."""

    def lock(self, name: str) -> Lock:
        """Create `name` if need be and lock it. Raises StorageLocked if somebody else has it."""

    def close(self) -> None: ...


def pread_or_zeros(file: File, length: int, offset: int, unit: int = 4096) -> bytes:
    """Exactly `length` bytes. What is beyond the end, and every `unit` that the disk cannot read, is zeros.

    Only for what a checksum covers: it tells these zeros from data.
    """
    try:
        return file.pread(length, offset).ljust(length, b"\0")
    except OSError:
        if length <= unit:
            return bytes(length)
    parts = [pread_or_zeros(file, min(unit, length - at), offset + at, unit) for at in range(0, length, unit)]
    return b"".join(parts)


def replace(files: Files, tmp: str, name: str, raw: bytes) -> None:
    """Have the file `name` contain `raw`, and nothing else, durably: after a crash there is the old one or the new one.
    `tmp`: what the new one is called until it is whole; a crash may leave it, with anything in it."""
    file = files.open(tmp, create=True)
    try:
        file.truncate(0)
        file.pwritev([raw], 0)
        file.fdatasync()
    finally:
        file.close()
    files.rename(tmp, name)
    files.sync_dir()


def write_copy(file: File, raw: bytes, offset: int, unit: int = 4096) -> None:
    """Write one of two copies of something, durably. It has a `unit` of the disk to itself, at `offset`: where the disk
    cannot read that, the kernel cannot write a part of it, and the whole it can."""
    try:
        file.pwritev([raw], offset)
    except OSError:
        if _is_readable(file, unit, offset):
            raise
        file.pwritev([raw.ljust(unit, b"\0")], offset)
    file.fdatasync()


def _is_readable(file: File, length: int, offset: int) -> bool:
    try:
        file.pread(length, offset)
    except OSError:
        return False
    return True


class OsFile:
    """A file descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        got = len(data)
        while got < length:
            data = os.pread(self._fd, length - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pread_nowait(self, length: int, offset: int) -> Buffer:
        data = bytearray(length)
        try:
            got = os.preadv(self._fd, (data,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            # A file system without RWF_NOWAIT, or a bad block: the blocking read tells which.
            raise BlockingIOError(error.errno, "not readable without waiting") from error
        if got < length:
            raise BlockingIOError("only a part is in memory")
        return data

    def drop_cached(self, length: int, offset: int) -> None:
        start, stop = offset // DROPPED_BYTES * DROPPED_BYTES, -(-(offset + length) // DROPPED_BYTES) * DROPPED_BYTES
        os.posix_fadvise(self._fd, start, stop - start, os.POSIX_FADV_DONTNEED)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        if len(buffers) == 1:
            self._pwrite(buffers[0], offset)
            return
        for start in range(0, len(buffers), MAX_BUFFERS):
            some = buffers[start:start + MAX_BUFFERS]
            length = sum(map(len, some))
            done = os.pwritev(self._fd, some, offset)
            if done < length:
                self._write_rest(some, offset, done)
            offset += length

    def _pwrite(self, data: Buffer, offset: int) -> None:
        if len(data) <= PIECE_BYTES:
            done = os.pwrite(self._fd, data, offset)
            if done < len(data):
                self._write_rest((data,), offset, done)
            return
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                # Up to a multiple of the size, so that the same pieces come of whatever is written where.
                stop = start + PIECE_BYTES - (offset + start) % PIECE_BYTES
                start += os.pwrite(self._fd, view[start:stop], offset + start)

    def _write_rest(self, buffers: Sequence[Buffer], offset: int, done: int) -> None:
        rest = memoryview(b"".join(buffers))
        while done < len(rest):
            done += os.pwrite(self._fd, rest[done:], offset + done)

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def allocate(self, offset: int, length: int) -> None:
        os.posix_fallocate(self._fd, offset, length)

    def punch(self, offset: int, length: int) -> bool:
        if not _fallocate(self._fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length):
            return True
        number = ctypes.get_errno()
        if number == errno.EINTR:
            return self.punch(offset, length)
        if number in _NO_PUNCH:
            return False
        raise OSError(number, os.strerror(number))

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def allocated(self) -> int:
        return os.fstat(self._fd).st_blocks * _STAT_BLOCK_BYTES

    def largest(self) -> int:
        low, high = 0, _MAX_OFFSET
        if not self._reaches(high):
            while high - low > 1:  # low can be reached, high cannot
                middle = (low + high) // 2
                low, high = (middle, high) if self._reaches(middle) else (low, middle)
            high = low
        allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return high if allowed == resource.RLIM_INFINITY else min(high, allowed)

    def _reaches(self, size: int) -> bool:
        """Whether a file may have so many bytes: the kernel lets nobody go further in it."""
        try:
            os.lseek(self._fd, size, os.SEEK_SET)
        except OSError:
            return False
        return True

    def write_in_place(self) -> None:
        try:
            flags = struct.unpack("i", fcntl.ioctl(self._fd, _FS_IOC_GETFLAGS, bytes(4)))[0]
            fcntl.ioctl(self._fd, _FS_IOC_SETFLAGS, struct.pack("i", flags | _FS_NOCOW_FL))
        except OSError:
            return  # there is no such switch: the file system writes in place anyway, or always beside

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class OsFiles:
    """A directory of the real file system; created, for the owner alone, where there is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(self.path.parent)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, name: str, create: bool = False) -> OsFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return OsFile(os.open(name, flags, 0o600, dir_fd=self._fd))

    def exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        return True

    def list(self) -> list[str]:
        return sorted(os.listdir(self._fd))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)

    def sync_dir(self) -> None:
        os.fsync(self._fd)

    def lock(self, name: str) -> OsFile:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageLocked(f"{self.path} is in use by another process") from error
            undo.pop_all()
        return OsFile(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sync_directory(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
