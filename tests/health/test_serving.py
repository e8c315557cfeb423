"""Which nodes can be asked, by themselves or through others."""

from __future__ import annotations

import pytest

from dsreg.health.answers import NodeAnswer
from dsreg.health.serving import reached
from dsreg.register.quorum import mask
from tests.cli.test_health import answer

GONE = answer(2, "no route to host"), answer(3, "no route to host")


@pytest.mark.parametrize(("answers", "ranks"), [
    ([answer(1), answer(2), answer(3)], [1, 2, 3]),
    ([answer(1, peers={"2": "down", "3": "down"}), *GONE], [1]),
    ([answer(1, peers={"2": "sealed", "3": "silent"}), *GONE], [1, 2]),
    ([answer(1, peers={"2": "waiting", "3": "unsealed"}), *GONE], [1]),
    ([answer(1, lives={"waits_for": "others"}), *GONE], []),
    ([answer(1, lives={"faults": {"3": "its directory has changed"}}), answer(2), answer(3)], [1, 2]),
    ([answer(1, "gone"), *GONE], []),
])
def test_who_is_in_reach(answers: list[NodeAnswer], ranks: list[int]) -> None:
    assert reached(answers) == mask(ranks)
