"""What the wire carries, as values. Every message covers a run of consecutive sectors (1..256);
the contract's single-sector messages are runs of length 1.

`first` is a sector index, `count` a number of sectors. `tags` is `count * 16` bytes, `data`
`count * 4096` bytes. `uuid` is the contract's message id (16 bytes), or b"" for an extension
message, which needs none: (rank, rid, type) names it. Layouts: docs/protocol.md.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from dsreg.constants import OWNER_ID_SIZE, OWNER_NAME_SIZE, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.address import Address
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed
from dsreg.protocol.configuration import Record
from dsreg.protocol.life import Life, Stage

Buffer = bytes | bytearray | memoryview
NO_MARKS: Final[Mapping[int, int]] = MappingProxyType({})


# In a greeting: the sender can seal the connection. It is sealed where both can.
FEATURE_SEALED = 1 << 8
# Likewise: the sender keeps lives: behind the greeting comes a LivesReport. A client that sets it wants to be told.
FEATURE_LIVES = 1 << 9
# Likewise, between nodes: the sender answers a DigestQuery; it accepts later lives of other nodes, and says so by
# Accepted.
FEATURE_DIGESTS, FEATURE_CLAIMS = 1 << 12, 1 << 13
# Likewise: the sender tells of addresses, behind each LivesReport. A client that sets it wants to be told.
FEATURE_ADDRESSES = 1 << 14
# Likewise: the sender keeps configurations, and tells which is in force, behind its first LivesReport and when it
# changes. A client that sets it wants to be told, and counts by what it is told.
FEATURE_CONFIGURATIONS = 1 << 15
# Likewise, between nodes: the sender answers a SumsQuery; between all, it understands zeros without their data; from a
# node to a client, it zeroes many chunks by one command; it says which chunks have no data.
FEATURE_SUMS, FEATURE_ZEROS, FEATURE_ZERO_CHUNKS, FEATURE_MAP = 1 << 16, 1 << 17, 1 << 18, 1 << 19


# Before Python 3.12 a member of an enumeration costs 30 times as much as a global name (`EnumType` has a __getattr__):
# a tenth of what is done in Python for a small request. So the modules that each message passes through have names of
# their own for the members that they ask for.
class Status(enum.IntEnum):
    OK = 0
    AUTH_FAILURE = 1
    INVALID_SECTOR_INDEX = 2
    STOPPING = 4  # extension only, as all below: the node is shutting down; ask another
    FENCED = 5  # a newer epoch is in force than that of the command
    REFUSED = 6  # not done, nothing changed: this node's own copy is damaged, or too much waits here; ask another
    UNSUPPORTED = 7  # no attachments while a node of the cluster speaks only the contract
    DISBELIEVED = 8  # this node does not take the epoch, or a tag; others may: ask another
    OVERTAKEN = 9  # of a write: a later one of the same attachment was there
    NO_SPACE = 10  # not done, nothing changed: the file system of this node has no room for it


class CommandKind(enum.IntEnum):
    READ = 1
    WRITE = 2
    TAG = 3  # extension: a majority's highest tags, plus one: the tags for a STORE to come
    STORE = 4  # extension: store `data` under tags that an earlier TAG named; idempotent
    GET = 5  # extension: this node's own durable copy, as it is
    PUT = 6  # extension: store `data` on this node alone, under a tag that the attachment chose; idempotent
    ATTACH = 7  # extension: who has attached the disk; or attach it, as far as this node is concerned
    ZERO = 8  # extension: as PUT, of zeros, to 2..1024 whole chunks
    MAP = 9  # extension: which of 1..32768 whole chunks have no data at this node: dsreg.protocol.extents


class Command(NamedTuple):
    """Of a client. `extended`: it came as a run command and is answered as one.

    `epoch`: the attachment that it belongs to, 0 for none. `values`: GET wants the data, not only the tags. ATTACH has
    no run (first = count = 0); it asks with epoch 0, and else attaches, for the `owner` (64 bytes). `alone`: a TAG is
    to be above this node's own copy, and it asks no other.

    The constructors below say what a command of each kind has. `extended` commands are all but those of the contract.
    """

    kind: CommandKind
    request: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes = b""  # STORE; PUT, where all are the same; ZERO, one for all
    data: Buffer = b""  # WRITE, STORE and PUT
    extended: bool = False
    epoch: int = 0
    values: bool = False
    owner: bytes = b""
    alone: bool = False

    @classmethod
    def read(cls, request: int, first: int, count: int = 1, *, extended: bool = False, epoch: int = 0) -> Command:
        return cls(CommandKind.READ, request, first, count, extended=extended, epoch=epoch)

    @classmethod
    def write(cls, request: int, first: int, data: Buffer) -> Command:
        """Of one sector; a node takes runs as well, of which nothing comes by the wire."""
        return cls(CommandKind.WRITE, request, first, len(data) // SECTOR_SIZE, data=data)

    @classmethod
    def tag(cls, request: int, first: int, count: int, *, alone: bool = False) -> Command:
        return cls(CommandKind.TAG, request, first, count, extended=True, alone=alone)

    @classmethod
    def store(cls, request: int, first: int, tags: bytes, data: Buffer, epoch: int = 0) -> Command:
        return cls(CommandKind.STORE, request, first, len(tags) // TAG_SIZE, tags, data, True, epoch)

    @classmethod
    def get(cls, request: int, first: int, count: int, epoch: int = 0, *, values: bool = False) -> Command:
        return cls(CommandKind.GET, request, first, count, extended=True, epoch=epoch, values=values)

    @classmethod
    def put(cls, request: int, first: int, tag: bytes, data: Buffer, epoch: int) -> Command:
        """All sectors are stored under one `tag`."""
        count = len(data) // SECTOR_SIZE
        return cls(CommandKind.PUT, request, first, count, tag * count, data, True, epoch)

    @classmethod
    def attach(cls, request: int, epoch: int, owner: bytes) -> Command:
        return cls(CommandKind.ATTACH, request, 0, 0, extended=True, epoch=epoch, owner=owner)


_LEFT_OUT = b"..."
# Bytes at the end of a name that are kept: ", process " and seven digits, and a little of what is before that.
_NAME_END = 20


def owner_of(identity: bytes, name: str) -> bytes:
    """Who attaches a disk: 16 random bytes, and a name for people, of which something in the middle may be left out: it
    ends with the number of a process, mostly, and half a number is another one."""
    assert len(identity) == OWNER_ID_SIZE
    # File names that are not UTF-8 have characters that cannot be encoded.
    text = name.encode(errors="backslashreplace")
    if len(text) > OWNER_NAME_SIZE:
        kept = text[:OWNER_NAME_SIZE - len(_LEFT_OUT) - _NAME_END], text[-_NAME_END:]
        text = _LEFT_OUT.join(part.decode(errors="ignore").encode() for part in kept)
    return identity + text.ljust(OWNER_NAME_SIZE, b"\0")


def name_of_owner(owner: bytes) -> str:
    return owner[OWNER_ID_SIZE:].rstrip(b"\0").decode(errors="replace")


class RefusedCommand(NamedTuple):
    """A command that must be answered with `status` and has no other effect."""

    status: Status
    kind: CommandKind
    request: int
    extended: bool = False


class Response(NamedTuple):
    """A node's answer to a command. READ carries `data`, TAG carries `tags`, GET both or `tags` alone. A READ for an
    attachment carries `tags` as well if that has to store what it has read under its own epoch.

    `epoch`: the one in force at the node. ATTACH carries the `owner` who has attached the disk in it (64 bytes), and
    `alive`: whether that one is connected to the node; `unsure`: it is not, but the node has not been up for long;
    `mixed`: a node of the cluster speaks only the contract. `counter`: the highest one of a write of that attachment
    that this node has. `believed`: the highest epoch that it would take now.
    """

    status: Status
    kind: CommandKind
    request: int
    tags: bytes = b""
    data: Buffer = b""
    extended: bool = False
    epoch: int = 0
    alive: bool = False
    unsure: bool = False
    mixed: bool = False
    counter: int = 0
    believed: int = 0
    owner: bytes = b""


class ReadProc(NamedTuple):
    """`epoch`: who answers has promised to store nothing of an older one any more."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    values: bool = True  # False: tags are enough (the contract's READ_PROC always wants values)
    uuid: bytes = b""
    epoch: int = 0


class Value(NamedTuple):
    """`epoch`: the one in force at the node that answers."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer | None  # None: tags only
    uuid: bytes = b""
    epoch: int = 0


class WriteProc(NamedTuple):
    """All `tags` are of one epoch, under which this is stored."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer
    uuid: bytes = b""


class Ack(NamedTuple):
    """`overtaken`: instead of a write of an attachment a later one of the same was there, and is durable."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    uuid: bytes = b""
    overtaken: bool = False


class Fenced(NamedTuple):
    """Instead of an ACK: nothing was stored, as `epoch`, in force at `rank`, is newer than that of the tags."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    epoch: int
    uuid: bytes = b""  # the contract knows no such answer


class DigestQuery(NamedTuple):
    """Which tags has the node in the chunks [first, first + count)? See dsreg.register.heal; `rank` asks."""

    rank: int
    rid: int
    first: int  # a chunk: of MAX_RUN_SECTORS sectors, the last one of fewer perhaps
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs


class Digests(NamedTuple):
    """The answer, about the chunks [first, first + count). `digests`: by chunk, 16 bytes each; a chunk that is not in
    it was never written at `rank`, nor was one from first + count up to `following`; but if the last chunk of `count`
    is lost (16 bytes ff), then so are those up to there."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    following: int
    digests: dict[int, bytes]


class SumsQuery(NamedTuple):
    """Under which tags, and with which checksums, does the node have these sectors? See dsreg.register.scrub; `rank`
    asks."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs


class Sums(NamedTuple):
    """The answer: the durable `tags`, and `crcs`: the CRC-32 of each value, 4 bytes a sector. Without a meaning where
    the tag is of no write; zeros, both, where the tag is lost."""

    rank: int
    rid: int
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    crcs: bytes


class Receipt(NamedTuple):
    """`rank` acknowledges the message `uuid` of contract type `type` (03..06)."""

    rank: int
    type: int
    uuid: bytes


class Hello(NamedTuple):
    """The greeting that opens the extension on a connection, and the answer to it.

    `rank` is 0 for a client. `answer` is True for the accepting side's reply. `features`: in bits 0..7 the
    `cluster_size`; the bits FEATURE_... of what the sender can do; the others are 0.
    """

    rank: int
    answer: bool
    cluster: bytes  # 16 bytes
    incarnation: int
    sectors: int
    features: int = 0
    version: int = 1

    @property
    def cluster_size(self) -> int:
        """Of how many nodes the cluster is; 0 if the sender does not say."""
        return self.features & 0xFF


class LivesReport(NamedTuple):
    """What a node says of the directories behind the ranks, its own and those that it knows (`known`: all but its own).

    `rank` is the sender's between nodes, 0 from node to client. `answer`: from the accepting side of the connection.
    `mark`: of the sender's directory, durable; `marks`: the highest that it has heard of each life that it knows. Not
    told to clients. See dsreg.register.marks.
    """

    rank: int
    answer: bool
    stage: Stage
    own: Life
    known: dict[int, Life]
    mark: int = 0
    marks: Mapping[int, int] = NO_MARKS


class Accepted(NamedTuple):
    """The node `rank` has accepted `life` of the node `claimant`: nothing that this one has said in an earlier life
    counts at it any more. `own`: its own life. `epoch`, `owner`: what it has promised. `incarnation`: none of the
    claimant above it was heard of, in any life; 0: none was. `record`: which configuration it knows, and how it has
    voted; None: the sender, or the claimant, is of a version that keeps none."""

    rank: int
    claimant: int
    life: Life
    own: Life
    epoch: int
    owner: bytes
    incarnation: int
    record: Record | None = None


class AddressReport(NamedTuple):
    """Where the nodes are, as far as a node knows, itself among them. `rank`, `answer`: see LivesReport."""

    rank: int
    answer: bool
    addresses: dict[int, Address]


class Seal(NamedTuple):
    """Of the handshake that seals the connection: dsreg.protocol.sealed. `rank` is 0 between client and node."""

    rank: int
    answer: bool
    content: bytes


class StatusRequest(NamedTuple):
    request: int


class StatusReport(NamedTuple):
    """`body` is UTF-8 JSON, an object."""

    request: int
    body: bytes


class ScrubRequest(NamedTuple):
    """Of a client: verify all of your copy, now."""

    request: int


class ScrubBegun(NamedTuple):
    """The answer: the pass of this `number`, counted from the start of the node, will do it."""

    request: int
    number: int


# Of healing: dsreg.register.heal answers and asks.
HealMessage = DigestQuery | Digests
# Of scrubbing: dsreg.register.scrub asks and answers.
ScrubMessage = SumsQuery | Sums
def is_of_contract(message: ReadProc | Value | WriteProc | Ack | Fenced) -> bool:
    """Whether it is in the language of the contract: one sector, with an id, without epochs. Else of the extension."""
    return message.uuid != b""


PeerMessage = ReadProc | Value | WriteProc | Ack | Fenced
Message = (
    Command | RefusedCommand | Response | ReadProc | Value | WriteProc | Ack | Fenced
    | HealMessage | ScrubMessage | Receipt | Hello | Seal | LivesReport | Accepted | AddressReport
    | ConfigurationReport | Proposed | Answered | StatusRequest | StatusReport | ScrubRequest | ScrubBegun
)
