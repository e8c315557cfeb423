"""The binding `direct`: the kernel's own bytes, by a session of our own with /dev/fuse."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from dsreg.store import Buffer
from fuse_frontend import kernel, session
from fuse_frontend.files import DiskFiles
from fuse_frontend.kernel import Opcode, Request, opcode_name
from fuse_frontend.requests import RequestError
from fuse_frontend.session import Session

# No page cache, which in front of a shared register would break its atomicity. Several writes at once: the lock of the
# block device keeps them apart where they overlap. And no request for a close, which has nothing to wait for: what was
# written was durable when it was answered; with a cache it is not, but whoever wants that asks for it by fsync, as on
# any disk. (It would come from every process that got the descriptor by fork, too, when that executes a program.)
OPEN_FLAGS = kernel.FOPEN_DIRECT_IO | kernel.FOPEN_PARALLEL_DIRECT_WRITES | kernel.FOPEN_NOFLUSH
# Nothing comes or goes here.
REFUSED = (Opcode.CREATE, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.UNLINK, Opcode.RMDIR,
           Opcode.RENAME, Opcode.RENAME2)
NOTHING_TO_DO = (Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FSYNCDIR)


class DirectBinding:
    """`fd`: of /dev/fuse, see Session."""

    name = "direct"

    def __init__(self, files: DiskFiles, fd: int) -> None:
        self._files = files
        self._session = Session(fd, self)
        self.run = self._session.run
        self.close = self._session.close
        self.end_turn = files.end_turn
        self._handlers: dict[int, Callable[[Request], Buffer | None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: lambda request: kernel.attr_out(files.attributes(request.inode)),
            Opcode.SETATTR: self._setattr,
            Opcode.STATFS: lambda request: kernel.statfs_out(files.space()),
            Opcode.OPENDIR: lambda request: kernel.open_out(files.open_directory(request.inode), 0),
            Opcode.READDIR: self._readdir,
            Opcode.OPEN: self._open,
            Opcode.FSYNC: self._fsync,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.LSEEK: self._lseek,
            **dict.fromkeys(NOTHING_TO_DO, lambda request: b""),
            **dict.fromkeys(REFUSED, _refuse),
        }

    async def on_up(self) -> None:
        """See bindings.Binding. The queue depth was asked for in INIT."""

    # --- what a session needs: see session.Handler --------------------------------------------------
    def read(self, unique: int, fh: int, offset: int, size: int) -> None:
        self._files.read(offset, size, partial(self._answer, unique))

    def write(self, unique: int, fh: int, offset: int, data: bytes) -> None:
        self._files.write(fh, offset, data, partial(self._answer_write, unique))

    def other(self, request: Request) -> Buffer | None:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise RequestError(errno.ENOSYS)
        return handler(request)

    def failure(self, opcode: int, error: Exception) -> int:
        return self._files.failure(opcode_name(opcode), error)

    # --- answers --------------------------------------------------------------------------------
    def _answer(self, unique: int, data: Buffer, code: int) -> None:
        if code:
            self._session.fail(unique, code)
        else:
            self._session.answer(unique, data)

    def _answer_write(self, unique: int, length: int, code: int) -> None:
        if code:
            self._session.fail(unique, code)
        else:
            self._session.answer_write(unique, length)

    # --- requests -------------------------------------------------------------------------------
    def _lookup(self, request: Request) -> bytes:
        [name] = kernel.names_in(request.body, 0, 1)
        return kernel.entry_out(self._files.lookup(request.inode, name))

    def _setattr(self, request: Request) -> bytes:
        now_ns = time.time_ns()
        asked = kernel.setattr_in(request.body, now_ns)
        return kernel.attr_out(self._files.set_attributes(request.inode, asked, now_ns))

    def _readdir(self, request: Request) -> bytes:
        asked = kernel.readdir_in(request.body)
        found = b""
        for entry in self._files.entries(asked.offset):
            encoded = kernel.dirent(entry)
            if len(found) + len(encoded) > asked.size:
                break
            found += encoded
        return found

    def _open(self, request: Request) -> bytes:
        return kernel.open_out(self._files.open(request.inode, kernel.open_in(request.body)), OPEN_FLAGS)

    def _fsync(self, request: Request) -> None:
        self._files.fsync(partial(self._answer, request.unique))

    def _fallocate(self, request: Request) -> None:
        self._files.allocate(kernel.fallocate_in(request.body), partial(self._answer, request.unique))

    def _lseek(self, request: Request) -> None:
        def found(offset: int, code: int) -> None:
            self._answer(request.unique, b"" if code else kernel.lseek_out(offset), code)

        self._files.seek(kernel.lseek_in(request.body), found)


def _refuse(request: Request) -> bytes:
    raise RequestError(errno.EPERM)


async def mount(files: DiskFiles, mountpoint: Path, options: Iterable[str]) -> DirectBinding:
    """Mount `files`. Raises MountError; then nothing is mounted."""
    return DirectBinding(files, await session.mount(mountpoint, options))
