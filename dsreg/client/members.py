"""Members: which nodes a client may ask and count, by what they tell of the directories behind the ranks; and where
they are.

A node whose directory has changed has forgotten what it acknowledged; two that tell different directories of one rank
leave open which is the one that counts. docs/lives.md.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.client.events import Found, Moved, NotCounted
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView
from dsreg.protocol.life import Life
from dsreg.protocol.messages import AddressReport, LivesReport
from dsreg.register.addresses import Addresses
from dsreg.register.lives import Lives
from dsreg.register.quorum import ranks_in


class Change(NamedTuple):
    """What a report has changed. `told`: to be said. `discounted`: nothing that these nodes have said counts any more.
    `has_more`: there are nodes again that may be asked."""

    told: list[NotCounted]
    discounted: list[NodeView]
    has_more: bool


class Members:
    """`learns`: whether the addresses that nodes tell count. What it hears first of a rank holds until the client ends,
    or the node has rejoined with a later life: it may have counted that directory's answers."""

    def __init__(self, selector: NodeSelector, *, learns: bool = True) -> None:
        self._lives = Lives(0, {})
        self._addresses = Addresses(0, {})
        self._learns = learns
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

    def found(self) -> list[Found]:
        """The members that this client does not know, if it is known where they are."""
        if self._selector.configuration is None or not self._learns:
            return []
        known = self._addresses.known
        return [
            Found(rank, known[rank].place) for rank in ranks_in(self._selector.quorum.members)
            if rank not in self._selector.by_rank and rank in known
        ]

    def gone(self) -> list[NodeView]:
        """Those that were found, and are members no more. What the configuration of the client has is left to that."""
        return [
            node for node in self._selector.nodes
            if not node.is_member and node.rank not in self._selector.configured
        ]
