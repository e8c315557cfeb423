"""TagNamer: the tags that this node names for clients (TAG_RUN), no tag twice.

The contract's own WRITE takes (maxts + 1, rank) per sector, which is safe because that operation holds
the sector on this node until its own copy is durable. A named tag leaves the node before anything is
stored anywhere, so uniqueness rests on one counter, which the node promises durably, in large steps,
never to fall below.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.core.tags import pack_tag

# Tags are promised this many at a time: a sync every 2^20 tags, and a gap as large after a restart.
PROMISE_STEP = 1 << 20


class Named(NamedTuple):
    """`tags`: the vector. `promise`: the ts to reserve durably before anybody hears of the tags."""

    tags: bytes
    promise: int


class TagNamer:
    """`last`: no earlier incarnation named a ts above it (0: none was ever named)."""

    def __init__(self, rank: int, last: int) -> None:
        self._rank = rank
        self.last = last

    def name(self, highest_ts: int, count: int) -> Named:
        """One tag for `count` sectors, above `highest_ts` and above any named before."""
        self.last = max(self.last, highest_ts) + 1
        promise = -(-self.last // PROMISE_STEP) * PROMISE_STEP
        return Named(pack_tag(self.last, self._rank) * count, promise)
