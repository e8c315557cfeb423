"""Nodes that lose their directories, claim a new life, and learn what the others have: the half of the model that
dsreg builds into a node. lives_rule.py has the other half, and says what the model leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

Life = tuple[int, int]  # number, id of the directory
Tag = tuple[int, int, int, int]  # epoch of the copy | ts, life, wr: the name
Name = tuple[int, int, int]
FIRST: Life = (1, 0)
NO_LIFE: Life = (0, 0)
CLASH = -1  # the id of a life that two directories claim
ZERO: Tag = (0, 0, 0, 0)
NO_NAME: Name = (0, 0, 0)
NOBODY, NO_OWNER_ANY_MORE = 0, -1  # owners of an epoch; others are those parties, from 1 on
NEW = 2  # the epoch that is attached

# Each rule that can be left out: see docs/lives.md, "Coming back".
BREAKS = (
    "claim", "early_ack", "early_name", "notice", "drop", "merge", "void", "weak_acceptor", "scan", "learner_reads",
    "adopt", "early_adopt", "two_owners", "names", "old_client", "rolled_back", "ids",
    "gate", "few", "early_mark", "same_id", "claimed_mark", "older_knows",
)


class Scenario(NamedTuple):
    """`parties`: scripts of operations. W: write through a coordinator; W0: coordinated by node 0; P: put by the
    attachment in force at first; R: read through a coordinator, with write-back; A: attach the epoch NEW; p, r: put and
    read by that attachment; q: a read that only looks whether what was shown is there; O, o: put and read by a client
    that knows no lives; a: attach NEW by such a client."""

    nodes: int
    parties: tuple[tuple[str, ...], ...]
    wipes: tuple[int, ...]  # how often node 0, 1, ... may lose its directory
    copies: int = 0  # how many copies of a directory are made, to be put back instead of an empty one
    epoch: int = 0  # in force at first
    late: bool = False  # what is done may arrive once more, at nodes that have not seen it
    marks: int = 0  # how often node 0 raises its mark. Then its copy is put back only once f + 1 others have heard of a
    # later state, and it has to notice that by itself: rule 18


class Row(NamedTuple):
    """A node, and what it has said to each party and each claimant: (life, lives, promise, copy or None)."""

    tag: Tag
    value: int
    life: Life
    lives: tuple[Life, ...]  # of the ranks that may be wiped
    known: bool  # the sector is
    started: bool  # its life is accepted
    promise: tuple[int, int]  # epoch, owner
    mark: int  # of node 0: its own
    heard: tuple[Life, int]  # of others: the highest mark of node 0, and in which life
    checks: bool  # its directory has begun, and it asks whether that is an older one
    said: tuple[tuple[tuple, ...], ...]


class Op(NamedTuple):
    """Where a party is in its script. `phase`: idle, ask, store. `life`: of the coordinator, if that matters."""

    at: int = 0
    phase: str = "idle"
    floor: Name = NO_NAME
    tag: Tag = ZERO
    value: int = 0
    epoch: int = 0
    life: Life = FIRST
    returned: Name | None = None  # by the last read of an attachment


class Rest(NamedTuple):
    ops: tuple[Op, ...]
    wipes: tuple[int, ...]  # left
    orders: frozenset[tuple[Tag, int]]  # may arrive although nobody waits for them
    claims: frozenset[tuple[int, Life]]  # of directories that are lost
    named: frozenset[tuple[Tag, int]]  # by the coordinator W0
    floor: Name = NO_NAME  # what was written, or shown
    owner: int = NOBODY  # of NEW
    copy: tuple | None = None  # of the directory of node 0


State = tuple[tuple[Row, ...], Rest]


class Violation(Exception):
    pass


def put(items: tuple, at: int, item) -> tuple:
    return (*items[:at], item, *items[at + 1:])


def merged(one: tuple[Life, ...], two: tuple[Life, ...]) -> tuple[Life, ...]:
    if one == two:
        return one
    return tuple(
        a if a == b else (a[0], CLASH) if a[0] == b[0] else max(a, b) for a, b in zip(one, two, strict=True)
    )


class Cluster:
    """`without`: rules that are left out, of BREAKS."""

    def __init__(self, scenario: Scenario, without: frozenset[str]) -> None:
        assert without <= set(BREAKS)
        self.scenario, self.without = scenario, without
        self.nodes = scenario.nodes
        self.majority = self.nodes // 2 + 1
        self.needed = self.nodes - self.majority + 1  # one more than the others that may be missing
        self.wipeable = len(scenario.wipes)
        self.parties = len(scenario.parties)
        self.names = any("W0" in script for script in scenario.parties)
        said = ((),) * (self.parties + self.wipeable)
        lives = (FIRST,) * self.wipeable
        self.first = Row(ZERO, 0, FIRST, lives, True, True, (scenario.epoch, NOBODY), 0, (FIRST, 0), False, said)

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        """What can happen at the nodes."""
        rows, rest = state
        if self.scenario.marks:
            yield from self._mark(rows, rest)
        for i in range(self.wipeable):
            yield from self._lose(rows, rest, i)
            if rows[i].checks:
                yield from self._check(rows, rest)
            elif rows[i].life == NO_LIFE:
                yield from self._claim(rows, rest, i)
            elif not (rows[i].started and rows[i].known):
                for j in range(self.nodes):
                    if j != i and self._may_accept(rows[j]):
                        yield from self._accept(rows, rest, i, j)
        for i, life in rest.claims:
            for j in range(self.nodes):
                if j != i and self._may_accept(rows[j]) and rows[j].lives[i][0] < life[0]:
                    yield f"{j} accepts late that {i} is {life}", (self._knows(rows, j, i, life), rest)
        for tag, value in rest.orders:
            for j in range(self.nodes):
                if self.serves(rows[j]) and tag[0] >= rows[j].promise[0] and tag > rows[j].tag:
                    yield f"{j} stores {tag} late", (self.stored(rows, j, tag, value), rest)

    def serves(self, row: Row) -> bool:
        return row.started or "early_ack" in self.without and row.life != NO_LIFE

    def _may_accept(self, row: Row) -> bool:
        return row.started or "weak_acceptor" in self.without

    # --- nodes that lose their directories ----------------------------------------------------------
    def _lose(self, rows: tuple[Row, ...], rest: Rest, i: int) -> Iterator[tuple[str, State]]:
        row = rows[i]
        is_copied = row.started or self.scenario.marks and row.life != NO_LIFE and not row.checks
        if i == 0 and self.scenario.copies and rest.copy is None and is_copied:
            yield "a copy of 0", (rows, rest._replace(copy=row[:-1]))
        if not rest.wipes[i] or row.life == NO_LIFE or not self.names and row == self.first:
            return  # what holds nothing yet is not worth losing
        gone = rest._replace(wipes=put(rest.wipes, i, rest.wipes[i] - 1))
        if not row.started:
            gone = gone._replace(claims=gone.claims | {(i, row.life)})
        unclaimed = tuple(
            put(other.said, self.parties + i, ()) if other.said[self.parties + i] else other.said for other in rows
        )
        others = tuple(other._replace(said=said) for other, said in zip(rows, unclaimed, strict=True))
        nothing = Row(
            ZERO, 0, NO_LIFE, (NO_LIFE,) * self.wipeable, False, False, (0, NOBODY), 0, (NO_LIFE, 0), False,
            others[i].said,
        )
        yield from self._claimed(f"{i} loses its directory", put(others, i, nothing), gone, i)
        if i == 0 and rest.copy is not None and self.scenario.marks:
            if self._is_covered(rows, Row(*rest.copy, others[0].said)):
                yield "0 has its older directory", (self._put_back(others, rest.copy), gone)
        elif i == 0 and rest.copy is not None:
            old = Row(*rest.copy, others[0].said)
            if "rolled_back" not in self.without:
                old = old._replace(life=NO_LIFE, known=False, started=False)
            yield from self._claimed("0 has its older directory", put(others, 0, old), gone, 0)

    # --- node 0 notices that its directory is an older one ------------------------------------------
    def _is_covered(self, rows: tuple[Row, ...], old: Row) -> bool:
        """Whether so many others have heard of a later state that each majority has one of them."""
        later = sum(
            1 for row in rows[1:]
            if self.supersedes(row.lives[0], old.life) or row.heard[0] == old.life and row.heard[1] > old.mark
        )
        return later >= self.needed

    def _put_back(self, rows: tuple[Row, ...], copy: tuple) -> tuple[Row, ...]:
        old = Row(*copy, rows[0].said)
        if old.started:
            old = old._replace(started="gate" in self.without, checks="gate" not in self.without)
        if "early_mark" in self.without:
            old = old._replace(mark=old.mark + 1)
        return put(rows, 0, old)

    def _mark(self, rows: tuple[Row, ...], rest: Rest) -> Iterator[tuple[str, State]]:
        own = rows[0]
        if own.started and own.mark < self.scenario.marks:
            yield f"0 raises its mark to {own.mark + 1}", (put(rows, 0, own._replace(mark=own.mark + 1)), rest)
        for j in range(1, self.nodes):
            row = rows[j]
            is_later = row.heard[0] != own.life or row.heard[1] < own.mark
            if own.started and is_later and row.lives[0] == own.life:
                yield f"{j} hears of the mark {own.mark} of 0", (
                    put(rows, j, row._replace(heard=(own.life, own.mark))), rest
                )

    def _check(self, rows: tuple[Row, ...], rest: Rest) -> Iterator[tuple[str, State]]:
        """So many others as make a majority with node 0 have told what they heard of it. Any answer is enough to know
        that the directory is an older one."""
        own = rows[0]
        asked = self.majority - 1 - ("few" in self.without)
        others = [row for row in rows[1:] if row.life != NO_LIFE]
        if any(self._knows_later(row, own) for row in others):
            yield from self._claimed("0 notices that it is an older one", self._older(rows), rest, 0)
        if any(not any(self._knows_later(row, own) for row in some) for some in combinations(others, asked)):
            yield "0 starts with it", (put(rows, 0, own._replace(started=True, checks=False)), rest)

    def _knows_later(self, row: Row, own: Row) -> bool:
        return self.supersedes(row.lives[0], own.life) or row.heard[0] == own.life and row.heard[1] > own.mark

    def _older(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """What it has is a source, and of nothing is known that there is no later one. It has another id from now on:
        see `_claim`."""
        own = rows[0]
        lives = put(own.lives, 0, own.life)
        known = own.known if "older_knows" in self.without else False
        return self.forget(put(rows, 0, own._replace(
            life=NO_LIFE, lives=lives, known=known, started=False, checks=False, mark=0
        )), self.parties)

    def _claimed(self, step: str, rows: tuple[Row, ...], rest: Rest, i: int) -> Iterator[tuple[str, State]]:
        """It claims at once, if it can: nobody sees that, and later it could only find higher numbers."""
        claims = list(self._claim(rows, rest, i)) if rows[i].life == NO_LIFE else []
        for claim, state in claims:
            yield f"{step}: {claim}", state
        if not claims:
            yield step, (rows, rest)

    def _claim(self, rows: tuple[Row, ...], rest: Rest, i: int) -> Iterator[tuple[str, State]]:
        others = [row for j, row in enumerate(rows) if j != i and self._may_accept(row)]
        directory = self.scenario.wipes[i] - rest.wipes[i]
        if "same_id" in self.without and i == 0 and rest.copy is not None:
            directory = Row(*rest.copy, ()).life[1]
        seen = set()
        for asked in combinations(others, self.needed):
            number = 1 + max(rows[i].lives[i][0], *(row.lives[i][0] for row in asked))
            claimed = rows[i]._replace(life=(number, directory))
            claimed = claimed._replace(lives=put(claimed.lives, i, claimed.life))
            if "early_adopt" in self.without:
                claimed = claimed._replace(promise=self._adopted(claimed.promise, [row.promise for row in asked]))
            if claimed not in seen:
                seen.add(claimed)
                yield f"{i} claims life {number}", (put(rows, i, claimed), rest)

    def _knows(self, rows: tuple[Row, ...], j: int, i: int, life: Life) -> tuple[Row, ...]:
        if "claim" in self.without:
            return rows
        return put(rows, j, rows[j]._replace(lives=put(rows[j].lives, i, life)))

    def _accept(self, rows: tuple[Row, ...], rest: Rest, i: int, j: int) -> Iterator[tuple[str, State]]:
        """The node j hears that i claims its life, and answers."""
        claimant, other = rows[i], rows[j]
        life = claimant.life
        if i == 0 and other.heard[0] == life and other.heard[1] > claimant.mark and not claimant.started:
            if "claimed_mark" not in self.without:
                yield from self._claimed(f"{j} knows a later state of 0", self._older(rows), rest, 0)
                return
        if self.supersedes(other.lives[i], life):
            if not claimant.started:
                later = claimant._replace(life=(other.lives[i][0] + 1, life[1]))
                later = later._replace(lives=put(later.lives, i, later.life))
                rows = self.forget(rows, self.parties + i)
                yield f"{j} knows {i} as {other.lives[i]}, not {life}: it claims the next", (
                    put(rows, i, later._replace(said=rows[i].said)), rest
                )
            return
        if other.lives[i][0] < life[0]:
            rows = self._knows(rows, j, i, life)
        column = self.parties + i
        before = [entry for entry in other.said[column] if entry[0] == other.life]
        copy = (other.tag, other.value) if other.known and "learner_reads" not in self.without else None
        if before and (before[0][3] is not None or copy is None):
            return
        entry = (other.life, (), other.promise, copy)
        rows = put(rows, j, rows[j]._replace(said=put(
            other.said, column, (*(entry for entry in other.said[column] if entry[0] != other.life), entry)
        )))
        if "merge" not in self.without:
            lives = put(merged(claimant.lives, rows[j].lives), i, life)
            rows = put(rows, i, rows[i]._replace(lives=lives))
        yield f"{j} accepts {i} as {life} and has {copy}", (self._go_on(rows, i), rest)

    def _go_on(self, rows: tuple[Row, ...], i: int) -> tuple[Row, ...]:
        """What the claimant i makes of what it was told."""
        column, claimant = self.parties + i, rows[i]
        promises, copies = [], []
        for j, row in enumerate(rows):
            for life, _, promise, copy in row.said[column]:
                known = claimant.lives[j] if j < self.wipeable else life
                if self.supersedes(known, life) and "void" not in self.without:
                    continue  # said by a directory that is lost
                promises.append(promise)
                copies += [copy] if copy is not None else []
                break
        if not claimant.started and len(promises) >= self.needed:
            if not self.without & {"adopt", "early_adopt"}:
                claimant = claimant._replace(promise=self._adopted(claimant.promise, promises))
            claimant = claimant._replace(started=True)
        needed = self.needed - ("scan" in self.without)
        if claimant.started and len(copies) >= needed:
            tag, value = max([*sorted(copies)[:needed], (claimant.tag, claimant.value)])
            claimant = claimant._replace(known=True, tag=tag, value=value)
        rows = put(rows, i, claimant)
        return self.forget(rows, column) if claimant.started and claimant.known else rows

    def _adopted(self, own: tuple[int, int], told: list[tuple[int, int]]) -> tuple[int, int]:
        epoch = max(own[0], *(epoch for epoch, _ in told))
        owners = {owner for e, owner in [own, *told] if e == epoch and owner != NOBODY}
        if len(owners) > 1:
            return epoch, NO_OWNER_ANY_MORE if "two_owners" not in self.without else max(owners)
        return epoch, owners.pop() if owners else NOBODY

    def forget(self, rows: tuple[Row, ...], column: int) -> tuple[Row, ...]:
        return tuple(row._replace(said=put(row.said, column, ())) if row.said[column] else row for row in rows)

    # --- what nodes do for parties ------------------------------------------------------------------
    def stored(self, rows: tuple[Row, ...], j: int, tag: Tag, value: int) -> tuple[Row, ...]:
        row = rows[j]
        if tag[0] > row.promise[0]:
            row = row._replace(promise=(tag[0], NOBODY))
        if tag > row.tag:
            row = row._replace(tag=tag, value=value)
        return put(rows, j, row)

    def supersedes(self, known: Life, life: Life) -> bool:
        """Whether a rank that is known by `known` must not be counted as `life`: it is an older one, or the same number
        with another directory."""
        if "ids" in self.without:
            return known[0] > life[0]
        return known != life and known[0] >= life[0]
