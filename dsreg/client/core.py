"""The client's decisions, without I/O: where a command goes, when it goes elsewhere, what an operation came to.

`ClientCore.step(event, now_s)` takes one event and returns the effects to carry out, in order. Time comes in,
in seconds of any monotonic clock; while `busy`, a `Tick` is due every `limits.TICK_S`.

    read                    GET at a majority; where that does not settle it, READ
    read of an attachment   the same; and STORE under its epoch, if what was read is not there under it
    write                   TAG, then STORE with the tags that TAG named
    write of an attachment  PUT at all nodes, under a tag of its own; where no majority answers, STORE with that tag

GET and PUT go to several nodes, and the client counts the majority (quorum.py). READ, TAG and STORE leave that to
the node that gets them: each may be sent to any node and to several, and the first answer wins. A GET, a READ and
a TAG change nothing, and a PUT or STORE is the same write however often it is executed, because its tags were
chosen once. docs/client.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from dsreg.client.answers import CHANGING, fits
from dsreg.client.attachment import Attachment, Cause, Claim, State
from dsreg.client.contract_nodes import ContractNodes
from dsreg.client.dispatch import Steps
from dsreg.client.events import (
    Abandon,
    Attached,
    Close,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Effect,
    Event,
    KeyRefused,
    NotAttached,
    NotSealed,
    OtherDisk,
    Received,
    Refusal,
    Send,
    Start,
    Tick,
    Waits,
)
from dsreg.client.guard import Guard
from dsreg.client.limits import ATTEMPT_FIRST_S, MAX_REFUSALS, SAY_AGAIN_S, TELL_AGAIN_S
from dsreg.client.members import Members
from dsreg.client.node_selector import NodeSelector, refused_by_all
from dsreg.client.state import NEVER, Node, Operation
from dsreg.constants import MAX_RUN_SECTORS, NO_OWNER, SECTOR_SIZE
from dsreg.errors import AuthenticationFailed, ClientClosed, ClientError, NotBelieved, Outcome, OutOfRange
from dsreg.protocol.messages import Command, CommandKind, LivesReport, Response, Status, StatusReport, StatusRequest
from dsreg.protocol.tags import highest_epoch, restamped
from dsreg.register.quorum import bit, ranks_in


class ClientCore:
    """See the module. One per client; `ranks` are those of the configured nodes, in the order of preference.

    With a `claim` the client attaches the disk: operations wait until it has, and fail once it has not.
    """

    def __init__(self, ranks: Sequence[int], claim: Claim | None = None) -> None:
        self.attachment = Attachment(claim, len(ranks)) if claim is not None else None
        self._selector = NodeSelector(ranks)
        self._nodes = self._selector.by_rank
        self.contract_nodes = ContractNodes()
        self._guard = Guard()
        self._steps = Steps(self._selector, self.attachment)
        self._members = Members(self._selector, self._steps, self.attachment)
        self._said = Cause.ANSWERS, NEVER  # what the attachment waits for, as was told last, and when
        self.counters = self._steps.counters
        self.new_request = self._steps.new_request
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            Start: self._start,
            Abandon: self._abandon,
            Connected: self._connected,
            Disconnected: self._disconnected,
            KeyRefused: self._disconnected,
            OtherDisk: self._disconnected,
            NotSealed: self._disconnected,
            Received: self._received,
            Tick: self._tick,
            Close: self._close,
        }

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """What is to be done about `event`, in order. `now_s` never decreases."""
        self._handlers[type(event)](event, now_s)
        effects, self._steps.effects = self._steps.effects, []
        return effects

    def outcome(self, operation: int) -> Outcome | None:
        """What would be known of a running operation if it were given up now; None if it has ended."""
        op = self._steps.operations.get(operation)
        return None if op is None else op.outcome

    @property
    def busy(self) -> bool:
        """Whether ticks are needed: something is in flight."""
        attaching = self.attachment is not None and self.attachment.state in (State.ASKING, State.CLAIMING)
        return attaching or bool(self._steps.operations) or self._selector.owes_answers

    def obstacle(self, now_s: float) -> tuple[str, bool]:
        """See NodeSelector."""
        return self._selector.obstacle(now_s)

    def up(self, rank: int) -> bool:
        return self._nodes[rank].up

    # --- the caller's side --------------------------------------------------------------------
    def _start(self, event: Start, now_s: float) -> None:
        operation, first, count, data, force = event
        assert operation not in self._steps.operations
        assert 1 <= count <= MAX_RUN_SECTORS and (data is None or len(data) == count * SECTOR_SIZE)
        # By the chunk, so that work on the same sectors meets, and queues, on one node.
        home = first // MAX_RUN_SECTORS % len(self._selector)
        op = Operation(operation, first, count, data, home, now_s, now_s + ATTEMPT_FIRST_S, data is None, force)
        self._steps.operations[operation] = op
        if (refusal := self._selector.refusal) is not None:
            self._steps.fail(op, refused_by_all(refusal, op.outcome))
        elif self.attachment is None or self.attachment.state is State.HELD:
            self._steps.begin(op, now_s)
        elif self.attachment.error is not None:
            self._steps.fail(op, _with_outcome(self.attachment.error, op.outcome))
        else:
            self._steps.waiting[operation] = op

    def _abandon(self, event: Abandon, now_s: float) -> None:
        op = self._steps.operations.get(event.operation)
        # A STORE or PUT that is under way is seen through. That of a read as well: it might bring up, after the next
        # read of these sectors, what that one has not seen (rule 10 of docs/attachments.md).
        if op is not None and not op.exposures:
            self._guard.parked.pop(op.operation, None)
            self._steps.end(op)
            self._steps.effects.append(Dropped(op.operation))

    def _close(self, event: Close, now_s: float) -> None:
        for op in list(self._steps.operations.values()):
            self._steps.fail(op, ClientClosed("the client was closed", op.outcome))

    # --- nodes come and go --------------------------------------------------------------------
    def _connected(self, event: Connected, now_s: float) -> None:
        node = self._nodes[event.rank]
        self._selector.connected(node, event.nodes)
        self.contract_nodes.connected(event.rank)
        self._trust(node)
        if self.attachment is not None:
            self.attachment.nodes = self._selector.cluster_size
            if (epoch := self.attachment.question(now_s)) is not None:
                self._send_attach(node, epoch)
        if self.attachment is None or self.attachment.state is State.HELD:
            self._steps.go_on(now_s)

    def _disconnected(self, event: Disconnected | Refusal, now_s: float) -> None:
        node = self._nodes[event.rank]
        node.tried = True
        if not isinstance(event, Disconnected):
            node.refusal = event
        elif event.contract_only:
            self.contract_nodes.found(event.rank, now_s)
        self._lose(node, now_s)
        if (refusal := self._selector.refusal) is not None:
            for op in list(self._steps.operations.values()):
                self._steps.fail(op, refused_by_all(refusal, op.outcome))
            if self.attachment is not None:
                was = self.attachment.state
                self.attachment.refuse(refused_by_all(refusal, Outcome.DID_NOT_HAPPEN))
                self._attach(None, was, now_s)

    def _lose(self, node: Node, now_s: float) -> None:
        """Take the node for disconnected, and send elsewhere what it was the only one to have."""
        for request in node.lose():
            op = self._steps.requests[request]
            del op.sent[node.rank]
            if op.quorum is not None:
                self._steps.count(op, now_s)
            elif not op.sent:
                self._steps.dispatch(op, now_s)

    # --- attaching ----------------------------------------------------------------------------
    def _send_attach(self, node: Node, epoch: int) -> None:
        assert self.attachment is not None
        owner = self.attachment.claim.owner
        command = Command(CommandKind.ATTACH, self._steps.new_request(), 0, 0, b"", owner, True, epoch)
        self.attachment.sent(node.rank, epoch)
        self._steps.effects.append(Send(node.rank, command))

    def _attach(self, epoch: int | None, was: State, now_s: float) -> None:
        """The attachment has been told something; `epoch`: what it wants to ask of every node now."""
        attachment = self.attachment
        assert attachment is not None
        if epoch is not None:
            for node in self._selector.nodes:
                if node.up and not node.barred:
                    self._send_attach(node, epoch)
        cause, text, needs_help = attachment.waits_for
        if text and (cause is not self._said[0] or now_s >= self._said[1] + SAY_AGAIN_S):
            self._said = cause, now_s
            self._steps.effects.append(Waits(text, needs_help))
        if attachment.state is was:
            return
        if attachment.state is State.HELD:
            self._steps.effects.append(Attached(attachment.epoch))
            self._steps.go_on(now_s)
        elif attachment.error is not None:
            self._steps.effects.append(NotAttached(attachment.error))
            for op in list(self._steps.operations.values()):
                self._steps.fail(op, _with_outcome(attachment.error, op.outcome))

    # --- not attaching ------------------------------------------------------------------------
    def _ask_who_has_it(self, now_s: float) -> None:
        if not self._guard.wants_to_ask(now_s):
            return
        request = self._steps.new_request()
        self._guard.ask(request, now_s)
        question = Command(CommandKind.ATTACH, request, 0, 0, b"", NO_OWNER, True)
        self._steps.effects += [Send(node.rank, question) for node in self._selector.nodes if node.usable]

    def _guarded(self, error: ClientError | None, now_s: float) -> None:
        """The nodes have told who has the disk, or not all that are needed have yet."""
        for op, tags, epoch in list(self._guard.parked.values()):
            if error is not None:
                del self._guard.parked[op.operation]
                self._steps.fail(op, _with_outcome(error, op.outcome))
            elif self._guard.clears(epoch, now_s):
                del self._guard.parked[op.operation]
                self._steps.next_step(op, CommandKind.STORE, now_s, tags)
        self._ask_who_has_it(now_s)

    # --- answers ------------------------------------------------------------------------------
    def _received(self, event: Received, now_s: float) -> None:
        node = self._nodes[event.rank]
        for message in event.messages:
            if isinstance(message, Response):
                self._answer(node, message, now_s)
            elif isinstance(message, LivesReport):
                self._members.told(node, message, now_s)
            elif isinstance(message, StatusReport) and (no_space := _no_space_in(message)) is not None:
                node.full_s = now_s if no_space else NEVER
        if not node.up:
            return
        node.silent_since_s = now_s if node.owed else None
        node.probed = False

    def _answer(self, node: Node, response: Response, now_s: float) -> None:
        if not response.extended:
            return  # the answer to the connection's question about the key
        if node.barred:
            self._steps.counters.late_answers += 1
            return
        if response.kind is CommandKind.ATTACH:
            if self.attachment is not None:
                was = self.attachment.state
                self._attach(self.attachment.answer(node.rank, response, now_s), was, now_s)
                if was is State.HELD and response.status is Status.OK:
                    self._trust(node)
                    self._steps.go_on(now_s)
            else:
                self._guarded(self._guard.answer(node.rank, response, self._selector.cluster_size, now_s), now_s)
            return
        op = self._steps.requests.get(response.request)
        if node.catch_up(response.request):
            self._note_refusal(node, response, now_s)
        elif op is None or op.command is None or node.rank not in op.sent or response.kind is not op.command.kind:
            self._steps.counters.late_answers += 1
        elif response.status is not Status.OK:
            self._refused(op, op.command, node, response, now_s)
        elif fits(op.command, response):
            node.answered(now_s)
            self._advance(op, op.command, node, response, now_s)

    def _note_refusal(self, node: Node, response: Response, now_s: float) -> None:
        if response.status is Status.NO_SPACE:
            node.full_s = now_s
        if self.attachment is not None and response.status is Status.FENCED:
            was = self.attachment.state
            self.attachment.check(response)
            self._attach(None, was, now_s)

    def _advance(self, op: Operation, command: Command, node: Node, response: Response, now_s: float) -> None:
        if op.quorum is not None:
            del op.sent[node.rank]
            node.owed.pop(command.request, None)
            op.quorum.add(response)
            self._steps.count(op, now_s)
            return
        self._steps.retire(op, node.rank)
        if not response.tags:
            read = response.data if command.kind is CommandKind.READ else op.data
            self._steps.complete(op, read if op.is_read else b"")
            return
        # From TAG; or from a READ that has to be stored under the attachment's epoch before it may be returned.
        tags = response.tags
        if op.is_read:
            op.data, tags = bytes(response.data), restamped(tags, command.epoch)
        op.home = node.index
        if self.attachment is None and not op.force and not self._guard.clears(epoch := highest_epoch(tags), now_s):
            op.command = None
            self._guard.parked[op.operation] = op, tags, epoch
            self._ask_who_has_it(now_s)
            return
        self._steps.next_step(op, CommandKind.STORE, now_s, tags)

    def _refused(self, op: Operation, command: Command, node: Node, response: Response, now_s: float) -> None:
        """The node has not done the command, and says why."""
        status = response.status
        del op.sent[node.rank]
        node.owed.pop(command.request, None)
        if command.kind in CHANGING:
            op.exposures -= 1
        if status is Status.FENCED:
            # A STORE that was sent on before it met the newer epoch may have reached a node.
            op.exposures += command.kind is CommandKind.STORE
            self._note_refusal(node, response, now_s)
            if op.operation not in self._steps.operations:
                return
        elif status is Status.INVALID_SECTOR_INDEX:
            last = op.first + op.count - 1
            self._steps.fail(op, OutOfRange(f"node {node.rank}: no such sector, in {op.first}..{last}", op.outcome))
            return
        elif status is Status.OVERTAKEN and self.attachment is not None:
            op.exposures += 1  # of a run the rest is stored
            was = self.attachment.state
            self.attachment.overtaken()
            self._attach(None, was, now_s)
            return
        elif status is Status.DISBELIEVED:
            self._disbelieve(op, node, now_s)
            if op.operation not in self._steps.operations:
                return
        elif status is Status.STOPPING:
            node.stopping = True
        elif status is Status.NO_SPACE:
            node.full_s = now_s
        elif status is Status.AUTH_FAILURE:
            op.refusals += 1
            if op.refusals > MAX_REFUSALS:
                self._steps.fail(op, AuthenticationFailed(f"node {node.rank} refuses the command's HMAC", op.outcome))
                return
        if op.quorum is not None:
            self._steps.count(op, now_s)
        elif not op.sent:
            self._steps.dispatch(op, now_s)

    def _disbelieve(self, op: Operation, node: Node, now_s: float) -> None:
        """The node does not take the operation's epoch, or its tag: its clock is wrong, or nobody told it that the disk
        is attached. That is its own opinion."""
        op.disbelief |= bit(node.rank)
        node.avoid(now_s)
        if op.disbelief.bit_count() > self._selector.cluster_size - self._selector.majority:
            who = f"nodes {', '.join(map(str, ranks_in(op.disbelief)))}"
            error = NotBelieved(f"{who} do not believe the epoch or the tag of it: are their clocks right?", op.outcome)
            self._steps.fail(op, error)
        attachment = self.attachment
        if attachment is not None and attachment.state is State.HELD and now_s >= node.told_again_s + TELL_AGAIN_S:
            node.told_again_s = now_s
            self._send_attach(node, attachment.epoch)

    def _trust(self, node: Node) -> None:
        """What the node did not believe may be different now."""
        for op in self._steps.operations.values():
            op.disbelief &= ~bit(node.rank)

    # --- time ---------------------------------------------------------------------------------
    def _tick(self, event: Tick, now_s: float) -> None:
        if self.attachment is not None:
            was = self.attachment.state
            refusal = self.contract_nodes.refusal(self._selector.cluster_size, now_s) if was is not State.HELD else None
            if refusal is not None:
                self.attachment.refuse(refusal)
            self._attach(self.attachment.tick(now_s), was, now_s)
        elif self._guard.parked:
            self._ask_who_has_it(now_s)
        for op in list(self._steps.operations.values()):
            if op.sent and now_s >= op.deadline_s:
                self._steps.hedge(op, now_s)
        asked, given_up = self._selector.silent(now_s)
        for node in asked:
            self._steps.effects.append(Send(node.rank, StatusRequest(self._steps.new_request())))
        for node in given_up:
            self._steps.effects.append(Drop(node.rank))
            self._lose(node, now_s)


def _no_space_in(report: StatusReport) -> bool | None:
    """Whether the node has no room for new data; None if it does not say."""
    try:
        status = json.loads(report.body)
    except ValueError:
        return None
    no_space = status.get("no_space") if isinstance(status, dict) else None
    return no_space if isinstance(no_space, bool) else None


def _with_outcome(error: ClientError, outcome: Outcome) -> ClientError:
    return type(error)(error.reason, outcome)
