"""What a node says of its healing, for people and for `dsreg wait --healed`."""

from __future__ import annotations

from collections.abc import Mapping

from dsreg.register.comparing import Comparing


def report(
    comparing: Comparing, behind: Mapping[int, int], rate: float, *, lost: int, alone: bool
) -> dict[str, object]:
    """`behind`: bytes that are lacking here, by the rank of who has them; `rate`: bytes a second; `lost`: sectors whose
    tag or value is lost here. `alone`: there is no other node.

    In the answer `in_sync` says whether this node has all that each node has with which it compares: it does with
    those that it reaches, that count, and that know how to. `left_s` is None where nothing is known of the rate.
    """
    peers = {
        str(rank): {
            "in_sync": comparing.in_sync(rank), "behind_bytes": behind[rank],
            "compared": round(comparing.compared(rank), 4),
        }
        for rank in sorted(comparing.ranks)
    }
    most = max(behind.values(), default=0)
    return {
        "in_sync": not most and not lost and (alone or bool(peers)) and all(map(comparing.in_sync, comparing.ranks)),
        "behind_bytes": most,
        "rate": round(rate),
        "left_s": round(most / rate, 1) if most and rate else None if most else 0.0,
        "peers": peers,
    }
