"""Requests to the mounted file system and their answers, as typed values: the same for both bindings."""

from __future__ import annotations

import errno
from typing import NamedTuple

ROOT_INODE = 1


class RequestError(Exception):
    """The answer to a request is this errno (positive)."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode.get(code, str(code)))
        self.code = code


class SetAttr(NamedTuple):
    """The changes that are asked for, None for what stays as it is. Times in ns since 1970."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Attributes(NamedTuple):
    """Of one inode. Times in ns since 1970, `size` in bytes; how long the kernel may remember the name and the rest, in
    seconds."""

    inode: int
    mode: int
    links: int
    size: int
    block_size: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    entry_timeout_s: int
    attr_timeout_s: int

    @property
    def blocks(self) -> int:
        """Of 512 bytes."""
        return -(-self.size // 512)


class Space(NamedTuple):
    """What statfs tells. `blocks` and `free` in blocks of `block_size` bytes."""

    blocks: int
    free: int
    files: int
    free_files: int
    block_size: int


# What fallocate(2) may be asked for; the kernel hands over no other bits.
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10


class Allocate(NamedTuple):
    """fallocate(2). `offset` and `length` in bytes, of any alignment."""

    handle: int
    offset: int
    length: int
    mode: int


class Seek(NamedTuple):
    """lseek(2) with SEEK_DATA or SEEK_HOLE; the kernel does the others itself. `offset` in bytes."""

    offset: int
    whence: int


class Entry(NamedTuple):
    """One entry of a directory. `number`: what the kernel continues after, at least 1."""

    name: bytes
    attributes: Attributes
    number: int
