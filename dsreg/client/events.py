"""Events and effects of the client's core: what happens to it, and what it wants done.

Times, sockets and waiting callers are the shell's; the core (`dsreg.client.core`) sees these values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dsreg.errors import ClientError
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Proposed
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.messages import Buffer, Command, Message, ScrubRequest, StatusRequest


# --- events -----------------------------------------------------------------------------------
class Start(NamedTuple):
    """Begin an operation on the run of `sectors` (1..256) from `first`. `data`: what to write, None for a read.
    `force`: write even if the disk is attached by another client that is alive. `zero`: write zeros, to many whole
    chunks (dsreg.protocol.zeros.are_chunks), without `data`: it may end by Split. `maps`: ask which whole chunks have
    no data (dsreg.protocol.extents.can_be_mapped): it ends with what MapTally.holes gives.

    `operation` is the caller's number for it, not in use by another. The caller sees to it that running
    operations do not overlap.
    """

    operation: int
    first: int
    sectors: int
    data: bytes | None = None
    force: bool = False
    zero: bool = False
    maps: bool = False


class Abandon(NamedTuple):
    """Nobody waits for the operation any more. It is dropped, unless a STORE of it may be under way: then it
    runs to its end, so that no later write to the same sectors can be overtaken by it, and no later read decides
    otherwise than this one about what older attachments left."""

    operation: int


class Connected(NamedTuple):
    """The node has answered the HELLO. `nodes`: of how many nodes it says the cluster is, 0 if it does not. `zeroes`:
    it zeroes many chunks by one command; `maps`: it says which have no data."""

    rank: int
    nodes: int = 0
    zeroes: bool = False
    maps: bool = False


class Disconnected(NamedTuple):
    """The connection is gone, or the attempt to make one has failed. `contract_only`: because the node, which answers,
    speaks nothing but the contract."""

    rank: int
    contract_only: bool = False


class Attached(NamedTuple):
    """An effect: the disk is this client's, in `epoch`."""

    epoch: int


class Waits(NamedTuple):
    """An effect: the disk is not attached yet, and this is what for. `needs_help`: it may take long, or for ever."""

    text: str
    needs_help: bool


class NotAttached(NamedTuple):
    """An effect: the disk is not this client's, or no longer. Every operation fails with `error` from now on."""

    error: ClientError


class KeyRefused(NamedTuple):
    """The attempt to connect has failed because the node has another client key."""

    rank: int


class OtherDisk(NamedTuple):
    """The attempt to connect has failed because the node has a disk of `sectors` sectors, not of the `expected`."""

    rank: int
    sectors: int
    expected: int


class NotSealed(NamedTuple):
    """The attempt to connect has failed because the node does not seal connections, and only sealed ones will do."""

    rank: int


class Received(NamedTuple):
    """Bytes have come from the node, and with them these messages (perhaps none is complete yet)."""

    rank: int
    messages: Sequence[Message] = ()


class Tick(NamedTuple):
    """Time has passed."""


class Close(NamedTuple):
    """The client ends; so do all operations."""


Refusal = KeyRefused | OtherDisk | NotSealed
Event = Start | Abandon | Connected | Disconnected | Refusal | Received | Tick | Close


# --- effects ----------------------------------------------------------------------------------
class Send(NamedTuple):
    rank: int
    message: Command | StatusRequest | ScrubRequest | Proposed


class Withdraw(NamedTuple):
    """The command is no longer of use: if it has not been sent yet, don't."""

    rank: int
    request: int


class Drop(NamedTuple):
    """Close the connection, and make a new one."""

    rank: int


class Completed(NamedTuple):
    """`data`: what was read, b"" for a write."""

    operation: int
    data: Buffer = b""


class Failed(NamedTuple):
    operation: int
    error: ClientError


class Dropped(NamedTuple):
    """An abandoned operation has ended, and certainly did not happen."""

    operation: int


class Split(NamedTuple):
    """The zeroing has ended; in part it may have happened if it `is_exposed`. It is to be done as writes of zeros,
    chunk by chunk; nothing else may come before these."""

    operation: int
    is_exposed: bool


class Moved(NamedTuple):
    """The node has said that it is at this address. `is_first`: nothing had been heard of that before."""

    rank: int
    place: Place
    is_first: bool


class Found(NamedTuple):
    """There is a member that was not known, and it has said that it is at this address."""

    rank: int
    place: Place


class Gone(NamedTuple):
    """A node that was found has left: it is not to be connected to any more."""

    rank: int


class Inform(NamedTuple):
    """The node does not know yet that this configuration was chosen."""

    rank: int
    configuration: Configuration


class Sized(NamedTuple):
    """The disk has so many sectors, as the latest configuration that a node has told says: for the first time, or
    another number than before."""

    sectors: int


class NotCounted(NamedTuple):
    """The node is neither asked nor counted, for this reason; "": it is again."""

    rank: int
    fault: str


Effect = (
    Moved | Found | Gone | Inform | Sized | NotCounted | Send | Withdraw | Drop | Completed | Failed | Dropped
    | Split | Attached | Waits | NotAttached
)
