"""Members: which nodes a client may ask and count, by what they tell of the directories behind the ranks.

A node whose directory has changed has forgotten what it acknowledged; two that tell different directories of one rank
leave open which is the one that counts. docs/lives.md.
"""

from __future__ import annotations

from dsreg.client.attachment import Attachment, State
from dsreg.client.dispatch import Steps
from dsreg.client.events import NotCounted
from dsreg.client.node_selector import NodeSelector
from dsreg.client.state import Node
from dsreg.protocol.messages import LivesReport
from dsreg.register.lives import Lives


class Members:
    """What it hears first of a rank holds until the client ends: it may have counted that directory's answers."""

    def __init__(self, ring: NodeSelector, steps: Steps, attachment: Attachment | None) -> None:
        self.lives = Lives(0, {})
        self._selector = ring
        self._steps = steps
        self._attachment = attachment
        self._faults: dict[int, str] = {}

    def told(self, teller: Node, report: LivesReport, now_s: float) -> None:
        """The node `teller` says this."""
        self.lives.take(teller.rank, report.stage, report.own, report.known)
        lost: list[Node] = []
        found = False
        for node in self._selector.nodes:
            barred = self.lives.keeps_lives(node.rank) and not self.lives.counts(node.rank)
            if barred != node.barred:
                node.barred = barred
                if barred:
                    lost.append(node)
                found |= not barred
        for rank in self._selector.by_rank:
            if (fault := self.lives.fault(rank)) != self._faults.get(rank, ""):
                self._faults[rank] = fault
                self._steps.effects.append(NotCounted(rank, fault))
        for node in lost:
            self._discount(node, now_s)
        if found and (self._attachment is None or self._attachment.state is State.HELD):
            self._steps.go_on(now_s)

    def _discount(self, node: Node, now_s: float) -> None:
        """Count nothing that the node has said, and ask others instead."""
        up = node.up
        owed = [self._steps.requests[request] for request in node.lose()]
        node.up = up
        if self._attachment is not None:
            self._attachment.discount(node.rank)
        for op in owed:
            del op.sent[node.rank]
        for op in list(self._steps.operations.values()):
            if op.quorum is not None and node.rank in op.quorum.asked:
                self._steps.ask_again(op, now_s)
            elif op in owed and not op.sent:
                self._steps.dispatch(op, now_s)
