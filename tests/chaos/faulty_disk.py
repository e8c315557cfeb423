"""A FUSE disk that fails, or forgets what was not synced: `python -m tests.chaos.faulty_disk MOUNTPOINT SEED`.

One directory without directories in it, in memory. Prints "up" when it serves. Then it takes commands, a line each,
and answers each with a line that begins with "ok":

    fail KIND SHARE    this share of the reads, writes or syncs (of files and of the directory) fails with EIO
    heal               nothing fails any more; answers with how many calls of each kind have failed since the start
    power              everything not synced is lost, or torn; whoever used the disk must be dead
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import trio

from dsreg.protocol.messages import Buffer
from fuse_frontend import kernel, session
from fuse_frontend.kernel import Opcode, Request
from fuse_frontend.mounts import mount_at
from fuse_frontend.requests import ROOT_INODE, Attributes, Entry, RequestError, Space
from fuse_frontend.session import Session
from tests.chaos.memory_disk import Content, MemoryDisk

DISK_BYTES = 1 << 30


class FaultyDisk:
    """The requests of the kernel, which come through `fd`, answered by a MemoryDisk. A file handle is the inode of its
    file."""

    def __init__(self, disk: MemoryDisk, fd: int) -> None:
        self.disk = disk
        self.session = Session(fd, self)
        self._inodes: dict[int, Content] = {}
        self._started_ns = time.time_ns()
        self._handlers: dict[int, Callable[[Request], bytes]] = {
            Opcode.LOOKUP: self._lookup, Opcode.GETATTR: self._getattr, Opcode.SETATTR: self._setattr,
            Opcode.CREATE: self._create, Opcode.UNLINK: self._unlink, Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename, Opcode.OPENDIR: self._opendir, Opcode.READDIR: self._readdir,
            Opcode.FSYNCDIR: self._fsyncdir, Opcode.OPEN: self._open, Opcode.FSYNC: self._fsync,
            Opcode.STATFS: self._statfs,
            **dict.fromkeys((Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR), lambda request: b""),
        }

    def other(self, request: Request) -> Buffer:
        if request.opcode not in self._handlers:
            raise RequestError(errno.ENOSYS)
        return self._handlers[request.opcode](request)

    def failure(self, opcode: int, error: Exception) -> int:
        if isinstance(error, RequestError):
            return error.code
        if isinstance(error, OSError):
            return error.errno or errno.EIO
        traceback.print_exception(error)
        return errno.EIO

    def end_turn(self) -> None:
        """Everything has been answered."""

    def _content(self, inode: int) -> Content:
        if inode not in self._inodes:
            raise RequestError(errno.ENOENT)
        return self._inodes[inode]

    def _named(self, name: bytes) -> Content:
        if name not in self.disk.names:
            raise RequestError(errno.ENOENT)
        content = self.disk.names[name]
        self._inodes[content.inode] = content
        return content

    def _attributes(self, inode: int) -> Attributes:
        # Nothing is remembered by the kernel: a power cut changes names and sizes behind its back.
        if inode == ROOT_INODE:
            mode, links, size = stat.S_IFDIR | 0o700, 2, 0
        else:
            mode, links, size = stat.S_IFREG | 0o600, 1, len(self._content(inode).data)
        times = (self._started_ns,) * 3
        return Attributes(inode, mode, links, size, 4096, os.geteuid(), os.getegid(), *times, 0, 0)

    # --- names ------------------------------------------------------------------------------------
    def _lookup(self, request: Request) -> bytes:
        [name] = kernel.names_in(request.body, 0, 1)
        return kernel.entry_out(self._attributes(ROOT_INODE if name in (b".", b"..") else self._named(name).inode))

    def _getattr(self, request: Request) -> bytes:
        return kernel.attr_out(self._attributes(request.inode))

    def _setattr(self, request: Request) -> bytes:
        size = kernel.setattr_in(request.body, time.time_ns()).size
        if size is not None:
            self._content(request.inode).truncate(size)
        return kernel.attr_out(self._attributes(request.inode))

    def _create(self, request: Request) -> bytes:
        [name] = kernel.names_in(request.body, kernel.CREATE_IN_BYTES, 1)
        content = self.disk.create(name)
        self._inodes[content.inode] = content
        opened = kernel.open_out(content.inode, kernel.FOPEN_DIRECT_IO)
        return kernel.entry_out(self._attributes(content.inode)) + opened

    def _unlink(self, request: Request) -> bytes:
        [name] = kernel.names_in(request.body, 0, 1)
        self._named(name)
        self.disk.unlink(name)
        return b""

    def _rename(self, request: Request) -> bytes:
        fixed = kernel.RENAME_IN_BYTES if request.opcode == Opcode.RENAME else kernel.RENAME2_IN_BYTES
        old, new = kernel.names_in(request.body, fixed, 2)
        self._named(old)
        self.disk.rename(old, new)
        return b""

    def _opendir(self, request: Request) -> bytes:
        return kernel.open_out(request.inode, 0)

    def _readdir(self, request: Request) -> bytes:
        asked = kernel.readdir_in(request.body)
        entries = b""
        for number, name in enumerate(sorted(self.disk.names), 1):
            if number > asked.offset:
                entry = kernel.dirent(Entry(name, self._attributes(self._named(name).inode), number))
                if len(entries) + len(entry) > asked.size:
                    break
                entries += entry
        return entries

    def _fsyncdir(self, request: Request) -> bytes:
        self.disk.sync_names()
        return b""

    def _statfs(self, request: Request) -> bytes:
        blocks = DISK_BYTES // 4096
        return kernel.statfs_out(Space(blocks, blocks, files=1000, free_files=1000, block_size=4096))

    # --- files ------------------------------------------------------------------------------------
    def _open(self, request: Request) -> bytes:
        content = self._content(request.inode)
        if kernel.open_in(request.body) & os.O_TRUNC:
            content.truncate(0)
        return kernel.open_out(request.inode, kernel.FOPEN_DIRECT_IO)

    def read(self, unique: int, fh: int, offset: int, size: int) -> None:
        self.session.answer(unique, self.disk.read(self._content(fh), offset, size))

    def write(self, unique: int, fh: int, offset: int, data: bytes) -> None:
        if data:
            self.disk.write(self._content(fh), offset, data)
        self.session.answer_write(unique, len(data))

    def _fsync(self, request: Request) -> bytes:
        self.disk.sync(self._content(kernel.fh_in(request.body)))
        return b""


def obey(disk: MemoryDisk, command: str) -> str:
    """Carry out one line; the answer to it."""
    match command.split():
        case ["fail", kind, share]:
            disk.shares[kind] = float(share)
        case ["heal"]:
            disk.shares.clear()
            return " ".join(["ok", *(f"{kind}={count}" for kind, count in sorted(disk.counts.items()))])
        case ["power"]:
            disk.cut_power()
        case _:
            return f"what is {command!r}"
    return "ok"


async def _commands(disk: MemoryDisk, scope: trio.CancelScope) -> None:
    """Until the end of standard input."""
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                print(obey(disk, line.decode()), flush=True)
    scope.cancel()


async def _serve(mountpoint: Path, disk: MemoryDisk) -> None:
    faulty = FaultyDisk(disk, await session.mount(mountpoint, {"fsname=faulty", "nosuid", "nodev"}))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_commands, disk, nursery.cancel_scope)
            nursery.start_soon(faulty.session.run)
            print("up", flush=True)
    finally:
        faulty.session.close()
        if mount_at(mountpoint) is not None:
            with trio.CancelScope(shield=True):
                await session.unmount_lazily(mountpoint)


def main() -> None:
    mountpoint, seed = sys.argv[1:]
    trio.run(_serve, Path(mountpoint).resolve(), MemoryDisk(int(seed)))


if __name__ == "__main__":
    main()
