"""What the wire carries, as values. Every message covers a run of consecutive sectors (1..256);
the contract's single-sector messages are runs of length 1.

`first` is a sector index, `count` a number of sectors. `tags` is `count * 16` bytes, `data`
`count * 4096` bytes. `uuid` is the contract's message id (16 bytes), or b"" for an extension
message, which needs none: (rank, rid, type) names it. Layouts: docs/protocol.md.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview


class Status(enum.IntEnum):
    OK = 0
    AUTH_FAILURE = 1
    INVALID_SECTOR_INDEX = 2
    STOPPING = 4  # extension only: the node is shutting down; ask another


class CommandKind(enum.IntEnum):
    READ = 1
    WRITE = 2
    TAG = 3  # extension: a majority's highest tags, plus one: the tags for a STORE to come
    STORE = 4  # extension: store `data` under tags that an earlier TAG named; idempotent


class Command(NamedTuple):
    """A client's command. `extended`: it came as a run command and is answered as one."""

    kind: CommandKind
    request: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes = b""  # STORE only
    data: bytes = b""  # WRITE and STORE
    extended: bool = False


class RefusedCommand(NamedTuple):
    """A command that must be answered with `status` and has no other effect."""

    status: Status
    kind: CommandKind
    request: int
    extended: bool = False


class Response(NamedTuple):
    """A node's answer to a command. READ carries `data`, TAG carries `tags`."""

    status: Status
    kind: CommandKind
    request: int
    tags: bytes = b""
    data: Buffer = b""
    extended: bool = False


class ReadProc(NamedTuple):
    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    values: bool = True  # False: tags are enough (the contract's READ_PROC always wants values)
    uuid: bytes = b""


class Value(NamedTuple):
    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer | None  # None: tags only
    uuid: bytes = b""


class WriteProc(NamedTuple):
    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer
    uuid: bytes = b""


class Ack(NamedTuple):
    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    uuid: bytes = b""


class Receipt(NamedTuple):
    """`rank` acknowledges the message `uuid` of contract type `type` (03..06)."""

    rank: int
    type: int
    uuid: bytes


class Hello(NamedTuple):
    """The greeting that opens the extension on a connection, and the answer to it.

    `rank` is 0 for a client. `answer` is True for the accepting side's reply.
    """

    rank: int
    answer: bool
    cluster: bytes  # 16 bytes
    incarnation: int
    sectors: int
    features: int = 0
    version: int = 1


class StatusRequest(NamedTuple):
    request: int


class StatusReport(NamedTuple):
    """`body` is UTF-8 JSON, an object."""

    request: int
    body: bytes


PeerMessage = ReadProc | Value | WriteProc | Ack
Message = (
    Command | RefusedCommand | Response | ReadProc | Value | WriteProc | Ack
    | Receipt | Hello | StatusRequest | StatusReport
)
