"""Steps: the operations under way, which command of each goes to which node, and what becomes of it.

Commands of one step that are sent to several nodes have one request number: `requests` finds the operation by it.
"""

from __future__ import annotations

from typing import Any

from dsreg.client.attachment import Attachment
from dsreg.client.events import Completed, Effect, Failed, Send, Withdraw
from dsreg.client.limits import ATTEMPT_FIRST_S, ATTEMPT_MAX_S, GET_ATTEMPT_S, PUT_ATTEMPT_S
from dsreg.client.node_selector import NodeSelector
from dsreg.client.quorum import Quorum, Verdict
from dsreg.client.state import Counters, Node, Operation
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientError
from dsreg.protocol.messages import Command, CommandKind, StatusRequest


class Steps:
    """The part of ClientCore that sends. `effects`: what is to be carried out, in order; who takes them empties it."""

    def __init__(self, ring: NodeSelector, attachment: Attachment | None) -> None:
        self.counters = Counters()
        self.operations: dict[int, Operation] = {}
        self.requests: dict[int, Operation] = {}  # by the request number of the current step
        self.waiting: dict[int, Operation] = {}  # sent to no node: none is up, or the disk is not attached yet
        self.effects: list[Effect] = []
        self._attachment = attachment
        self._selector = ring
        self._nodes = ring.by_rank
        self._last_request = 0
        self._asked_whether_full_s = float("-inf")
        self._asks_all = False  # the last GET needed the answers of all nodes

    def new_request(self) -> int:
        """A request number that no command of this client has."""
        self._last_request += 1
        return self._last_request

    @property
    def _epoch(self) -> int:
        return self._attachment.epoch if self._attachment is not None else 0

    # --- steps ----------------------------------------------------------------------------------
    def begin(self, op: Operation, now_s: float) -> None:
        """The first step."""
        if op.is_read:
            self._ask(op, CommandKind.GET, now_s)
        elif self._attachment is None:
            self.next_step(op, CommandKind.TAG, now_s)
        else:
            self._ask(op, CommandKind.PUT, now_s, self._attachment.next_tag(now_s) * op.count)

    def go_on(self, now_s: float) -> None:
        waiting, self.waiting = self.waiting, {}
        for op in waiting.values():
            if op.command is None:
                self.begin(op, now_s)
            else:
                self.dispatch(op, now_s)

    def hedge(self, op: Operation, now_s: float) -> None:
        for rank, sent_s in op.sent.items():
            node = self._nodes[rank]
            if node.answered_s <= sent_s:
                node.avoid(now_s)
        if op.quorum is not None:
            self._leave_to_a_node(op, now_s)
            return
        if op.exposures and not op.is_read:
            self._ask_whether_full(now_s)
        op.attempt_s = min(2 * op.attempt_s, ATTEMPT_MAX_S)
        op.deadline_s = now_s + op.attempt_s
        self.dispatch(op, now_s)

    def _ask_whether_full(self, now_s: float) -> None:
        """A node that waits with a STORE does not say why. Whether nodes have room is in their STATUS."""
        if now_s - self._asked_whether_full_s >= ATTEMPT_FIRST_S:
            self._asked_whether_full_s = now_s
            asked = [node.rank for node in self._selector.nodes if node.up]
            self.effects += [Send(rank, StatusRequest(self.new_request())) for rank in asked]

    # --- majorities that the client counts ------------------------------------------------------
    def _ask(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        """GET from a majority, or PUT to all; if so many cannot be reached, it is left to a node at once."""
        get = kind is CommandKind.GET
        usable = self._selector.nearest(op, now_s)
        request, epoch = self.new_request(), self._epoch
        op.begin(
            Command(kind, request, op.first, op.count, tags, op.data or b"", True, epoch),
            now_s, GET_ATTEMPT_S if get else PUT_ATTEMPT_S,
        )
        self.requests[request] = op
        enough = self._selector.majority
        op.quorum = Quorum(kind, self._selector.cluster_size, epoch)
        if len(usable) < enough:
            self._leave_to_a_node(op, now_s)
            return
        self.counters.quorums += 1
        for node in usable[:enough] if get and not self._asks_all else usable:
            self._ask_node(op, node, now_s, values=get and node is usable[0])

    def ask_again(self, op: Operation, now_s: float) -> None:
        """A node that has answered does not count any more: the question is asked anew, what is put is the same."""
        command = op.command
        assert command is not None
        self.retire(op, 0)
        self._ask(op, command.kind, now_s, command.tags)

    def _ask_node(self, op: Operation, node: Node, now_s: float, values: bool) -> None:
        assert op.command is not None and op.quorum is not None
        op.quorum.asked.add(node.rank)
        op.exposures += op.command.kind is CommandKind.PUT
        command = op.command
        if values:  # not by _replace, which costs four times as much
            command = Command(command.kind, command.request, op.first, op.count, b"", b"", True, command.epoch, True)
        self._send(op, node, command, now_s)

    def count(self, op: Operation, now_s: float) -> None:
        """Something has changed about what was asked of several nodes."""
        assert op.quorum is not None
        match op.quorum.verdict(len(op.sent)):
            case Verdict.DONE:
                self.retire(op, 0)
                values = op.quorum.values
                if values is not None:
                    self._asks_all = op.quorum.answered == self._selector.cluster_size > 1
                self.complete(op, b"" if values is None else values.data)
            case Verdict.GIVE_UP:
                self._leave_to_a_node(op, now_s)
            case Verdict.ASK_ALL:
                others = [node for node in self._selector.nodes if node.usable and node.rank not in op.quorum.asked]
                for node in others:
                    self._ask_node(op, node, now_s, values=False)
                if not others:
                    self._leave_to_a_node(op, now_s)

    def _leave_to_a_node(self, op: Operation, now_s: float) -> None:
        """A node asks the others, any that can be reached; what was put already is the same write."""
        assert op.command is not None
        tags = op.command.tags
        self.retire(op, 0)
        self.counters.coordinated += 1
        self.next_step(op, CommandKind.READ if op.is_read else CommandKind.STORE, now_s, tags)

    # --- sending ------------------------------------------------------------------------------
    def next_step(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        data = op.data if kind is CommandKind.STORE and op.data is not None else b""
        command = Command(kind, self.new_request(), op.first, op.count, tags, data, True, self._epoch)
        op.begin(command, now_s)
        self.requests[command.request] = op
        self.dispatch(op, now_s)

    def dispatch(self, op: Operation, now_s: float) -> None:
        """Send the current step to the best node, if there is one; wait for one if it is not under way at all."""
        assert op.command is not None
        node = self._selector.choose(op, now_s)
        if node is None:
            if not op.sent:
                self.waiting[op.operation] = op
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
        self.effects.append(Send(node.rank, command))

    # --- endings ------------------------------------------------------------------------------
    def retire(self, op: Operation, answered_by: int) -> None:
        """The current step is over: what other nodes still have of it is of no use. But a node that is behind with
        a PUT is to get it all the same: the more nodes have it, the better."""
        command = op.command
        assert command is not None
        del self.requests[command.request]
        behind = command.kind is CommandKind.PUT
        for rank in op.sent:
            node = self._nodes[rank]
            node.owed.pop(command.request, None)
            if behind:
                size = op.count * SECTOR_SIZE
                self.effects += [Withdraw(rank, spared) for spared in node.lag(command.request, size)]
            elif rank != answered_by:
                self.effects.append(Withdraw(rank, command.request))
        op.sent.clear()

    def complete(self, op: Operation, data: Any) -> None:
        del self.operations[op.operation]
        self.effects.append(Completed(op.operation, data))

    def end(self, op: Operation) -> None:
        if op.command is not None:
            self.retire(op, 0)
        self.waiting.pop(op.operation, None)
        del self.operations[op.operation]

    def fail(self, op: Operation, error: ClientError) -> None:
        self.end(op)
        self.effects.append(Failed(op.operation, error))
