"""What the answers of the nodes come to for a monitoring system: well, degraded or critical, and why."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsreg.config import NodeAddress

# What a link must not be: see `peers` in docs/protocol.md.
_LINK_FAULTS = {
    "down": "does not reach node {peer}",
    "silent": "hears nothing from node {peer} (other keys, or it speaks only the contract)",
    "unsealed": "does not use node {peer}, which does not seal its connections",
}


class Health(enum.IntEnum):
    """The value is the exit code of `dsreg status --check`."""

    WELL = 0
    DEGRADED = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node's STATUS, or why there is none."""

    node: NodeAddress
    report: dict[str, Any] | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Assessment:
    """`reasons`: one for each thing that is not well, the worst first."""

    health: Health
    reasons: tuple[str, ...] = ()


def assess(answers: Sequence[NodeAnswer], no_quorum: str) -> Assessment:
    """Of the whole cluster. `no_quorum`: why a read through a majority failed, "" if it did not."""
    faults = [f"node {answer.node.rank} ({answer.node.address}): {fault}"
              for answer in answers for fault in faults_of(answer)]
    if no_quorum:
        return Assessment(Health.CRITICAL, (f"no quorum: {no_quorum}", *faults))
    return Assessment(Health.DEGRADED if faults else Health.WELL, tuple(faults))


def assess_one(answer: NodeAnswer) -> Assessment:
    """Of one node, whatever has become of the others: critical is one that does not answer."""
    faults = tuple(faults_of(answer))
    if answer.report is None:
        return Assessment(Health.CRITICAL, faults)
    return Assessment(Health.DEGRADED if faults else Health.WELL, faults)


def faults_of(answer: NodeAnswer) -> list[str]:
    """What is not well with one node, by its own report or for want of one."""
    if answer.report is None:
        return [answer.fault]
    faults = []
    if damaged := answer.report.get("damaged"):
        faults.append(f"{damaged} damaged sectors, repaired from the others when next used")
    for peer, link in sorted(answer.report.get("peers", {}).items(), key=lambda entry: int(entry[0])):
        if link in _LINK_FAULTS:
            faults.append(_LINK_FAULTS[link].format(peer=peer))
    return faults
