"""The bytes that /dev/fuse carries: layouts, requests in, answers out. No I/O.

The layouts, numbers and flags are those of the kernel's include/uapi/linux/fuse.h, protocol 7.31 and newer, named as
there without the prefix. Everything is in the byte order of the machine, without padding other than what that file
spells out. One read of the device gives one request: a header of 40 bytes, the fixed part of its kind, then names
(ended by a zero byte) or data. One write answers one request: a header of 16 bytes, then what its kind answers with.
"""

from __future__ import annotations

import errno
import stat
import struct
from enum import IntEnum
from typing import NamedTuple

from fuse_frontend.requests import Allocate, Attributes, Entry, RequestError, Seek, SetAttr, Space

# The version spoken here. The kernel falls back to it if it knows more; one that knows less than OLDEST_MINOR (before
# Linux 5.4) would lay out some of this differently, or go without what the speed rests on.
MAJOR, MINOR, OLDEST_MINOR = 7, 38, 31

# Answers to INIT.
ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
EXPORT_SUPPORT = 1 << 4
BIG_WRITES = 1 << 5
ASYNC_DIO = 1 << 15
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
# The largest read and write.
MAX_IO_BYTES = 1 << 20

# Answers to OPEN.
FOPEN_DIRECT_IO = 1 << 0
FOPEN_NOFLUSH = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6

IN_HEADER = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = struct.Struct("=IiQ")  # len error unique
# The header, and what READ and WRITE (and READDIR) have at the same places of their fixed part: len opcode unique
# nodeid, fh offset size. Their fixed part has 40 bytes, and the data of a WRITE comes after it.
IO_HEAD = struct.Struct("=IIQQ16xQQI20x")
IO_HEAD_BYTES = IO_HEAD.size
# The whole answer to a WRITE: the header, size, padding.
WRITE_ANSWER = struct.Struct("=IiQI4x")
_INIT_IN = struct.Struct("=IIII")  # major minor max_readahead flags, and what newer kernels add
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_SETATTR_IN = struct.Struct("=I4xQQQqqqIIII4xII4x")
_READDIR_IN = struct.Struct("=QQI")
_FH_IN = struct.Struct("=Q")
_FALLOCATE_IN = struct.Struct("=QQQI4x")
_LSEEK_IN = struct.Struct("=8xQI4x")
_LSEEK_OUT = struct.Struct("=Q")
_OPEN_IN = struct.Struct("=II")
_OPEN_OUT = struct.Struct("=QI4x")
_ENTRY_OUT = struct.Struct("=QQQQII")
_ATTR_OUT = struct.Struct("=QI4x")
_ATTR = struct.Struct("=QQQqqqIIIIIIIIII")
_STATFS_OUT = struct.Struct("=QQQQQIII28x")
_DIRENT = struct.Struct("=QQII")
# The fixed parts before the names.
CREATE_IN_BYTES, RENAME_IN_BYTES, RENAME2_IN_BYTES = 16, 8, 16

NS_PER_S = 1_000_000_000


class Opcode(IntEnum):
    """The kinds of requests that have a name here; all others are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45
    LSEEK = 46


def opcode_name(opcode: int) -> str:
    """In lower case, for messages: "read", or "request 52"."""
    try:
        return Opcode(opcode).name.lower()
    except ValueError:
        return f"request {opcode}"


class BadRequest(Exception):
    """Bytes that are not what the kernel would send."""


class Request(NamedTuple):
    """A request other than READ and WRITE. `body`: what comes after the header."""

    opcode: int
    unique: int
    inode: int
    body: bytes


# --- requests -------------------------------------------------------------------------------------
def names_in(body: bytes, fixed: int, count: int) -> list[bytes]:
    """`count` names, each ended by a zero byte, after a fixed part of `fixed` bytes."""
    names = body[fixed:].split(b"\0")
    if len(body) < fixed or len(names) <= count:
        raise BadRequest(f"not {count} names in {len(body)} bytes")
    return names[:count]


class Init(NamedTuple):
    """What the kernel offers. `max_readahead` in bytes."""

    major: int
    minor: int
    max_readahead: int
    flags: int


def init_in(body: bytes) -> Init:
    return Init(*_unpack(_INIT_IN, body))


_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _ATIME_NOW, _MTIME_NOW = (1 << bit for bit in (0, 1, 2, 3, 4, 5, 7, 8))


def setattr_in(body: bytes, now_ns: int) -> SetAttr:
    valid, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, uid, gid = _unpack(_SETATTR_IN, body)

    def time(given: int, now: int, seconds: int, ns: int) -> int | None:
        if valid & now:
            return now_ns
        return seconds * NS_PER_S + ns if valid & given else None

    return SetAttr(
        size if valid & _SIZE else None, mode if valid & _MODE else None, uid if valid & _UID else None,
        gid if valid & _GID else None, time(_ATIME, _ATIME_NOW, atime, atime_ns),
        time(_MTIME, _MTIME_NOW, mtime, mtime_ns),
    )


def open_in(body: bytes) -> int:
    """The flags of open(2)."""
    flags: int = _unpack(_OPEN_IN, body)[0]
    return flags


class ReadDir(NamedTuple):
    """`offset`: the number of the last entry that was taken, 0 at first. `size`: bytes that the answer may have."""

    fh: int
    offset: int
    size: int


def readdir_in(body: bytes) -> ReadDir:
    fh, offset, size = _unpack(_READDIR_IN, body)
    return ReadDir(fh, offset, size)


def fh_in(body: bytes) -> int:
    """The file handle of FSYNC, FLUSH, RELEASE and their likes."""
    fh: int = _unpack(_FH_IN, body)[0]
    return fh


def fallocate_in(body: bytes) -> Allocate:
    return Allocate(*_unpack(_FALLOCATE_IN, body))


def lseek_in(body: bytes) -> Seek:
    return Seek(*_unpack(_LSEEK_IN, body))


def _unpack(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    """The fixed part of `body`, which newer kernels may have made longer."""
    if len(body) < layout.size:
        raise BadRequest(f"{len(body)} bytes instead of at least {layout.size}")
    return layout.unpack_from(body)


# --- answers --------------------------------------------------------------------------------------
def attr_out(of: Attributes) -> bytes:
    """GETATTR and SETATTR."""
    return _ATTR_OUT.pack(of.attr_timeout_s, 0) + _attr(of)


def entry_out(of: Attributes) -> bytes:
    """LOOKUP. The inode is the same one for ever: generation 0."""
    return _ENTRY_OUT.pack(of.inode, 0, of.entry_timeout_s, of.attr_timeout_s, 0, 0) + _attr(of)


def _attr(of: Attributes) -> bytes:
    times = [divmod(ns, NS_PER_S) for ns in (of.atime_ns, of.mtime_ns, of.ctime_ns)]
    seconds, fractions = zip(*times, strict=True)
    return _ATTR.pack(of.inode, of.size, of.blocks, *seconds, *fractions, of.mode, of.links, of.uid, of.gid,
                      0, of.block_size, 0)


def init_out(offered: Init, wanted: int, max_background: int, page_bytes: int) -> bytes:
    """What is taken of what the kernel offers. `wanted`: flags; `max_background`: asynchronous requests that the kernel
    may have under way, beyond which, too, it slows down whoever makes more; `page_bytes`: of this machine, up to 1 MiB.

    Times have a granularity of 1 ns. Raises RequestError (EPROTO) for a kernel that is too old.
    """
    if offered.major < MAJOR or offered.major == MAJOR and offered.minor < OLDEST_MINOR:
        raise RequestError(errno.EPROTO)
    if offered.major > MAJOR:
        return _INIT_OUT.pack(MAJOR, MINOR, *[0] * 9)  # it asks again, in that version
    return _INIT_OUT.pack(
        MAJOR, min(MINOR, offered.minor), offered.max_readahead, offered.flags & wanted, max_background, max_background,
        MAX_IO_BYTES, 1, MAX_IO_BYTES // page_bytes, 0, 0,
    )


def open_out(fh: int, flags: int) -> bytes:
    """OPEN and OPENDIR."""
    return _OPEN_OUT.pack(fh, flags)


def lseek_out(offset: int) -> bytes:
    return _LSEEK_OUT.pack(offset)


def statfs_out(of: Space) -> bytes:
    return _STATFS_OUT.pack(of.blocks, of.free, of.free, of.files, of.free_files, of.block_size, 255, of.block_size)


def dirent(of: Entry) -> bytes:
    """One entry of a READDIR."""
    inode, mode = of.attributes.inode, of.attributes.mode
    entry = _DIRENT.pack(inode, of.number, len(of.name), stat.S_IFMT(mode) >> 12) + of.name
    return entry + bytes(-len(entry) % 8)


def error_answer(unique: int, code: int) -> bytes:
    """A request has failed. `code`: an errno, positive."""
    return OUT_HEADER.pack(OUT_HEADER.size, -code, unique)
