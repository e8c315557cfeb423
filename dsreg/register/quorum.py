"""Quorums as values, over bit masks of ranks: bit r stands for the node of rank r.

    Quorum          what is asked of a quorum, whatever kind it is
    Majority        a majority of one set of nodes
    Joint           one of each of two sets, as while members change: docs/configurations.md
    majority_of     makes a Majority, also where some of the nodes are not known here
    counted         says for people how many there are and are needed, in each set

Nobody else counts nodes. Another kind is another class with the questions of Quorum. Each is checked against a dumb
version over sets. The model is etcd's package quorum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from dsreg.constants import MAX_RANK


class Quorum(Protocol):
    """Which sets of nodes decide. Any two of them share a node. What is in no `members` counts for nothing.

    Masks come in, of who has answered; whether a set that has not answered wholly could still decide is
    `decided(answers | outstanding)`. The numbers are for people, and for nothing else.
    """

    @property
    def members(self) -> int:
        """The mask of all nodes; of some, perhaps, only that they exist is known: see `majority_of`."""

    @property
    def size(self) -> int:
        """How many members there are."""

    @property
    def needed(self) -> int:
        """How many the smallest set that decides has."""

    @property
    def needed_to_block(self) -> int:
        """How many the smallest set has without which none decides."""

    @property
    def needed_to_cover(self) -> int:
        """How many the smallest set has that `covers`."""

    @property
    def sets(self) -> tuple[Majority, ...]:
        """Of each of which it takes a majority."""

    def decided(self, answers: int) -> bool:
        """Whether these decide."""

    def blocks(self, refusals: int) -> bool:
        """Whether without these no set is left that decides. Then each set that does has one of them."""

    def covers(self, answers: int) -> bool:
        """Whether each set that decides has one of these, also where one of two joint sets decides alone: under the
        configuration before, or the one after."""

    def all_answered(self, answers: int) -> bool:
        """Whether these are all."""

    def spare(self, answers: int) -> int:
        """How many of these may be lost, whichever they are, so that the rest decides; 0 also if these do not."""


class Majority:
    """More than half of `members`, a mask that is not 0."""

    __slots__ = ("members", "needed", "needed_to_block", "needed_to_cover", "size")

    def __init__(self, members: int) -> None:
        self.members = members
        self.size = members.bit_count()
        assert self.size >= 1
        self.needed = self.size // 2 + 1
        self.needed_to_block = self.needed_to_cover = self.size - self.needed + 1

    @property
    def sets(self) -> tuple[Majority, ...]:
        return (self,)

    def decided(self, answers: int) -> bool:
        return (answers & self.members).bit_count() >= self.needed

    def blocks(self, refusals: int) -> bool:
        return not self.decided(self.members & ~refusals)

    def covers(self, answers: int) -> bool:
        return self.blocks(answers)

    def all_answered(self, answers: int) -> bool:
        return not self.members & ~answers

    def spare(self, answers: int) -> int:
        return max(0, (answers & self.members).bit_count() - self.needed)


class Joint:
    """What decides in each of two."""

    __slots__ = ("_both", "members", "needed", "needed_to_block", "needed_to_cover", "size")

    def __init__(self, old: Quorum, new: Quorum) -> None:
        self._both = old, new
        self.members = old.members | new.members
        self.size = self.members.bit_count()
        # The members that are in both sets count for both.
        shared = (old.members & new.members).bit_count()
        self.needed = old.needed + new.needed - min(old.needed, new.needed, shared)
        self.needed_to_block = min(old.needed_to_block, new.needed_to_block)
        each = old.needed_to_cover, new.needed_to_cover
        self.needed_to_cover = sum(each) - min(*each, shared)

    @property
    def sets(self) -> tuple[Majority, ...]:
        old, new = self._both
        return *old.sets, *new.sets

    def decided(self, answers: int) -> bool:
        return all(quorum.decided(answers) for quorum in self._both)

    def blocks(self, refusals: int) -> bool:
        return any(quorum.blocks(refusals) for quorum in self._both)

    def covers(self, answers: int) -> bool:
        return all(quorum.covers(answers) for quorum in self._both)

    def all_answered(self, answers: int) -> bool:
        return all(quorum.all_answered(answers) for quorum in self._both)

    def spare(self, answers: int) -> int:
        return min(quorum.spare(answers) for quorum in self._both)


def majority_of(ranks: Iterable[int], cluster_size: int = 0) -> Majority:
    """A majority of the nodes `ranks`, and of as many more as make `cluster_size`.

    Of those it is not known which ranks they have, so that they never answer, nor refuse: bits above all ranks
    stand for them.
    """
    members = mask(ranks)
    for place in range(cluster_size - members.bit_count()):
        members |= bit(MAX_RANK + 1 + place)
    return Majority(members)


def counted(quorum: Quorum, up: int, what: str) -> str:
    """For people: how many nodes, those of the mask `up`, do `what`, such as "answer", and how many it takes; of two
    joint sets for each."""
    if len(quorum.sets) == 1:
        return f"{(up & quorum.members).bit_count()} of {quorum.size} nodes {what}, {quorum.needed} are needed"
    return "; ".join(_counted_of(each, up & each.members, what) for each in quorum.sets)


def _counted_of(majority: Majority, up: int, what: str) -> str:
    only = "" if majority.decided(up) else "only "
    nodes = " ".join(map(str, ranks_in(majority.members)))
    return f"{only}{up.bit_count()} of nodes {nodes} {what}, {majority.needed} are needed"


def how_many_decide(quorum: Quorum, ranks: Iterable[int]) -> int:
    """How many of the `ranks`, from the first one on, decide; 0 if not even all of them do."""
    bits = 0
    for index, rank in enumerate(ranks, 1):
        bits |= 1 << rank
        if quorum.decided(bits):
            return index
    return 0


def bit(rank: int) -> int:
    return 1 << rank


def mask(ranks: Iterable[int]) -> int:
    bits = 0
    for rank in ranks:
        bits |= 1 << rank
    return bits


def ranks_in(bits: int) -> list[int]:
    """The ranks in `bits`, ascending."""
    ranks = []
    while bits:
        low = bits & -bits
        ranks.append(low.bit_length() - 1)
        bits ^= low
    return ranks
