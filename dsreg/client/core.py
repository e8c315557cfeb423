"""The client's decisions, without I/O: where a command goes, when it goes elsewhere, what an operation came to.

`ClientCore.step(event, now_s)` takes one event and returns the effects to carry out, in order. Time comes in,
in seconds of any monotonic clock; while `busy`, a `Tick` is due every `limits.TICK_S`.

An operation is a read (one step: READ) or a write (two: TAG, then STORE with the tags that TAG named). Each
step may be sent to any node and to several, and the first answer wins: a READ and a TAG change nothing, and
a STORE is the same write however often it is executed, because its tags were chosen once. docs/client.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from dsreg.client.events import (
    Abandon,
    Close,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Effect,
    Event,
    Failed,
    KeyRefused,
    OtherDisk,
    Received,
    Refusal,
    Send,
    Start,
    Tick,
    Withdraw,
)
from dsreg.client.limits import (
    ATTEMPT_FIRST_S,
    ATTEMPT_MAX_S,
    AVOID_FIRST_S,
    AVOID_MAX_S,
    MAX_REFUSALS,
    PROBE_S,
    RESEND_S,
    SILENCE_S,
)
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE
from dsreg.core.messages import Command, CommandKind, Response, Status, StatusRequest
from dsreg.errors import AuthenticationFailed, ClientClosed, ClientError, Outcome, OutOfRange, WrongDisk

_NEVER = float("-inf")


# --- state ------------------------------------------------------------------------------------
@dataclasses.dataclass(slots=True)
class Counters:
    """Since the start of the client. `retries`: commands sent again, anywhere. `failovers`: those of them that
    went to another node. `late_answers`: answers to what was already settled. `reconnects`: connections made
    after the first one of each node."""

    retries: int = 0
    failovers: int = 0
    late_answers: int = 0
    reconnects: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class _Node:
    rank: int
    index: int  # in the ring
    up: bool = False
    stopping: bool = False
    tried: bool = False
    refusal: Refusal | None = None
    owed: dict[int, None] = dataclasses.field(default_factory=dict)  # requests; in order, so that runs repeat
    silent_since_s: float | None = None  # None: owes nothing, or has been heard since
    probed: bool = False
    answered_s: float = _NEVER  # when it last answered a command that was still open
    avoided_until_s: float = _NEVER
    avoid_s: float = AVOID_FIRST_S

    def avoid(self, now_s: float) -> None:
        if self.avoided_until_s <= now_s:
            self.avoided_until_s = now_s + self.avoid_s
            self.avoid_s = min(2 * self.avoid_s, AVOID_MAX_S)

    def answered(self, now_s: float) -> None:
        self.answered_s = now_s
        self.avoided_until_s = _NEVER
        self.avoid_s = AVOID_FIRST_S


@dataclasses.dataclass(slots=True, eq=False)
class _Operation:
    operation: int
    command: Command  # of the current step
    data: bytes | None
    home: int  # index of the node to prefer
    started_s: float  # of the step
    deadline_s: float
    attempt_s: float = ATTEMPT_FIRST_S
    sent: dict[int, float] = dataclasses.field(default_factory=dict)  # rank -> when; not refused, link not broken
    last_rank: int = 0  # where the step was sent last; 0: nowhere yet
    refusals: int = 0
    exposures: int = 0  # STORE commands sent whose effect is not known to be none

    @property
    def outcome(self) -> Outcome:
        return Outcome.MAY_HAVE_HAPPENED if self.exposures else Outcome.DID_NOT_HAPPEN


class ClientCore:
    """See the module. One per client; `ranks` are those of the configured nodes, in the order of preference."""

    def __init__(self, ranks: Sequence[int]) -> None:
        assert ranks and len(set(ranks)) == len(ranks)
        self.counters = Counters()
        self._ring = [_Node(rank, index) for index, rank in enumerate(ranks)]
        self._nodes = {node.rank: node for node in self._ring}
        self._operations: dict[int, _Operation] = {}
        self._requests: dict[int, _Operation] = {}  # by the request number of the current step
        self._waiting: dict[int, _Operation] = {}  # sent to no node: none is up
        self._last_request = 0
        self._ever_connected = False
        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            Start: self._start,
            Abandon: self._abandon,
            Connected: self._connected,
            Disconnected: self._disconnected,
            KeyRefused: self._disconnected,
            OtherDisk: self._disconnected,
            Received: self._received,
            Tick: self._tick,
            Close: self._close,
        }

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """What is to be done about `event`, in order. `now_s` never decreases."""
        self._handlers[type(event)](event, now_s)
        effects, self._effects = self._effects, []
        return effects

    def new_request(self) -> int:
        """A request number that no command of this client has."""
        self._last_request += 1
        return self._last_request

    def outcome(self, operation: int) -> Outcome:
        """What would be known of a running operation if it were given up now."""
        return self._operations[operation].outcome

    @property
    def busy(self) -> bool:
        """Whether ticks are needed: something is in flight."""
        return bool(self._operations) or any(node.silent_since_s is not None for node in self._ring)

    def up(self, rank: int) -> bool:
        return self._nodes[rank].up

    @property
    def refusal(self) -> Refusal | None:
        """Why there is nothing to wait for: each node has been tried, none was ever good, and this one refused us."""
        if self._ever_connected or not all(node.tried for node in self._ring):
            return None
        return next((node.refusal for node in self._ring if node.refusal is not None), None)

    # --- the caller's side --------------------------------------------------------------------
    def _start(self, event: Start, now_s: float) -> None:
        operation, first, count, data = event
        assert operation not in self._operations
        assert 1 <= count <= MAX_RUN_SECTORS and (data is None or len(data) == count * SECTOR_SIZE)
        kind = CommandKind.READ if data is None else CommandKind.TAG
        op = _Operation(
            operation,
            Command(kind, self.new_request(), first, count, extended=True),
            data,
            # By the chunk, so that work on the same sectors meets, and queues, on one node.
            home=first // MAX_RUN_SECTORS % len(self._ring),
            started_s=now_s,
            deadline_s=now_s + ATTEMPT_FIRST_S,
        )
        self._operations[operation] = op
        self._requests[op.command.request] = op
        if (refusal := self.refusal) is not None:
            self._fail(op, _refused_by_all(refusal, op.outcome))
        else:
            self._dispatch(op, now_s)

    def _abandon(self, event: Abandon, now_s: float) -> None:
        op = self._operations.get(event.operation)
        if op is not None and op.outcome is Outcome.DID_NOT_HAPPEN:
            self._end(op)
            self._effects.append(Dropped(op.operation))

    def _close(self, event: Close, now_s: float) -> None:
        for op in list(self._operations.values()):
            self._fail(op, ClientClosed("the client was closed", op.outcome))

    # --- nodes come and go --------------------------------------------------------------------
    def _connected(self, event: Connected, now_s: float) -> None:
        node = self._nodes[event.rank]
        assert not node.up
        node.up = node.tried = self._ever_connected = True
        node.stopping, node.refusal = False, None
        waiting, self._waiting = self._waiting, {}
        for op in waiting.values():
            self._dispatch(op, now_s)

    def _disconnected(self, event: Disconnected | Refusal, now_s: float) -> None:
        node = self._nodes[event.rank]
        node.tried = True
        if not isinstance(event, Disconnected):
            node.refusal = event
        self._lose(node, now_s)
        if (refusal := self.refusal) is not None:
            for op in list(self._operations.values()):
                self._fail(op, _refused_by_all(refusal, op.outcome))

    def _lose(self, node: _Node, now_s: float) -> None:
        """Take the node for disconnected, and send elsewhere what it was the only one to have."""
        owed, node.owed = node.owed, {}
        node.up = node.probed = False
        node.silent_since_s = None
        for request in owed:
            op = self._requests[request]
            del op.sent[node.rank]
            if not op.sent:
                self._dispatch(op, now_s)

    # --- answers ------------------------------------------------------------------------------
    def _received(self, event: Received, now_s: float) -> None:
        node = self._nodes[event.rank]
        for message in event.messages:
            if isinstance(message, Response):
                self._answer(node, message, now_s)
        if not node.up:
            return
        node.silent_since_s = now_s if node.owed else None
        node.probed = False

    def _answer(self, node: _Node, response: Response, now_s: float) -> None:
        if not response.extended:
            return  # the answer to the connection's question about the key
        op = self._requests.get(response.request)
        if op is None or node.rank not in op.sent or response.kind is not op.command.kind:
            self.counters.late_answers += 1
        elif response.status is not Status.OK:
            self._refused(op, node, response.status, now_s)
        elif _fits(op.command, response):
            node.answered(now_s)
            self._advance(op, node, response, now_s)

    def _advance(self, op: _Operation, node: _Node, response: Response, now_s: float) -> None:
        self._retire(op, node.rank)
        kind, _, first, count = op.command[:4]
        if kind is not CommandKind.TAG:
            del self._operations[op.operation]
            self._effects.append(Completed(op.operation, response.data if kind is CommandKind.READ else b""))
            return
        assert op.data is not None
        op.command = Command(CommandKind.STORE, self.new_request(), first, count, response.tags, op.data, True)
        self._requests[op.command.request] = op
        op.home = node.index
        op.attempt_s, op.refusals, op.last_rank = ATTEMPT_FIRST_S, 0, 0
        op.started_s, op.deadline_s = now_s, now_s + ATTEMPT_FIRST_S
        self._dispatch(op, now_s)

    def _refused(self, op: _Operation, node: _Node, status: Status, now_s: float) -> None:
        """The node has not done the command, and says why."""
        del op.sent[node.rank]
        node.owed.pop(op.command.request, None)
        if op.command.kind is CommandKind.STORE:
            op.exposures -= 1
        if status is Status.INVALID_SECTOR_INDEX:
            last = op.command.first + op.command.count - 1
            self._fail(op, OutOfRange(f"node {node.rank}: no such sector, in {op.command.first}..{last}", op.outcome))
            return
        if status is Status.STOPPING:
            node.stopping = True
        elif status is Status.AUTH_FAILURE:
            op.refusals += 1
            if op.refusals > MAX_REFUSALS:
                self._fail(op, AuthenticationFailed(f"node {node.rank} refuses the command's HMAC", op.outcome))
                return
        if not op.sent:
            self._dispatch(op, now_s)

    # --- time ---------------------------------------------------------------------------------
    def _tick(self, event: Tick, now_s: float) -> None:
        for op in list(self._operations.values()):
            if op.sent and now_s >= op.deadline_s:
                self._hedge(op, now_s)
        for node in self._ring:
            if node.silent_since_s is None:
                continue
            silence_s = now_s - node.silent_since_s
            if silence_s >= SILENCE_S:
                self._effects.append(Drop(node.rank))
                self._lose(node, now_s)
            elif silence_s >= PROBE_S and not node.probed:
                node.probed = True
                self._effects.append(Send(node.rank, StatusRequest(self.new_request())))

    def _hedge(self, op: _Operation, now_s: float) -> None:
        for rank, sent_s in op.sent.items():
            node = self._nodes[rank]
            if node.answered_s <= sent_s:
                node.avoid(now_s)
        op.attempt_s = min(2 * op.attempt_s, ATTEMPT_MAX_S)
        op.deadline_s = now_s + op.attempt_s
        self._dispatch(op, now_s)

    # --- sending ------------------------------------------------------------------------------
    def _dispatch(self, op: _Operation, now_s: float) -> None:
        """Send the current step to the best node, if there is one; wait for one if it is not under way at all."""
        node = self._choose(op, now_s)
        if node is None:
            if not op.sent:
                self._waiting[op.operation] = op
            return
        if op.last_rank:
            self.counters.retries += 1
            self.counters.failovers += node.rank != op.last_rank
        if not op.sent:
            op.deadline_s = now_s + op.attempt_s
        op.last_rank = node.rank
        if op.command.kind is CommandKind.STORE:
            op.exposures += 1
        op.sent[node.rank] = now_s
        node.owed[op.command.request] = None
        if node.silent_since_s is None:
            node.silent_since_s = now_s
        self._effects.append(Send(node.rank, op.command))

    def _choose(self, op: _Operation, now_s: float) -> _Node | None:
        """The node to send to: one that does not have the command before one that does, one that answers
        before one that did not of late, else the next one round the ring from the operation's home."""
        best, best_badness = None, 4
        for distance in range(len(self._ring)):
            node = self._ring[(op.home + distance) % len(self._ring)]
            if not node.up or node.stopping:
                continue
            badness = 0
            if node.rank in op.sent:
                if not _seems_lost(op, node, now_s):
                    continue
                badness += 2
            if node.avoided_until_s > now_s:
                badness += 1
            if badness == 0:
                return node
            if badness < best_badness:
                best, best_badness = node, badness
        return best

    # --- endings ------------------------------------------------------------------------------
    def _retire(self, op: _Operation, answered_by: int) -> None:
        """The current step is over: what other nodes still have of it is of no use."""
        request = op.command.request
        del self._requests[request]
        for rank in op.sent:
            self._nodes[rank].owed.pop(request, None)
            if rank != answered_by:
                self._effects.append(Withdraw(rank, request))
        op.sent.clear()

    def _end(self, op: _Operation) -> None:
        self._retire(op, 0)
        self._waiting.pop(op.operation, None)
        del self._operations[op.operation]

    def _fail(self, op: _Operation, error: ClientError) -> None:
        self._end(op)
        self._effects.append(Failed(op.operation, error))


def _refused_by_all(refusal: Refusal, outcome: Outcome) -> ClientError:
    if isinstance(refusal, KeyRefused):
        return AuthenticationFailed("no node accepts the client key", outcome)
    rank, sectors, expected = refusal
    return WrongDisk(f"node {rank} has a disk of {sectors} sectors, not of {expected} as configured here", outcome)


def _fits(command: Command, response: Response) -> bool:
    """Whether the answer has the length that was asked for."""
    tags = command.count * TAG_SIZE if command.kind is CommandKind.TAG else 0
    data = command.count * SECTOR_SIZE if command.kind is CommandKind.READ else 0
    return len(response.tags) == tags and len(response.data) == data


def _seems_lost(op: _Operation, node: _Node, now_s: float) -> bool:
    """Whether a command that the node was sent is to be sent to it again: see limits.RESEND_S."""
    sent_s = op.sent[node.rank]
    since_s = now_s - sent_s
    if node.answered_s > sent_s:
        return since_s >= ATTEMPT_MAX_S
    return since_s >= max(RESEND_S, (now_s - op.started_s) / 2)
