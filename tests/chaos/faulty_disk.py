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
from collections.abc import Sequence
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from fuse_frontend.wakeup import regular_wakeup
from tests.chaos.memory_disk import Content, MemoryDisk

DISK_BYTES = 1 << 30


class FaultyDisk(pyfuse3.Operations):
    """The requests of the kernel, answered by a MemoryDisk. A file handle is the inode of its file."""

    enable_writeback_cache = False

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__()
        self.disk = disk
        self._inodes: dict[int, Content] = {}
        self._started_ns = time.time_ns()

    def _content(self, inode: int) -> Content:
        if inode not in self._inodes:
            raise FUSEError(errno.ENOENT)
        return self._inodes[inode]

    def _named(self, name: bytes) -> Content:
        if name not in self.disk.names:
            raise FUSEError(errno.ENOENT)
        content = self.disk.names[name]
        self._inodes[content.inode] = content
        return content

    def _attributes(self, inode: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        # Nothing is remembered by the kernel: a power cut changes names and sizes behind its back.
        entry.entry_timeout = entry.attr_timeout = 0
        entry.st_uid, entry.st_gid = os.geteuid(), os.getegid()
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._started_ns
        entry.st_blksize = 4096
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode, entry.st_nlink = stat.S_IFDIR | 0o700, 2
        else:
            entry.st_mode, entry.st_nlink = stat.S_IFREG | 0o600, 1
            entry.st_size = len(self._content(inode).data)
            entry.st_blocks = -(-entry.st_size // 512)
        return entry

    # --- names ------------------------------------------------------------------------------------
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> EntryAttributes:
        if name in (b".", b".."):
            return self._attributes(pyfuse3.ROOT_INODE)
        return self._attributes(self._named(name).inode)

    async def getattr(self, inode: int, ctx: object) -> EntryAttributes:
        return self._attributes(inode)

    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object
    ) -> EntryAttributes:
        if fields.update_size:
            self._content(inode).truncate(attr.st_size)
        return self._attributes(inode)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: object
    ) -> tuple[FileInfo, EntryAttributes]:
        content = self.disk.create(name)
        self._inodes[content.inode] = content
        return FileInfo(fh=content.inode, direct_io=True, keep_cache=False), self._attributes(content.inode)

    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:
        self._named(name)
        self.disk.unlink(name)

    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: object
    ) -> None:
        self._named(name_old)
        self.disk.rename(name_old, name_new)

    async def opendir(self, inode: int, ctx: object) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for number, name in enumerate(sorted(self.disk.names), 1):
            if number > start_id:
                attributes = self._attributes(self._named(name).inode)
                if not pyfuse3.readdir_reply(token, name, attributes, number):
                    break

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        _answer(self.disk.sync_names)

    async def releasedir(self, fh: int) -> None:
        pass

    # --- files ------------------------------------------------------------------------------------
    async def open(self, inode: int, flags: int, ctx: object) -> FileInfo:
        content = self._content(inode)
        if flags & os.O_TRUNC:
            content.truncate(0)
        return FileInfo(fh=inode, direct_io=True, keep_cache=False)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return _answer(self.disk.read, self._content(fh), off, size)  # type: ignore[no-any-return]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if buf:
            _answer(self.disk.write, self._content(fh), off, buf)
        return len(buf)

    async def fsync(self, fh: int, datasync: bool) -> None:
        _answer(self.disk.sync, self._content(fh))

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass  # a node has a handful of files

    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = data.f_bfree = data.f_bavail = DISK_BYTES // 4096
        data.f_files = data.f_ffree = data.f_favail = 1000
        data.f_namemax = 255
        return data


def _answer(call: Any, *arguments: object) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        raise FUSEError(error.errno or errno.EIO) from None


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


async def _serve(disk: MemoryDisk) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_commands, disk, nursery.cancel_scope)
        nursery.start_soon(pyfuse3.main)
        print("up", flush=True)


def main() -> None:
    mountpoint, seed = sys.argv[1:]
    disk = MemoryDisk(int(seed))
    pyfuse3.init(FaultyDisk(disk), mountpoint, {"fsname=faulty", "nosuid", "nodev"})
    try:
        with regular_wakeup():
            trio.run(_serve, disk)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
