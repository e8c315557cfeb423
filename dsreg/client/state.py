"""What the client's core remembers of each node and of each operation."""

from __future__ import annotations

import dataclasses

from dsreg.client.events import Refusal
from dsreg.client.limits import ATTEMPT_FIRST_S, AVOID_FIRST_S, AVOID_MAX_S, MAX_LAGGING, MAX_LAGGING_BYTES
from dsreg.client.quorum import Quorum
from dsreg.errors import Outcome
from dsreg.protocol.messages import Command

NEVER = float("-inf")


@dataclasses.dataclass(slots=True)
class Counters:
    """Since the start of the client. `retries`: commands sent again, anywhere. `failovers`: those of them that
    went to another node. `late_answers`: answers to what was already settled. `reconnects`: connections made
    after the first one of each node. `quorums`: operations whose majority the client counted itself, `coordinated`:
    those that it left to a node."""

    retries: int = 0
    failovers: int = 0
    late_answers: int = 0
    reconnects: int = 0
    quorums: int = 0
    coordinated: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    rank: int
    index: int  # in the ring
    up: bool = False
    stopping: bool = False
    barred: bool = False  # not to be asked or counted: see Members
    tried: bool = False
    refusal: Refusal | None = None
    owed: dict[int, None] = dataclasses.field(default_factory=dict)  # requests; in order, so that runs repeat
    # PUTs that are done at a majority without this node: request -> bytes.
    lagging: dict[int, int] = dataclasses.field(default_factory=dict)
    lagging_bytes: int = 0
    silent_since_s: float | None = None  # None: owes nothing, or has been heard since
    probed: bool = False
    full_s: float = NEVER  # when it last said that it has no room for new data
    answered_s: float = NEVER  # when it last answered a command that was still open
    avoided_until_s: float = NEVER
    told_again_s: float = NEVER  # when it was told once more whose the disk is
    avoid_s: float = AVOID_FIRST_S

    @property
    def usable(self) -> bool:
        return self.up and not self.stopping and not self.barred

    def avoid(self, now_s: float) -> None:
        if self.avoided_until_s <= now_s:
            self.avoided_until_s = now_s + self.avoid_s
            self.avoid_s = min(2 * self.avoid_s, AVOID_MAX_S)

    def answered(self, now_s: float) -> None:
        self.answered_s = now_s
        self.avoided_until_s = NEVER
        self.avoid_s = AVOID_FIRST_S

    def lag(self, request: int, size: int) -> list[int]:
        """This node is behind with a PUT. Gives the PUTs that it is spared, as it is too far behind."""
        self.lagging[request] = size
        self.lagging_bytes += size
        spared = []
        while len(self.lagging) > MAX_LAGGING or self.lagging_bytes > MAX_LAGGING_BYTES:
            oldest = next(iter(self.lagging))
            self.catch_up(oldest)
            spared.append(oldest)
        return spared

    def catch_up(self, request: int) -> bool:
        """Whether the request was one of those."""
        size = self.lagging.pop(request, None)
        self.lagging_bytes -= size or 0
        return size is not None

    def lose(self) -> list[int]:
        """The connection is gone: what this node still owed."""
        owed, self.owed = list(self.owed), {}
        self.up = self.probed = False
        self.silent_since_s = None
        self.lagging.clear()
        self.lagging_bytes = 0
        return owed


@dataclasses.dataclass(slots=True, eq=False)
class Operation:
    operation: int
    first: int
    count: int
    data: bytes | None  # to write; or that was read and has to be stored under the epoch of the attachment
    home: int  # index of the node to prefer
    started_s: float  # of the step
    deadline_s: float
    is_read: bool = False
    force: bool = False  # a write that does not ask whether the disk is attached
    command: Command | None = None  # of the current step; None: it has none yet
    quorum: Quorum | None = None  # the client counts the majority for this step
    attempt_s: float = ATTEMPT_FIRST_S
    sent: dict[int, float] = dataclasses.field(default_factory=dict)  # rank -> when; not refused, link not broken
    last_rank: int = 0  # where the step was sent last; 0: nowhere yet
    refusals: int = 0
    disbelief: int = 0  # mask of the ranks that do not take its epoch or its tag
    exposures: int = 0  # STORE and PUT commands sent whose effect is not known to be none

    @property
    def outcome(self) -> Outcome:
        changes = self.exposures and not self.is_read  # a read changes no value
        return Outcome.MAY_HAVE_HAPPENED if changes else Outcome.DID_NOT_HAPPEN

    def begin(self, command: Command, now_s: float, attempt_s: float = ATTEMPT_FIRST_S) -> None:
        """The next step."""
        self.command, self.quorum = command, None
        self.attempt_s, self.refusals, self.last_rank = attempt_s, 0, 0
        self.started_s, self.deadline_s = now_s, now_s + attempt_s
