"""Claim: a node whose directory was lost takes the next life of its rank. Pure. docs/lives.md, rules 9 to 16.

    ASKING      f + 1 others have to tell by which life they know the rank; the next one above all of these is claimed,
                once it is durable here
    CLAIMING    f + 1 others have to accept it; what these have promised is adopted
    STARTED     the node stores, acknowledges, answers and chooses tags

f is how many nodes may be missing: f + 1 others meet every quorum that this node is not needed for. While members are
being changed that is asked of each of the two sets (docs/configurations.md, rule 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.protocol.configuration import Record
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Accepted
from dsreg.protocol.names import LIVES_IN_NAMES, is_apart
from dsreg.register.configuration import quorum_of, rejoined
from dsreg.register.lives import Lives, supersedes
from dsreg.register.quorum import Quorum, bit, mask, ranks_in

Promise = tuple[int, bytes]  # epoch, owner


class Adopted(NamedTuple):
    """What a node takes over from those that have accepted its life. `owner`: NO_OWNER_ANY_MORE if two were told.
    `record`: None if none of them keeps one."""

    epoch: int
    owner: bytes
    incarnation: int
    record: Record | None = None


def adopted_promise(own: Promise, told: Iterable[Promise]) -> Promise:
    """The highest of these promises. Two owners of one epoch cannot both have it: one of them may, by the promise that
    was forgotten here, so nobody is promised anything in it any more."""
    promises = [own, *told]
    epoch = max(promise[0] for promise in promises)
    owners = {owner for each, owner in promises if each == epoch} - {NO_OWNER}
    return epoch, owners.pop() if len(owners) == 1 else NO_OWNER_ANY_MORE if owners else NO_OWNER


class Claim:
    """Of the node `rank`. `quorum`: in force, as far as this node knows. `own`: the life that it has claimed durably,
    if it has `claimed`; else the one that its directory says. `lives`: what it has been told by the others. `promise`:
    what its directory says."""

    def __init__(
        self, rank: int, quorum: Quorum, own: Life, lives: Lives, *, claimed: bool = False,
        promise: Promise = (0, NO_OWNER),
    ) -> None:
        self.stage = Stage.CLAIMING if claimed else Stage.ASKING
        self.own = own
        self._rank = rank
        self._quorum = quorum
        self._lives = lives
        self._promise = promise
        self._accepted: dict[int, Accepted] = {}  # of the own life

    def reconfigured(self, quorum: Quorum) -> None:
        """`quorum` decides from now on."""
        self._quorum = quorum

    def accepted(self, message: Accepted) -> None:
        """Another node has accepted a life of this one. What it knows of lives was told before that."""
        if message.claimant == self._rank and message.life == self.own:
            self._accepted[message.rank] = message

    def _is_current(self, rank: int, life: Life) -> bool:
        """Whether what the node has said in that life counts."""
        return self._lives.known.get(rank) == life and not self._lives.fault(rank)

    @property
    def _heard(self) -> dict[int, Mapping[int, Life]]:
        """The lives that those know who have started: others may have forgotten them."""
        return {
            rank: told.known for rank, told in self._lives.told.items()
            if told.stage is Stage.STARTED and self._is_current(rank, told.own)
        }

    @property
    def _acceptances(self) -> dict[int, Accepted]:
        return {rank: each for rank, each in self._accepted.items() if self._is_current(rank, each.own)}

    @property
    def _record(self) -> Record | None:
        """What those that have accepted its life know, and have voted for."""
        records = [each.record for each in self._acceptances.values() if each.record is not None]
        return rejoined(records) if records else None

    @property
    def _is_accepted(self) -> bool:
        """Whether it is by enough. They count for the configuration that they knew then: for a later one, too, as who
        chooses that has promised, and learned, what those of before had (docs/configurations.md, rule 10)."""
        accepted, record = mask(self._acceptances), self._record
        told = quorum_of(record.current) if record is not None else self._quorum
        is_member = (told.members & self._quorum.members & bit(self._rank)) != 0
        return is_member and told.covers(accepted) and self._quorum.covers(accepted)

    # --- what follows -------------------------------------------------------------------------------
    def due(self) -> int:
        """The number of the life that is to be claimed now; 0: of none. The caller makes it durable, then says so by
        `claims`."""
        heard = self._heard
        known = [lives[self._rank] for lives in heard.values() if self._rank in lives]
        highest = max([self.own.number, *(life.number for life in known)])
        if self.stage is Stage.ASKING:
            return highest + 1 if self._quorum.covers(mask(heard)) and not self.without_lives() else 0
        if any(supersedes(life, self.own) for life in known):
            return highest + 1
        if not self._is_accepted:
            return 0
        incarnation = max(each.incarnation for each in self._acceptances.values())
        if is_apart(self.own.number, incarnation):
            return 0
        later = range(self.own.number + 1, self.own.number + LIVES_IN_NAMES)
        return next((number for number in later if is_apart(number, incarnation)), 0)

    def claims(self, number: int) -> None:
        """This life is durable here."""
        self.stage = Stage.CLAIMING
        self.own = Life(number, self.own.store)
        self._accepted.clear()

    def adopted(self) -> Adopted | None:
        """What is to be promised, durably, before the node starts; None as long as too few have accepted its life."""
        if self.stage is not Stage.CLAIMING or self.due() or not self._is_accepted:
            return None
        accepted = self._acceptances.values()
        promise = adopted_promise(self._promise, [(each.epoch, each.owner) for each in accepted])
        return Adopted(*promise, max(each.incarnation for each in accepted), self._record)

    # --- for people ---------------------------------------------------------------------------------
    def without_lives(self) -> list[int]:
        """The nodes of which nobody has told that they keep lives: they would count what must be dropped."""
        heard = self._heard
        keep = mask(heard)
        for known in heard.values():
            keep |= mask(known)
        return ranks_in(self._quorum.members & ~keep & ~bit(self._rank))

    def waits_for(self) -> str:
        """"" if for nothing."""
        needed, others = self._quorum.needed_to_cover, self._quorum.size - 1
        if not self._quorum.members & bit(self._rank):
            return "it is no member of the cluster any more, and rejoins no more"
        if not others:
            return "there is no other node that it could learn from"
        if self.stage is Stage.ASKING:
            heard = self._heard
            if self._quorum.covers(mask(heard)):
                names = " and ".join(f"node {rank}" for rank in self.without_lives())
                return f"{names} must show a directory first: nobody has heard of one, as of a node of an older version"
            return f"{len(heard)} of the {others} other nodes tell what they know of it, {needed} must"
        return f"{len(self._acceptances)} of the {others} other nodes have accepted its life {self.own.number}, " \
            f"{needed} must"
