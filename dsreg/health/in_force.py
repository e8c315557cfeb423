"""Which nodes decide, by what the nodes say: `cluster.toml` is only where to look for them. docs/configurations.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dsreg.health.answers import NodeAnswer
from dsreg.register.configuration import quorum_of
from dsreg.register.course import described
from dsreg.register.quorum import Quorum, bit, mask, ranks_in


class InForce(NamedTuple):
    """The latest configuration that a node tells. `ranks`, `joining`: masks, as in a Configuration. `sectors`: of the
    disk; 0: of an older version, which tells none."""

    number: int
    ranks: int
    joining: int
    sectors: int = 0

    @property
    def members(self) -> int:
        return self.ranks | self.joining

    @property
    def quorum(self) -> Quorum:
        return quorum_of(self)

    def described(self) -> str:
        """For people."""
        why = ", as members are being changed" if self.joining else ""
        return f"configuration {self.number}: {described(self)}{why}"


def in_force(answers: Sequence[NodeAnswer]) -> InForce:
    """Where no node tells one, all that were asked are members."""
    told = [told for answer in answers if (told := _told(answer)) is not None]
    return max(told, default=InForce(1, mask(answer.node.rank for answer in answers), 0))


def of_members(answers: Sequence[NodeAnswer]) -> list[NodeAnswer]:
    """Without those of nodes that are yet to be members, or have left."""
    members = in_force(answers).members
    return [answer for answer in answers if members & bit(answer.node.rank)]


def as_dict(force: InForce) -> dict[str, Any]:
    """For --json."""
    return {"number": force.number, "members": ranks_in(force.ranks), "joining": ranks_in(force.joining)}


def _told(answer: NodeAnswer) -> InForce | None:
    """None: the node does not answer, is of a version without, or waits to be told one."""
    report = answer.report.get("configuration") if answer.report is not None else None
    if not isinstance(report, dict) or not report["number"]:
        return None
    ranks, joining = mask(report["members"]), mask(report["joining"])
    return InForce(int(report["number"]), ranks, joining, int(report.get("sectors", 0)))
