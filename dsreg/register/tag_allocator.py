"""TagAllocator: the tags that this node names for clients (TAG_RUN), no tag twice.

The contract's own WRITE takes (maxts + 1, rank) per sector, which is safe because that operation holds
the sector on this node until its own copy is durable. A named tag leaves the node before anything is
stored anywhere, so uniqueness rests on one counter, which the node promises durably, in large steps,
never to fall below.

The counter covers the tags that WRITEs choose, too: should this node's own copy of one be damaged, there is still a
ts above all that it may have told others. While no incarnation has named a tag, what is promised is odd. Then a
WRITE goes on from the highest tag it finds, as the contract says, and need not begin above the promise.

Under an attachment (epoch > 0) the counter must not jump ahead at a restart: the attachment's own tags follow its
clock, and a tag from the future would beat a later one of it. There the life of the node, which
the contract has no place for in a tag, tells apart what was named or chosen
before a restart and after it.
"""

from __future__ import annotations

from typing import NamedTuple

from dsreg.protocol.names import name_bits
from dsreg.protocol.tags import epoch_of, pack_tag, ts_of

# Tags are promised this many at a time: a sync every 2^20 tags, and a gap as large after a restart.
PROMISE_STEP = 1 << 20


class Named(NamedTuple):
    """`tags`: the vector. `promise`: the ts to reserve durably before anybody hears of the tags; 0 for none."""

    tags: bytes
    promise: int


class TagAllocator:
    """`promised`: no earlier incarnation named or chose a ts above it; odd or 0 if none was ever named. `incarnation`:
    this one. `number`: of the life of this node; from 2 on it stands in every tag.

    `last`: the highest ts named, or that may have been. A WRITE chooses none at or below it.
    """

    def __init__(self, rank: int, promised: int, incarnation: int = 1, number: int = 1) -> None:
        self._rank = rank
        self.be(number, incarnation)
        self.promised = promised
        self.last = 0 if promised % 2 else promised

    def be(self, number: int, incarnation: int) -> None:
        """This node has this life from now on. It has chosen no tag yet."""
        self._bits = name_bits(number, incarnation)
        self._is_later = number > 1

    def life_in(self, epoch: int) -> int:
        """What stands in `life` of a tag that is chosen under `epoch`."""
        return self._bits if epoch or self._is_later else 0

    def name(self, highest_ts: int, count: int, epoch: int = 0) -> Named:
        """One tag of `epoch` for `count` sectors, above `highest_ts` and above any named before.

        It is of a newer epoch if one was named in that before: an operation of that epoch has overtaken this one.
        """
        epoch = max(epoch, epoch_of(self.last))
        self.last = max(self.last, highest_ts, ts_of(epoch, 0)) + 1
        if epoch:
            return Named(pack_tag(self.last, self._rank, self.life_in(epoch), epoch) * count, 0)
        self.promised = max(_up(self.last), self.promised + self.promised % 2)
        return Named(pack_tag(self.last, self._rank, self.life_in(0)) * count, self.promised)

    def choose(self, ts: int) -> int:
        """What to reserve durably before an own copy is: it has a tag that a WRITE chose, `ts`, or one that others
        did, 0. The answer is 0 if nothing is to be promised that was not before. Without an attachment only."""
        if ts <= self.promised and not (self.last and self.promised % 2):
            return 0
        self.promised = _up(max(ts, self.promised)) if self.last else _up(ts + 1) - 1
        return self.promised

    def forget(self) -> None:
        """This node's own tag of some sector is lost: go on above all that it can have been.

        Some node may have heard of it, or be about to, of which the majority that is asked knows nothing. Nor does
        this node once it has repaired its copy: so it must not do that before `choose` has made this durable.
        """
        self.last = max(self.last, self.promised)


def _up(ts: int) -> int:
    return -(-ts // PROMISE_STEP) * PROMISE_STEP
