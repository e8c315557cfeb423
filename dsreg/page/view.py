"""What the page shows, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dsreg.health.answers import NodeAnswer
from dsreg.health.attached import Attachment, attachment_of
from dsreg.health.findings import Finding
from dsreg.health.in_force import InForce, in_force
from dsreg.health.in_sync import Copy, copies
from dsreg.health.serving import changed_directories
from dsreg.health.traffic import Counted, Rates, User, rates_of_nodes, users


@dataclass(frozen=True)
class View:
    """`rank`: of the node that shows it. `file`: its configuration, which has a disk of `sectors` sectors. `answers`:
    of all nodes, by rank; `before`: those of a while ago, [] if nobody has looked then. `no_quorum`: why a read failed,
    "" if it did not. `history`: what this node has done for clients, the oldest first. `when`: the time, for people.
    `refresh_s`: after so many seconds the browser asks again.
    """

    rank: int
    file: str
    sectors: int
    answers: Sequence[NodeAnswer]
    findings: Sequence[Finding]
    no_quorum: str
    before: Sequence[NodeAnswer]
    history: Sequence[Counted]
    when: str
    refresh_s: int

    @cached_property
    def force(self) -> InForce:
        return in_force(self.answers)

    @cached_property
    def changed(self) -> Mapping[int, str]:
        return changed_directories(self.answers)

    @cached_property
    def copies(self) -> Mapping[int, Copy]:
        return copies(self.answers)

    @cached_property
    def rates(self) -> Mapping[int, Rates]:
        return rates_of_nodes(self.before, self.answers)

    @cached_property
    def users(self) -> Sequence[User]:
        return users(self.before, self.answers)

    @cached_property
    def attachment(self) -> Attachment:
        return attachment_of(answer.report for answer in self.answers if answer.report is not None)
