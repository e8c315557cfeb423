"""Which nodes serve and may be counted, and which have room for new data, by what they say."""

from __future__ import annotations

from collections.abc import Container, Sequence

from dsreg.health.answers import NodeAnswer
from dsreg.health.in_force import in_force, of_members
from dsreg.register.quorum import counted, mask
from dsreg.units import nodes_text

# Links over which a node asks another one: see `peers` in docs/protocol.md.
_LINKED = ("sealed", "extension", "contract")


def why_no_space(answers: Sequence[NodeAnswer]) -> str:
    """Why writes of new data wait though a majority answers: too many nodes have no room for it; "" if they do not."""
    quorum = in_force(answers).quorum
    answering = [answer for answer in of_members(answers) if answer.report is not None]
    full = [answer.node.rank for answer in answering if is_full(answer)]
    roomy = [answer.node.rank for answer in answering if not is_full(answer)]
    if not full or not quorum.decided(mask(full + roomy)) or quorum.decided(mask(roomy)):
        return ""
    need = counted(quorum, mask(roomy), "have some")
    return f"writes of new data wait for room on {nodes_text(full)} ({need})"


def is_full(answer: NodeAnswer) -> bool:
    return answer.report is not None and answer.report.get("no_space") is True


def changed_directories(answers: Sequence[NodeAnswer]) -> dict[int, str]:
    """Nodes that others do not count, as their directory is not the one that is known: rank -> what is wrong."""
    return {
        int(rank): fault
        for answer in answers if answer.report is not None
        for rank, fault in answer.report.get("lives", {}).get("faults", {}).items()
    }


def serves(answer: NodeAnswer, changed: Container[int]) -> bool:
    """Whether the node answers, and may be counted."""
    if answer.report is None or answer.node.rank in changed:
        return False
    return not answer.report.get("lives", {}).get("waits_for")


def reached(answers: Sequence[NodeAnswer]) -> int:
    """The mask of the nodes that answer and serve, or to which one of these has a link, so that it can ask them for
    whoever does not reach them."""
    changed = changed_directories(answers)
    serving = [answer for answer in answers if serves(answer, changed)]
    linked = [
        int(rank) for answer in serving if answer.report is not None
        for rank, link in answer.report.get("peers", {}).items() if link in _LINKED
    ]
    return mask([answer.node.rank for answer in serving] + [rank for rank in linked if rank not in changed])


def has_its_directory(answer: NodeAnswer) -> bool:
    """Whether the node answers, and serves or, with a directory that it has served with, would if others were up."""
    return answer.report is not None and (serves(answer, ()) or answer.report.get("lives", {}).get("mark", 0) > 0)
