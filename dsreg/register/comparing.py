"""How far this node has compared its copy with that of each other one, and when it does so again. Pure.

A node is asked for its digests piece by piece, from the first chunk on. Once it has answered for all, and what differed
has been seen to, this node is in sync with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from dsreg.constants import MAX_DIGESTS, MAX_RUN_SECTORS
from dsreg.protocol.messages import Digests
from dsreg.register.digests import UNKNOWN, TagDigests
from dsreg.register.effects import Connection
from dsreg.register.quorum import mask


class _Peer:
    __slots__ = ("again_s", "asked", "cursor", "has_told", "in_sync", "knows_all", "next_s")

    def __init__(self) -> None:
        self.cursor: int | None = 0  # the next chunk to compare; None: this comparison is through
        self.asked = False
        self.next_s = -math.inf  # the next question is not to be asked before
        self.again_s = math.inf  # when the next comparison begins
        self.in_sync = False
        self.knows_all = True  # as far as this comparison has come: it had the tag of each sector
        self.has_told = False  # in a comparison that is through it did, and what it had is here


class Comparing:
    """`lost`: gives the sectors that are lost here. `interval_s`: until a comparison that is through comes again."""

    def __init__(self, digests: TagDigests, lost: Callable[[], Iterable[int]], interval_s: float) -> None:
        self._digests = digests
        self._lost = lost
        self._interval_s = interval_s
        self._peers: dict[int, _Peer] = {}
        self._origins: dict[int, Connection | None] = {}  # over which connection a node has asked last

    @property
    def ranks(self) -> list[int]:
        """With whom it compares."""
        return list(self._peers)

    def link_up(self, rank: int) -> None:
        self._peers[rank] = _Peer()

    def link_down(self, rank: int) -> None:
        self._peers.pop(rank, None)

    def asks_anew(self, rank: int, origin: Connection | None) -> bool:
        """Whether the node, which has asked over this connection, does so for the first time, and is compared with:
        before it had this link, what it coordinated was not sent here."""
        is_new = self._origins.get(rank) is not origin
        self._origins[rank] = origin
        return is_new and rank in self._peers

    def look(self, at_s: float) -> None:
        """Compare with all again, then or sooner."""
        for peer in self._peers.values():
            peer.again_s = min(peer.again_s, at_s)

    def due(self, now: float) -> list[tuple[int, int, int]]:
        """Who is to be asked now: rank, first chunk, number of chunks. Each has to be answered, or `unanswered`."""
        questions = []
        for rank, peer in self._peers.items():
            if peer.cursor is None and now >= peer.again_s:
                peer.cursor, peer.again_s, peer.knows_all = 0, math.inf, True
            if peer.cursor is None or peer.asked or now < peer.next_s:
                continue
            peer.asked = True
            first, most = peer.cursor, min(MAX_DIGESTS, self._digests.chunks - peer.cursor)
            questions.append((rank, first, self._digests.prepare(first, most)))
        return questions

    def answered(self, message: Digests, now: float, pause_s: float) -> set[int]:
        """Gives the chunks that differ. `pause_s`: until the next question."""
        peer = self._peers[message.rank]
        peer.asked, peer.next_s = False, now + pause_s
        own = self._digests.listed(message.first, message.count)
        differ = {
            chunk for chunk, digest in message.digests.items() if digest not in (UNKNOWN, own.get(chunk))
        }
        peer.knows_all &= UNKNOWN not in message.digests.values()
        peer.cursor = message.following
        if peer.cursor == self._digests.chunks:
            peer.cursor, peer.again_s = None, min(peer.again_s, now + self._interval_s)
            differ.update(sector // MAX_RUN_SECTORS for sector in self._lost())
        return differ

    def unanswered(self, rank: int, now: float) -> None:
        if (peer := self._peers.get(rank)) is not None:
            peer.asked, peer.next_s = False, now

    def nothing_differs(self) -> None:
        """All that differed so far has been seen to."""
        for peer in self._peers.values():
            peer.in_sync |= peer.cursor is None
            peer.has_told |= peer.cursor is None and peer.knows_all

    def in_sync(self, rank: int) -> bool:
        peer = self._peers.get(rank)
        return peer is not None and peer.in_sync

    @property
    def told(self) -> int:
        """The mask of those that have told all that they have; and what differed has been seen to."""
        return mask(rank for rank, peer in self._peers.items() if peer.has_told)

    def compared(self, rank: int) -> float:
        """How much of the present comparison is through, 0..1."""
        cursor = self._peers[rank].cursor
        return 1.0 if cursor is None else cursor / self._digests.chunks

    def next_due(self) -> float:
        return min((
            peer.again_s if peer.cursor is None else peer.next_s for peer in self._peers.values() if not peer.asked
        ), default=math.inf)
