"""What the replica asks the world to do, as values; `dsreg.node.interpreter` is the one that does it.

The crash-recovery contract stands in `then`:

    Persist    store durably; carry out `then` once the value is on stable storage and not before. If
               the store is refused nothing of it was stored, `then` is dropped, and `Replica.refused`
               is called instead.
    Reserve    durably promise that tags up to `ts` may have been named or chosen; then carry out `then`. What
               is persisted later is durable later, too.
    Fence      durably promise to store nothing of an epoch below `epoch`, nor for another owner in it, once all that
               is being stored has been decided on; then carry out `then`.
    Again      (in a `then`) call `Replica.again`: what had to wait for the Fence or the Reserve.
    Durable    (in a `then`) tell `Replica.durable` that what it belongs to is on stable storage.
    Load       read this node's own copy, then call `Replica.loaded`.
    Send       hand a message to the link to a node. A question is dropped if the link is down, or if its
               operation is over before the link has room: RegisterClient remembers what must arrive.
    Answer     hand a message to the connection on which the question came. Dropped if it is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.protocol.messages import (
    Ack,
    Buffer,
    Command,
    Fenced,
    PeerMessage,
    ReadProc,
    Receipt,
    Response,
    Value,
    WriteProc,
)

# A connection is whatever the interpreter uses to find it again.
Connection = object


class RepeatKey(NamedTuple):
    """Identifies a contract message of a peer: see `dsreg.register.repeats`."""

    rank: int
    uuid: bytes
    rid: int
    first: int
    tags: bytes


class NamedFor(NamedTuple):
    """`tags` are promised, for the operation `rid` of this node."""

    rid: int
    tags: bytes


class Durable(NamedTuple):
    what: Ack | RepeatKey | NamedFor


class Renew(NamedTuple):
    """The operation `rid` of this node has to go on under a newer epoch."""

    rid: int


class Start(NamedTuple):
    """The operation of this node that waits to start; `operation` is the replica's own."""

    operation: object


class StoreOwn(NamedTuple):
    """The operation `rid` of this node has to store its own copy, unless a newer epoch was promised meanwhile."""

    rid: int


class Again(NamedTuple):
    what: ReadProc | WriteProc | Command | Renew | Start | StoreOwn
    connection: Connection | None = None


class Load(NamedTuple):
    """`question`: whom the value is for; from this node itself if its rank is this node's. A Command is a GET.
    `epoch`: in force when the load began."""

    question: ReadProc | Command
    origin: Connection | None = None
    epoch: int = 0


class Send(NamedTuple):
    rank: int
    message: PeerMessage | Receipt


class Answer(NamedTuple):
    """`completes`: the command that is over with this answer, if it is one to a client."""

    connection: Connection
    message: Response | Value | Ack | Fenced
    completes: Command | None = None


class Persist(NamedTuple):
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer
    then: tuple[Durable | Send | Answer, ...]
    repair: bool = False
    owner: int | RepeatKey | None = None  # own operation's rid, or the peer message it is for


class Reserve(NamedTuple):
    ts: int
    then: tuple[Answer | Durable | Again, ...]


class Fence(NamedTuple):
    """`owner`: 64 bytes, NO_OWNER where nothing is known of it."""

    epoch: int
    owner: bytes
    then: tuple[Again, ...]


Effect = Persist | Reserve | Fence | Durable | Again | Load | Send | Answer
