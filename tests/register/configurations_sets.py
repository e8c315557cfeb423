"""Configurations as the model has them, and which sets of nodes decide under one."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from typing import NamedTuple


class Conf(NamedTuple):
    """`joining`: the new members while they are joint with `ranks`; () else."""

    number: int
    ranks: tuple[int, ...]
    joining: tuple[int, ...] = ()
    sectors: int = 1

    @property
    def sets(self) -> list[tuple[int, ...]]:
        return [self.ranks, self.joining] if self.joining else [self.ranks]


NONE = Conf(0, ())


def majority(ranks: tuple[int, ...]) -> int:
    return len(ranks) // 2 + 1


@cache
def quorums(sets: tuple[tuple[int, ...], ...]) -> tuple[frozenset[int], ...]:
    """The smallest ones that have a majority of each of the sets."""
    found = {
        frozenset().union(*choice)
        for choice in product(*(combinations(ranks, majority(ranks)) for ranks in sets))
    }
    return tuple(sorted((q for q in found if not any(other < q for other in found)), key=sorted))


def meets_all(ranks: tuple[int, ...], some: set[int] | frozenset[int]) -> bool:
    """Whether each majority has one of these."""
    return len(set(ranks) & some) > len(ranks) - majority(ranks)
