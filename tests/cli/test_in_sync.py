"""Whose copies are complete, and how many nodes may be lost."""

from __future__ import annotations

from typing import Any

import pytest

from dsreg.health.answers import NodeAnswer
from dsreg.health.in_sync import (
    Copy,
    all_in_sync,
    behind_bytes,
    can_lose,
    can_lose_line,
    copy_of,
    what_is_missing,
    why_not_more,
)
from tests.cli.test_health import answer

BOTH = {"in_sync": True, "compared": 1.0, "behind_bytes": 0}


def healing(in_sync: bool = True, behind: int = 0, left_s: float | None = 0.0, compared: float = 1.0,
            peers: int = 2) -> dict[str, Any]:
    return {
        "in_sync": in_sync, "behind_bytes": behind, "rate": 0, "left_s": left_s,
        "peers": {str(peer): {**BOTH, "compared": compared} for peer in range(1, peers + 1)},
    }


def healed(rank: int, **heal: Any) -> NodeAnswer:
    return answer(rank, heal=healing(**heal))


DOWN = answer(3, "connection refused")


@pytest.mark.parametrize(("answers", "number"), [
    ([healed(1), healed(2), healed(3)], 1),
    ([healed(1), healed(2), DOWN], 0),
    ([healed(1), healed(2), healed(3, in_sync=False)], 0),
    ([healed(1), healed(2, in_sync=False), DOWN], 0),
    ([healed(1), healed(2), answer(3)], 0),  # of a version that cannot say
    ([healed(1), healed(2), answer(3, heal=healing(), lives={"waits_for": "others"})], 0),
    ([answer(1, heal=healing(), lives={"faults": {"3": "changed"}}), healed(2), healed(3)], 0),
    ([healed(rank) for rank in (1, 2, 3, 4, 5)], 2),
    ([healed(1)], 0),
])
def test_how_many_may_be_lost(answers: list[NodeAnswer], number: int) -> None:
    assert can_lose(answers) == number
    assert can_lose_line(answers) == f"can lose {number} more node{'' if number == 1 else 's'} now"


def test_all_have_to_be_in_sync_with_all() -> None:
    assert all_in_sync([healed(1), healed(2), healed(3)])
    assert all_in_sync([healed(1, peers=0)])
    for bad in (DOWN, healed(3, in_sync=False), healed(3, peers=1), answer(3)):
        assert not all_in_sync([healed(1), healed(2), bad])


def learning(rank: int) -> NodeAnswer:
    """A node whose directory is new: see docs/lives.md."""
    return answer(rank, heal={**healing(in_sync=False, behind=6 << 20, left_s=61.0), "rate": 3 << 20,
                              "unknown_bytes": 9 << 30, "known": 0.25})


def test_how_complete_a_copy_is() -> None:
    written = 100 << 20
    assert copy_of(DOWN, written) == Copy("") and copy_of(answer(1), written) == Copy("unknown")
    assert copy_of(healed(1), written) == Copy("in sync", share=1.0)
    assert copy_of(healed(1, in_sync=False, behind=5 << 20, left_s=None), written) == Copy(
        "behind", 5 << 20, 0.95, 0, None)
    assert copy_of(healed(1, in_sync=False, behind=5 << 20), 0).share == 0.0, "more than is known to be written"
    assert copy_of(learning(1), written) == Copy("learns", 6 << 20, 0.25, 3 << 20, 61.0)
    assert copy_of(healed(1, in_sync=False, compared=0.25), written) == Copy("compares", share=0.25)
    assert copy_of(healed(1, in_sync=False), written) == Copy("compares")
    assert copy_of(healed(1, in_sync=False, peers=0), written) == Copy("no links")


def test_a_node_that_learns_is_no_copy() -> None:
    assert can_lose([healed(1), healed(2), learning(3)]) == 0
    assert can_lose([*(healed(rank) for rank in (1, 2, 3, 4)), learning(5)]) == 1
    assert not all_in_sync([healed(1), healed(2), learning(3)])


def test_why_no_more_may_be_lost() -> None:
    assert why_not_more([healed(1), healed(2), healed(3)]) == ""
    waits = answer(4, heal=healing(), lives={"waits_for": "others"})
    answers = [learning(1), healed(2, in_sync=False, behind=1), DOWN, waits, healed(5, in_sync=False), healed(6)]
    assert why_not_more(answers) == (
        "learning: node 1; behind: node 2; not answering: node 3; not counted: node 4; comparing: node 5")
    assert why_not_more([healed(1), learning(2), learning(3)]) == "learning: nodes 2, 3"


def test_what_is_missing() -> None:
    answers = [healed(1), healed(2, in_sync=False, behind=5 << 20), DOWN]
    assert what_is_missing(answers) == ["node 2: behind by 5.0 MiB, 0 s left",
                                        "node 3 does not answer: connection refused"]
    assert behind_bytes(answers) == 5 << 20
    answers = [learning(1), healed(2, in_sync=False, compared=0.25), healed(3, in_sync=False, peers=0),
               healed(4, peers=1), healed(5, in_sync=False, behind=7, left_s=None)]
    assert what_is_missing(answers) == [
        "node 1: has yet to learn 6.0 MiB, 1 min 1 s left", "node 2: compares, 25%", "node 3: no links",
        "node 4: in sync, but linked to 1 of the others only", "node 5: behind by 7 B"]
