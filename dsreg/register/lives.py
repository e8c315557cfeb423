"""Lives: which directory stands behind a rank, and when a node with an empty one may begin. docs/lives.md.

A node's acknowledgements rest on its directory. Behind the same rank with another directory stands a node that has
forgotten them. So each directory has a random id, made with it; every node keeps durably which one it knows each rank
by, and whoever counts answers, node or client, does not count a rank whose directory is another one.

    Lives       what one party knows of the others, and whom it must not count
    FirstStart  a node with an empty directory: has anybody heard of its rank?
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from dsreg.protocol.life import Life, Stage, claims_later
from dsreg.register.quorum import Quorum, bit

# How long `new` waits for answers before it stands in for those that have not come, in each of the two phases.
PATIENCE_S: Final = 2.0


class Told(NamedTuple):
    """The last that a node has said."""

    stage: Stage
    own: Life
    known: Mapping[int, Life]


class Heard(NamedTuple):
    """`lives`: what is new, by rank. `superseded`: those ranks of them that were known by an earlier life. What they
    have said in that does not count any more."""

    lives: dict[int, Life]
    superseded: list[int]


def supersedes(known: Life | None, life: Life) -> bool:
    """Whether a rank that is known by `known` must not be counted as `life`: that is an older one, or has the same
    number and another directory."""
    return known is not None and known != life and known.number >= life.number


class Lives:
    """`own_rank`: of the node whose knowledge this is, 0 for a client. `known`: what it knows of others, by rank.
    `told`: the last that each has said."""

    def __init__(self, own_rank: int, known: Mapping[int, Life]) -> None:
        self._own_rank = own_rank
        self.known = {rank: life for rank, life in known.items() if rank != own_rank}
        self._before: dict[int, Life] = {}  # by what was superseded: still in the file if that could not be written
        self.told: dict[int, Told] = {}
        self._refused: dict[int, Life] = {}  # began, or tried to, with this directory in place of the known one
        self._unwritten: set[int] = set()  # heard, but not made durable

    def take(self, rank: int, stage: Stage, own: Life, known: Mapping[int, Life]) -> Heard:
        """The node `rank` says this. Gives what is heard for the first time: a node makes that durable before it
        counts that rank, and before it tells anybody.

        That a node claims a later life of its rank is not news: see `accept`.
        """
        claims = claims_later(stage, own)
        if stage is not Stage.STARTED and not claims and self.known.get(rank, own) != own:
            # It will be told so, and end, or rejoin; the node that is known may be up elsewhere.
            self._refused[rank] = own
            return Heard({}, [])
        self._refused.pop(rank, None)
        self.told[rank] = Told(stage, own, known)
        lives = {**known, rank: own} if stage is not Stage.ASKING and not claims else known
        return self._hear({other: life for other, life in lives.items() if self._is_news(other, life)})

    def accept(self, rank: int, life: Life) -> Heard | None:
        """The node claims this life. None: it must not have that, as it is known by another one that is as high or
        higher. Else as `take`; nothing new if it is known by this one already."""
        if supersedes(self.known.get(rank), life):
            return None
        return self._hear({rank: life} if self.known.get(rank) != life else {})

    def _hear(self, news: dict[int, Life]) -> Heard:
        superseded = [other for other in news if other in self.known]
        self._before.update((other, self.known[other]) for other in superseded)
        self.known.update(news)
        self._unwritten.difference_update(news)
        return Heard(news, superseded)

    def _is_news(self, rank: int, life: Life) -> bool:
        known = self.known.get(rank)
        return rank != self._own_rank and (known is None or life.number > known.number)

    def not_written(self, heard: Iterable[int]) -> None:
        """What `take` gave could not be made durable: these ranks do not count until it can."""
        for rank in heard:
            if (before := self._before.get(rank)) is not None:
                self.known[rank] = before
            else:
                del self.known[rank]
            self._unwritten.add(rank)

    def fault(self, rank: int) -> str:
        """Why `rank` must not be counted, asked or served, whatever it says; "" if there is no reason."""
        if rank in self._unwritten:
            return "there is no space here to record the id of its directory"
        life = self.known.get(rank)
        if life is None:
            return ""
        told = self.told.get(rank)
        # One that claims a life is not counted either, but nothing is wrong with it.
        if told is not None and told.stage is Stage.STARTED and supersedes(told.own, life):
            return f"its directory has changed: it is {told.own}, and was {life}"
        for other, report in self.told.items():
            if other == rank or (known := report.known.get(rank, life)) == life:
                continue
            if supersedes(known, life):  # else it has not heard of this one yet
                return f"its directory is not known for sure: node {other} knows {report.known[rank]}, not {life}"
        return ""

    def counts(self, rank: int) -> bool:
        """Whether `rank` has shown the directory that it is known by, has started, and nobody says otherwise."""
        told = self.told.get(rank)
        if told is None or told.own != self.known.get(rank):  # the life that it has now is yet to be heard of
            return False
        return told.stage is Stage.STARTED and not self.fault(rank)

    def may_teach(self, rank: int, own: Life) -> bool:
        """Whether what that node says of its copies counts for this one, which has the life `own`, to learn from: it
        counts, and has heard of this life, as it had to tell before. See rule 14."""
        told = self.told.get(rank)
        return told is not None and told.known.get(self._own_rank) == own and self.counts(rank)

    @property
    def is_any_later(self) -> bool:
        """Whether a rank is known by a life after its first one. Who counts and does not know of lives might count what
        that rank has said before."""
        return any(life.number > 1 for life in self.known.values())

    def keeps_lives(self, rank: int) -> bool:
        """Whether `rank` has to show its directory before it counts. A node that was never heard to have one is taken
        for one of the contract, or of an older version."""
        return rank in self.known or rank in self.told

    def faults(self) -> dict[int, str]:
        """By rank, for people: those that must not be counted, and those that were refused."""
        refused = {
            rank: f"it was started with another, empty directory: {life} in place of {self.known[rank]}"
            for rank, life in self._refused.items()
            if life.store != self.known[rank].store  # else its claim was accepted, and it is about to hear of that
        }
        return refused | {rank: fault for rank in self.known if (fault := self.fault(rank))}


class FirstStart:
    """Whether the node `rank` may begin with its directory, which is `own`. `begun`: it has, before.

    `quorum`: of the nodes, this one among them. `strict`: so many of the others have to say that they have never heard
    of the rank that every majority has one of them; else as many as make a majority with this node. `new`: a person
    says that it is new, which stands in for answers that do not come, and never for one that says otherwise. Time is in
    seconds, on any clock that does not go backwards.
    """

    def __init__(
        self, rank: int, quorum: Quorum, own: Life, *, begun: bool, strict: bool = False, new: bool = False
    ) -> None:
        self._rank = bit(rank)
        self._quorum = quorum
        self._strict = strict
        self.stage = Stage.STARTED if begun else Stage.ASKING
        self.denied: tuple[int, Life] | None = None  # who knows the rank by another directory
        self._own = own
        self._new = new
        self._patience_until_s = math.inf
        # Masks.
        self._never = 0  # others that have never heard of another directory
        self._remember = 0  # of these: that know this one, durably

    def reconfigured(self, quorum: Quorum) -> None:
        """The cluster is older than this directory: these decide. None of them speaks the contract, so nothing stands
        in the way of being strict, and nobody can say that the cluster is new."""
        self._quorum = quorum
        self._strict, self._new = True, False

    def told(self, teller: int, life: Life | None) -> None:
        """The node `teller` knows this rank by `life`; None: it has never heard of it."""
        if life is not None and life != self._own:
            if life.number >= self._own.number:  # else it has not heard of this one yet
                self.denied = teller, life
            return
        self._never |= bit(teller)
        if life is None:
            self._remember &= ~bit(teller)
        else:
            self._remember |= bit(teller)

    def speaks_contract(self, teller: int) -> None:
        """The node `teller` speaks only the contract, and cannot say."""
        self._never |= bit(teller)
        self._remember |= bit(teller)

    def due(self, now: float) -> Stage | None:
        """The stage that the node can go to now; the caller does what belongs to it, then sets `stage`."""
        if self.denied is not None or self.stage is Stage.STARTED:
            return None
        if self._new and self._patience_until_s == math.inf:
            self._patience_until_s = now + PATIENCE_S
        answers = self._never if self.stage is Stage.ASKING else self._remember
        if not self._are_enough(answers) and now < self._patience_until_s:
            return None
        self._patience_until_s = math.inf
        return Stage(self.stage + 1)

    def _are_enough(self, others: int) -> bool:
        all_of_them = others | self._rank
        if self._strict:
            return self._quorum.covers(others) or self._quorum.all_answered(all_of_them)
        return self._quorum.decided(all_of_them)

    @property
    def needed(self) -> int:
        """For people: how many of the others are."""
        if self._strict:
            return min(self._quorum.size - 1, self._quorum.needed_to_cover)
        return self._quorum.needed - 1

    @property
    def next_due(self) -> float:
        """When `due` may say something without having been told anything; inf: never."""
        return self._patience_until_s

    def waits_for(self) -> str:
        """For people."""
        if self.stage is Stage.ASKING:
            said = self._never.bit_count()
            return f"{said} of the other nodes have said that they do not know it, {self.needed} must"
        return f"{self._remember.bit_count()} of the other nodes have stored its id, {self.needed} must"
