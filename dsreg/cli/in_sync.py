"""Whose copies are complete, by what the nodes say of their healing: docs/heal.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsreg.cli.health import NodeAnswer, changed_directories, serves
from dsreg.config import format_size
from dsreg.register.quorum import majority_of, mask


def _heal(answer: NodeAnswer) -> dict[str, Any]:
    """{} if the node does not answer, or is of a version that does not heal."""
    heal = answer.report.get("heal") if answer.report is not None else None
    return heal if isinstance(heal, dict) else {}


def is_in_sync(answer: NodeAnswer) -> bool:
    """Whether it has all that each node has that it reaches."""
    return _heal(answer).get("in_sync") is True


def can_lose(answers: Sequence[NodeAnswer]) -> int:
    """How many nodes may be lost now, whichever they are, and every acknowledged write is still there and can be read.

    Only nodes that are counted, and are in sync, are taken for copies: so it may be more, and is not less.
    """
    changed = changed_directories(answers)
    quorum = majority_of(answer.node.rank for answer in answers)
    complete = mask(answer.node.rank for answer in answers if serves(answer, changed) and is_in_sync(answer))
    return quorum.spare(complete)


def can_lose_line(answers: Sequence[NodeAnswer]) -> str:
    number = can_lose(answers)
    return f"can lose {number} more node{'' if number == 1 else 's'} now"


def all_in_sync(answers: Sequence[NodeAnswer]) -> bool:
    """Whether every node has all that every other one has."""
    return all(is_in_sync(answer) and len(_heal(answer)["peers"]) == len(answers) - 1 for answer in answers)


def behind_bytes(answers: Sequence[NodeAnswer]) -> int:
    """What is lacking, of all nodes together, as far as is known."""
    return sum(_heal(answer).get("behind_bytes", 0) for answer in answers)


def what_is_missing(answers: Sequence[NodeAnswer]) -> list[str]:
    """For people, a line for each node that is not in sync with all others."""
    lines = []
    for answer in answers:
        if answer.report is None:
            lines.append(f"node {answer.node.rank} does not answer: {answer.fault}")
        elif not is_in_sync(answer) or len(_heal(answer)["peers"]) < len(answers) - 1:
            lines.append(f"node {answer.node.rank}: {described(answer)}")
    return lines


def described(answer: NodeAnswer) -> str:
    """How complete the node's copy is; "" if it does not answer."""
    heal = _heal(answer)
    if not heal:
        return "" if answer.report is None else "unknown"
    if behind := heal["behind_bytes"]:
        left = "" if heal["left_s"] is None else f", {heal['left_s']:.0f} s left"
        return f"behind by {format_size(behind)}{left}"
    if is_in_sync(answer):
        return "in sync"
    if not heal["peers"]:
        return "no links"
    compared = min(peer["compared"] for peer in heal["peers"].values())
    return f"compares, {compared:.0%}" if compared < 1 else "compares"
