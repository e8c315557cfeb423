"""TagNamer: the tags that this node names for clients (TAG_RUN), no tag twice.

The contract's own WRITE takes (maxts + 1, rank) per sector, which is safe because that operation holds
the sector on this node until its own copy is durable. A named tag leaves the node before anything is
stored anywhere, so uniqueness rests on one counter, which the node promises durably, in large steps,
never to fall below.

Under an attachment (epoch > 0) the counter must not jump ahead at a restart: the attachment's own tags follow its
clock, and a tag from the future would beat a later one of it. There the life of the node, which
the contract has no place for in a tag, tells apart what was named before a restart and after it.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.core.tags import epoch_of, pack_tag, ts_of

# Tags are promised this many at a time: a sync every 2^20 tags, and a gap as large after a restart.
PROMISE_STEP = 1 << 20


class Named(NamedTuple):
    """`tags`: the vector. `promise`: the ts to reserve durably before anybody hears of the tags; 0 for none."""

    tags: bytes
    promise: int


class TagNamer:
    """`last`: no earlier incarnation named a ts above it (0: none was ever named). `life`: this incarnation, of
    which the last 16 bits count; not 0."""

    def __init__(self, rank: int, last: int, life: int = 1) -> None:
        self._rank = rank
        self._life = life % 0xFFFF + 1
        self.last = last

    def name(self, highest_ts: int, count: int, epoch: int = 0) -> Named:
        """One tag of `epoch` for `count` sectors, above `highest_ts` and above any named before.

        It is of a newer epoch if one was named in that before: an operation of that epoch has overtaken this one.
        """
        epoch = max(epoch, epoch_of(self.last))
        self.last = max(self.last, highest_ts, ts_of(epoch, 0)) + 1
        if epoch:
            return Named(pack_tag(self.last, self._rank, self._life, epoch) * count, 0)
        promise = -(-self.last // PROMISE_STEP) * PROMISE_STEP
        return Named(pack_tag(self.last, self._rank) * count, promise)
