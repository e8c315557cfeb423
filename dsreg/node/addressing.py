"""Addressing: where the nodes are, as this node tells it, hears it and keeps it. docs/addresses.md.

Which word is taken decides dsreg.register.addresses; here is what follows from it: the file `lives`, and who is told.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Final

from dsreg.errors import NoSpace
from dsreg.node.interpreter import Interpreter
from dsreg.protocol.address import Address, Place
from dsreg.protocol.messages import AddressReport
from dsreg.register.addresses import Addresses, Moved
from dsreg.register.lives import Lives
from dsreg.storage.lives import LivesFile
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

# What others say is written together after this long: several of them speak at once when members change, and each time
# two syncs block the node.
KEEP_AFTER_S: Final = 1.0


class Addressing:
    """Of the node `rank`. `place`: where the others and clients reach it; None: it does not say so."""

    def __init__(
        self, rank: int, lives: Lives, file: LivesFile, interpreter: Interpreter, place: Place | None
    ) -> None:
        self.on_moved: Callable[[int, Moved], None] = lambda rank, moved: None  # it says where it is
        self._rank = rank
        self._lives = lives
        self._file = file
        self._interpreter = interpreter
        self._place = place
        self._addresses = Addresses(rank, file.addresses)
        self._contested: Place | None = None
        self.next_due = math.inf
        self._listeners: dict[Transport, tuple[int, bool]] = {}  # who is told; as `rank` and `answer` of the report

    def of(self, rank: int) -> Place | None:
        """Where that node is, if it has said so."""
        address = self._addresses.known.get(rank)
        return None if address is None else address.place

    # --- what others are told -----------------------------------------------------------------------
    def listens(self, transport: Transport, rank: int, answer: bool) -> None:
        """The other side wants to be told, behind what it is told of lives."""
        self._listeners[transport] = rank, answer

    def left(self, transport: Transport) -> None:
        self._listeners.pop(transport, None)

    def tell(self, transport: Transport) -> None:
        """If it wants to know."""
        self._announce()
        if transport in self._listeners and self._addresses.known:
            self._interpreter.tell(transport, AddressReport(*self._listeners[transport], self._addresses.known))

    def _announce(self) -> None:
        """Where this node is, if it has another address, or life, than when it said so last."""
        if self._place is None:
            return
        own = self._addresses.announced(self._file.own, self._place)
        if own != self._addresses.known.get(self._rank):
            self._keep({self._rank: own})

    def _keep(self, addresses: Mapping[int, Address]) -> None:
        """Durably, if there is room. They have no part in safety."""
        self._addresses.known.update(addresses)
        self.keep()

    def keep(self) -> None:
        """Durably, what was heard, if there is room."""
        self.next_due = math.inf
        try:
            self._file.locate(self._addresses.known)
        except NoSpace as error:
            log.info("no space to record the addresses of the nodes: %s", error)

    def _keep_soon(self) -> None:
        self._file.locate_later(self._addresses.known)
        self.next_due = min(self.next_due, self._interpreter.clock() + KEEP_AFTER_S)

    def tick(self) -> None:
        """Time has passed."""
        if self._interpreter.clock() >= self.next_due:
            self.keep()

    # --- what is heard ------------------------------------------------------------------------------
    def told(self, report: AddressReport) -> None:
        """Another node says where nodes are, as far as it knows. Raises SyncFailed."""
        if report.rank == self._rank:
            return
        news = self._addresses.take(report.addresses, self._lives.known)
        own = self._addresses.corrected(report.addresses)
        if own is not None:
            self._keep({self._rank: own})
        elif news:
            self._keep_soon()
        if news or own is not None:
            for transport in self._listeners:
                self.tell(transport)
        for rank, moved in news.items():
            if not moved.is_first:
                log.info("node %d is at %s from now on", rank, moved.address.place, extra={"node": rank})
            self.on_moved(rank, moved)
        self._complain_of_a_copy()

    def _complain_of_a_copy(self) -> None:
        contested = self._addresses.contested
        if contested is not None and contested != self._contested:
            log.error(
                "a process at %s says that it is node %d, with this very directory: a copy of a directory must not run "
                "beside it; stop one of the two", contested, self._rank, extra={"peer": str(contested)},
            )
        self._contested = contested

    def report(self) -> dict[str, dict[str, object]]:
        """For STATUS: by rank, this node among them."""
        return {
            str(rank): {"address": str(address.place), "life": address.life.number, "sequence": address.sequence}
            for rank, address in sorted(self._addresses.known.items())
        }
