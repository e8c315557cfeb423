"""What is said of damage, by what the nodes report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsreg.config import NodeAddress
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import examine
from dsreg.health.damage import described, found_by, still_open
from dsreg.health.findings import Finding, Severity, State

NODE = NodeAddress(2, "host2", 7001, Path())
NONE = {"value": 0, "tag": 0, "contradiction": 0, "repaired": 0, "open": 0, "contradictions": 0, "sectors": []}


def answer(**damage: Any) -> NodeAnswer:
    return NodeAnswer(NODE, {"damage": {**NONE, **damage}})


@pytest.mark.parametrize(("found", "damage", "said"), [
    (0, {}, "nothing is damaged"),
    (1, {}, "1 damaged sector found, repaired"),
    (9, {"open": 2, "sectors": [3, 700]}, "9 damaged sectors found, 2 not repaired: 3, 700"),
    (0, {"open": 1, "sectors": [3]}, "0 damaged sectors found, 1 not repaired: 3"),
    (99, {"open": 90, "sectors": [3, 4]}, "99 damaged sectors found, 90 not repaired: 3, 4, ..."),
    (1, {"open": 1, "contradictions": 1, "sectors": [5]},
     "1 damaged sector found, 1 not repaired: 5; 1 with two values under one tag"),
])
def test_described(found: int, damage: dict[str, Any], said: str) -> None:
    assert described(found, {**NONE, **damage}) == said


def found(*answers: NodeAnswer) -> list[Finding]:
    return [finding for finding in examine(State(answers)) if finding.check == "damage"]


def test_each_node_that_has_found_any() -> None:
    damaged, repaired = answer(value=2, tag=8, open=1, sectors=[7]), answer(value=2, repaired=2)
    assert found_by(damaged) == 10 and still_open(damaged) == 1
    silent, older = NodeAnswer(NODE, None, "connection refused"), NodeAnswer(NODE, {})
    assert found(answer(), silent, older) == []
    (finding,) = found(answer(), silent, older, damaged)
    assert finding.severity is Severity.WARNING
    assert finding.sentence == "node 2 (host2:7001): 10 damaged sectors found, 1 not repaired: 7"
    (finding,) = found(repaired)
    assert finding.severity is Severity.NOTICE and finding.sentence.endswith("2 damaged sectors found, repaired")
    assert finding.to_do == "look at the disk of node 2; see the runbook, \"Sectors are damaged\""


def test_a_contradiction_is_a_fault() -> None:
    first = found(answer(contradiction=1, open=1, contradictions=1, sectors=[5]))[0]
    assert first.severity is Severity.WARNING and "two values have the same tag" in first.sentence
