"""An operation of the client, and its phases: what it waits for is one value, of the types below.

    WaitsForAttachment -> Counted | Delegated | WaitsForNode
    Counted            -> Delegated | WaitsForNode        no majority answers, or not in the same way
    Delegated          -> WaitsForClearance | Delegated | WaitsForNode
    WaitsForClearance  -> Delegated | WaitsForNode
    any                -> Ended
"""

from __future__ import annotations

import dataclasses

from dsreg.client.quorum import Tally
from dsreg.errors import Outcome
from dsreg.protocol.messages import Command


# --- phases -----------------------------------------------------------------------------------
class WaitsForAttachment:
    """The disk is not attached yet."""

    __slots__ = ()


@dataclasses.dataclass(slots=True, eq=False)
class Counted:
    """A GET, PUT, ZERO or MAP is at several nodes, and the client counts the majority. `command`: a GET may have
    gone to one of them with `values`."""

    command: Command
    tally: Tally
    started_s: float
    deadline_s: float
    sent: dict[int, float] = dataclasses.field(default_factory=dict)  # rank -> when; not refused, link not broken
    refusals: int = 0  # for its HMAC


@dataclasses.dataclass(slots=True, eq=False)
class Delegated:
    """A command is at one node, which sees to the majority; at others as well where it did not answer in time."""

    command: Command
    started_s: float
    deadline_s: float
    attempt_s: float  # from one deadline to the next
    sent: dict[int, float] = dataclasses.field(default_factory=dict)  # rank -> when; not refused, link not broken
    last_rank: int = 0  # where it was sent last; 0: nowhere yet
    refusals: int = 0  # for its HMAC


@dataclasses.dataclass(slots=True, eq=False)
class WaitsForNode:
    """No node can be asked. `step`: what is sent as soon as one can be; it is at no node."""

    step: Delegated


@dataclasses.dataclass(slots=True, eq=False)
class WaitsForClearance:
    """A write waits until it is known whether another client has the disk. `tags`: what it will be stored under;
    `epoch`: theirs."""

    tags: bytes
    epoch: int


class Ended:
    """The caller has been told."""

    __slots__ = ()


UnderWay = Counted | Delegated
Phase = WaitsForAttachment | Counted | Delegated | WaitsForNode | WaitsForClearance | Ended
WAITS_FOR_ATTACHMENT = WaitsForAttachment()
ENDED = Ended()


# --- the operation ----------------------------------------------------------------------------
@dataclasses.dataclass(slots=True, eq=False)
class Operation:
    """What outlives the phases. `data`: to write; or what was read and has to be stored under `epoch`, that of the
    attachment, 0 for none. `home`: the index of the node to prefer. `force`: a write that does not ask whether the disk
    is attached."""

    operation: int
    first: int
    count: int
    data: bytes | None
    home: int
    is_read: bool
    force: bool = False
    zero: bool = False  # without data: see Start
    maps: bool = False  # a read of no values
    epoch: int = 0
    phase: Phase = WAITS_FOR_ATTACHMENT
    disbelief: int = 0  # mask of the ranks that do not take its epoch or its tag
    exposures: int = 0  # STORE and PUT commands sent whose effect is not known to be none

    @property
    def outcome(self) -> Outcome:
        changes = self.exposures and not self.is_read  # a read changes no value
        return Outcome.MAY_HAVE_HAPPENED if changes else Outcome.DID_NOT_HAPPEN
