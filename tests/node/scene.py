"""A node without its process: the real storage, replica, interpreter and disk, on files in memory that tell what is
done to them, in which thread, and that wait where the test wants them to; a client on a real connection.

The node is the only one of its cluster, so its own copy is a majority and all that a client waits for is the disk.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.node.disk import Disk
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.codec import Bounds, Decoder, Encodings, Keys, Side
from dsreg.protocol.messages import Buffer, Command, CommandKind, Response
from dsreg.protocol.tags import pack_tag
from dsreg.register.assembly import new_heal, new_replica
from dsreg.register.effects import Reply
from dsreg.register.now import Now
from dsreg.register.quorum import majority_of
from dsreg.storage import Identity, StableStorage
from dsreg.testing.memory_files import MemoryFile, MemoryFiles
from dsreg.transport import Transport

KEYS = Keys(bytes(range(32)), bytes(range(64)))
SECTORS = 2048
# Far above what any step takes here: a test that reaches it has found something that does not go on.
PATIENCE_S = 20.0


class Watched:
    """An open file, as MemoryFile is one."""

    def __init__(self, files: WatchedFiles, name: str, file: MemoryFile) -> None:
        self._files, self._name, self._file = files, name, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)  # what is not watched

    def pread(self, length: int, offset: int) -> bytes:
        data = self._files.torn.pop(self._name, None) or self._file.pread(length, offset)
        self._files.pass_gate("read", self._name)
        return data

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        if ("write", self._name) not in self._files.gates:
            self._file.pwritev(buffers, offset)
        else:  # half of it, then it takes its time
            data = b"".join(buffers)
            self._file.pwritev([data[: len(data) // 2]], offset)
            self._files.pass_gate("write", self._name)
            self._file.pwritev([data[len(data) // 2 :]], offset + len(data) // 2)

    def punch(self, offset: int, length: int) -> bool:
        self._files.note(f"punched {self._name}")
        return self._file.punch(offset, length)

    def fdatasync(self) -> None:
        self._files.pass_gate("sync", self._name)
        self._file.fdatasync()
        self._files.note(f"synced {self._name}")


class WatchedFiles(MemoryFiles):
    """`seen`: what was done, with the name of the thread. `gates`: what waits until its gate is opened.
    `torn`: what the next read of the file gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self.gates: dict[tuple[str, str], threading.Event] = {}
        self.torn: dict[str, bytes] = {}
        self._waits = threading.Semaphore(0)

    def open(self, name: str, create: bool = False) -> MemoryFile:
        return Watched(self, name, super().open(name, create))  # type: ignore[return-value]  # it is what a File is

    def note(self, what: str) -> None:
        self.seen.append((what, threading.current_thread().name))

    def times(self, what: str) -> int:
        return sum(each == what for each, _ in self.seen)

    # --- gates ------------------------------------------------------------------------------------
    def shut(self, what: str, name: str) -> threading.Event:
        """From now on `what` ("read", "write" or "sync") waits, where it is done to the file of this name."""
        return self.gates.setdefault((what, name), threading.Event())

    def open_gate(self, what: str, name: str) -> None:
        self.gates.pop((what, name)).set()

    def pass_gate(self, what: str, name: str) -> None:
        gate = self.gates.get((what, name))
        if gate is not None:
            self._waits.release()
            assert gate.wait(PATIENCE_S), f"nobody has opened the gate for {what} of {name}"

    async def somebody_waits(self) -> None:
        """Wait until somebody stands before a gate."""
        await trio.to_thread.run_sync(lambda: self._waits.acquire(timeout=PATIENCE_S))


class Client:
    """The other end of a connection to the node."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._decoder = Decoder(KEYS, bounds=Bounds(SECTORS, frozenset()), side=Side.CLIENT, extended=True)
        self._answers: list[Response] = []

    async def answer(self) -> Response:
        while not self._answers:
            data = bytes(await self._stream.receive_some())
            assert data, "the connection is over"
            self._answers += [message for message in self._decoder.feed(data) if isinstance(message, Response)]
        return self._answers.pop(0)

    async def answers(self, count: int) -> dict[int, Response]:
        """So many, by their requests."""
        some = [await self.answer() for _ in range(count)]
        return {answer.request: answer for answer in some}


class Scene:
    """`log`: of syncs and of answers, in the order of happening."""

    def __init__(
        self, files: WatchedFiles | None = None, journal_bytes: int = MIN_JOURNAL_BYTES, ranks: tuple[int, ...] = (1,)
    ) -> None:
        self.unix_s = 0.0  # the machine thinks that it is 1970
        self.files = files or WatchedFiles()
        self.storage = StableStorage.open(self.files, Identity(bytes(16), 1, ranks, SECTORS), journal_bytes)
        replica = new_replica(1, majority_of(ranks), self.storage, uuid_prefix=7, jitter=lambda: 1.0)
        heal = new_heal(replica, majority_of(ranks), self.storage)
        self.interpreter = Interpreter(
            replica, heal, self.storage, Encodings(KEYS), trio.current_time, lambda: self.unix_s
        )
        self.disk = Disk(self.interpreter)
        mine, its = connected()
        self.transport = Transport(mine, "the client")
        self.connection = Connection(self.transport)
        self.client = Client(its)
        self._carry_out_answer = self.interpreter._carry[Reply]
        self.interpreter._carry[Reply] = self._answer
        self.files.seen.clear()

    def _answer(self, effect: Reply, now: Now) -> None:
        self.files.note("answered")
        self._carry_out_answer(effect, now)

    # --- what the client asks -----------------------------------------------------------------------
    def ask(self, *commands: Command) -> None:
        """They arrive, and their turn ends."""
        for command in commands:
            self.interpreter.command(self.connection, command)
        self.interpreter.end_turn()

    def store(self, request: int, first: int, count: int, ts: int, fill: int = 1) -> None:
        self.ask(store(request, first, count, ts, fill))

    def get(self, request: int, first: int, count: int) -> None:
        self.ask(Command(CommandKind.GET, request, first, count, extended=True, values=True))


def store(request: int, first: int, count: int, ts: int, fill: int = 1) -> Command:
    return Command(
        CommandKind.STORE, request, first, count, pack_tag(ts, 1) * count, bytes([fill]) * count * SECTOR_SIZE, True
    )


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[Scene]:
    """The disk works; at the end the storage is closed, as it is when a node stops."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.disk.run)
            nursery.start_soon(scene.transport.run_writer)
            yield scene
            nursery.cancel_scope.cancel()
    scene.transport.close()
    scene.storage.close()
