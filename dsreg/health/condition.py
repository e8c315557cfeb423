"""What a node is at this moment, in a few words."""

from __future__ import annotations

from collections.abc import Container
from typing import Literal, NamedTuple

from dsreg.health.answers import NodeAnswer
from dsreg.register.quorum import bit


class Condition(NamedTuple):
    """`kind`: "well"; "worse": it answers, and somebody should look; "down": it does not answer; "": it is no
    member, and does not matter."""

    text: str
    kind: Literal["well", "worse", "down", ""]


def condition(answer: NodeAnswer, changed: Container[int], members: int) -> Condition:
    """`changed`: ranks whose directories the others do not know; `members`: a mask."""
    report, is_changed = answer.report, answer.node.rank in changed
    if not members & bit(answer.node.rank):
        return Condition("no member, not running" if report is None else "no member, runs", "")
    if report is None:
        return Condition(f"directory changed; {answer.fault}" if is_changed else answer.fault, "down")
    faults = [f"{damaged} damaged"] if (damaged := report.get("damaged")) else []
    faults += ["no space"] if report.get("no_space") is True else []
    if is_changed:
        faults.insert(0, "directory changed")
    elif report.get("lives", {}).get("waits_for"):
        faults.insert(0, "empty directory, waits for others")
    return Condition(f"answers, {', '.join(faults)}", "worse") if faults else Condition("answers", "well")
