"""The client's decisions, without I/O: where a command goes, when it goes elsewhere, what an operation came to.

`ClientCore.step(event, now_s)` takes one event and returns the effects to carry out, in order. Time comes in,
in seconds of any monotonic clock; while `busy`, a `Tick` is due every `limits.TICK_S`.

    read                    GET at a majority; where that does not settle it, READ
    write                   TAG, then STORE with the tags that TAG named
    write of an attachment  PUT at all nodes, under a tag of its own; where no majority answers, STORE with that tag

GET and PUT go to several nodes, and the client counts the majority (quorum.py). READ, TAG and STORE leave that to
the node that gets them: each may be sent to any node and to several, and the first answer wins. A GET, a READ and
a TAG change nothing, and a PUT or STORE is the same write however often it is executed, because its tags were
chosen once. docs/client.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsreg.client.attachment import Attachment, Claim, State
from dsreg.client.events import (
    Abandon,
    Attached,
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
    NotAttached,
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
    GET_ATTEMPT_S,
    MAX_REFUSALS,
    PUT_ATTEMPT_S,
)
from dsreg.client.quorum import Quorum, Verdict
from dsreg.client.ring import Ring, refused_by_all
from dsreg.client.state import Counters, Node, Operation
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE
from dsreg.core.messages import Command, CommandKind, Response, Status, StatusRequest
from dsreg.errors import AuthenticationFailed, ClientClosed, ClientError, Outcome, OutOfRange

_CHANGING = (CommandKind.STORE, CommandKind.PUT)


class ClientCore:
    """See the module. One per client; `ranks` are those of the configured nodes, in the order of preference.

    With a `claim` the client attaches the disk: operations wait until it has, and fail once it has not.
    """

    def __init__(self, ranks: Sequence[int], claim: Claim | None = None) -> None:
        self.counters = Counters()
        self.attachment = Attachment(claim, len(ranks)) if claim is not None else None
        self._ring = Ring(ranks)
        self._nodes = self._ring.by_rank
        self._operations: dict[int, Operation] = {}
        self._requests: dict[int, Operation] = {}  # by the request number of the current step
        self._waiting: dict[int, Operation] = {}  # sent to no node: none is up, or the disk is not attached yet
        self._last_request = 0
        self._asks_all = False  # the last GET needed the answers of all nodes
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
        attaching = self.attachment is not None and self.attachment.state in (State.ASKING, State.CLAIMING)
        return attaching or bool(self._operations) or self._ring.owes_answers

    def up(self, rank: int) -> bool:
        return self._nodes[rank].up

    @property
    def _epoch(self) -> int:
        return self.attachment.epoch if self.attachment is not None else 0

    # --- the caller's side --------------------------------------------------------------------
    def _start(self, event: Start, now_s: float) -> None:
        operation, first, count, data = event
        assert operation not in self._operations
        assert 1 <= count <= MAX_RUN_SECTORS and (data is None or len(data) == count * SECTOR_SIZE)
        # By the chunk, so that work on the same sectors meets, and queues, on one node.
        home = first // MAX_RUN_SECTORS % len(self._ring)
        op = Operation(operation, first, count, data, home, now_s, now_s + ATTEMPT_FIRST_S)
        self._operations[operation] = op
        if (refusal := self._ring.refusal) is not None:
            self._fail(op, refused_by_all(refusal, op.outcome))
        elif self.attachment is None or self.attachment.state is State.HELD:
            self._begin(op, now_s)
        elif self.attachment.error is not None:
            self._fail(op, _with_outcome(self.attachment.error, op.outcome))
        else:
            self._waiting[operation] = op

    def _begin(self, op: Operation, now_s: float) -> None:
        """The first step."""
        if op.data is None:
            self._ask(op, CommandKind.GET, now_s)
        elif self.attachment is None:
            self._next_step(op, CommandKind.TAG, now_s)
        else:
            self._ask(op, CommandKind.PUT, now_s, self.attachment.next_tag(now_s) * op.count)

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
        self._ring.connected(node)
        if self.attachment is not None and (epoch := self.attachment.question(now_s)) is not None:
            self._send_attach(node, epoch)
        if self.attachment is None or self.attachment.state is State.HELD:
            self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        waiting, self._waiting = self._waiting, {}
        for op in waiting.values():
            if op.command is None:
                self._begin(op, now_s)
            else:
                self._dispatch(op, now_s)

    def _disconnected(self, event: Disconnected | Refusal, now_s: float) -> None:
        node = self._nodes[event.rank]
        node.tried = True
        if not isinstance(event, Disconnected):
            node.refusal = event
        self._lose(node, now_s)
        if (refusal := self._ring.refusal) is not None:
            for op in list(self._operations.values()):
                self._fail(op, refused_by_all(refusal, op.outcome))

    def _lose(self, node: Node, now_s: float) -> None:
        """Take the node for disconnected, and send elsewhere what it was the only one to have."""
        for request in node.lose():
            op = self._requests[request]
            del op.sent[node.rank]
            if op.quorum is not None:
                self._count(op, now_s)
            elif not op.sent:
                self._dispatch(op, now_s)

    # --- attaching ----------------------------------------------------------------------------
    def _send_attach(self, node: Node, epoch: int) -> None:
        assert self.attachment is not None
        owner = self.attachment.claim.owner
        command = Command(CommandKind.ATTACH, self.new_request(), 0, 0, b"", owner, True, epoch)
        self._effects.append(Send(node.rank, command))

    def _attach(self, epoch: int | None, was: State, now_s: float) -> None:
        """The attachment has been told something; `epoch`: what it wants to ask of every node now."""
        attachment = self.attachment
        assert attachment is not None
        if epoch is not None:
            for node in self._ring.nodes:
                if node.up:
                    self._send_attach(node, epoch)
        if attachment.state is was:
            return
        if attachment.state is State.HELD:
            self._effects.append(Attached(attachment.epoch))
            self._go_on(now_s)
        elif attachment.error is not None:
            self._effects.append(NotAttached(attachment.error))
            for op in list(self._operations.values()):
                self._fail(op, _with_outcome(attachment.error, op.outcome))

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

    def _answer(self, node: Node, response: Response, now_s: float) -> None:
        if not response.extended:
            return  # the answer to the connection's question about the key
        if response.kind is CommandKind.ATTACH:
            if self.attachment is not None:
                was = self.attachment.state
                self._attach(self.attachment.answer(node.rank, response, now_s), was, now_s)
            return
        op = self._requests.get(response.request)
        if node.catch_up(response.request):
            self._check_epoch(response, now_s)
        elif op is None or op.command is None or node.rank not in op.sent or response.kind is not op.command.kind:
            self.counters.late_answers += 1
        elif response.status is not Status.OK:
            self._refused(op, op.command, node, response, now_s)
        elif _fits(op.command, response):
            node.answered(now_s)
            self._advance(op, op.command, node, response, now_s)

    def _check_epoch(self, response: Response, now_s: float) -> None:
        if self.attachment is not None and response.status is Status.FENCED:
            was = self.attachment.state
            self.attachment.check(response)
            self._attach(None, was, now_s)

    def _advance(self, op: Operation, command: Command, node: Node, response: Response, now_s: float) -> None:
        if op.quorum is not None:
            del op.sent[node.rank]
            node.owed.pop(command.request, None)
            op.quorum.answers[node.rank] = response
            self._count(op, now_s)
            return
        self._retire(op, node.rank)
        if command.kind is not CommandKind.TAG:
            self._complete(op, response.data if command.kind is CommandKind.READ else b"")
            return
        op.home = node.index
        self._next_step(op, CommandKind.STORE, now_s, response.tags)

    def _refused(self, op: Operation, command: Command, node: Node, response: Response, now_s: float) -> None:
        """The node has not done the command, and says why."""
        status = response.status
        del op.sent[node.rank]
        node.owed.pop(command.request, None)
        if command.kind in _CHANGING:
            op.exposures -= 1
        if status is Status.FENCED:
            # A STORE that was sent on before it met the newer epoch may have reached a node.
            op.exposures += command.kind is CommandKind.STORE
            self._check_epoch(response, now_s)
            if op.operation not in self._operations:
                return
        elif status is Status.INVALID_SECTOR_INDEX:
            last = op.first + op.count - 1
            self._fail(op, OutOfRange(f"node {node.rank}: no such sector, in {op.first}..{last}", op.outcome))
            return
        elif status is Status.STOPPING:
            node.stopping = True
        elif status is Status.AUTH_FAILURE:
            op.refusals += 1
            if op.refusals > MAX_REFUSALS:
                self._fail(op, AuthenticationFailed(f"node {node.rank} refuses the command's HMAC", op.outcome))
                return
        if op.quorum is not None:
            self._count(op, now_s)
        elif not op.sent:
            self._dispatch(op, now_s)

    # --- time ---------------------------------------------------------------------------------
    def _tick(self, event: Tick, now_s: float) -> None:
        if self.attachment is not None:
            was = self.attachment.state
            self._attach(self.attachment.tick(now_s), was, now_s)
        for op in list(self._operations.values()):
            if op.sent and now_s >= op.deadline_s:
                self._hedge(op, now_s)
        asked, given_up = self._ring.silent(now_s)
        for node in asked:
            self._effects.append(Send(node.rank, StatusRequest(self.new_request())))
        for node in given_up:
            self._effects.append(Drop(node.rank))
            self._lose(node, now_s)

    def _hedge(self, op: Operation, now_s: float) -> None:
        for rank, sent_s in op.sent.items():
            node = self._nodes[rank]
            if node.answered_s <= sent_s:
                node.avoid(now_s)
        if op.quorum is not None:
            self._leave_to_a_node(op, now_s)
            return
        op.attempt_s = min(2 * op.attempt_s, ATTEMPT_MAX_S)
        op.deadline_s = now_s + op.attempt_s
        self._dispatch(op, now_s)

    # --- majorities that the client counts ------------------------------------------------------
    def _ask(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        """GET from a majority, or PUT to all; if so many cannot be reached, it is left to a node at once."""
        get = kind is CommandKind.GET
        usable = self._ring.nearest(op, now_s)
        request = self.new_request()
        op.begin(
            Command(kind, request, op.first, op.count, tags, op.data or b"", True, self._epoch),
            now_s, GET_ATTEMPT_S if get else PUT_ATTEMPT_S,
        )
        self._requests[request] = op
        enough = self._ring.majority
        op.quorum = Quorum(kind, len(self._ring), self._epoch)
        if len(usable) < enough:
            self._leave_to_a_node(op, now_s)
            return
        self.counters.quorums += 1
        for node in usable[:enough] if get and not self._asks_all else usable:
            self._ask_node(op, node, now_s, values=get and node is usable[0])

    def _ask_node(self, op: Operation, node: Node, now_s: float, values: bool) -> None:
        assert op.command is not None and op.quorum is not None
        op.quorum.asked.add(node.rank)
        op.exposures += op.command.kind is CommandKind.PUT
        self._send(op, node, op.command._replace(values=True) if values else op.command, now_s)

    def _count(self, op: Operation, now_s: float) -> None:
        """Something has changed about what was asked of several nodes."""
        assert op.quorum is not None
        match op.quorum.verdict(len(op.sent)):
            case Verdict.DONE:
                self._retire(op, 0)
                values = op.quorum.values
                if values is not None:
                    self._asks_all = len(op.quorum.answers) == len(self._ring) > 1
                self._complete(op, b"" if values is None else values.data)
            case Verdict.GIVE_UP:
                self._leave_to_a_node(op, now_s)
            case Verdict.ASK_ALL:
                others = [node for node in self._ring.nodes if node.usable and node.rank not in op.quorum.asked]
                for node in others:
                    self._ask_node(op, node, now_s, values=False)
                if not others:
                    self._leave_to_a_node(op, now_s)

    def _leave_to_a_node(self, op: Operation, now_s: float) -> None:
        """A node asks the others, any that can be reached; what was put already is the same write."""
        assert op.command is not None
        tags = op.command.tags
        self._retire(op, 0)
        self.counters.coordinated += 1
        self._next_step(op, CommandKind.READ if op.data is None else CommandKind.STORE, now_s, tags)

    # --- sending ------------------------------------------------------------------------------
    def _next_step(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        data = op.data if kind is CommandKind.STORE and op.data is not None else b""
        command = Command(kind, self.new_request(), op.first, op.count, tags, data, True, self._epoch)
        op.begin(command, now_s)
        self._requests[command.request] = op
        self._dispatch(op, now_s)

    def _dispatch(self, op: Operation, now_s: float) -> None:
        """Send the current step to the best node, if there is one; wait for one if it is not under way at all."""
        assert op.command is not None
        node = self._ring.choose(op, now_s)
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
        op.exposures += op.command.kind is CommandKind.STORE
        self._send(op, node, op.command, now_s)

    def _send(self, op: Operation, node: Node, command: Command, now_s: float) -> None:
        op.sent[node.rank] = now_s
        node.owed[command.request] = None
        if node.silent_since_s is None:
            node.silent_since_s = now_s
        self._effects.append(Send(node.rank, command))

    # --- endings ------------------------------------------------------------------------------
    def _retire(self, op: Operation, answered_by: int) -> None:
        """The current step is over: what other nodes still have of it is of no use. But a node that is behind with
        a PUT is to get it all the same: the more nodes have it, the better."""
        command = op.command
        assert command is not None
        del self._requests[command.request]
        behind = command.kind is CommandKind.PUT
        for rank in op.sent:
            node = self._nodes[rank]
            node.owed.pop(command.request, None)
            if behind:
                size = op.count * SECTOR_SIZE
                self._effects += [Withdraw(rank, spared) for spared in node.lag(command.request, size)]
            elif rank != answered_by:
                self._effects.append(Withdraw(rank, command.request))
        op.sent.clear()

    def _complete(self, op: Operation, data: Any) -> None:
        del self._operations[op.operation]
        self._effects.append(Completed(op.operation, data))

    def _end(self, op: Operation) -> None:
        if op.command is not None:
            self._retire(op, 0)
        self._waiting.pop(op.operation, None)
        del self._operations[op.operation]

    def _fail(self, op: Operation, error: ClientError) -> None:
        self._end(op)
        self._effects.append(Failed(op.operation, error))


def _with_outcome(error: ClientError, outcome: Outcome) -> ClientError:
    return type(error)(error.reason, outcome)


def _fits(command: Command, response: Response) -> bool:
    """Whether the answer has the length that was asked for."""
    tagged = command.kind in (CommandKind.TAG, CommandKind.GET)
    valued = command.kind is CommandKind.READ
    tags = command.count * TAG_SIZE if tagged else 0
    data = command.count * SECTOR_SIZE if valued else 0
    if command.kind is CommandKind.GET and response.data:
        data = command.count * SECTOR_SIZE
    return len(response.tags) == tags and len(response.data) == data
