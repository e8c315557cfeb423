"""Marks: how a directory that was put back from a copy or a snapshot is noticed. Pure. docs/lives.md, rule 18.

A mark is a number, durable in the directory of a node, that is raised now and then while the node serves, and told to
the others, which keep the highest one of each life. A directory whose own mark is lower than that is an older state of
itself: what it has acknowledged since is not in it.

    Marks           what one node has heard of the others
    DirectoryCheck  of the node itself: has anybody heard of a later state of its directory?
"""

from __future__ import annotations

from collections.abc import Mapping

from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import LivesReport
from dsreg.register.lives import Lives
from dsreg.register.quorum import Quorum, bit


class Marks:
    """Of the node `own_rank`. `heard`: rank -> the life that it was known by, and the highest mark of that."""

    def __init__(self, own_rank: int, heard: Mapping[int, tuple[Life, int]]) -> None:
        self._own_rank = own_rank
        self.heard = dict(heard)

    def take(self, report: LivesReport, known: Mapping[int, Life]) -> bool:
        """What another node says of its own mark, and of what it has heard; whether something of it is new. `known`:
        the lives by which this node knows the others, with those of the report."""
        told = [(rank, life, report.marks.get(rank, 0)) for rank, life in report.known.items()]
        is_new = False
        for rank, life, mark in (*told, (report.rank, report.own, report.mark)):
            if rank != self._own_rank and known.get(rank) == life and mark > self._of(rank, life):
                self.heard[rank] = life, mark
                is_new = True
        return is_new

    def _of(self, rank: int, life: Life) -> int:
        known, mark = self.heard.get(rank, (life, 0))
        return mark if known == life else 0

    def told(self, known: Mapping[int, Life]) -> dict[int, int]:
        """By rank, for others: of those lives alone by which the ranks are known."""
        return {rank: mark for rank, life in known.items() if (mark := self._of(rank, life))}


class DirectoryCheck:
    """Of the node `rank`, whose directory says that its life is `own`, and `mark`."""

    def __init__(self, rank: int, quorum: Quorum, own: Life, mark: int) -> None:
        self.mark = mark  # what is durable
        self._rank = rank
        self._quorum = quorum
        self._own = own
        self.highest = 0  # that others have heard of this life
        self._answers = 0  # mask of those that have told what they heard, or cannot
        self._configured = 0  # mask of those that have told which nodes decide, or cannot

    def reconfigured(self, quorum: Quorum) -> None:
        """This one is in force."""
        self._quorum = quorum

    def told_configuration(self, teller: int) -> None:
        """The node `teller` has told which nodes decide, and that is in force here, or a later one: `reconfigured`."""
        self._configured |= bit(teller)

    def told(self, report: LivesReport, lives: Lives, *, configures: bool) -> None:
        """Another node has said this, and `lives` has taken it. `configures`: it also tells which nodes decide; it does
        not count before, as by what this directory knows too few may be asked."""
        teller = report.rank
        if report.known.get(self._rank) == self._own:
            self.highest = max(self.highest, report.marks.get(self._rank, 0))
        # Who has no directory that it has served with has forgotten what it heard.
        known = lives.known.get(teller)
        is_kept = report.own == known or known is None and report.mark > 0
        if report.stage is not Stage.CLAIMING and is_kept and not lives.fault(teller):
            self._answers |= bit(teller)
            if not configures:
                self._configured |= bit(teller)

    def claims(self, own: Life) -> None:
        """The node has this life now, of which nobody can have heard anything yet."""
        self._own, self.highest = own, 0

    def speaks_contract(self, teller: int) -> None:
        """The node `teller` speaks only the contract: it has heard nothing."""
        self._answers |= bit(teller)
        self._configured |= bit(teller)

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to ask, or to tell."""
        return self._quorum.size == 1

    @property
    def is_older(self) -> bool:
        """Whether the directory is an older state of itself, or the node of another copy of it runs."""
        return self.highest > self.mark

    @property
    def is_passed(self) -> bool:
        """Whether the node may serve: as many have told as make a majority with this one."""
        return not self.is_older and self._quorum.decided(self._counted | bit(self._rank))

    @property
    def _counted(self) -> int:
        return self._answers & self._configured & self._quorum.members

    def waits_for(self) -> str:
        """For people."""
        return (
            "serves once others have told whether they know of a later state of its directory: "
            f"{self._counted.bit_count()} of them have, {self._quorum.needed - 1} must"
        )
