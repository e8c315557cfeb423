"""Members: which nodes a client may ask and count, by what they tell of the directories behind the ranks; and where
they are.

A node whose directory has changed has forgotten what it acknowledged; two that tell different directories of one rank
leave open which is the one that counts. docs/lives.md.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.client.events import Moved, NotCounted
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView
from dsreg.protocol.life import Life
from dsreg.protocol.messages import AddressReport, LivesReport
from dsreg.register.addresses import Addresses
from dsreg.register.lives import Lives


class Change(NamedTuple):
    """What a report has changed. `told`: to be said. `discounted`: nothing that these nodes have said counts any more.
    `has_more`: there are nodes again that may be asked."""

    told: list[NotCounted]
    discounted: list[NodeView]
    has_more: bool


class Members:
    """What it hears first of a rank holds until the client ends, or the node has rejoined with a later life: it may
    have counted that directory's answers."""

    def __init__(self, selector: NodeSelector) -> None:
        self._lives = Lives(0, {})
        self._addresses = Addresses(0, {})
        self._selector = selector
        self._faults: dict[int, str] = {}

    def told(self, teller: int, report: LivesReport) -> Change:
        """The node `teller` says this."""
        heard = self._lives.take(teller, report.stage, report.own, report.known)
        discounted: list[NodeView] = []
        has_more = False
        for node in self._selector.nodes:
            is_barred = self._lives.keeps_lives(node.rank) and not self._lives.counts(node.rank)
            # What it has said in an earlier life is void even if it is used at once in this one.
            if is_barred and not node.barred or node.rank in heard.superseded:
                discounted.append(node)
            has_more |= node.barred and not is_barred
            node.barred = is_barred
        told = []
        for rank in self._selector.by_rank:
            if (fault := self._lives.fault(rank)) != self._faults.get(rank, ""):
                self._faults[rank] = fault
                told.append(NotCounted(rank, fault))
        return Change(told, discounted, has_more)

    def life(self, rank: int) -> Life | None:
        return self._lives.known.get(rank)

    def told_addresses(self, report: AddressReport) -> list[Moved]:
        """What is new in that, of the nodes that this client uses."""
        news = self._addresses.take(report.addresses, self._lives.known)
        return [
            Moved(rank, moved.address.place, moved.is_first)
            for rank, moved in news.items() if rank in self._selector.by_rank
        ]
