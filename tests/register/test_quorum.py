"""Quorums as bit masks, against the same over sets, and as cases that a person can check."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.constants import MAX_RANK
from dsreg.register.quorum import (
    Joint,
    Majority,
    Quorum,
    bit,
    counted,
    how_many_decide,
    majority_of,
    mask,
    ranks_in,
)

SETS = st.sets(st.integers(1, MAX_RANK))

# members; who has answered; whether these decide, and whether they block if they have refused; whether they are all.
# Two sets of members are a joint quorum. "+2": two members of which only that they exist is known.
CASES = """
1           -         .  .  .
1           1         decided  blocks  all
1           2         .  .  .
1 2         1         .  blocks  .
1 2         1 2       decided  blocks  all
1 2 3       -         .  .  .
1 2 3       2         .  .  .
1 2 3       2 3       decided  blocks  .
1 2 3       2 4 5     .  .  .
1 2 3       1 2 3     decided  blocks  all
1 2 3       1 2 3 4   decided  blocks  all
1 2 3 4     1 2       .  blocks  .
1 2 3 4     1 2 4     decided  blocks  .
1 3 5 7 9   1 9       .  .  .
1 3 5 7 9   1 5 9     decided  blocks  .
1 2 +1      1         .  .  .
1 2 +1      1 2       decided  blocks  .
1 2 +3      1 2       .  .  .
1 2 3 +2    1 2 3     decided  blocks  .
1 +2        1         .  .  .
255         255       decided  blocks  all
1 2 3 / 1 2 3      1 2         decided  blocks  .
1 2 3 / 1 2 4      1 2         decided  blocks  .
1 2 3 / 1 2 4      1 3         .  blocks  .
1 2 3 / 1 2 4      3 4         .  .  .
1 2 3 / 1 2 4      1 3 4       decided  blocks  .
1 2 3 / 1 2 4      1 2 3       decided  blocks  .
1 2 3 / 1 2 4      1 2 3 4     decided  blocks  all
1 2 3 / 4 5 6      1 2 3       .  blocks  .
1 2 3 / 4 5 6      1 4         .  .  .
1 2 3 / 4 5 6      1 2 5 6     decided  blocks  .
1 / 1 2 3          2 3         .  blocks  .
1 / 1 2 3          1           .  blocks  .
1 / 1 2 3          1 3         decided  blocks  .
"""


def quorum_of(text: str) -> Quorum:
    parts: list[Quorum] = []
    for part in text.split("/"):
        ranks, _, unknown = part.partition("+")
        known = [int(rank) for rank in ranks.split()]
        parts.append(majority_of(known, len(known) + int(unknown or 0)))
    return parts[0] if len(parts) == 1 else Joint(*parts)


def cases() -> list[tuple[str, str, str]]:
    found = []
    for line in CASES.strip().splitlines():
        # Columns are two spaces or more apart, what is in them is not.
        members, answers, *verdicts = (cell.strip() for cell in line.split("  ") if cell.strip())
        found.append((members, answers, " ".join(verdicts)))
    return found


@pytest.mark.parametrize(("members", "answers", "verdicts"), cases())
def test_cases(members: str, answers: str, verdicts: str) -> None:
    quorum, bits = quorum_of(members), mask(map(int, answers.replace("-", "").split()))
    found = (
        "decided" if quorum.decided(bits) else ".",
        "blocks" if quorum.blocks(bits) else ".",
        "all" if quorum.all_answered(bits) else ".",
    )
    assert " ".join(found) == verdicts


def subsets(ranks: Iterable[int]) -> list[frozenset[int]]:
    pool = sorted(ranks)
    return [frozenset(some) for size in range(len(pool) + 1) for some in itertools.combinations(pool, size)]


def check_against_sets(quorum: Quorum, members: Iterable[int], decides: Callable[[frozenset[int]], bool]) -> None:
    """`decides` says of a set whether it is enough; all else follows from that, and is tried over all sets."""
    everybody = frozenset(members)
    every_set = subsets(everybody)
    deciding = [some for some in every_set if decides(some)]
    blocking = [some for some in every_set if not decides(everybody - some)]
    assert deciding and all(a & b for a in deciding for b in deciding)
    assert blocking == [some for some in every_set if all(some & other for other in deciding)]
    outsider = MAX_RANK
    for some in every_set:
        for bits in (mask(some), mask(some | {outsider})):
            assert quorum.decided(bits) == (some in deciding)
            assert quorum.blocks(bits) == (some in blocking)
            assert quorum.all_answered(bits) == (some == everybody)
            assert quorum.spare(bits) == max(0, min(
                (len(lost) - 1 for lost in subsets(some) if not decides(some - lost)), default=len(some)))
    assert ranks_in(quorum.members) == sorted(everybody)
    assert quorum.size == len(everybody)
    assert quorum.needed == min(map(len, deciding))
    assert quorum.needed_to_block == min(map(len, blocking))


@pytest.mark.parametrize("nodes", range(1, 8))
def test_a_majority_against_sets(nodes: int) -> None:
    for first in (1, 40):
        ranks = range(first, first + 2 * nodes, 2)
        majority = Majority(mask(ranks))
        check_against_sets(majority, ranks, lambda some: 2 * len(some) > nodes)
        assert majority.needed_to_cover == majority.needed_to_block
        assert all(majority.covers(mask(some)) == majority.blocks(mask(some)) for some in subsets(ranks))
    smaller = [some for some in subsets(ranks) if len(some) == majority_of(ranks).needed - 1]
    assert not all(a & b for a in smaller for b in smaller), "a smaller number would not do"


@pytest.mark.parametrize("old", subsets(range(1, 6))[1:], ids=lambda some: "".join(map(str, some)))
def test_a_joint_quorum_against_sets(old: frozenset[int]) -> None:
    for new in subsets(range(1, 6))[1:]:
        check_against_sets(
            Joint(majority_of(old), majority_of(new)), old | new,
            lambda some, new=new: 2 * len(some & old) > len(old) and 2 * len(some & new) > len(new),
        )


@pytest.mark.parametrize("old", subsets(range(1, 6))[1:], ids=lambda some: "".join(map(str, some)))
def test_what_covers_two_joint_sets_meets_each_that_decides_in_one_of_them(old: frozenset[int]) -> None:
    for new in subsets(range(1, 6))[1:]:
        quorum = Joint(majority_of(old), majority_of(new))
        alone = [some for both in (old, new) for some in subsets(both) if 2 * len(some) > len(both)]
        covering = [some for some in subsets(old | new) if all(some & each for each in alone)]
        assert covering == [some for some in subsets(old | new) if quorum.covers(mask(some))]
        assert quorum.needed_to_cover == min(map(len, covering))
        assert all(quorum.blocks(mask(some)) for some in covering)


@pytest.mark.parametrize("nodes", range(1, 8))
def test_members_that_are_not_known_count_and_never_answer(nodes: int) -> None:
    for known in range(1, nodes + 1):
        ranks = range(1, known + 1)
        quorum = majority_of(ranks, nodes)
        assert quorum.size == nodes and quorum.needed == majority_of(range(nodes)).needed
        for some in subsets(ranks):
            bits = mask(some)
            assert quorum.decided(bits) == (2 * len(some) > nodes)
            assert quorum.blocks(bits) == (2 * (nodes - len(some)) <= nodes)
            assert quorum.all_answered(bits) == (len(some) == nodes)
        assert not any(quorum.members & bit(rank) for rank in range(known + 1, MAX_RANK + 1))


def test_a_size_that_is_less_than_what_is_known_changes_nothing() -> None:
    assert majority_of((1, 2, 3), 2).size == majority_of((1, 2, 3)).size == 3


def test_how_many_in_an_order_decide() -> None:
    assert how_many_decide(majority_of((1, 2, 3)), [3, 1, 2]) == 2
    assert how_many_decide(majority_of((1, 2, 3)), [4, 3, 5, 1]) == 4
    assert how_many_decide(majority_of((1, 2, 3)), [3]) == how_many_decide(majority_of((1, 2, 3)), []) == 0
    assert how_many_decide(Joint(majority_of((1, 2, 3)), majority_of((3, 4, 5))), [1, 2, 3, 4, 5]) == 4


@given(SETS)
def test_mask_and_back(ranks: set[int]) -> None:
    bits = mask(tuple(ranks))
    assert bits == sum(bit(rank) for rank in ranks)
    assert ranks_in(bits) == sorted(ranks)
    assert {rank for rank in range(MAX_RANK + 1) if bits & bit(rank)} == ranks


@given(st.sets(st.integers(1, MAX_RANK), min_size=1).flatmap(
    lambda members: st.tuples(st.just(members), st.lists(st.integers(1, MAX_RANK)))))
def test_a_rank_counts_once_and_only_if_it_is_a_member(case: tuple[set[int], list[int]]) -> None:
    members, answers = case
    bits = 0
    for rank in answers:
        bits |= bit(rank)
    assert majority_of(members).decided(bits) == (len(members & set(answers)) > len(members) / 2)


def test_it_is_said_which_of_two_sets_lacks_what() -> None:
    assert counted(majority_of((1, 2, 3)), mask((1, 3, 7)), "answer") == "2 of 3 nodes answer, 2 are needed"
    joint = Joint(majority_of((1, 2, 3)), majority_of((1, 2, 3, 4)))
    assert counted(joint, mask((1, 2, 4)), "answer") == (
        "2 of nodes 1 2 3 answer, 2 are needed; 3 of nodes 1 2 3 4 answer, 3 are needed")
    assert counted(joint, mask((1, 3)), "are connected") == (
        "2 of nodes 1 2 3 are connected, 2 are needed; only 2 of nodes 1 2 3 4 are connected, 3 are needed")
