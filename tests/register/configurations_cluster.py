"""Nodes whose set changes: how a configuration is chosen, told, learned from, and what a node that lost its directory
takes over. The half of the model that is built into a node; configurations_rule.py has the other half, and says what
the model leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

from tests.register.configurations_sets import NONE, Conf, majority, meets_all, quorums
from tests.register.lives_cluster import Violation, put

Tag = tuple[int, int, int]  # epoch of the copy | ts, wr: the name
Name = tuple[int, int]
ZERO: Tag = (0, 0, 0)
NO_NAME: Name = (0, 0)
NOBODY, NO_OWNER_ANY_MORE = 0, -1  # owners of an epoch; others are those parties, from 1 on
NEW = 2  # the epoch that is attached

# Each rule that can be left out: see docs/configurations.md.
BREAKS = (
    "joint", "old_side", "new_side", "mixed", "two_numbers", "old_client", "one_size", "accepted", "promised",
    "vote_old", "learn", "early_tell", "scan", "even", "adopt", "two_owners", "reuse", "own_list",
    "claim_old", "claim_new", "votes_lost", "drop", "claimed_end",
)


class Goal(NamedTuple):
    ranks: tuple[int, ...]
    sectors: int = 1
    cancels: bool = False  # if it meets a joint configuration, it goes back


class Scenario(NamedTuple):
    """`parties`: scripts of operations, as those of lives_cluster: W, R, P, A, p, r, q, O; S asks for the size; N is a
    write coordinated by the node `namer`, which chooses the tag. `proposers`: the goals of each, one after another."""

    nodes: int
    first: tuple[int, ...]
    proposers: tuple[tuple[Goal, ...], ...]
    parties: tuple[tuple[str, ...], ...]
    wiped: int | None = None  # which node may lose its directory, once
    epoch: int = 0  # in force at first
    late: bool = False  # what is done may arrive once more, at nodes that have not seen it
    namer: int | None = None
    last: int = 9  # no number above this one is proposed
    beyond: bool = False  # the register is one beyond the end of the disk of configuration 1
    steps: bool = False  # the new member, there is one, learns from one node after another; one may be lost in between


class Row(NamedTuple):
    """A node. `snap`: (promise, copy) when it learned of its configuration. `knows`: the life of the node that may be
    wiped. `said`: to each party, to each proposer, to the node that claims a life. `taught`: the new member has learned
    from it, as far as that one knows."""

    conf: Conf
    tag: Tag
    promise: tuple[int, int]
    ballot: int
    vote: tuple[int, Conf] | None
    snap: tuple | None
    life: int
    knows: int
    started: bool
    said: tuple[tuple[tuple, ...], ...]
    taught: bool = False


class Op(NamedTuple):
    at: int = 0
    phase: str = "idle"
    floor: Name = NO_NAME
    shown: int = 0
    tag: Tag = ZERO
    epoch: int = 0
    life: int = 1  # of the coordinator, if that matters
    returned: Name | None = None


class Proposal(NamedTuple):
    goal: int = 0
    base: Conf = NONE
    value: Conf = NONE


class Rest(NamedTuple):
    ops: tuple[Op, ...]
    proposals: tuple[Proposal, ...]
    decided: frozenset[Conf]
    orders: frozenset[Tag] = frozenset()  # may arrive although nobody waits for them
    named: frozenset[tuple[Tag, int]] = frozenset()  # by the coordinator `namer`
    floor: Name = NO_NAME  # what was written, or shown
    shown: int = 0  # the number under which something was done
    owner: int = NOBODY  # of NEW
    lost: bool = False


State = tuple[tuple[Row, ...], Rest]


class Cluster:
    """`without`: rules that are left out, of BREAKS."""

    def __init__(self, scenario: Scenario, without: frozenset[str]) -> None:
        assert without <= set(BREAKS), without
        self.scenario, self.without = scenario, without
        self.nodes, self.parties, self.proposers = scenario.nodes, len(scenario.parties), len(scenario.proposers)
        self.wiped = scenario.wiped
        self.claimant = self.parties + self.proposers
        self.first = Conf(1, scenario.first)

    def start(self) -> State:
        said = ((),) * (self.claimant + (self.wiped is not None))
        rows = []
        for j in range(self.nodes):
            member = j in self.scenario.first
            conf = self.first if member else NONE
            if not member and "own_list" in self.without:
                conf = Conf(1, tuple(range(self.nodes)))
            rows.append(Row(
                conf, ZERO, (self.scenario.epoch if member else 0, NOBODY), 0, None, None, 1, 1, conf != NONE, said,
            ))
        return tuple(rows), Rest(
            (Op(),) * self.parties, (Proposal(),) * self.proposers, frozenset((self.first,))
        )

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        rows, rest = state
        for j, row in enumerate(rows):
            for conf in rest.decided:
                if conf.number > row.conf.number and (row.started or row.life == 1):
                    yield f"{j} hears of {conf}", (self._installed(rows, j, conf), rest)
        for q in range(self.proposers):
            yield from self._propose(rows, rest, q)
        for tag in rest.orders:
            for j, row in enumerate(rows):
                if self.serves(j, row) and self.has_it(row) and tag[0] >= row.promise[0] and tag > row.tag:
                    yield f"{j} stores {tag} late", (self.stored(rows, j, tag), rest)
        if self.wiped is not None:
            yield from self._wiped(rows, rest, self.wiped)
        if self.scenario.steps:
            yield from self._learn(rows, rest)

    # --- configurations -----------------------------------------------------------------------------
    def serves(self, j: int, row: Row) -> bool:
        return row.started and any(j in ranks for ranks in row.conf.sets)

    def has_it(self, row: Row) -> bool:
        """Whether the register is in the disk, as far as the node knows."""
        return not self.scenario.beyond or row.conf.sectors > 1

    def counted(self, conf: Conf) -> tuple[frozenset[int], ...]:
        """The sets of nodes that decide an operation."""
        if conf.joining and "old_side" in self.without:
            return quorums((conf.ranks,))
        if conf.joining and "new_side" in self.without:
            return quorums((conf.joining,))
        return quorums(tuple(conf.sets))

    def _electing(self, conf: Conf) -> tuple[frozenset[int], ...]:
        if conf.joining and "vote_old" in self.without:
            return quorums((conf.ranks,))
        return quorums(tuple(conf.sets))

    def _installed(self, rows: tuple[Row, ...], j: int, conf: Conf) -> tuple[Row, ...]:
        row = rows[j]
        if conf.joining or conf.number > row.conf.number + 1:
            row = row._replace(snap=(row.promise, row.tag))
        row = row._replace(conf=conf, ballot=0, vote=None, started=True)
        if self.scenario.steps and j == self._learner(conf):
            rows = tuple(each._replace(taught=False) for each in rows)
        if "reuse" in self.without and not any(j in ranks for ranks in conf.sets):
            row = row._replace(tag=ZERO, promise=(0, NOBODY), snap=None, life=2)  # another machine, from now on
        return put(rows, j, row)

    def _wish(self, conf: Conf, goal: Goal, used: set[int]) -> Conf:
        """What this proposer wants after `conf`; NONE: nothing."""
        number = conf.number + 1
        if number > self.scenario.last:
            return NONE
        if conf.joining:
            return Conf(number, conf.ranks if goal.cancels else conf.joining, (), conf.sectors)
        sectors = max(conf.sectors, goal.sectors)
        if conf.ranks != goal.ranks:
            if set(goal.ranks) & (used - set(conf.ranks)) and "reuse" not in self.without:
                return NONE
            if "joint" in self.without:
                return Conf(number, goal.ranks, (), sectors)
            return Conf(number, conf.ranks, goal.ranks, sectors)
        return Conf(number, conf.ranks, (), sectors) if sectors > conf.sectors else NONE

    def _propose(self, rows: tuple[Row, ...], rest: Rest, q: int) -> Iterator[tuple[str, State]]:
        proposal, goals = rest.proposals[q], self.scenario.proposers[q]
        ballot, column = q + 1, self.parties + q
        base, value = proposal.base, proposal.value
        top = max(rest.decided)
        if base.number < top.number and base != NONE:  # it was decided without it, or by it
            over = self._proposal(self.forget(rows, column), rest, q, Proposal(proposal.goal))
            yield f"proposer {q} hears of {top}", over
        if base == NONE:
            if proposal.goal == len(goals):
                return
            goal = goals[proposal.goal]
            if not top.joining and top.ranks == goal.ranks and top.sectors >= goal.sectors:
                yield f"proposer {q} is done", self._proposal(rows, rest, q, Proposal(proposal.goal + 1))
                return
            used = {rank for conf in rest.decided for ranks in conf.sets for rank in ranks}
            wish = self._wish(top, goal, used)
            if wish != NONE:
                now = proposal._replace(base=top, value=wish if self.proposers == 1 else NONE)
                yield f"proposer {q} wants {wish}", self._proposal(rows, rest, q, now)
            return
        if value == NONE:
            yield from self._ask(rows, rest, q, base, ballot, column)
            return
        for j, row in enumerate(rows):
            if row.conf != base or not self.serves(j, row) or row.ballot > ballot and "promised" not in self.without:
                continue
            if any(entry[0] == "vote" and entry[3] == row.life for entry in row.said[column]):
                continue
            for ready in self._ready(rows, j, base, value):
                ready = ready._replace(ballot=max(ballot, row.ballot), vote=(ballot, value))
                voted = self._tell(put(rows, j, ready), j, column, ("vote", base, value, ready.life, ready.knows))
                yield f"{j} votes in ballot {ballot} for {value}", self._count(voted, rest, q, base, value, column)

    def _ask(
        self, rows: tuple[Row, ...], rest: Rest, q: int, base: Conf, ballot: int, column: int
    ) -> Iterator[tuple[str, State]]:
        for j, row in enumerate(rows):
            if row.conf == base and self.serves(j, row) and row.ballot < ballot:
                entry = ("promise", base, row.vote, row.life, row.knows)
                asked = self._tell(put(rows, j, row._replace(ballot=ballot)), j, column, entry)
                yield f"{j} promises ballot {ballot}, and has voted {row.vote}", (asked, rest)
        goal = self.scenario.proposers[q][rest.proposals[q].goal]
        used = {rank for conf in rest.decided for ranks in conf.sets for rank in ranks}
        for entries in self._choices(rows, column, self._electing(base), base):
            votes = [entry[2] for entry in entries if entry[2] is not None]
            value = max(votes)[1] if votes and "accepted" not in self.without else self._wish(base, goal, used)
            if value != NONE:
                now = rest.proposals[q]._replace(value=value)
                yield f"proposer {q} proposes {value}", self._proposal(self.forget(rows, column), rest, q, now)

    def _learner(self, conf: Conf) -> int:
        """The one that learns in steps; -1: none."""
        return conf.joining[0] if conf.joining else -1

    def _learn(self, rows: tuple[Row, ...], rest: Rest) -> Iterator[tuple[str, State]]:
        for j, row in enumerate(rows):
            if j != self._learner(row.conf) or not row.started:
                continue
            for k in row.conf.ranks:
                other = rows[k]
                if k == j or other.taught or other.conf.number < row.conf.number or other.snap is None:
                    continue
                promise, tag = other.snap
                learned = row._replace(tag=max(row.tag, tag), promise=self.adopted(row.promise, [promise]))
                yield f"{j} learns from {k}", (put(put(rows, j, learned), k, other._replace(taught=True)), rest)

    def _ready(self, rows: tuple[Row, ...], j: int, base: Conf, value: Conf) -> Iterator[Row]:
        """The node as it may vote: a member of the new set alone has learned what the old one knew, and promised."""
        row = rows[j]
        if not base.joining or value.ranks != base.joining or j not in base.joining or "learn" in self.without:
            yield row
            return
        if self.scenario.steps:
            told = sum(rows[k].taught or k == j for k in base.ranks)
            even = len(base.ranks) - majority(base.ranks) + 1
            if told >= (even if "even" in self.without else majority(base.ranks)):
                yield row
            return
        tellers = {}
        for k in base.ranks:
            if k == j:
                tellers[k] = (row.promise, row.tag)
            elif rows[k].conf.number >= base.number and rows[k].snap is not None:
                tellers[k] = rows[k].snap
            elif "early_tell" in self.without and rows[k].started:
                tellers[k] = (rows[k].promise, rows[k].tag)
        needed = len(base.ranks) - majority(base.ranks) + ("scan" not in self.without)
        seen = set()
        for asked in combinations(sorted(tellers), needed):
            tag = max([row.tag, *(tellers[k][1] for k in asked)])
            promise = self.adopted(row.promise, [tellers[k][0] for k in asked])
            ready = row._replace(tag=tag, promise=promise if "adopt" not in self.without else row.promise)
            if ready not in seen:
                seen.add(ready)
                yield ready

    def _count(
        self, rows: tuple[Row, ...], rest: Rest, q: int, base: Conf, value: Conf, column: int
    ) -> State:
        if not any(True for _ in self._choices(rows, column, self._electing(base), base)):
            return rows, rest
        for other in rest.decided:
            if other.number == value.number and other != value:
                raise Violation(f"two configurations for one number: {other} and {value}")
        rest = rest._replace(decided=rest.decided | {value})
        return self._proposal(self.forget(rows, column), rest, q, Proposal(rest.proposals[q].goal))

    def _choices(
        self, rows: tuple[Row, ...], column: int, sets: tuple[frozenset[int], ...], conf: Conf
    ) -> Iterator[list[tuple]]:
        """What each of the sets has said, under this number, in lives that agree."""
        for ranks in sets:
            said = [[entry for entry in rows[j].said[column] if entry[1] == conf] for j in sorted(ranks)]
            for entries in product(*said):
                if self.agree(sorted(ranks), [entry[3:5] for entry in entries]):
                    yield list(entries)

    def agree(self, ranks: list[int], lives: list[tuple[int, int]]) -> bool:
        if self.wiped not in ranks or "drop" in self.without:
            return True
        return lives[ranks.index(self.wiped)][0] >= max(knows for _, knows in lives)

    def _proposal(self, rows: tuple[Row, ...], rest: Rest, q: int, proposal: Proposal) -> State:
        return rows, rest._replace(proposals=put(rest.proposals, q, proposal))

    # --- a node that loses its directory ------------------------------------------------------------
    def _wiped(self, rows: tuple[Row, ...], rest: Rest, i: int) -> Iterator[tuple[str, State]]:
        if not rest.lost and self.serves(i, rows[i]):
            nothing = Row(NONE, ZERO, (0, NOBODY), 0, None, None, 2, 2, False, rows[i].said, rows[i].taught)
            yield f"{i} loses its directory", (put(rows, i, nothing), rest._replace(lost=True))
        if rows[i].started or not rest.lost:
            return
        for j, row in enumerate(rows):
            if j != i and self.serves(j, row) and not row.said[self.claimant]:
                known = put(rows, j, row._replace(knows=2))
                if self.scenario.steps and j == self._learner(row.conf):
                    known = put(known, i, known[i]._replace(taught=False))
                told = self._tell(known, j, self.claimant, (row.conf, row.promise, row.tag, row.ballot, row.vote))
                yield f"{j} accepts the claim of {i}", (self._claimed(told, i), rest)

    def _claimed(self, rows: tuple[Row, ...], i: int) -> tuple[Row, ...]:
        told = {j: row.said[self.claimant][0] for j, row in enumerate(rows) if row.said[self.claimant]}
        top = max(entry[0] for entry in told.values())
        sets = top.sets
        if top.joining and "claim_old" in self.without:
            sets = [top.ranks]
        if top.joining and "claim_new" in self.without:
            sets = [top.joining]
        if not any(i in ranks for ranks in top.sets):
            return rows  # it is none of the members any more
        if not all(meets_all(ranks, set(told)) for ranks in sets):
            return rows
        promise = self.adopted((0, NOBODY), [entry[1] for entry in told.values()])
        tag = max(entry[2] for entry in told.values())
        row = rows[i]._replace(
            conf=top, tag=ZERO if "claimed_end" in self.without else tag, promise=promise, started=True
        )
        row = row._replace(snap=(row.promise, row.tag))
        if "votes_lost" not in self.without:
            same = [entry for entry in told.values() if entry[0] == top]
            row = row._replace(ballot=max(entry[3] for entry in same), vote=max(
                (entry[4] for entry in same if entry[4] is not None), default=None
            ))
        return self.forget(put(rows, i, row), self.claimant)

    def adopted(self, own: tuple[int, int], told: list[tuple[int, int]]) -> tuple[int, int]:
        epoch = max(own[0], *(epoch for epoch, _ in told))
        owners = {owner for e, owner in [own, *told] if e == epoch and owner != NOBODY}
        if len(owners) > 1:
            return epoch, NO_OWNER_ANY_MORE if "two_owners" not in self.without else min(owners)
        return epoch, owners.pop() if owners else NOBODY

    # --- what nodes do for parties ------------------------------------------------------------------
    def _tell(self, rows: tuple[Row, ...], j: int, column: int, entry: tuple) -> tuple[Row, ...]:
        said = rows[j].said
        entries = tuple(sorted({*said[column], entry}, key=repr))
        return put(rows, j, rows[j]._replace(said=put(said, column, entries)))

    says = _tell

    def forget(self, rows: tuple[Row, ...], column: int) -> tuple[Row, ...]:
        return tuple(row._replace(said=put(row.said, column, ())) if row.said[column] else row for row in rows)

    def stored(self, rows: tuple[Row, ...], j: int, tag: Tag) -> tuple[Row, ...]:
        row = rows[j]
        if tag[0] > row.promise[0]:
            row = row._replace(promise=(tag[0], NOBODY))
        return put(rows, j, row._replace(tag=max(tag, row.tag)))
