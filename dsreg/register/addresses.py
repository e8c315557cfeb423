"""Addresses: where each node is, as the nodes themselves say. docs/addresses.md.

They have no part in safety: whoever connects to an address counts nothing before the node there has shown the directory
that its rank is known by. What is kept here only says where to knock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Life

# How often a node takes a higher sequence than somebody has heard of its own directory. After a restored directory once
# is enough; more often, another process with a copy of the directory answers.
MAX_CORRECTIONS: Final = 3


class Moved(NamedTuple):
    """`is_first`: no address of this rank was known before, so it may be where it has always been."""

    address: Address
    is_first: bool


class Addresses:
    """What one party knows. `own_rank`: of the node whose knowledge it is, 0 for a client. `known`: as it was kept."""

    def __init__(self, own_rank: int, known: Mapping[int, Address]) -> None:
        self.known = dict(known)
        # Where somebody else says that this node is, and goes on to say it.
        self.contested: Place | None = None
        self._own_rank = own_rank
        self._corrections = 0

    # --- of others --------------------------------------------------------------------------------
    def take(self, told: Mapping[int, Address], lives: Mapping[int, Life]) -> dict[int, Moved]:
        """Another party says this; what of it is news, by rank. `lives`: the directory that each rank is known by. The
        word of any other directory, a lost one or one that was refused, is not taken."""
        news = {
            rank: Moved(address, rank not in self.known)
            for rank, address in told.items()
            if rank != self._own_rank and address.life == lives.get(rank) and self._is_later(rank, address)
        }
        self.known.update((rank, moved.address) for rank, moved in news.items())
        return news

    def _is_later(self, rank: int, address: Address) -> bool:
        known = self.known.get(rank)
        return known is None or known.life != address.life or address.sequence > known.sequence

    # --- of this node -----------------------------------------------------------------------------
    def announced(self, life: Life, place: Place) -> Address:
        """What this node, which has the directory `life` and is reached at `place`, is to tell from now on; it is to be
        durable before."""
        before = self.known.get(self._own_rank)
        if before is None or before.life != life:
            return Address(life, 1, place)
        return before if before.place == place else Address(life, before.sequence + 1, place)

    def corrected(self, told: Mapping[int, Address]) -> Address | None:
        """Likewise, after others have said what they have heard of this rank; None: that is what this node has said, or
        less. A directory that was put back does not know what has been said since."""
        own, heard = self.known.get(self._own_rank), told.get(self._own_rank)
        if own is None or heard is None or heard.life != own.life or heard == own or heard.sequence < own.sequence:
            return None
        if self._corrections == MAX_CORRECTIONS:
            self.contested = heard.place
            return None
        self._corrections += 1
        return Address(own.life, heard.sequence + 1, own.place)
