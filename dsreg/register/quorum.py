"""Majorities, as bit masks of ranks: bit r stands for the node of rank r.

Checked against a dumb version over sets in tests/register/test_quorum.py.
"""

from __future__ import annotations


def majority(nodes: int) -> int:
    """The smallest number of nodes of which any two such groups share one."""
    assert nodes >= 1
    return nodes // 2 + 1


def bit(rank: int) -> int:
    return 1 << rank


def mask(ranks: tuple[int, ...] | range) -> int:
    bits = 0
    for rank in ranks:
        bits |= 1 << rank
    return bits


def ranks_in(bits: int) -> list[int]:
    """The ranks in `bits`, ascending."""
    ranks = []
    while bits:
        low = bits & -bits
        ranks.append(low.bit_length() - 1)
        bits ^= low
    return ranks


def is_majority(bits: int, nodes: int) -> bool:
    return bits.bit_count() >= majority(nodes)
