"""Links: the connections that a node makes to the others, to whom and for how long. docs/configurations.md.

To each other member, at the address that cluster.toml has or that it has told itself, and to the nodes of cluster.toml
that are not known to have left: the list may be newer than what this node has heard, and they know who decides. To none
that has left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from dsreg.lines import TcpLines
from dsreg.link.destinations import Destinations
from dsreg.node.dialer import Dialer
from dsreg.node.members import Members
from dsreg.protocol.address import Place
from dsreg.protocol.configuration import Configuration
from dsreg.register.addresses import Moved
from dsreg.register.quorum import ranks_in
from dsreg.transport import UNACKED_MS


class Links:
    """Of the node `rank`. `places`: by rank, of cluster.toml. `learns`: whether addresses that are told count.
    `new_dialer`: to the node of that rank, over these lines to these destinations."""

    def __init__(
        self, rank: int, places: Mapping[int, Place], members: Members,
        new_dialer: Callable[[int, TcpLines, Destinations], Dialer], *, learns: bool = True,
    ) -> None:
        self.dialers: dict[int, Dialer] = {}
        self._rank = rank
        self._places = places
        self._members = members
        self._new_dialer = new_dialer
        self._learns = learns
        self._lines: dict[int, TcpLines] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._follow()
        members.on_greet = self.greet_soon
        members.on_superseded = self._renew
        members.on_review = self._review
        members.addressing.on_moved = self._moved

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for rank in self.dialers:
                self._nursery.start_soon(self._run, rank)
            await trio.sleep_forever()

    async def _run(self, rank: int) -> None:
        if rank in self.dialers:  # else it has left since
            with self._scopes[rank]:
                await self._lines[rank].run(self.dialers[rank].driver)

    def address(self, rank: int) -> str:
        """Where the node is looked for, for people."""
        return self._lines[rank].peer

    # --- to whom ------------------------------------------------------------------------------------
    def reconfigured(self, configuration: Configuration) -> None:
        """This one is in force."""
        self._follow()
        for dialer in self.dialers.values():
            dialer.greet_soon()  # who did not know this node may by now

    def _wanted(self) -> set[int]:
        current = self._members.configuring.current
        return {*ranks_in(current.members), *(self._places.keys() - ranks_in(current.used))} - {self._rank}

    def _follow(self) -> None:
        wanted = self._wanted()
        for rank in self.dialers.keys() - wanted:
            self._drop(rank)
        for rank in sorted(wanted - self.dialers.keys()):
            self._add(rank)

    def _add(self, rank: int) -> None:
        """If it is known where the node is."""
        learned = self._members.addressing.of(rank) if self._learns else None
        place = self._places.get(rank, learned)
        if place is None:
            return
        destinations = Destinations(place, learned, learns=self._learns)
        lines = self._lines[rank] = TcpLines(destinations, UNACKED_MS)
        self.dialers[rank] = self._new_dialer(rank, lines, destinations)
        self._scopes[rank] = trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._run, rank)

    def _drop(self, rank: int) -> None:
        """The node has left."""
        self._scopes.pop(rank).cancel()
        self.dialers.pop(rank).ended(list(self._lines.pop(rank).transports.values()))

    # --- what is heard of the others ------------------------------------------------------------------
    def greet_soon(self, rank: int) -> None:
        """The node can be greeted."""
        if rank in self.dialers:
            self.dialers[rank].greet_soon()

    def _renew(self, rank: int) -> None:
        if rank in self.dialers:
            self.dialers[rank].renew()

    def _review(self) -> None:
        for dialer in list(self.dialers.values()):
            dialer.review()

    def _moved(self, rank: int, moved: Moved) -> None:
        if rank in self.dialers:
            self.dialers[rank].moved(moved)
        elif rank in self._wanted():
            self._add(rank)
