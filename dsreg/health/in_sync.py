"""Whose copies are complete, by what the nodes say of their healing: docs/heal.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsreg.constants import SECTOR_SIZE
from dsreg.health.answers import NodeAnswer
from dsreg.health.in_force import in_force, of_members
from dsreg.health.serving import changed_directories, serves
from dsreg.register.quorum import bit, mask, ranks_in
from dsreg.units import duration_text, nodes_text, share_text, size_text


@dataclass(frozen=True, slots=True)
class Copy:
    """How complete the copy of one node is. `state`: "in sync", "behind" (it fetches what it lacks), "learns" (its
    directory is new, and it answers for nothing that it has not learned), "compares", "no links", "unknown" (it is of a
    version that cannot say), "" (it does not answer). `lacks`: bytes, as far as is known. `share`, 0..1: of what is
    written that it has; of the disk that it has learned; of a comparison how much is through. `rate`: bytes a second.
    `left_s`: None if that is not known.
    """

    state: str
    lacks: int = 0
    share: float | None = None
    rate: float = 0
    left_s: float | None = None

    @property
    def is_moving(self) -> bool:
        """Whether it is about to change by itself."""
        return self.state in ("behind", "learns", "compares")


def _heal(answer: NodeAnswer) -> dict[str, Any]:
    """{} if the node does not answer, or is of a version that does not heal."""
    heal = answer.report.get("heal") if answer.report is not None else None
    return heal if isinstance(heal, dict) else {}


def is_in_sync(answer: NodeAnswer) -> bool:
    """Whether it has all that each node has that it reaches."""
    return _heal(answer).get("in_sync") is True


def copy_of(answer: NodeAnswer, written: int) -> Copy:
    """`written`: bytes that are written of the disk."""
    heal = _heal(answer)
    if not heal:
        return Copy("" if answer.report is None else "unknown")
    behind, rate, left_s = int(heal["behind_bytes"]), float(heal["rate"]), heal["left_s"]
    if unknown := int(heal.get("unknown_bytes", 0)):  # of which most may never have been written
        return Copy("learns", behind or unknown, float(heal["known"]), rate, left_s)
    if behind:
        return Copy("behind", behind, max(0.0, 1 - behind / max(written, behind)), rate, left_s)
    if is_in_sync(answer):
        return Copy("in sync", share=1.0)
    if not heal["peers"]:
        return Copy("no links")
    compared = float(min(peer["compared"] for peer in heal["peers"].values()))
    return Copy("compares", share=compared if compared < 1 else None)


def copies(answers: Sequence[NodeAnswer]) -> dict[int, Copy]:
    """By rank."""
    written = max((int(answer.report.get("sectors_written", 0)) for answer in answers if answer.report), default=0)
    return {answer.node.rank: copy_of(answer, written * SECTOR_SIZE) for answer in answers}


def can_lose(answers: Sequence[NodeAnswer]) -> int:
    """How many nodes may be lost now, whichever they are, and every acknowledged write is still there and can be read.

    Only nodes that are counted, and are in sync, are taken for copies: so it may be more, and is not less.
    """
    changed = changed_directories(answers)
    complete = mask(answer.node.rank for answer in answers if serves(answer, changed) and is_in_sync(answer))
    return in_force(answers).quorum.spare(complete)


def can_lose_line(answers: Sequence[NodeAnswer]) -> str:
    number = can_lose(answers)
    return f"can lose {number} more node{'' if number == 1 else 's'} now"


def why_not_more(answers: Sequence[NodeAnswer]) -> str:
    """Who is missing from those that may be lost; "" if all are there."""
    changed, found = changed_directories(answers), copies(answers)
    reasons: dict[str, list[int]] = {}
    for answer in of_members(answers):
        rank = answer.node.rank
        state = found[rank].state
        if answer.report is None:
            reason = "not answering"
        elif not serves(answer, changed):
            reason = "not counted"
        elif state == "in sync":
            continue
        else:
            reason = {"learns": "learning", "compares": "comparing", "unknown": "unable to say"}.get(state, state)
        reasons.setdefault(reason, []).append(rank)
    return "; ".join(f"{reason}: {nodes_text(ranks)}" for reason, ranks in reasons.items())


def all_in_sync(answers: Sequence[NodeAnswer]) -> bool:
    """Whether every node has all that every other one has."""
    members = of_members(answers)
    return len(members) == in_force(answers).quorum.size and all(
        is_in_sync(answer) and len(_others(answer, answers)) == len(members) - 1 for answer in members
    )


def _others(answer: NodeAnswer, answers: Sequence[NodeAnswer]) -> list[int]:
    """The members that this one heals with."""
    members = in_force(answers).members
    return [rank for rank in map(int, _heal(answer)["peers"]) if members & bit(rank)]


def behind_bytes(answers: Sequence[NodeAnswer]) -> int:
    """What is lacking, of all nodes together, as far as is known."""
    return sum(copy.lacks for copy in copies(of_members(answers)).values())


def what_is_missing(answers: Sequence[NodeAnswer]) -> list[str]:
    """For people, a line for each node that is not in sync with all others."""
    members, found = of_members(answers), copies(answers)
    unlisted = in_force(answers).members & ~mask(answer.node.rank for answer in members)
    lines = [f"node {rank} was not found" for rank in ranks_in(unlisted)]
    for answer in members:
        if answer.report is None:
            lines.append(f"node {answer.node.rank} does not answer: {answer.fault}")
        elif not is_in_sync(answer) or len(_others(answer, answers)) < len(members) - 1:
            lines.append(f"node {answer.node.rank}: {described(found[answer.node.rank], answer)}")
    return lines


def described(copy: Copy, answer: NodeAnswer) -> str:
    """In one line."""
    if copy.lacks:
        left = "" if copy.left_s is None else f", {duration_text(copy.left_s)} left"
        verb = "has yet to learn" if copy.state == "learns" else "behind by"
        return f"{verb} {size_text(copy.lacks)}{left}"
    if copy.state == "in sync":
        return f"in sync, but linked to {len(_heal(answer)['peers'])} of the others only"
    return f"compares, {share_text(copy.share)}" if copy.share is not None else copy.state
