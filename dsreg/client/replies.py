"""Replies: what the answer of a node to a command comes to for its operation."""

from __future__ import annotations

from dsreg.client.access import Access
from dsreg.client.answers import CHANGING, fits
from dsreg.client.counting import Counting
from dsreg.client.dispatch import Dispatch
from dsreg.client.limits import MAX_REFUSALS
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView
from dsreg.client.operation import Counted, Delegated, Ended, Operation, UnderWay
from dsreg.client.operations import Operations
from dsreg.errors import AuthenticationFailed, NotBelieved, OutOfRange
from dsreg.protocol.messages import CommandKind, Response, Status
from dsreg.protocol.tags import restamped
from dsreg.register.quorum import bit, ranks_in

# Members of enumerations that each answer needs: see dsreg.protocol.messages.
_ATTACH, _OK = CommandKind.ATTACH, Status.OK


class Replies:
    """See the module."""

    def __init__(
        self, operations: Operations, selector: NodeSelector, counting: Counting, dispatch: Dispatch, access: Access
    ) -> None:
        self._operations = operations
        self._selector = selector
        self._counting = counting
        self._dispatch = dispatch
        self._access = access

    def take(self, node: NodeView, response: Response, now_s: float) -> None:
        """The node has answered a command."""
        if not response.extended:
            return  # the answer to the connection's question about the key
        if node.barred:
            self._operations.counters.late_answers += 1
            return
        if response.kind is _ATTACH:
            if self._selector.is_current(node):  # else it has not heard yet who decides
                self._access.answered(node, response, now_s)
            return
        if node.lagging and node.catch_up(response.request):
            self._note_refusal(node, response, now_s)
            if node.is_to_compare(now_s):
                self._access.compare(node, now_s)
            return
        op = self._operations.of_request(response.request)
        step = None if op is None else op.phase
        if (
            op is None or not isinstance(step, (Counted, Delegated)) or node.rank not in step.sent
            or response.kind is not step.command.kind
        ):
            self._operations.counters.late_answers += 1
        elif response.status is not _OK:
            self._refused(op, step, node, response, now_s)
        elif fits(step.command, response):
            node.answered(now_s)
            if isinstance(step, Counted):
                del step.sent[node.rank]
                node.owed.pop(response.request, None)
                step.tally.add(node.rank, response)
                self._counting.count(op, step, now_s)
            else:
                self._done(op, step, node, response, now_s)

    def _done(self, op: Operation, step: Delegated, node: NodeView, response: Response, now_s: float) -> None:
        """The node has seen to it."""
        if (meter := self._operations.meter) is not None:
            meter.answered(step.command, node.rank, now_s - step.started_s)
        self._operations.retire(step, node.rank)
        if not response.tags:
            read = response.data if response.kind is CommandKind.READ else op.data
            self._operations.complete(op, read if op.is_read else b"")
            return
        # From TAG; or from a READ that has to be stored under the attachment's epoch before it may be returned.
        tags = response.tags
        if op.is_read:
            op.data, tags = bytes(response.data), restamped(tags, op.epoch)
        op.home = node.index
        self._access.store(op, tags, now_s)

    # --- refusals ---------------------------------------------------------------------------------
    def _refused(self, op: Operation, step: UnderWay, node: NodeView, response: Response, now_s: float) -> None:
        """The node has not done the command, and says why."""
        status, kind = response.status, response.kind
        del step.sent[node.rank]
        node.owed.pop(response.request, None)
        if kind in CHANGING:
            op.exposures -= 1
        match status:
            case Status.FENCED:
                # A STORE that was sent on before it met the newer epoch may have reached a node.
                op.exposures += kind is CommandKind.STORE
                self._note_refusal(node, response, now_s)
            case Status.INVALID_SECTOR_INDEX:
                last = op.first + op.count - 1
                reason = f"node {node.rank}: no such sector, in {op.first}..{last}"
                self._operations.fail(op, OutOfRange(reason, op.outcome))
            case Status.OVERTAKEN:
                self._access.overtaken(op, now_s)
            case Status.DISBELIEVED:
                self._disbelieve(op, node, now_s)
            case Status.STOPPING:
                node.stopping = True
            case Status.NO_SPACE:
                self._note_refusal(node, response, now_s)
            case Status.AUTH_FAILURE:
                step.refusals += 1
                if step.refusals > MAX_REFUSALS:
                    reason = f"node {node.rank} refuses the command's HMAC"
                    self._operations.fail(op, AuthenticationFailed(reason, op.outcome))
        if not isinstance(op.phase, Ended):
            self.missing(op, step, now_s)

    def missing(self, op: Operation, step: UnderWay, now_s: float) -> None:
        """A node that was sent the step's command will not answer it."""
        if isinstance(step, Counted):
            self._counting.count(op, step, now_s)
        elif not step.sent:
            self._dispatch.send(op, step, now_s)

    def _note_refusal(self, node: NodeView, response: Response, now_s: float) -> None:
        if response.status is Status.NO_SPACE:
            node.full_s = now_s
        elif response.status is Status.FENCED:
            self._access.fenced(response, now_s)

    def _disbelieve(self, op: Operation, node: NodeView, now_s: float) -> None:
        """The node does not take the operation's epoch, or its tag: its clock is wrong, or nobody told it that the disk
        is attached, and it is told. That is its own opinion."""
        op.disbelief |= bit(node.rank)
        node.avoid(now_s)
        sure = op.disbelief & self._access.told
        if self._selector.quorum.blocks(sure):
            who = f"nodes {', '.join(map(str, ranks_in(sure)))}"
            reason = f"{who} refuse its epoch or its tag as implausible: check their clocks"
            self._operations.fail(op, NotBelieved(reason, op.outcome))
        self._access.disbelieved(node, now_s)
