"""Majorities as bit masks, against the same over sets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.constants import MAX_RANK
from dsreg.register.quorum import bit, is_majority, majority, mask, ranks_in

SETS = st.sets(st.integers(1, MAX_RANK))


@pytest.mark.parametrize(("nodes", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (MAX_RANK, 128)])
def test_majority(nodes: int, expected: int) -> None:
    assert majority(nodes) == expected


@pytest.mark.parametrize("nodes", range(1, 8))
def test_any_two_majorities_meet_and_none_smaller_would_do(nodes: int) -> None:
    ranks = range(1, nodes + 1)
    subsets = [set(some) for size in range(nodes + 1) for some in itertools.combinations(ranks, size)]
    quorums = [some for some in subsets if is_majority(mask(tuple(some)), nodes)]
    assert quorums == [some for some in subsets if 2 * len(some) > nodes]
    assert all(a & b for a in quorums for b in quorums)
    below = [some for some in subsets if len(some) == majority(nodes) - 1]
    assert not all(a & b for a in below for b in below)


@given(SETS)
def test_mask_and_back(ranks: set[int]) -> None:
    bits = mask(tuple(ranks))
    assert bits == sum(bit(rank) for rank in ranks)
    assert ranks_in(bits) == sorted(ranks)
    assert {rank for rank in range(MAX_RANK + 1) if bits & bit(rank)} == ranks


@given(st.integers(1, MAX_RANK).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n)))))
def test_is_majority_counts_a_rank_once(case: tuple[int, list[int]]) -> None:
    nodes, answers = case
    bits = 0
    for rank in answers:
        bits |= bit(rank)
    assert is_majority(bits, nodes) == (len(set(answers)) > nodes / 2)
