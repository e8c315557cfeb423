"""Effects: what the replica wants done, as values; `dsreg.node.interpreter` carries them out.

The crash-recovery contract stands in `then`:

    Persist    store durably; carry out `then` once the value is on stable storage and not before. If
               the store is refused nothing of it was stored, `then` is dropped, and `Replica.refused`
               is called instead.
    Adopt      store a copy of another node, under its tags, as far as they are above those here; then call
               `Heal.adopted`. It is of no operation, and nobody is told.
    Reserve    durably promise that tags up to `ts` may have been named or chosen; then carry out `then`. What
               is persisted later is durable later, too.
    Fence      durably promise to store nothing of an epoch below `epoch`, nor for another owner in it, once all that
               is being stored has been decided on; then carry out `then`.
    Again      (in a `then`) call `Replica.again`: what had to wait for the Fence or the Reserve.
    Durable    (in a `then`) tell `Replica.durable` that what it belongs to is on stable storage.
    Load       read this node's own copy, then call `Replica.loaded`.
    Verify     read this node's own copy of the run, past all caches, then call `Scrub.verified`.
    Repair     have `Heal` take what is lost here of these sectors from who has it.
    Tell       hand a message to the link to a node. A question is dropped if the link is down, or if its
               operation is over before the link has room: RegisterClient remembers what must arrive.
    Reply      hand a message to the connection on which the question came. Dropped if it is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.protocol.messages import (
    Ack,
    Buffer,
    Command,
    DigestQuery,
    Digests,
    Fenced,
    PeerMessage,
    ReadProc,
    Receipt,
    Response,
    Sums,
    SumsQuery,
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


class StartExecution(NamedTuple):
    """What waits to start at this node; `execution` is the coordinator's own."""

    execution: object


class StoreOwnCopy(NamedTuple):
    """The operation `rid` of this node has to store its own copy, unless a newer epoch was promised meanwhile."""

    rid: int


class Again(NamedTuple):
    what: ReadProc | WriteProc | Command | Renew | StartExecution | StoreOwnCopy
    connection: Connection | None = None


class Load(NamedTuple):
    """`question`: whom the value is for; from this node itself if its rank is this node's. A Command is a GET.
    `epoch`: in force when the load began."""

    question: ReadProc | Command
    origin: Connection | None = None
    epoch: int = 0


class Verify(NamedTuple):
    """A run within one chunk."""

    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs


class Repair(NamedTuple):
    sectors: tuple[int, ...]


class Tell(NamedTuple):
    rank: int
    message: PeerMessage | DigestQuery | SumsQuery | Receipt


class Reply(NamedTuple):
    """`completes`: the command that is over with this answer, if it is one to a client."""

    connection: Connection
    message: Response | Value | Ack | Fenced | Digests | Sums
    completes: Command | None = None


class OwnCopy(NamedTuple):
    """Of an operation of this node, `rid`."""

    rid: int


class ClientOrder(NamedTuple):
    """Of a PUT of a client, which is answered on this connection."""

    connection: Connection
    command: Command


# What a Persist is for, to be told if that is refused; None: a WRITE_PROC of the extension, which is sent again.
Origin = OwnCopy | RepeatKey | ClientOrder | None


class Persist(NamedTuple):
    """Without `data` it is of zeros, over whole chunks, and `tags` is the one tag of all."""

    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer
    then: tuple[Durable | Tell | Reply, ...]
    repair: bool = False
    origin: Origin = None


class Adopt(NamedTuple):
    """`rid`: the question of dsreg.register.heal that this is the answer to."""

    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    tags: bytes
    data: Buffer
    rid: int
    repair: bool = False


class Reserve(NamedTuple):
    ts: int
    then: tuple[Reply | Durable | Again | Adopt, ...]


class Fence(NamedTuple):
    """`owner`: 64 bytes, NO_OWNER where nothing is known of it."""

    epoch: int
    owner: bytes
    then: tuple[Again, ...]


Effect = Persist | Adopt | Reserve | Fence | Durable | Again | Load | Verify | Repair | Tell | Reply
