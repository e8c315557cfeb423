"""Dispatch: steps that are left to a node, which sees to the majority. Which node gets the command, and which one gets
it as well when that one does not answer.

Each of these commands may be sent to any node and to several, and the first answer wins.
"""

from __future__ import annotations

from dsreg.client.events import Send
from dsreg.client.limits import ATTEMPT_FIRST_S, ATTEMPT_MAX_S, NEVER
from dsreg.client.node_selector import NodeSelector
from dsreg.client.operation import Delegated, Operation, WaitsForNode
from dsreg.client.operations import Operations
from dsreg.protocol.messages import Command, CommandKind, StatusRequest


class Dispatch:
    """See the module."""

    def __init__(self, operations: Operations, selector: NodeSelector) -> None:
        self._operations = operations
        self._selector = selector
        self._asked_whether_full_s = NEVER

    def begin(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        """The operation's next step: READ, TAG or STORE."""
        data = op.data if kind is CommandKind.STORE and op.data is not None else b""
        command = Command(kind, self._operations.new_request(), op.first, op.count, tags, data, True, op.epoch)
        step = Delegated(command, now_s, now_s + ATTEMPT_FIRST_S, ATTEMPT_FIRST_S)
        self._operations.enter(op, step)
        self.send(op, step, now_s)

    def send(self, op: Operation, step: Delegated, now_s: float) -> None:
        """To the best node, if there is one; wait for one if the step is at no node at all."""
        node = self._selector.choose(op, step, now_s)
        if node is None:
            if not step.sent:
                op.phase = WaitsForNode(step)
            return
        if step.last_rank:
            self._operations.counters.retries += 1
            self._operations.counters.failovers += node.rank != step.last_rank
        if not step.sent:
            step.deadline_s = now_s + step.attempt_s
        step.last_rank = node.rank
        op.exposures += step.command.kind is CommandKind.STORE
        op.phase = step
        self._operations.send(step, node, step.command, now_s)

    def hedge(self, op: Operation, step: Delegated, now_s: float) -> None:
        """It was not answered in time."""
        self._operations.counters.hedges += 1
        self._selector.avoid_silent(step.sent, now_s)
        if op.exposures and not op.is_read:
            self._ask_whether_full(now_s)
        step.attempt_s = min(2 * step.attempt_s, ATTEMPT_MAX_S)
        step.deadline_s = now_s + step.attempt_s
        self.send(op, step, now_s)

    def _ask_whether_full(self, now_s: float) -> None:
        """A node that waits with a STORE does not say why. Whether nodes have room is in their STATUS."""
        if now_s - self._asked_whether_full_s >= ATTEMPT_FIRST_S:
            self._asked_whether_full_s = now_s
            asked = [node.rank for node in self._selector.nodes if node.up]
            self._operations.effects += [Send(rank, StatusRequest(self._operations.new_request())) for rank in asked]
