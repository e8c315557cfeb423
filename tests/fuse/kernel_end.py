"""The kernel's end of a session, for tests: a socket that keeps messages apart, as /dev/fuse does."""

from __future__ import annotations

import itertools
import os
import socket
import struct

import trio

IN_HEADER = struct.Struct("=IIQQIIII")
OUT_HEADER = struct.Struct("=IiQ")
IO_IN = struct.Struct("=QQIIQII")
WAIT_S = 10.0


def io_in(fh: int, offset: int, size: int) -> bytes:
    """What READ, WRITE and READDIR begin with."""
    return IO_IN.pack(fh, offset, size, 0, 0, 0, 0)


class KernelEnd:
    """`fd` is for the session, which closes it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(0)
        self.fd = theirs.detach()
        self._uniques = itertools.count(2, 2)

    def send(self, opcode: int, inode: int, body: bytes = b"", length: int | None = None) -> int:
        """A request; its number. `length`: what its header says instead of the truth."""
        unique = next(self._uniques)
        size = IN_HEADER.size + len(body) if length is None else length
        self.socket.send(IN_HEADER.pack(size, opcode, unique, inode, os.getuid(), os.getgid(), os.getpid(), 0) + body)
        return unique

    async def receive(self) -> tuple[int, int, bytes]:
        """The next answer: which request, errno (0: none), body."""
        with trio.fail_after(WAIT_S):
            await trio.lowlevel.wait_readable(self.socket)
        message = self.socket.recv(1 << 21)
        length, error, unique = OUT_HEADER.unpack_from(message)
        assert length == len(message) and (error == 0 or length == OUT_HEADER.size)
        return unique, -error, message[OUT_HEADER.size:]

    async def ask(self, opcode: int, inode: int, body: bytes = b"") -> tuple[int, bytes]:
        """A request and its answer: errno, body."""
        asked = self.send(opcode, inode, body)
        unique, error, answer = await self.receive()
        assert unique == asked
        return error, answer

    def is_silent(self) -> bool:
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()
