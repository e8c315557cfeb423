"""What a check reads, and what it finds."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dsreg.health.answers import NodeAnswer
from dsreg.health.in_force import InForce, in_force, of_members
from dsreg.health.in_sync import Copy, copies
from dsreg.health.serving import changed_directories
from dsreg.register.quorum import mask


class Severity(enum.IntEnum):
    """NOTICE: as it may be, but worth to know. WARNING: the disk works, and somebody should look. CRITICAL: reads or
    writes wait, or will soon."""

    NOTICE = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: the name of who has found it. `ranks`: the nodes that it is about, [] if it is the cluster. `sentence`
    says what is, `to_do` what to do about it; "" where nothing is to be done, as it passes by itself or does no harm.
    """

    check: str
    severity: Severity
    ranks: tuple[int, ...]
    sentence: str
    to_do: str = ""


@dataclass(frozen=True)
class State:
    """What is known of a cluster. `answers`: by rank. `no_quorum`: why a read through a majority failed, "" if it did
    not. `file`: the configuration, for commands that are to be given. `alone`: only one node was asked, about itself.
    """

    answers: Sequence[NodeAnswer]
    no_quorum: str = ""
    file: str = "cluster.toml"
    alone: bool = field(default=False, kw_only=True)

    @cached_property
    def members(self) -> list[NodeAnswer]:
        """The answers of the nodes that decide; of the one that was asked, whatever it is."""
        return [*self.answers] if self.alone else of_members(self.answers)

    @property
    def answering(self) -> list[NodeAnswer]:
        """Of these, those that have answered."""
        return [answer for answer in self.members if answer.report is not None]

    @cached_property
    def silent(self) -> list[int]:
        """The ranks of those that have not."""
        return [answer.node.rank for answer in self.members if answer.report is None]

    @cached_property
    def force(self) -> InForce:
        return in_force(self.answers)

    @cached_property
    def unlisted(self) -> int:
        """The mask of members that nobody has found."""
        return 0 if self.alone else self.force.members & ~mask(answer.node.rank for answer in self.answers)

    @cached_property
    def changed(self) -> dict[int, str]:
        return changed_directories(self.answers)

    @cached_property
    def copies(self) -> dict[int, Copy]:
        return copies(self.answers)


def named(answer: NodeAnswer) -> str:
    """How a sentence about one node begins."""
    return f"node {answer.node.rank} ({answer.node.address})"
