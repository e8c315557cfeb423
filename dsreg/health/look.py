"""Look: what the nodes answer now and answered before, and what that comes to, each worked out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dsreg.health.answers import NodeAnswer
from dsreg.health.attached import Attachment, attachment_of
from dsreg.health.in_force import InForce, in_force
from dsreg.health.in_sync import Copy, copies
from dsreg.health.serving import changed_directories
from dsreg.health.traffic import Rates, User, rates_of_nodes, users


@dataclass(frozen=True)
class Look:
    """`answers`: of all nodes, by rank; `before`: those of a while ago, empty if nobody has looked then."""

    answers: Sequence[NodeAnswer]
    before: Sequence[NodeAnswer]

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
