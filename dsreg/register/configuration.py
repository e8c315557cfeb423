"""Numbered configurations: what may follow one, and a node's part in choosing what does. docs/configurations.md.

    quorum_of    which nodes decide under a configuration
    next_for     the next one on the way to the members and the size that somebody wants
    objection    why a configuration must not follow another one
    Voter        of one node: which configuration is in force as far as it knows, and how it votes for the next

Each configuration chooses the next one: Paxos for one value, in which the members of the configuration in force vote,
and decide as they do for an operation. What a voter has answered with must be durable first: each method that changes
the record says so by giving the new one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from dsreg.protocol.choosing import Answer, Later, Objection, Outbid, Promised, Voted
from dsreg.protocol.configuration import Ballot, Configuration, Record, Vote
from dsreg.register.quorum import Joint, Majority, Quorum, bit, majority_of, ranks_in


class Sets(Protocol):
    """Of a configuration, or of what a node says of one: the members and, while these are joint, the later ones."""

    @property
    def ranks(self) -> int: ...

    @property
    def joining(self) -> int: ...


def quorum_of(configuration: Sets) -> Quorum:
    """Of number 0, which a node has that is yet to be told one: nobody decides."""
    if not configuration.ranks:
        return majority_of((), 1)
    if configuration.joining:
        return Joint(Majority(configuration.ranks), Majority(configuration.joining))
    return Majority(configuration.ranks)


class Goal(NamedTuple):
    """What somebody wants: the members, a mask, and the size. `cancels`: where members are being changed, those of
    before stay."""

    ranks: int
    sectors: int
    cancels: bool = False


def next_for(configuration: Configuration, goal: Goal) -> Configuration | None:
    """What is to follow; None once the goal is reached. See `objection` for whether it may."""
    number, sectors, ranks, joining, used = configuration
    if joining:
        return Configuration(number + 1, sectors, ranks if goal.cancels else joining, 0, used)
    if goal.cancels or goal.ranks == ranks and goal.sectors == sectors:
        return None
    if goal.ranks == ranks:
        return Configuration(number + 1, goal.sectors, ranks, 0, used)
    return Configuration(number + 1, sectors, ranks, goal.ranks, used | goal.ranks)


def objection(configuration: Configuration, following: Configuration) -> str:
    """Why `following` must not be chosen after `configuration`; "" if it may. Each voter asks."""
    if following.number != configuration.number + 1:
        return f"number {following.number} does not follow {configuration.number}"
    if following.sectors < configuration.sectors:
        return f"a disk cannot shrink, from {configuration.sectors} sectors to {following.sectors}"
    if configuration.joining:
        if following.sectors != configuration.sectors or following.used != configuration.used or following.joining:
            return "while members are being changed nothing else is"
        if following.ranks not in (configuration.ranks, configuration.joining):
            return "what follows two joint sets of members is one of them"
        return ""
    if following.ranks != configuration.ranks:
        return "other members become so by a joint configuration"
    new = following.joining & ~configuration.ranks
    if again := ranks_in(new & configuration.used):
        return f"a rank is never used again: {', '.join(map(str, again))}"
    if following.used != configuration.used | new:
        return "the list of all ranks that were ever used is another one"
    if following.joining and following.sectors != configuration.sectors:
        return "the size changes by itself, not together with the members"
    return ""


def is_sound(record: Record) -> bool:
    """Whether what it has voted for may follow."""
    return record.voted is None or not objection(record.current, record.voted.configuration)


def must_learn(configuration: Configuration, following: Configuration, rank: int) -> bool:
    """Whether the node `rank` must have learned before it votes: the new members alone are to decide, and it is one."""
    return bool(configuration.joining & bit(rank)) and following.ranks == configuration.joining


class Voter:
    """Of the node `rank`. `record`: as it is on the disk. Who is asked about a configuration hears of it by that: the
    caller sees to it that `heard` comes before `ask` and `vote`."""

    def __init__(self, rank: int, record: Record) -> None:
        self._rank = rank
        self.record = record

    @property
    def is_member(self) -> bool:
        return bool(self.record.current.members & bit(self._rank))

    def heard(self, configuration: Configuration) -> Record | None:
        """It has been chosen, somebody says. Gives the record to be made durable before anything is answered under it;
        None if it is no news. The caller sets `record` once it is."""
        current = self.record.current
        if configuration.number <= current.number:
            assert configuration.number < current.number or configuration == current, "two of one number were chosen"
            return None
        return Record(configuration)

    def ask(self, base: Configuration, ballot: Ballot) -> tuple[Record, Answer]:
        """First phase: who proposes asks about what follows `base`. Gives the record that must be durable before the
        answer leaves: the same one if nothing has changed."""
        record = self.record
        if (refusal := self._refusal(base, ballot)) is not None:
            return record, refusal
        return record._replace(promised=ballot), Promised(record.voted)

    def vote(
        self, base: Configuration, ballot: Ballot, following: Configuration, *, has_learned: bool
    ) -> tuple[Record, Answer]:
        """Second phase: this is to follow `base`. `has_learned`: this node has what is known under all earlier ones, so
        far as the rules ask for it."""
        record = self.record
        if (refusal := self._refusal(base, ballot)) is not None:
            return record, refusal
        if reason := objection(record.current, following):
            return record, Objection(reason)
        if must_learn(record.current, following, self._rank) and not has_learned:
            return record, Objection(f"node {self._rank} does not have all data yet")
        return Record(record.current, ballot, Vote(ballot, following)), Voted()

    def _refusal(self, base: Configuration, ballot: Ballot) -> Later | Outbid | Objection | None:
        current, promised, _ = self.record
        if base.number < current.number:
            return Later(current)
        assert base.number == current.number, "the caller has to hear of it first"
        if base != current:
            return Objection(f"node {self._rank} knows another number {current.number}: cluster.toml differs there")
        if not self.is_member:
            return Objection(f"node {self._rank} is no member")
        return Outbid(promised) if ballot < promised else None


def rejoined(told: Collection[Record]) -> Record:
    """What a node takes over that has lost its directory, from what those tell that accept its claim, at least one: the
    latest configuration, and of those that know it the highest promise and vote. Its own, forgotten, may have decided.
    """
    current = max(record.current for record in told)
    same = [record for record in told if record.current == current]
    votes = [record.voted for record in same if record.voted is not None]
    return Record(current, max(record.promised for record in same), max(votes, default=None))
