"""What a node says of its healing, for people and for `dsreg wait --healed`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dsreg.constants import SECTOR_SIZE
from dsreg.register.comparing import Comparing
from dsreg.register.lacking import Lack
from dsreg.register.learner import Left
from dsreg.register.quorum import bit


def behind(
    ranks: Iterable[int], waiting: Collection[int], to_learn: int, each: int, lacks: Iterable[Lack]
) -> dict[int, int]:
    """Bytes that are lacking here, by who has them, as far as is known. `waiting`: for each chunk that waits the mask
    of those from whose it differs; `to_learn`: how many wait that are to be learned, whoever has them. They are taken
    to lack `each` sectors, as those did that were looked at. `lacks`: what is known for sure."""
    sectors = {rank: each * (to_learn + sum(1 for which in waiting if which & bit(rank))) for rank in ranks}
    for lack in lacks:
        if lack.rank in sectors:
            sectors[lack.rank] += lack.sectors
    return {rank: number * SECTOR_SIZE for rank, number in sectors.items()}


def report(
    comparing: Comparing, behind: Mapping[int, int], rate: float, *, lost: int, learning: Left, sectors: int,
    alone: bool,
) -> dict[str, object]:
    """`behind`: bytes that are lacking here, by the rank of who has them; `rate`: bytes a second; `lost`: sectors whose
    tag or value is lost here; `learning`: what of the `sectors` of the disk is to be learned. `alone`: there is no
    other node.

    In the answer `in_sync` says whether this node has all that each node has with which it compares: it does with
    those that it reaches, that count, and that know how to; and not before it is durable that all was learned, as a
    crash takes some of it back until then, and no other node may be missing at that time. `left_s` is None where
    nothing is known of the rate.
    """
    unknown = learning.left
    peers = {
        str(rank): {
            "in_sync": comparing.in_sync(rank), "behind_bytes": behind[rank],
            "compared": round(comparing.compared(rank), 4),
        }
        for rank in sorted(comparing.ranks)
    }
    most = max(behind.values(), default=0)
    all_in_sync = (alone or bool(peers)) and all(map(comparing.in_sync, comparing.ranks))
    return {
        "in_sync": not most and not lost and not learning.is_recorded and all_in_sync,
        "behind_bytes": most,
        "unknown_bytes": unknown * SECTOR_SIZE,
        "known": round(1 - unknown / sectors, 6) if unknown else 1.0,
        "rate": round(rate),
        "left_s": round(most / rate, 1) if most and rate else None if most or learning.is_recorded else 0.0,
        "peers": peers,
    }
