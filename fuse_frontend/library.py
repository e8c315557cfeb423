"""The binding `pyfuse3`: the requests as libfuse3 hands them over, each in a task of pyfuse3's.

pyfuse3 keeps its session in module variables: a process serves one mount at a time. Nothing but FUSEError leaves a
handler: pyfuse3 ends its main loop on anything else, and what is left then is a mount on which every process hangs.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT

from dsreg.store import Buffer
from fuse_frontend import readers
from fuse_frontend.files import DiskFiles
from fuse_frontend.mounts import MountError
from fuse_frontend.requests import Attributes, SetAttr

log = logging.getLogger(__name__)

# Requests that the kernel keeps in flight for loop devices and asynchronous I/O; its default is 12, and pyfuse3 has no
# option for it. A loop device has 128 tags, so two of them at full depth fit.
MAX_BACKGROUND = 256
FUSE_CONNECTIONS = Path("/sys/fs/fuse/connections")
# Tasks that read and answer requests: the background ones, and some more for programs that use the file directly.
MAX_TASKS = MAX_BACKGROUND + 32
# Tasks that stay when idle, each with a 1 MiB receive buffer: the usual depth costs no new tasks.
MIN_TASKS = 64


class _Answered:
    """A handler waits for its answer: one reschedule, no event and no task more."""

    __slots__ = ("_code", "_result", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._result: Any = None
        self._code = -1

    def __call__(self, result: Buffer | int, code: int) -> None:
        self._result, self._code = result, code
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> Any:
        """What was read, or how much was written. Raises FUSEError."""
        if self._code < 0:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._code:
            raise FUSEError(self._code)
        return self._result

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        """The mount is gone: whatever the disk says now, nobody hears it."""
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


Handler = Callable[..., Coroutine[Any, Any, Any]]


def handler(method: Handler) -> Handler:
    """Turn every error of a handler into a FUSEError."""
    async def answer(self: Operations, *args: Any) -> Any:
        try:
            return await method(self, *args)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001
            raise FUSEError(self.files.failure(method.__name__, error)) from None

    return answer


def refuse(name: str) -> Handler:
    """A handler that says that the operation `name` is not permitted: nothing comes or goes here."""
    async def refused(self: Operations, *args: object) -> None:
        raise FUSEError(errno.EPERM)

    refused.__name__ = name
    return refused


async def _nothing_to_do(self: Operations, *args: object) -> None: ...


class Operations(pyfuse3.Operations):
    """The handlers."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # a cache in front of a shared register would break its atomicity

    def __init__(self, files: DiskFiles, end_turn_soon: Callable[[], None]) -> None:
        super().__init__()
        self.files = files
        self._end_turn_soon = end_turn_soon

    # --- the disk -----------------------------------------------------------------------------
    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        answered = _Answered()
        self.files.read(off, size, answered)
        return await self._ended(answered)  # type: ignore[no-any-return]

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        answered = _Answered()
        self.files.write(fh, off, buf, answered)
        return await self._ended(answered)  # type: ignore[no-any-return]

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        answered = _Answered()
        self.files.fsync(answered)
        await self._ended(answered)

    async def _ended(self, answered: _Answered) -> Any:
        self._end_turn_soon()
        return await answered.wait()

    @handler
    async def open(self, inode: InodeT, flags: int, ctx: object = None) -> FileInfo:
        handle = self.files.open(inode, flags)
        return FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True, keep_cache=False)

    # --- names and attributes -----------------------------------------------------------------
    @handler
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: object = None) -> EntryAttributes:
        return _entry(self.files.lookup(parent_inode, name))

    @handler
    async def getattr(self, inode: InodeT, ctx: object = None) -> EntryAttributes:
        return _entry(self.files.attributes(inode))

    @handler
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object = None
    ) -> EntryAttributes:
        return _entry(self.files.set_attributes(inode, SetAttr(
            attr.st_size if fields.update_size else None,
            attr.st_mode if fields.update_mode else None,
            attr.st_uid if fields.update_uid else None,
            attr.st_gid if fields.update_gid else None,
            attr.st_atime_ns if fields.update_atime else None,
            attr.st_mtime_ns if fields.update_mtime else None,
        ), time.time_ns()))

    @handler
    async def statfs(self, ctx: object = None) -> pyfuse3.StatvfsData:
        space = self.files.space()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = space.block_size
        data.f_blocks = space.blocks
        data.f_bfree = data.f_bavail = space.free
        data.f_files = space.files
        data.f_ffree = data.f_favail = space.free_files
        data.f_namemax = 255
        return data

    # --- the directory ------------------------------------------------------------------------
    @handler
    async def opendir(self, inode: InodeT, ctx: object = None) -> int:
        return self.files.open_directory(inode)

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for entry in self.files.entries(start_id):
            name = pyfuse3.FileNameT(entry.name)
            if not pyfuse3.readdir_reply(token, name, _entry(entry.attributes), entry.number):
                return

    # --- what a disk has no use for -----------------------------------------------------------
    # A close writes nothing back: see direct.OPEN_FLAGS. pyfuse3 cannot tell the kernel not to ask.
    flush = release = releasedir = fsyncdir = _nothing_to_do  # type: ignore[assignment]
    create = refuse("create")
    mknod = refuse("mknod")
    mkdir = refuse("mkdir")
    symlink = refuse("symlink")
    link = refuse("link")
    unlink = refuse("unlink")
    rmdir = refuse("rmdir")
    rename = refuse("rename")


def _entry(of: Attributes) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = InodeT(of.inode)
    entry.generation = 0
    entry.entry_timeout, entry.attr_timeout = of.entry_timeout_s, of.attr_timeout_s
    entry.st_mode, entry.st_nlink = pyfuse3.ModeT(of.mode), of.links
    entry.st_uid, entry.st_gid, entry.st_rdev = of.uid, of.gid, 0
    entry.st_size, entry.st_blocks, entry.st_blksize = of.size, of.blocks, of.block_size
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = of.atime_ns, of.mtime_ns, of.ctime_ns
    return entry


class LibraryBinding:
    """See bindings.Binding."""

    name = "pyfuse3"

    def __init__(self, mountpoint: Path, end_turns: _Turns) -> None:
        self._mountpoint = mountpoint
        self._turns = end_turns

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._turns.run)
            with readers.serving():
                await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()

    async def on_up(self) -> None:
        await _raise_queue_depth(self._mountpoint)

    def close(self) -> None:
        pyfuse3.close(unmount=False)


class _Turns:
    """Sends what was submitted, once for all the tasks that run in one pass of the scheduler."""

    def __init__(self, end_turn: Callable[[], None]) -> None:
        self._end_turn = end_turn
        self._task: trio.lowlevel.Task | None = None
        self._is_wanted = False

    def end_turn_soon(self) -> None:
        self._is_wanted = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def run(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._is_wanted:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            self._is_wanted = False
            self._end_turn()


async def _raise_queue_depth(mountpoint: Path) -> None:
    """Have the kernel keep MAX_BACKGROUND requests in flight, as far as this user may ask for that."""
    try:
        status = await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
        connection = FUSE_CONNECTIONS / str(os.minor(status.st_dev))
        if not connection.is_dir() and os.geteuid() == 0:
            # Containers and small virtual machines go without what systemd mounts at the start of a system.
            command = ["mount", "-t", "fusectl", "fusectl", str(FUSE_CONNECTIONS)]
            await trio.run_process(command, check=False, capture_stderr=True, stdin=subprocess.DEVNULL)
        (connection / "max_background").write_text(str(MAX_BACKGROUND))
        # The kernel calls the mount congested from here on; below max_background it only slows writers down.
        (connection / "congestion_threshold").write_text(str(MAX_BACKGROUND))
    except OSError as error:
        log.info("the kernel keeps its default of 12 requests of loop devices in flight: %s", error)


async def mount(files: DiskFiles, mountpoint: Path, options: Iterable[str]) -> LibraryBinding:
    """Mount `files`. Raises MountError; then nothing is mounted."""
    turns = _Turns(files.end_turn)
    try:
        pyfuse3.init(Operations(files, turns.end_turn_soon), str(mountpoint), set(options))
    except RuntimeError as error:
        raise MountError(f"{error}; libfuse says above why") from None
    return LibraryBinding(mountpoint, turns)
