"""What the nodes of a recovered cluster may answer, and when: every interleaving of the small."""

from __future__ import annotations

import pytest

from tests.register.recovered_rule import Search, Violation


@pytest.mark.parametrize(("nodes", "left", "options"), [
    (2, {0: 1}, {}), (3, {2: 1}, {}), (3, {2: 1}, {"attached": True}), (4, {0: 1, 3: 2}, {"attached": True}),
    (4, {0: 2, 3: 1}, {"writes": False}), (5, {1: 1, 0: 2}, {"writes": False}),
    # As many as meet every majority.
    (3, {0: 1, 2: 2}, {}), (3, {0: 2, 2: 1}, {"attached": True}), (5, {0: 1, 1: 2, 2: 3}, {"writes": False}),
])
def test_nothing_is_lost_that_was_left(nodes: int, left: dict[int, int], options: dict[str, bool]) -> None:
    assert Search(nodes, left, **options).run() > 100  # type: ignore[arg-type]


@pytest.mark.parametrize(("broken", "nodes", "left"), [
    ("empty", 3, {2: 1}), ("answers", 3, {2: 1}), ("one", 4, {0: 1, 3: 2}), ("one", 5, {0: 1, 1: 2}),
    ("epoch", 3, {2: 2}),
])
def test_each_part_is_needed(broken: str, nodes: int, left: dict[int, int]) -> None:
    with pytest.raises(Violation):
        Search(nodes, left, writes=broken == "epoch", attached=True, broken=broken).run()
