"""What the page shows, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsreg.health.findings import Finding
from dsreg.health.look import Look
from dsreg.health.traffic import Counted


@dataclass(frozen=True)
class View(Look):
    """`rank`: of the node that shows it. `file`: its configuration, which has a disk of `sectors` sectors. `no_quorum`:
    why a read failed, "" if it did not. `history`: what this node has done for clients, the oldest first. `when`: the
    time, for people. `refresh_s`: after so many seconds the browser asks again.
    """

    rank: int
    file: str
    sectors: int
    findings: Sequence[Finding]
    no_quorum: str
    history: Sequence[Counted]
    when: str
    refresh_s: int
