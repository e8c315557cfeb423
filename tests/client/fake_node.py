"""A cluster reduced to what a client sees of it: real sockets and the real codec, sectors in one dict.

The nodes share their sectors and who has attached the disk, as nodes with a quorum do. `Behaviour` says how a node
misbehaves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from dsreg.constants import NO_OWNER, SECTOR_SIZE, TAG_SIZE, ZERO_SECTOR, ZERO_TAG
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Side
from dsreg.protocol.messages import (
    Command,
    CommandKind,
    Hello,
    Message,
    RefusedCommand,
    Response,
    Status,
    StatusReport,
    StatusRequest,
)
from dsreg.protocol.tags import MAX_EPOCH, highest_ts, is_restamped, pack_tag, restamped, ts_of
from tests.processes.cluster import own_host

KEYS = Keys(bytes(range(32)), bytes(range(64)))


@dataclasses.dataclass(frozen=True)
class Address:
    rank: int
    host: str
    port: int


@dataclasses.dataclass(frozen=True)
class Config:
    sectors: int
    client_key: bytes
    nodes: tuple[Address, ...]


@dataclasses.dataclass
class Behaviour:
    """How one node behaves; may be changed at any moment."""

    greets: bool = True  # answers a HELLO
    deaf_to: frozenset[CommandKind] = frozenset()  # takes these commands and neither does nor answers them
    mute_to: frozenset[CommandKind] = frozenset()  # does these and does not answer
    refuses: dict[CommandKind, Status] = dataclasses.field(default_factory=dict)
    cuts_at: frozenset[CommandKind] = frozenset()  # does these, and closes the connection instead of answering
    answers_status: bool = True
    silent: int = 0  # so many first connections bring nothing at all
    late_s: float = 0.0  # after which a HELLO is answered
    spoils: int = 0  # so many first connections bring nothing but damaged frames


class Disk:
    """What all nodes share: the tag and the value of each sector, the epoch and who has it."""

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors
        self.content: dict[int, tuple[bytes, bytes]] = {}
        self.named = 0  # highest ts that any node has named: never twice
        self.epoch, self.owner = 0, NO_OWNER
        self.owners: set[trio.SocketStream] = set()  # connections that have attached the disk in this epoch

    def read(self, first: int, count: int) -> bytes:
        return b"".join(self.content.get(s, (ZERO_TAG, ZERO_SECTOR))[1] for s in range(first, first + count))

    def tags(self, first: int, count: int) -> bytes:
        return b"".join(self.content.get(s, (ZERO_TAG, b""))[0] for s in range(first, first + count))

    def name(self, rank: int, count: int) -> bytes:
        self.named = max(self.named, ts_of(self.epoch, 0)) + 1
        return pack_tag(self.named, rank, 0, self.epoch) * count

    def store(self, first: int, count: int, tags: bytes, data: bytes) -> None:
        self.named = max(self.named, highest_ts(tags))
        tags = restamped(tags, self.epoch)
        for index in range(count):
            tag = tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]
            if tag > self.content.get(first + index, (ZERO_TAG, b""))[0]:
                self.content[first + index] = tag, data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]

    def attach(self, stream: trio.SocketStream, command: Command) -> Response:
        answer = Response(Status.OK, CommandKind.ATTACH, command.request, extended=True)
        if command.epoch > self.epoch:
            self.epoch, self.owner, self.owners = command.epoch, command.owner, set()
        if command.epoch and (command.epoch, command.owner) != (self.epoch, self.owner):
            answer = answer._replace(status=Status.FENCED)
        elif command.epoch:
            self.owners.add(stream)
        owner = self.owner if answer.status is Status.OK else b""
        return answer._replace(epoch=self.epoch, owner=owner, alive=bool(owner and self.owners), believed=MAX_EPOCH)


class FakeNode:
    """Serve on a loopback port. `log` has the commands received, `connections` how many were ever made."""

    def __init__(self, rank: int, disk: Disk, host: str, keys: Keys = KEYS) -> None:
        self.rank, self.disk, self.host, self.keys = rank, disk, host, keys
        self.nodes = 0  # what it says of how many the cluster is
        self.behaviour = Behaviour()
        self.log: list[Command] = []
        self.connections = 0
        self.open_connections = 0
        self.held: list[tuple[trio.SocketStream, Command]] = []
        self.holds = False  # keeps commands in `held` until release()
        self.port = 0
        self._encoder = Encoder(keys)
        self._sending = trio.Lock()
        self._scope: trio.CancelScope | None = None
        self._changed = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stop(). The port stays the same when it serves again."""
        with trio.CancelScope() as self._scope:
            listeners = await trio.open_tcp_listeners(self.port, host=self.host)
            self.port = listeners[0].socket.getsockname()[1]
            await trio.serve_listeners(self._connection, listeners, task_status=task_status)

    def stop(self) -> None:
        """Close the port and all connections."""
        assert self._scope is not None
        self._scope.cancel()

    async def release(self) -> None:
        """Do and answer what was held; hold no more."""
        self.holds = False
        held, self.held = self.held, []
        for stream, command in held:
            try:
                await self._command(stream, command)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                continue

    async def until(self, count: int, kind: CommandKind | None = None) -> None:
        """Until this many commands (of the kind) have been received in all."""
        while sum(kind in (None, command.kind) for command in self.log) < count:
            await self._changed.wait()

    async def until_connections(self, count: int) -> None:
        while self.connections < count:
            await self._changed.wait()

    async def until_connections_end(self) -> None:
        while self.open_connections:
            await self._changed.wait()

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open_connections += 1
        self._tell_change()
        decoder = Decoder(
            self.keys, bounds=Bounds(self.disk.sectors, frozenset(range(1, 255))), side=Side.NODE, extended=True
        )
        try:
            async for data in stream:
                for message in decoder.feed(bytes(data)):
                    if not await self._message(stream, message):
                        return
        except trio.BrokenResourceError:
            return
        finally:
            self.disk.owners.discard(stream)
            self.open_connections -= 1
            self._tell_change()

    async def _message(self, stream: trio.SocketStream, message: Message) -> bool:
        if isinstance(message, RefusedCommand):
            await self._send(stream, message)
        elif isinstance(message, Hello):
            if self.behaviour.late_s:
                await trio.sleep(self.behaviour.late_s)
            if self.behaviour.greets:
                await self._send(stream, Hello(0, True, bytes(16), 1, self.disk.sectors, self.nodes))
        elif isinstance(message, StatusRequest):
            if self.behaviour.answers_status:
                body = json.dumps({"rank": self.rank}).encode()
                await self._send(stream, StatusReport(message.request, body))
        elif isinstance(message, Command):
            self.log.append(message)
            self._tell_change()
            if self.holds:
                self.held.append((stream, message))
                return True
            return await self._command(stream, message)
        return True

    async def _command(self, stream: trio.SocketStream, command: Command) -> bool:
        kind, behaviour = command.kind, self.behaviour
        if kind in behaviour.deaf_to:
            return True
        if kind in behaviour.refuses:
            await self._send(stream, Response(behaviour.refuses[kind], kind, command.request, extended=True))
            return True
        answer = self.disk.attach(stream, command) if kind is CommandKind.ATTACH else self._do(command)
        if kind in behaviour.cuts_at:
            await stream.aclose()
            return False
        if kind not in behaviour.mute_to:
            await self._send(stream, answer)
        return True

    def _do(self, command: Command) -> Response:
        kind, request, first, count, tags, data, extended, epoch, values, *_ = command
        disk = self.disk
        answer = Response(Status.OK, kind, request, extended=extended, epoch=disk.epoch)
        if epoch and epoch < disk.epoch:
            return answer._replace(status=Status.FENCED)
        if kind in (CommandKind.READ, CommandKind.GET) and (kind is CommandKind.READ or values):
            answer = answer._replace(data=disk.read(first, count))
        found = disk.tags(first, count)
        if kind is CommandKind.GET or kind is CommandKind.READ and epoch and not is_restamped(found, epoch):
            answer = answer._replace(tags=found)
        elif kind is CommandKind.TAG:
            answer = answer._replace(tags=disk.name(self.rank, count))
        elif kind is not CommandKind.READ:
            disk.store(first, count, tags, data)
        return answer

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _send(self, stream: trio.SocketStream, message: Message) -> None:
        frame = b"".join(self._encoder.encode(message))
        if self.connections <= self.behaviour.silent:
            return
        if self.connections <= self.behaviour.spoils:
            frame = frame[:-1] + bytes([frame[-1] ^ 1])
        async with self._sending:  # release() sends beside the task of the connection
            await stream.send_all(frame)


class FakeCluster:
    def __init__(self, nursery: trio.Nursery, nodes: list[FakeNode]) -> None:
        self._nursery = nursery
        self.nodes = nodes
        self.disk = nodes[0].disk

    @property
    def config(self) -> Config:
        addresses = tuple(Address(node.rank, node.host, node.port) for node in self.nodes)
        return Config(self.disk.sectors, KEYS.client, addresses)

    async def restart(self, node: FakeNode) -> None:
        await self._nursery.start(node.serve)


@asynccontextmanager
async def cluster(count: int = 3, sectors: int = 4096, keys: Keys = KEYS) -> AsyncIterator[FakeCluster]:
    disk, host = Disk(sectors), own_host()
    nodes = [FakeNode(rank, disk, host, keys) for rank in range(1, count + 1)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.serve)
        yield FakeCluster(nursery, nodes)
        nursery.cancel_scope.cancel()
