"""Access: by which right a client uses the disk, and what follows for its operations.

    Exclusive   it attaches the disk (attachment.py): operations wait until it has, and write under its epoch
    Shared      it does not: it writes unless another client that is alive has the disk attached (guard.py)

docs/attachments.md.
"""

from __future__ import annotations

import abc

from dsreg.client import attachment as attaching
from dsreg.client.attachment import Attachment, Claim, State
from dsreg.client.contract_nodes import ContractNodes
from dsreg.client.counting import Counting
from dsreg.client.dispatch import Dispatch
from dsreg.client.events import Attached, NotAttached, Send, Waits
from dsreg.client.guard import Guard
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView
from dsreg.client.operation import Operation, WaitsForClearance, WaitsForNode
from dsreg.client.operations import Operations, error_for
from dsreg.constants import NO_OWNER
from dsreg.errors import ClientError
from dsreg.protocol.messages import Command, CommandKind, Response
from dsreg.protocol.tags import highest_epoch
from dsreg.register.quorum import bit

# Members of enumerations that each operation needs: see dsreg.protocol.messages.
_GET, _PUT, _HELD = CommandKind.GET, CommandKind.PUT, State.HELD


class Access(abc.ABC):
    """What is the same for both."""

    def __init__(
        self, operations: Operations, selector: NodeSelector, counting: Counting, dispatch: Dispatch
    ) -> None:
        self._operations = operations
        self._selector = selector
        self._counting = counting
        self._dispatch = dispatch

    @property
    def attachment(self) -> Attachment | None:
        """None: shared."""
        return None

    @property
    @abc.abstractmethod
    def is_open(self) -> bool:
        """Whether operations may run."""

    @property
    @abc.abstractmethod
    def error(self) -> ClientError | None:
        """Why no operation will ever run."""

    @property
    @abc.abstractmethod
    def is_undecided(self) -> bool:
        """Whether the nodes are being asked for the right itself."""

    # --- operations -------------------------------------------------------------------------------
    def start(self, op: Operation, now_s: float) -> None:
        """Begin it, or have it wait."""
        if self.is_open:
            self._begin(op, now_s)
        elif (error := self.error) is not None:
            self._operations.fail(op, error_for(op, error))

    def go_on(self, now_s: float) -> None:
        """What waits for the attachment, or for a node, may find one now."""
        if not self.is_open:
            return
        for op in self._operations.waiting():
            if isinstance(op.phase, WaitsForNode):
                self._dispatch.send(op, op.phase.step, now_s)
            else:
                self._begin(op, now_s)

    def _begin(self, op: Operation, now_s: float) -> None:
        if op.maps:
            self._map(op, now_s)
        elif op.is_read:
            self._read(op, now_s)
        elif op.zero:
            self._zero(op, now_s)
        else:
            self._write(op, now_s)

    def trust(self, rank: int) -> None:
        """What the node did not believe may be different now."""
        for op in self._operations.all():
            op.disbelief &= ~bit(rank)

    @abc.abstractmethod
    def _read(self, op: Operation, now_s: float) -> None: ...

    @abc.abstractmethod
    def _write(self, op: Operation, now_s: float) -> None: ...

    def _map(self, op: Operation, now_s: float) -> None:
        if (attachment := self.attachment) is not None:
            op.epoch = attachment.epoch
        self._counting.begin(op, CommandKind.MAP, now_s)

    def _zero(self, op: Operation, now_s: float) -> None:
        """Only who names tags himself does it by one command."""
        self._operations.split(op)

    @abc.abstractmethod
    def store(self, op: Operation, tags: bytes, now_s: float) -> None:
        """Store `op.data` under these tags."""

    # --- what happens -----------------------------------------------------------------------------
    @abc.abstractmethod
    def connected(self, node: NodeView, now_s: float) -> None:
        """The node may be asked for the right."""

    @abc.abstractmethod
    def answered(self, node: NodeView, response: Response, now_s: float) -> None:
        """To an ATTACH."""

    @abc.abstractmethod
    def tick(self, now_s: float) -> None:
        """Time has passed."""

    @abc.abstractmethod
    def refused_by_all(self, error: ClientError, now_s: float) -> None:
        """No node can be used."""

    @abc.abstractmethod
    def fenced(self, response: Response, now_s: float) -> None:
        """A command was refused as that of an older epoch."""

    @abc.abstractmethod
    def overtaken(self, op: Operation, now_s: float) -> None:
        """A write has met a later one of this very client, which it has not made."""

    @abc.abstractmethod
    def compare(self, node: NodeView, now_s: float) -> None:
        """The node is to compare its copy with the others: it was not sent all writes."""

    @abc.abstractmethod
    def disbelieved(self, node: NodeView, now_s: float) -> None:
        """The node does not take the epoch of a command, or its tag."""

    @property
    @abc.abstractmethod
    def told(self) -> int:
        """Mask of the nodes that know of the epoch under which this client writes, or have refused it: what they
        disbelieve then is their opinion."""

    @abc.abstractmethod
    def discount(self, rank: int) -> None:
        """What that node has promised does not count any more."""

    @abc.abstractmethod
    def reconfigured(self, now_s: float) -> None:
        """Other nodes decide from now on. What was told before does not count, and is asked again."""


class Exclusive(Access):
    """See the module."""

    def __init__(
        self, operations: Operations, selector: NodeSelector, counting: Counting, dispatch: Dispatch, claim: Claim,
        contract_nodes: ContractNodes,
    ) -> None:
        super().__init__(operations, selector, counting, dispatch)
        self._attachment = Attachment(claim, selector.quorum)
        self._contract_nodes = contract_nodes

    @property
    def attachment(self) -> Attachment | None:
        return self._attachment

    @property
    def is_open(self) -> bool:
        return self._attachment.state is _HELD

    @property
    def error(self) -> ClientError | None:
        return self._attachment.error

    @property
    def is_undecided(self) -> bool:
        return self._attachment.is_open

    def _read(self, op: Operation, now_s: float) -> None:
        op.epoch = self._attachment.epoch
        self._counting.begin(op, _GET, now_s)

    def _write(self, op: Operation, now_s: float) -> None:
        op.epoch = self._attachment.epoch
        self._counting.begin(op, _PUT, now_s, self._attachment.next_tag(now_s) * op.count)

    def _zero(self, op: Operation, now_s: float) -> None:
        op.epoch = self._attachment.epoch
        self._counting.begin(op, CommandKind.ZERO, now_s, self._attachment.next_tag(now_s))

    def store(self, op: Operation, tags: bytes, now_s: float) -> None:
        self._dispatch.begin(op, CommandKind.STORE, now_s, tags)

    def connected(self, node: NodeView, now_s: float) -> None:
        if node.is_member:
            self._carry_out(self._attachment.connected(node.rank, self._selector.quorum, now_s), now_s)

    def answered(self, node: NodeView, response: Response, now_s: float) -> None:
        self._carry_out(self._attachment.answer(node.rank, response, now_s), now_s)

    def tick(self, now_s: float) -> None:
        if not self.is_open:
            refusal = self._contract_nodes.refusal(self._selector.quorum, now_s)
            if refusal is not None:
                self._carry_out(self._attachment.refuse(refusal), now_s)
        self._carry_out(self._attachment.tick(now_s), now_s)

    def refused_by_all(self, error: ClientError, now_s: float) -> None:
        self._carry_out(self._attachment.refuse(error), now_s)

    def fenced(self, response: Response, now_s: float) -> None:
        self._carry_out(self._attachment.check(response), now_s)

    def overtaken(self, op: Operation, now_s: float) -> None:
        op.exposures += 1  # of a run the rest is stored
        self._carry_out(self._attachment.overtaken(), now_s)

    def compare(self, node: NodeView, now_s: float) -> None:
        """A node that is told of an attachment, be it once more, does so a moment later."""
        if self.is_open:
            node.is_short, node.compares_s = False, now_s
            self._ask(node.rank, self._attachment.epoch)

    def disbelieved(self, node: NodeView, now_s: float) -> None:
        self._carry_out(self._attachment.disbelieved(node.rank, now_s), now_s)

    @property
    def told(self) -> int:
        return self._attachment.told

    def discount(self, rank: int) -> None:
        self._attachment.discount(rank)

    def reconfigured(self, now_s: float) -> None:
        self._carry_out(self._attachment.reconfigured(self._selector.quorum), now_s)

    # --- effects of the attachment ----------------------------------------------------------------
    def _carry_out(self, effects: list[attaching.Effect], now_s: float) -> None:
        out = self._operations.effects
        for effect in effects:
            match effect:
                case attaching.Ask(epoch, 0):
                    for node in self._selector.nodes:
                        if node.up and not node.barred and node.is_member:
                            self._ask(node.rank, epoch)
                case attaching.Ask(epoch, rank):
                    self._ask(rank, epoch)
                case attaching.WaitsFor(text, needs_help):
                    out.append(Waits(text, needs_help))
                case attaching.Held(epoch):
                    out.append(Attached(epoch))
                    self.go_on(now_s)
                case attaching.Lost(error):
                    out.append(NotAttached(error))
                    self._operations.fail_all(error)
                case attaching.Knows(rank):
                    self.trust(rank)
                    self.go_on(now_s)

    def _ask(self, rank: int, epoch: int) -> None:
        owner = self._attachment.claim.owner
        command = Command.attach(self._operations.new_request(), epoch, owner)
        self._attachment.sent(rank, epoch)
        self._operations.effects.append(Send(rank, command))


class Shared(Access):
    """See the module."""

    def __init__(
        self, operations: Operations, selector: NodeSelector, counting: Counting, dispatch: Dispatch
    ) -> None:
        super().__init__(operations, selector, counting, dispatch)
        self._guard = Guard()
        counting.on_named = self.store

    # Properties, as mypyc takes no attribute in place of one.
    @property
    def is_open(self) -> bool:
        return True

    @property
    def error(self) -> ClientError | None:
        return None

    @property
    def is_undecided(self) -> bool:
        return False

    def _read(self, op: Operation, now_s: float) -> None:
        self._counting.begin(op, _GET, now_s)

    def _write(self, op: Operation, now_s: float) -> None:
        self._counting.begin(op, CommandKind.TAG, now_s)

    def store(self, op: Operation, tags: bytes, now_s: float) -> None:
        epoch = 0 if op.force else highest_epoch(tags)
        if self._guard.clears(epoch, now_s):
            self._dispatch.begin(op, CommandKind.STORE, now_s, tags)
        else:
            op.phase = WaitsForClearance(tags, epoch)
            self._ask_who_has_it(now_s)

    def connected(self, node: NodeView, now_s: float) -> None:
        """Nothing is asked before a write needs it."""

    def answered(self, node: NodeView, response: Response, now_s: float) -> None:
        error = self._guard.answer(node.rank, response, self._selector.quorum, now_s)
        for op in self._operations.uncleared():
            assert isinstance(op.phase, WaitsForClearance)
            if error is not None:
                self._operations.fail(op, error_for(op, error))
            elif self._guard.clears(op.phase.epoch, now_s):
                self._dispatch.begin(op, CommandKind.STORE, now_s, op.phase.tags)
        self._ask_who_has_it(now_s)

    def tick(self, now_s: float) -> None:
        self._ask_who_has_it(now_s)

    def refused_by_all(self, error: ClientError, now_s: float) -> None:
        """Each operation has failed with that already, and so will the next one."""

    def fenced(self, response: Response, now_s: float) -> None:
        """A node knows of a newer attachment: the next one may not, and the guard asks before a write is stored."""

    def overtaken(self, op: Operation, now_s: float) -> None:
        """Its tags are not this client's own."""

    def compare(self, node: NodeView, now_s: float) -> None:
        """What it stores goes through a node, which sees to that itself."""

    def disbelieved(self, node: NodeView, now_s: float) -> None:
        """There is no attachment to tell the node of."""

    @property
    def told(self) -> int:
        return self._selector.quorum.members

    def discount(self, rank: int) -> None:
        """No node has promised anything."""

    def reconfigured(self, now_s: float) -> None:
        self._guard.forget()
        self._ask_who_has_it(now_s)

    def _ask_who_has_it(self, now_s: float) -> None:
        """If an operation waits for that."""
        if not self._guard.may_ask(now_s) or not self._operations.uncleared():
            return
        request = self._operations.new_request()
        self._guard.ask(request, now_s)
        question = Command.attach(request, 0, NO_OWNER)
        self._operations.effects += [Send(node.rank, question) for node in self._selector.nodes if node.usable]
