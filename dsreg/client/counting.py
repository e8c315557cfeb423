"""Counting: steps of which the client counts the majority itself. GET and TAG from a majority, PUT, ZERO, MAP to all.

Where that does not settle it, the step is left to a node (dispatch.py): a READ for a GET, a STORE with the same tags
for a PUT, a TAG for which it asks the others for one for which it does not. No node does that for a ZERO, which is
split, nor for a MAP: what is not settled may be data.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.client.dispatch import Dispatch
from dsreg.client.limits import GET_ATTEMPT_S, PUT_ATTEMPT_S, ZERO_ATTEMPT_S
from dsreg.client.mapping import MapTally
from dsreg.client.naming import NameTally
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView
from dsreg.client.operation import Counted, Operation
from dsreg.client.operations import Operations
from dsreg.client.quorum import Tally, Verdict
from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import Command, CommandKind
from dsreg.register.quorum import bit

# Members of enumerations that each operation needs: see dsreg.protocol.messages.
_GET, _PUT, _TAG, _ZERO = CommandKind.GET, CommandKind.PUT, CommandKind.TAG, CommandKind.ZERO
_WAIT = Verdict.WAIT


class Counting:
    """See the module."""

    def __init__(self, operations: Operations, selector: NodeSelector, dispatch: Dispatch) -> None:
        self._operations = operations
        self._selector = selector
        self._dispatch = dispatch
        self._asks_all = False  # the last GET needed the answers of all nodes
        # The tags of a write are named: it goes on under them.
        self.on_named: Callable[[Operation, bytes, float], None] = lambda op, tags, now_s: None

    def begin(self, op: Operation, kind: CommandKind, now_s: float, tags: bytes = b"") -> None:
        """The operation's next step: GET, TAG, PUT, ZERO or MAP. If too few nodes can be reached, it is left at once.
        """
        get, names = kind is _GET, kind is _TAG
        operations, selector = self._operations, self._selector
        usable = selector.nearest(op.home, now_s)
        if op.maps:
            usable = [node for node in usable if node.maps and node.avoided_until_s <= now_s]
        data = b"" if names else op.data or b""
        command = Command(
            kind, operations.new_request(), op.first, op.count, tags, data, True, op.epoch, alone=names
        )
        attempt_s = ZERO_ATTEMPT_S if op.zero else GET_ATTEMPT_S if get or names else PUT_ATTEMPT_S
        step = Counted(command, self._tally(op, kind), now_s, now_s + attempt_s)
        operations.enter(op, step)
        enough = selector.enough_of(usable)
        if not enough or op.zero and not all(node.zeroes for node in usable):
            self.leave(op, step, now_s)
            return
        operations.counters.quorums += 1
        for node in usable[:enough] if names or get and not self._asks_all else usable:
            self._ask(op, step, node, now_s, values=get and node is usable[0])

    def _tally(self, op: Operation, kind: CommandKind) -> Tally:
        quorum = self._selector.quorum
        if op.maps:
            return MapTally(quorum, op.epoch, op.count // MAX_RUN_SECTORS)
        return NameTally(quorum) if kind is _TAG else Tally(kind, quorum, op.epoch)

    def begin_anew(self, op: Operation, step: Counted, now_s: float) -> None:
        """A node that has answered does not count any more: the question is asked anew, what is put is the same."""
        self._operations.retire(step)
        self.begin(op, step.command.kind, now_s, step.command.tags)

    def _ask(self, op: Operation, step: Counted, node: NodeView, now_s: float, values: bool) -> None:
        command = step.command
        step.tally.asked |= 1 << node.rank
        op.exposures += command.kind is _PUT or command.kind is _ZERO
        if values:  # not by _replace, which costs four times as much
            command = Command(command.kind, command.request, op.first, op.count, b"", b"", True, command.epoch, True)
        self._operations.send(step, node, command, now_s)

    def count(self, op: Operation, step: Counted, now_s: float) -> None:
        """A node has answered, or will not."""
        tally = step.tally
        verdict = tally.verdict(step.sent)
        if verdict is _WAIT:
            return
        match verdict:
            case Verdict.DONE:
                if (meter := self._operations.meter) is not None:
                    meter.answered(step.command, tally.last, now_s - step.started_s)
                if isinstance(tally, MapTally):
                    self.leave(op, step, now_s)
                    return
                self._operations.retire(step)
                if isinstance(tally, NameTally):
                    self.on_named(op, tally.tags, now_s)
                    return
                values = tally.values
                if values is not None:
                    self._asks_all = tally.has_all
                self._operations.complete(op, b"" if values is None else values.data)
            case Verdict.GIVE_UP:
                self.leave(op, step, now_s)
            case Verdict.ASK_ALL:
                countable = filter(self._selector.may_count, self._selector.nodes)
                others = [node for node in countable if not tally.asked & bit(node.rank)]
                for node in others:
                    self._ask(op, step, node, now_s, values=False)
                if not others:
                    self.leave(op, step, now_s)

    def hedge(self, op: Operation, step: Counted, now_s: float) -> None:
        """No majority has answered in time."""
        self._operations.counters.hedges += 1
        self._selector.avoid_silent(step.sent, now_s)
        self.leave(op, step, now_s)

    def leave(self, op: Operation, step: Counted, now_s: float) -> None:
        """A node asks the others, any that can be reached; what was put already is the same write. A MAP is over."""
        self._operations.retire(step)
        if op.zero:
            self._operations.split(op)
            return
        if isinstance(step.tally, MapTally):
            self._operations.complete(op, step.tally.holes())
            return
        self._operations.counters.coordinated += 1
        kind = CommandKind.READ if op.is_read else _TAG if step.command.kind is _TAG else CommandKind.STORE
        self._dispatch.begin(op, kind, now_s, step.command.tags)
