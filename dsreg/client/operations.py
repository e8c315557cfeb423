"""Operations: the table of the operations under way, and the one way in which they end.

Commands of one step that are sent to several nodes have one request number: `of_request` finds the operation by it.
"""

from __future__ import annotations

from typing import Any

from dsreg.client.events import Completed, Dropped, Effect, Failed, Send, Split, Withdraw
from dsreg.client.metering import Counters, Meter
from dsreg.client.node_view import NodeView
from dsreg.client.operation import (
    ENDED,
    Counted,
    Delegated,
    Operation,
    UnderWay,
    WaitsForAttachment,
    WaitsForClearance,
    WaitsForNode,
)
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientError, Outcome
from dsreg.protocol.messages import Command, CommandKind

# Each operation needs it: see dsreg.protocol.messages.
_PUT, _ZERO = CommandKind.PUT, CommandKind.ZERO


class Operations:
    """`effects`: what is to be carried out, in order, whoever in the core wants it; who takes them empties it.
    `meter`: told what takes time; None where nobody wants to know."""

    def __init__(self, nodes: dict[int, NodeView], meter: Meter | None = None) -> None:
        self.meter = meter
        self.counters = Counters() if meter is None else meter.counters
        self.effects: list[Effect] = []
        self._nodes = nodes  # by rank
        self._all: dict[int, Operation] = {}
        self._requests: dict[int, Operation] = {}  # by the request number of the step
        self._last_request = 0

    def __len__(self) -> int:
        return len(self._all)

    def get(self, operation: int) -> Operation | None:
        return self._all.get(operation)

    def of_request(self, request: int) -> Operation | None:
        """The one whose step under way has this number."""
        return self._requests.get(request)

    def all(self) -> list[Operation]:
        """In the order of their beginning; those that end meanwhile are still in it."""
        return list(self._all.values())

    def waiting(self) -> list[Operation]:
        """Those for an attachment, and those for a node."""
        return [op for op in self._all.values() if isinstance(op.phase, (WaitsForAttachment, WaitsForNode))]

    def uncleared(self) -> list[Operation]:
        """Those that wait until it is known whether another client has the disk."""
        return [op for op in self._all.values() if isinstance(op.phase, WaitsForClearance)]

    def new_request(self) -> int:
        """A request number that no command of this client has."""
        self._last_request += 1
        return self._last_request

    # --- beginning --------------------------------------------------------------------------------
    def add(self, op: Operation) -> None:
        assert op.operation not in self._all
        self._all[op.operation] = op

    def enter(self, op: Operation, step: UnderWay) -> None:
        """Its next step."""
        op.phase = step
        self._requests[step.command.request] = op

    def send(self, step: UnderWay, node: NodeView, command: Command, now_s: float) -> None:
        """`command`: of this step."""
        step.sent[node.rank] = now_s
        node.owed[command.request] = None
        if node.silent_since_s is None:
            node.silent_since_s = now_s
        self.effects.append(Send(node.rank, command))

    # --- endings ----------------------------------------------------------------------------------
    def retire(self, step: UnderWay, answered_by: int = 0) -> None:
        """The step is over: what other nodes still have of it is of no use. But a node that is behind with a PUT is to
        get it all the same: the more nodes have it, the better."""
        command = step.command
        del self._requests[command.request]
        behind = command.kind is _PUT or command.kind is _ZERO
        for rank in step.sent:
            node = self._nodes[rank]
            node.owed.pop(command.request, None)
            if behind:
                size = SECTOR_SIZE if command.kind is _ZERO else command.count * SECTOR_SIZE
                self.effects += [Withdraw(rank, spared) for spared in node.lag(command.request, size)]
            elif rank != answered_by:
                self.effects.append(Withdraw(rank, command.request))
        step.sent.clear()

    def complete(self, op: Operation, data: Any) -> None:
        """Its last step has been retired."""
        op.phase = ENDED
        del self._all[op.operation]
        self.effects.append(Completed(op.operation, data))

    def fail(self, op: Operation, error: ClientError) -> None:
        self._end(op)
        self.counters.failures += 1
        self.effects.append(Failed(op.operation, error))

    def fail_all(self, error: ClientError) -> None:
        """Each with its own outcome."""
        for op in self.all():
            self.fail(op, error_for(op, error))

    def split(self, op: Operation) -> None:
        """It is over, and what it was to do is done in pieces. Its step, if it had one, has been retired."""
        op.phase = ENDED
        del self._all[op.operation]
        self.effects.append(Split(op.operation, op.exposures > 0))

    def drop(self, op: Operation) -> None:
        """It certainly did not happen, and nobody waits for it."""
        self._end(op)
        self.effects.append(Dropped(op.operation))

    def _end(self, op: Operation) -> None:
        phase = op.phase
        if isinstance(phase, WaitsForNode):
            phase = phase.step
        if isinstance(phase, (Counted, Delegated)):
            self.retire(phase)
        op.phase = ENDED
        del self._all[op.operation]


def error_for(op: Operation, error: ClientError) -> ClientError:
    """The same error, with what is known of this operation."""
    outcome: Outcome = op.outcome
    return type(error)(error.reason, outcome)
