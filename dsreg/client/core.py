"""ClientCore: the client's decisions, without I/O: where a command goes, when elsewhere, what an operation came to.

`ClientCore.step(event, now_s)` takes one event and returns the effects to carry out, in order. Time comes in,
in seconds of any monotonic clock; while `busy`, a `Tick` is due every `limits.TICK_S`.

    read                    GET at a majority; where that does not settle it, READ
    read of an attachment   the same; and STORE under its epoch, if what was read is not there under it
    write                   TAG, then STORE with the tags that TAG named
    map                     MAP at all nodes; what they do not agree about may be data
    write of an attachment  PUT at all nodes, under a tag of its own; where no majority answers, STORE with that tag

GET and PUT go to several nodes, and the client counts the majority (quorum.py). READ, TAG and STORE leave that to
the node that gets them: each may be sent to any node and to several, and the first answer wins. A GET, a READ and
a TAG change nothing, and a PUT or STORE is the same write however often it is executed, because its tags were
chosen once. docs/client.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dsreg.client.access import Access, Exclusive, Shared
from dsreg.client.attachment import Attachment, Claim
from dsreg.client.contract_nodes import ContractNodes
from dsreg.client.counting import Counting
from dsreg.client.dispatch import Dispatch
from dsreg.client.events import (
    Abandon,
    Close,
    Connected,
    Disconnected,
    Drop,
    Effect,
    Event,
    Gone,
    Inform,
    KeyRefused,
    NotSealed,
    OtherDisk,
    Received,
    Refusal,
    Send,
    Sized,
    Start,
    Tick,
)
from dsreg.client.limits import NEVER
from dsreg.client.members import Members
from dsreg.client.metering import Meter
from dsreg.client.node_selector import NodeSelector, refused_by_all
from dsreg.client.node_view import NodeView
from dsreg.client.operation import Counted, Delegated, Operation
from dsreg.client.operations import Operations
from dsreg.client.replies import Replies
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import ClientClosed, Outcome
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.extents import can_be_mapped
from dsreg.protocol.life import Life
from dsreg.protocol.messages import AddressReport, LivesReport, Response, StatusReport, StatusRequest
from dsreg.protocol.zeros import are_chunks
from dsreg.register.quorum import Quorum, bit


class ClientCore:
    """See the module. One per client; `ranks` are those of the configured nodes, in the order of preference.

    With a `claim` the client attaches the disk: operations wait until it has, and fail once it has not. `learns`:
    whether it uses nodes that others tell of. `meter`: told what takes time.
    """

    def __init__(
        self, ranks: Sequence[int], claim: Claim | None = None, *, learns: bool = True, meter: Meter | None = None
    ) -> None:
        self.contract_nodes = ContractNodes()
        self._selector = selector = NodeSelector(ranks)
        self._nodes = selector.by_rank
        self._operations = operations = Operations(self._nodes, meter)
        self._dispatch = dispatch = Dispatch(operations, selector)
        self._counting = counting = Counting(operations, selector, dispatch)
        self._access: Access = (
            Shared(operations, selector, counting, dispatch) if claim is None
            else Exclusive(operations, selector, counting, dispatch, claim, self.contract_nodes)
        )
        self._replies = Replies(operations, selector, counting, dispatch, self._access)
        self._members = Members(selector, learns=learns)
        self.counters = operations.counters
        self.new_request = operations.new_request
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
        effects, self._operations.effects = self._operations.effects, []
        return effects

    @property
    def attachment(self) -> Attachment | None:
        return self._access.attachment

    @property
    def quorum(self) -> Quorum:
        """Of the cluster's nodes."""
        return self._selector.quorum

    def outcome(self, operation: int) -> Outcome | None:
        """What would be known of a running operation if it were given up now; None if it has ended."""
        op = self._operations.get(operation)
        return None if op is None else op.outcome

    @property
    def busy(self) -> bool:
        """Whether ticks are needed: something is in flight."""
        return self._access.is_undecided or len(self._operations) > 0 or self._selector.owes_answers

    def obstacle(self, now_s: float) -> tuple[str, bool]:
        """See NodeSelector."""
        return self._selector.obstacle(now_s)

    @property
    def configuration(self) -> Configuration | None:
        """That decides: the latest that was told."""
        return self._selector.configuration

    @property
    def ranks(self) -> list[int]:
        """Of the nodes that are connected to, as far as they decide."""
        return sorted(node.rank for node in self._selector.nodes if node.is_member)

    def up(self, rank: int) -> bool:
        return rank in self._nodes and self._nodes[rank].up

    def lagging_bytes(self, rank: int) -> int:
        """Of writes that are done, and that this node has not answered yet."""
        return self._nodes[rank].lagging_bytes if rank in self._nodes else 0

    @property
    def unfinished(self) -> int:
        """Operations."""
        return len(self._operations)

    def counts(self, rank: int) -> bool:
        """Whether what the node answers may be counted, by its directory."""
        return rank in self._nodes and not self._nodes[rank].barred

    def life(self, rank: int) -> Life | None:
        """The latest that was told of this rank."""
        return self._members.life(rank)

    # --- the caller's side --------------------------------------------------------------------
    def _start(self, event: Start, now_s: float) -> None:
        operation, first, count, data, force, zero, maps = event
        if zero or maps:
            assert data is None and (are_chunks(first, count) if zero else can_be_mapped(first, count))
        else:
            assert 1 <= count <= MAX_RUN_SECTORS and (data is None or len(data) == count * SECTOR_SIZE)
        # By the chunk, so that work on the same sectors meets, and queues, on one node.
        home = first // MAX_RUN_SECTORS % len(self._nodes)
        op = Operation(operation, first, count, data, home, data is None and not zero, force, zero, maps)
        self._operations.add(op)
        if (refusal := self._selector.refusal) is not None:
            self._operations.fail(op, refused_by_all(refusal, op.outcome))
        else:
            self._access.start(op, now_s)

    def _abandon(self, event: Abandon, now_s: float) -> None:
        op = self._operations.get(event.operation)
        # A STORE or PUT that is under way is seen through. That of a read as well: it might bring up, after the next
        # read of these sectors, what that one has not seen (rule 10 of docs/attachments.md).
        if op is not None and not op.exposures:
            self._operations.drop(op)

    def _close(self, event: Close, now_s: float) -> None:
        self._operations.fail_all(ClientClosed("the client was closed", Outcome.DID_NOT_HAPPEN))

    # --- nodes come and go --------------------------------------------------------------------
    def _connected(self, event: Connected, now_s: float) -> None:
        node = self._nodes[event.rank]
        self._selector.connected(node, event.nodes)
        node.zeroes, node.maps = event.zeroes, event.maps
        self.contract_nodes.connected(event.rank)
        self._access.trust(event.rank)
        self._access.connected(node, now_s)
        self._access.go_on(now_s)

    def _disconnected(self, event: Disconnected | Refusal, now_s: float) -> None:
        node = self._nodes[event.rank]
        node.tried = True
        if not isinstance(event, Disconnected):
            node.refusal = event
        elif event.contract_only:
            self.contract_nodes.found(event.rank, now_s)
        self._lose(node, now_s)
        if (refusal := self._selector.refusal) is not None:
            error = refused_by_all(refusal, Outcome.DID_NOT_HAPPEN)
            self._operations.fail_all(error)
            self._access.refused_by_all(error, now_s)

    def _lose(self, node: NodeView, now_s: float) -> None:
        """Take the node for disconnected, and send elsewhere what it was the only one to have."""
        for op in self._take_back(node):
            assert isinstance(op.phase, (Counted, Delegated))
            self._replies.missing(op, op.phase, now_s)

    def _take_back(self, node: NodeView) -> Iterator[Operation]:
        """What the node still owes, one after the other."""
        for request in node.lose():
            op = self._operations.of_request(request)
            assert op is not None and isinstance(op.phase, (Counted, Delegated))
            del op.phase.sent[node.rank]
            yield op

    def _discount(self, node: NodeView, now_s: float) -> None:
        """Count nothing that the node has said, and ask others instead."""
        up = node.up
        owed = list(self._take_back(node))
        node.up = up
        self._access.discount(node.rank)
        for op in self._operations.all():
            match op.phase:
                case Counted() as step if step.tally.asked & bit(node.rank):
                    self._counting.begin_anew(op, step, now_s)
                case Delegated() as step if op in owed and not step.sent:
                    self._dispatch.send(op, step, now_s)

    # --- answers ------------------------------------------------------------------------------
    def _received(self, event: Received, now_s: float) -> None:
        node = self._nodes[event.rank]
        for message in event.messages:
            if isinstance(message, Response):
                self._replies.take(node, message, now_s)
            elif isinstance(message, LivesReport):
                self._told_lives(node, message, now_s)
            elif isinstance(message, AddressReport):
                self._operations.effects += self._members.told_addresses(message)
                self._look_for_members()
            elif isinstance(message, ConfigurationReport):
                self._told_configuration(node, message, now_s)
            elif isinstance(message, StatusReport) and (no_space := _no_space_in(message)) is not None:
                node.full_s = now_s if no_space else NEVER
        if not node.up:
            return
        node.silent_since_s = now_s if node.owed else None
        node.probed = False

    def _told_lives(self, node: NodeView, report: LivesReport, now_s: float) -> None:
        change = self._members.told(node.rank, report)
        self._operations.effects += change.told
        for discounted in change.discounted:
            self._discount(discounted, now_s)
        if change.has_more:
            self._access.go_on(now_s)

    def _told_configuration(self, node: NodeView, report: ConfigurationReport, now_s: float) -> None:
        """The node answers under this one from now on. What was answered under an earlier one than the latest does not
        count: it is asked again, and stored again under the same tags."""
        selector = self._selector
        before, is_news = selector.configuration, selector.told(node, report.configuration)
        latest = selector.configuration
        assert latest is not None
        if before is None or latest.sectors != before.sectors:
            self._operations.effects.append(Sized(latest.sectors))
        if not is_news:
            self._inform(node)
            self._access.go_on(now_s)  # it may be the one that is waited for
            return
        self._access.reconfigured(now_s)
        for op in self._operations.all():
            if isinstance(op.phase, Counted):
                self._counting.begin_anew(op, op.phase, now_s)
        for gone in self._members.gone():
            self._lose(gone, now_s)
            selector.remove(gone)
            self._operations.effects.append(Gone(gone.rank))
        for other in selector.nodes:
            self._inform(other)
        self._look_for_members()

    def _inform(self, node: NodeView) -> None:
        """The node of what was chosen, if it can hear that, and has told an earlier one last. Until it has heard of it
        nothing that it says counts."""
        latest = self._selector.configuration
        if latest is not None and node.up and 0 < node.number < latest.number:
            self._operations.effects.append(Inform(node.rank, latest))

    def _look_for_members(self) -> None:
        for found in self._members.found():
            self._selector.add(found.rank)
            self._operations.effects.append(found)

    # --- time ---------------------------------------------------------------------------------
    def _tick(self, event: Tick, now_s: float) -> None:
        self._access.tick(now_s)
        for op in self._operations.all():
            match op.phase:
                case Counted() as step if now_s >= step.deadline_s:
                    self._counting.hedge(op, step, now_s)
                case Delegated() as step if now_s >= step.deadline_s:
                    self._dispatch.hedge(op, step, now_s)
        asked, given_up = self._selector.silent(now_s)
        for node in asked:
            self._operations.effects.append(Send(node.rank, StatusRequest(self.new_request())))
        for node in given_up:
            self._operations.effects.append(Drop(node.rank))
            self._lose(node, now_s)


def _no_space_in(report: StatusReport) -> bool | None:
    """Whether the node has no room for new data; None if it does not say."""
    try:
        status = json.loads(report.body)
    except ValueError:
        return None
    no_space = status.get("no_space") if isinstance(status, dict) else None
    return no_space if isinstance(no_space, bool) else None
