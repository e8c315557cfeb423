"""One connection to the kernel: mounts, reads requests from /dev/fuse, writes the answers to it.

Everything that has arrived is read and handed on in one turn, without a task for each request. So what a small request
costs is two system calls and what is done for it.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import trio

from dsreg.store import Buffer
from fuse_frontend import kernel
from fuse_frontend.kernel import IO_HEAD, IO_HEAD_BYTES, OUT_HEADER, BadRequest, Opcode, Request
from fuse_frontend.mounts import MountError
from fuse_frontend.requests import RequestError

log = logging.getLogger(__name__)

FLAGS = (kernel.ASYNC_READ | kernel.ATOMIC_O_TRUNC | kernel.EXPORT_SUPPORT | kernel.BIG_WRITES | kernel.ASYNC_DIO
         | kernel.PARALLEL_DIROPS | kernel.MAX_PAGES)
# Asynchronous requests that the kernel keeps in flight, for loop devices and asynchronous I/O; its default is 12. A
# loop device has 128 tags, so two of them at full depth fit. Where the mount is not root's, the kernel takes no more
# than /sys/module/fuse/parameters/max_user_bgreq. Beside these, each thread that uses the file has at most one request
# under way: so many are held here at once, and no more.
MAX_BACKGROUND = 256
# Requests that are read before the other tasks have a turn.
MAX_PER_TURN = 64
# What fusermount3 needs takes milliseconds, unless the mount point is on a file system that does not answer.
FUSERMOUNT_TIMEOUT_S = 30.0
# The kernel wants room for the largest write and for 4 KiB of headers.
ROOM_BYTES = kernel.MAX_IO_BYTES + 4096
# What a read of the device fails with when the mount is gone: unmounted, aborted.
GONE = (errno.ENODEV, errno.ECONNABORTED)
OUT_HEADER_BYTES = OUT_HEADER.size
_READ, _WRITE = int(Opcode.READ), int(Opcode.WRITE)


class Handler(Protocol):
    """What answers the requests, by `Session.answer` and the like, each once: at once, or later."""

    def read(self, unique: int, fh: int, offset: int, size: int) -> None: ...

    def write(self, unique: int, fh: int, offset: int, data: bytes) -> None: ...

    def other(self, request: Request) -> Buffer | None:
        """The body of the answer to anything but a read or a write; None if there is none yet, or none at all."""

    def failure(self, opcode: int, error: Exception) -> int:
        """The errno that stands for `error`, by which a request has ended. Says in the log what should be there."""

    def end_turn(self) -> None:
        """All that had arrived has been handed over."""


class Session:
    """Serves one mount by `handler`. `fd`: of /dev/fuse, from `mount`; it is closed by `close`, and by nobody else.

    Everything is to be called in trio's thread.
    """

    def __init__(self, fd: int, handler: Handler) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._handler = handler
        self._head = bytearray(IO_HEAD_BYTES)
        # Pages of its own: what begins in the middle of a page takes the kernel two steps for each.
        self._rest = mmap.mmap(-1, ROOM_BYTES)
        self._room: list[Buffer] = [self._head, memoryview(self._rest)]
        self._is_over = False
        self._refusal: MountError | None = None

    async def run(self) -> None:
        """Serve until the mount is gone. Raises MountError if the kernel is too old."""
        while not self._is_over:
            await trio.lowlevel.wait_readable(self._fd)
            self._turn()
            self._handler.end_turn()
        if self._refusal is not None:
            raise self._refusal

    def close(self) -> None:
        """Whatever is asked through the mount, or has been, fails from now on, mounted or not."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # --- requests -------------------------------------------------------------------------------
    def _turn(self) -> None:
        """Read and hand over what has arrived: up to MAX_PER_TURN requests, the next turn takes the rest."""
        read, fd, room, unpack, head = os.readv, self._fd, self._room, IO_HEAD.unpack_from, self._head
        for _ in range(MAX_PER_TURN):
            try:
                length = read(fd, room)
            except BlockingIOError:
                return
            except FileNotFoundError:
                continue  # taken back while it was read: whoever made it was killed
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._is_over = True
                return
            size, opcode, unique, inode, fh, offset, count = unpack(head)
            try:
                if opcode == _READ and length == size == IO_HEAD_BYTES:
                    self._handler.read(unique, fh, offset, count)
                elif opcode == _WRITE and length == size == IO_HEAD_BYTES + count:
                    self._handler.write(unique, fh, offset, self._rest[:count])
                elif not self._other(length):
                    return
            except Exception as error:  # noqa: BLE001
                self.fail(unique, self._handler.failure(opcode, error))

    def _other(self, length: int) -> bool:
        """Anything but a proper read or write, of `length` bytes. Whether the session goes on."""
        size, opcode, unique, inode, *_ = IO_HEAD.unpack_from(self._head)
        if length < kernel.IN_HEADER.size or length != size:
            if length:  # else it is the end of what stands for the device in tests
                log.error("/dev/fuse: dropped a request of %d bytes whose header says %d", length, size)
            self._is_over = length == 0
            return not self._is_over
        whole = self._head + self._rest[: max(0, length - IO_HEAD_BYTES)]
        request = Request(opcode, unique, inode, bytes(whole[kernel.IN_HEADER.size : length]))
        if opcode in (Opcode.FORGET, Opcode.BATCH_FORGET):
            return True  # nothing is remembered, and nobody waits for an answer
        if opcode == Opcode.INTERRUPT:
            self.fail(unique, errno.ENOSYS)  # asks the kernel to send no more of them
        elif opcode == Opcode.INIT:
            self._begin(request)
        elif opcode == Opcode.DESTROY:
            self.answer(unique)
            self._is_over = True
        elif opcode in (_READ, _WRITE):
            raise BadRequest(f"{length} bytes")
        elif (body := self._handler.other(request)) is not None:
            self.answer(unique, body)
        return not self._is_over

    def _begin(self, request: Request) -> None:
        offered = kernel.init_in(request.body)
        try:
            self.answer(request.unique, kernel.init_out(offered, FLAGS, MAX_BACKGROUND, mmap.PAGESIZE))
        except RequestError as error:
            self.fail(request.unique, error.code)
            self._refusal = MountError(
                f"this kernel speaks version {offered.major}.{offered.minor} of the FUSE protocol; "
                f"{kernel.MAJOR}.{kernel.OLDEST_MINOR} or newer is needed (Linux 5.4)"
            )
            self._is_over = True

    # --- answers --------------------------------------------------------------------------------
    def answer(self, unique: int, body: Buffer = b"") -> None:
        """The request has been carried out."""
        try:
            os.writev(self._fd, (OUT_HEADER.pack(OUT_HEADER_BYTES + len(body), 0, unique), body))
        except OSError as error:
            self._not_written(unique, error)

    def answer_write(self, unique: int, count: int) -> None:
        """`count` bytes have been written."""
        self._write(kernel.WRITE_ANSWER.pack(kernel.WRITE_ANSWER.size, 0, unique, count), unique)

    def fail(self, unique: int, code: int) -> None:
        """The request has failed with this errno."""
        self._write(kernel.error_answer(unique, code), unique)

    def _write(self, whole: bytes, unique: int) -> None:
        try:
            os.write(self._fd, whole)
        except OSError as error:
            self._not_written(unique, error)

    def _not_written(self, unique: int, error: OSError) -> None:
        """ENOENT: nobody waits for the answer any longer. Anything else fails that request alone."""
        if self._fd >= 0 and error.errno != errno.ENOENT:
            log.error("the kernel refused the answer to request %d: %s", unique, error.strerror)


async def mount(mountpoint: Path, options: Iterable[str]) -> int:
    """Have fusermount3 mount `mountpoint` with `options`; the descriptor to serve it by.

    Raises MountError with what fusermount3 said; then nothing is mounted.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["fusermount3", "-o", ",".join(sorted(options)), "--", str(mountpoint)]
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        try:
            # Not to be cancelled in between: there would be a mount that nobody serves.
            with trio.CancelScope(shield=True), trio.fail_after(FUSERMOUNT_TIMEOUT_S):
                done = await trio.run_process(
                    command, env=environment, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                    capture_stdout=True, capture_stderr=True, check=False,
                )
        except FileNotFoundError:
            raise MountError("fusermount3 is not installed (Debian: apt install fuse3)") from None
        except OSError as error:
            raise MountError(f"fusermount3 cannot be started: {error.strerror}") from None
        except trio.TooSlowError:
            raise MountError(f"fusermount3 did not finish within {FUSERMOUNT_TIMEOUT_S:.0f} s") from None
        theirs.close()  # so that nothing waits here if nothing was sent
        if done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()
            raise MountError(said or f"fusermount3 ended with exit code {done.returncode}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
    for line in done.stderr.decode(errors="replace").splitlines():
        log.info("fusermount3: %s", line)
    if not descriptors:
        raise MountError("fusermount3 mounted, but sent no descriptor of /dev/fuse")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


async def unmount_lazily(mountpoint: Path) -> None:
    """Take a mount away that is not served any longer, whoever has something open there."""
    await trio.run_process(["fusermount3", "-u", "-q", "-z", str(mountpoint)], check=False, stdin=subprocess.DEVNULL)
