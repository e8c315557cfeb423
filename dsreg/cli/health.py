"""The verdict for a monitoring system on the answers of the nodes: well, degraded or critical, and why."""

from __future__ import annotations

import enum
from collections.abc import Container, Sequence
from dataclasses import dataclass

from dsreg.cli.answers import NodeAnswer
from dsreg.cli.in_force import in_force, of_members
from dsreg.cli.units import nodes_text, size_text
from dsreg.register.quorum import mask, ranks_in

# What a link must not be: see `peers` in docs/protocol.md.
_LINK_FAULTS = {
    "down": "does not reach node {peer}",
    "silent": "gets no answer from node {peer} (wrong keys, or it speaks only the contract)",
    "waiting": "waits for node {peer} to start with its directory",
    "unsealed": "does not use node {peer}, which does not seal its connections",
}


class Health(enum.IntEnum):
    """The value is the exit code of `dsreg status --check`."""

    WELL = 0
    DEGRADED = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Assessment:
    """`reasons`: one for each thing that is not well, the worst first."""

    health: Health
    reasons: tuple[str, ...] = ()


def assess(answers: Sequence[NodeAnswer], no_quorum: str) -> Assessment:
    """Of the whole cluster. `no_quorum`: why a read through a majority failed, "" if it did not."""
    members, force = of_members(answers), in_force(answers)
    faults = [f"node {answer.node.rank} ({answer.node.address}): {fault}"
              for answer in members for fault in faults_of(answer)]
    unlisted = force.members & ~mask(answer.node.rank for answer in answers)
    faults += [f"node {rank} is not in cluster.toml, and was not found" for rank in ranks_in(unlisted)]
    if force.joining:
        faults.append(force.described())
    if no_quorum:
        return Assessment(Health.CRITICAL, (f"no quorum: {no_quorum}", *faults))
    if no_space := why_no_space(answers):
        return Assessment(Health.CRITICAL, (f"no space: {no_space}", *faults))
    return Assessment(Health.DEGRADED if faults else Health.WELL, tuple(faults))


def why_no_space(answers: Sequence[NodeAnswer]) -> str:
    """Why writes of new data wait though a majority answers: too many nodes have no room for it; "" if they do not."""
    quorum = in_force(answers).quorum
    answering = [answer for answer in of_members(answers) if answer.report is not None]
    full = [answer.node.rank for answer in answering if _is_full(answer)]
    roomy = [answer.node.rank for answer in answering if not _is_full(answer)]
    if not full or not quorum.decided(mask(full + roomy)) or quorum.decided(mask(roomy)):
        return ""
    need = f"{len(roomy)} have some, {quorum.needed} are needed"
    return f"writes of new data wait for room on {nodes_text(full)} ({need})"


def _is_full(answer: NodeAnswer) -> bool:
    return answer.report is not None and answer.report.get("no_space") is True


def assess_one(answer: NodeAnswer) -> Assessment:
    """Of one node, whatever has become of the others: critical is one that does not answer."""
    faults = tuple(faults_of(answer))
    if answer.report is None:
        return Assessment(Health.CRITICAL, faults)
    return Assessment(Health.DEGRADED if faults else Health.WELL, faults)


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


def has_its_directory(answer: NodeAnswer) -> bool:
    """Whether the node answers, and serves or, with a directory that it has served with, would if others were up."""
    return answer.report is not None and (serves(answer, ()) or answer.report.get("lives", {}).get("mark", 0) > 0)


def faults_of(answer: NodeAnswer) -> list[str]:
    """What is not well with one node, by its own report or for want of one."""
    if answer.report is None:
        return [answer.fault]
    faults = []
    lives = answer.report.get("lives", {})
    if lives.get("waits_for"):
        faults.append(f"does not serve yet: {lives['waits_for']}")
    for peer, fault in sorted(lives.get("faults", {}).items(), key=lambda entry: int(entry[0])):
        faults.append(f"does not use node {peer}: {fault}")
    if behind := answer.report.get("heal", {}).get("behind_bytes"):
        faults.append(f"lacks {size_text(behind)}, which it fetches from the other nodes")
    if damaged := answer.report.get("damaged"):
        faults.append(f"{damaged} damaged sectors, to be repaired from the other nodes")
    if contradictions := answer.report.get("damage", {}).get("contradictions"):
        faults.append(f"two values have the same tag, at {contradictions} sectors: see docs/scrub.md")
    if _is_full(answer):
        faults.append("no space for new data")
    for peer, link in sorted(answer.report.get("peers", {}).items(), key=lambda entry: int(entry[0])):
        if link in _LINK_FAULTS:
            faults.append(_LINK_FAULTS[link].format(peer=peer))
    return faults
