"""Whose copies are complete, and how many nodes may be lost."""

from __future__ import annotations

from typing import Any

import pytest

from dsreg.cli.health import NodeAnswer
from dsreg.cli.in_sync import all_in_sync, behind_bytes, can_lose, can_lose_line, described, what_is_missing
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


def test_what_is_said() -> None:
    assert described(DOWN) == "" and described(answer(1)) == "unknown" and described(healed(1)) == "in sync"
    assert described(healed(1, in_sync=False, behind=5 << 20, left_s=None)) == "behind by 5MiB"
    assert described(healed(1, in_sync=False, behind=5 << 20, left_s=7.4)) == "behind by 5MiB, 7 s left"
    assert described(healed(1, in_sync=False, compared=0.25)) == "compares, 25%"
    assert described(healed(1, in_sync=False)) == "compares"
    assert described(healed(1, in_sync=False, peers=0)) == "no links"
    answers = [healed(1), healed(2, in_sync=False, behind=5 << 20), DOWN]
    assert what_is_missing(answers) == ["node 2: behind by 5MiB, 0 s left",
                                        "node 3 does not answer: connection refused"]
    assert behind_bytes(answers) == 5 << 20
