"""Every interleaving of small clusters whose nodes lose their directories and come back: the rules of rejoining.

One register on N nodes. Clients and coordinators (`Scenario.parties`) run scripts of operations, each of which counts
answers; nodes lose their directories, claim a new life, and learn what the others have (lives_cluster.py). Deeper
searches than those of test_lives_rule.py: `python -m tests.register.lives_rule --help`. The rules: docs/lives.md.

What makes it small, without a loss of what can go wrong:

- What a party has been answered lies with the node that said it, for each party (`Row.said`). A party may hear that
  late, so it goes on with any majority of what was said whose lives agree. An answer that was given earlier, and knows
  less, is the worse one: a node says a thing once in each life, and a write is done as soon as it can be.
- A node that accepts a claim tells at once what it has, and a node that was wiped claims at once. Nodes tell one
  another of lives at a claim and nowhere else: to know more is safer.
- Nodes that are never wiped and coordinate nothing are alike: their rows are sorted.

A store is one step; a restart without a loss is none, as all that the rules speak of is durable.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

from tests.register.lives_cluster import (
    BREAKS,
    FIRST,
    NEW,
    NO_LIFE,
    NO_NAME,
    NOBODY,
    ZERO,
    Cluster,
    Name,
    Op,
    Rest,
    Row,
    Scenario,
    State,
    Violation,
    put,
)


class Model:
    """`without`: rules that are left out, of BREAKS."""

    def __init__(self, scenario: Scenario, *without: str) -> None:
        self.scenario, self.without = scenario, frozenset(without)
        self.cluster = Cluster(scenario, self.without)
        self.nodes, self.wipeable, self.parties = scenario.nodes, len(scenario.wipes), len(scenario.parties)
        self.strict = not any(word[0] in "WR" for script in scenario.parties for word in script)
        self._rows: dict[Row, int] = {}
        self._row_of: list[Row] = []
        self._rests: dict[Rest, int] = {}
        self._rest_of: list[Rest] = []

    def start(self) -> State:
        rows = (self.cluster.first,) * self.nodes
        empty: frozenset = frozenset()
        rest = Rest((Op(),) * self.parties, self.scenario.wipes, empty, empty, empty)
        for party, script in enumerate(self.scenario.parties):
            if script[0] in ("P", "A", "a") or script[0] in ("O", "W") and not self.scenario.epoch:
                ((_, (_, rest)),) = self._begin(rows, rest, party, script[0])  # the earlier, the less it must respect
        return rows, rest

    # --- states as small tuples of numbers ------------------------------------------------------------
    def pack(self, state: State) -> tuple[int, ...]:
        rows, rest = state
        numbers = []
        for row in rows:
            if (number := self._rows.get(row)) is None:
                number = self._rows[row] = len(self._row_of)
                self._row_of.append(row)
            numbers.append(number)
        if (number := self._rests.get(rest)) is None:
            number = self._rests[rest] = len(self._rest_of)
            self._rest_of.append(rest)
        return (*numbers[:self.wipeable], *sorted(numbers[self.wipeable:]), number)

    def unpack(self, packed: tuple[int, ...]) -> State:
        return tuple(self._row_of[number] for number in packed[:-1]), self._rest_of[packed[-1]]

    # --- what can happen ------------------------------------------------------------------------------
    def next(self, state: State) -> Iterator[tuple[str, State]]:
        """Raises Violation."""
        rows, rest = state
        for party in range(self.parties):
            yield from self._party(rows, rest, party)
        yield from self.cluster.next(state)

    # --- what nodes say to parties ------------------------------------------------------------------
    def _says(self, rows: tuple[Row, ...], j: int, party: int, copy: tuple | None) -> tuple[Row, ...]:
        row = rows[j]
        lives = row.lives if "notice" not in self.without else (FIRST,) * self.wipeable
        entry = (row.life, lives, (), copy)
        return put(rows, j, row._replace(said=put(row.said, party, tuple(sorted((*row.said[party], entry))))))

    def _has_said(self, row: Row, party: int) -> bool:
        return any(entry[0] == row.life for entry in row.said[party])

    def _quorums(self, rows: tuple[Row, ...], party: int, lives_count: bool) -> Iterator[list[tuple]]:
        """What majorities have said whose lives agree: one may have been heard, and nothing else."""
        spoken = [j for j in range(self.nodes) if rows[j].said[party]]
        for ranks in combinations(spoken, self.cluster.majority):
            for entries in product(*(rows[j].said[party] for j in ranks)):
                if not lives_count or self._agree(ranks, entries):
                    yield list(entries)

    def _agree(self, ranks: tuple[int, ...], entries: tuple) -> bool:
        if "drop" in self.without:
            return True
        for rank, entry in zip(ranks, entries, strict=True):
            if rank < self.wipeable:
                if any(self.cluster.supersedes(other[1][rank], entry[0]) for other in entries):
                    return False
        return True

    # --- parties ------------------------------------------------------------------------------------
    def _party(self, rows: tuple[Row, ...], rest: Rest, party: int) -> Iterator[tuple[str, State]]:
        op, script = rest.ops[party], self.scenario.parties[party]
        if op.at == len(script):
            return
        word = script[op.at]
        if op.phase == "idle":
            yield from self._begin(rows, rest, party, word)
            return
        if word == "W0" and rows[0].life != op.life:  # its coordinator is gone
            over = op._replace(at=op.at + 1, phase="idle")
            orders = rest.orders | ({(op.tag, op.value)} if op.phase == "store" else set())
            yield f"party {party} has lost its coordinator", (
                self.cluster.forget(rows, party), rest._replace(ops=put(rest.ops, party, over), orders=orders)
            )
            return
        for j in range(self.nodes):
            if self.cluster.serves(rows[j]) and not self._has_said(rows[j], party):
                answered = self._answer(rows, j, party, word, op)
                if answered is not None:
                    yield f"{j} serves {word} of {party}", self._done(answered, rest, party, word)
        if op.phase == "ask":
            yield from self._decide(rows, rest, party, word)

    def _begin(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> Iterator[tuple[str, State]]:
        op = rest.ops[party]
        if word == "q" and rest.floor == NO_NAME:
            return  # it could not miss anything
        op = op._replace(phase="ask", floor=rest.floor)
        if word in "PpO":
            epoch = {"P": self.scenario.epoch, "p": NEW, "O": 0}[word]
            op = op._replace(
                phase="store", tag=(epoch, 100 * epoch + op.at + 1, 0, 255 - party), value=10 * party + op.at + 1
            )
        epochs = {0}
        if word in ("p", "r", "A", "a"):
            epochs = {NEW}
        elif word in ("W", "W0", "R") and self.scenario.epoch:
            epochs = {row.promise[0] for row in rows if row.started}
        if word == "W0":
            if not (rows[0].started or "early_name" in self.without and rows[0].life != NO_LIFE):
                return
            op = op._replace(life=rows[0].life)
        for epoch in epochs:
            now = op._replace(epoch=epoch)
            yield f"party {party} begins {word}", (rows, rest._replace(ops=put(rest.ops, party, now)))

    def _answer(self, rows: tuple[Row, ...], j: int, party: int, word: str, op: Op) -> tuple[Row, ...] | None:
        """The node j answers; None if it does not."""
        row = rows[j]
        epoch, owner = row.promise
        if word in "Ooa" and any(life[0] != 1 for life in row.lives) and "old_client" not in self.without:
            return None
        if word in "Aa":
            if epoch > NEW or epoch == NEW and owner not in (NOBODY, party + 1):
                return None
            return self._says(put(rows, j, row._replace(promise=(NEW, party + 1))), j, party, None)
        if op.phase == "store":
            if op.tag[0] < epoch:
                return None
            return self._says(self.cluster.stored(rows, j, op.tag, op.value), j, party, None)
        if not (row.known or "learner_reads" in self.without) or word == "q" and row.tag[1:] >= op.floor:
            return None
        if word != "q" and epoch > op.epoch or epoch < op.epoch and word == "r":
            return None
        if epoch < op.epoch:
            rows = put(rows, j, row._replace(promise=(op.epoch, NOBODY)))
        return self._says(rows, j, party, (row.tag, row.value))

    def _done(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> State:
        """What is done as soon as a majority has said so."""
        op = rest.ops[party]
        if word not in "Aa" and op.phase != "store":
            return rows, rest
        if not any(True for _ in self._quorums(rows, party, word not in "Ooa")):
            return rows, rest
        rows = self.cluster.forget(rows, party)
        over = op._replace(at=op.at + 1, phase="idle", tag=ZERO, value=0, floor=NO_NAME, epoch=0, life=FIRST)
        if word in "Aa":
            if rest.owner != NOBODY:
                raise Violation(f"the parties {rest.owner - 1} and {party} both have the epoch {NEW}")
            return rows, rest._replace(ops=put(rest.ops, party, over), owner=party + 1)
        name = op.tag[1:]
        if word in ("r", "R") and name < op.floor or word not in ("r", "R") and name <= op.floor:
            raise Violation(f"{word} of party {party} is done as {name}, though {op.floor} was shown before it began")
        if self.scenario.late:
            rest = rest._replace(orders=rest.orders | {(op.tag, op.value)})
        rest = rest._replace(floor=max(rest.floor, name))
        over = over._replace(returned=self._stable(op, party, name) if word == "r" else None)
        return rows, rest._replace(ops=put(rest.ops, party, over))

    def _stable(self, op: Op, party: int, name: Name) -> Name:
        if self.strict and op.returned not in (None, name):
            raise Violation(f"party {party} reads {name} after {op.returned}: what was there before it came up")
        return name

    def _decide(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> Iterator[tuple[str, State]]:
        op = rest.ops[party]
        if word in "Aa":
            return
        if word in ("W", "W0", "R") and any(row.promise[0] > op.epoch for row in rows):
            newer = op._replace(epoch=max(row.promise[0] for row in rows), phase="ask")
            yield f"party {party} goes on under a newer epoch", (
                self.cluster.forget(rows, party), rest._replace(ops=put(rest.ops, party, newer))
            )
        own = (rows[0].tag, rows[0].value)
        seen = set()
        for entries in self._quorums(rows, party, word not in "Oo"):
            copies = [entry[3] for entry in entries]
            top = max(copies)
            same = all(copy == top for copy in copies)
            if word == "W0":
                top = max(top, own)
            if word == "q":
                raise Violation(f"q of party {party} finds {top}, though {op.floor} was shown before it began")
            if (top, same) not in seen:
                seen.add((top, same))
                yield f"party {party} decides on {copies}", self._go(rows, rest, party, word, top, same)

    def _go(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str, top: tuple, same: bool) -> State:
        op, (tag, value) = rest.ops[party], top
        rows = self.cluster.forget(rows, party)
        if word in ("R", "r", "o"):
            if tag[1:] < op.floor:
                raise Violation(f"{word} of party {party} finds {tag}, though {op.floor} was shown before it began")
            if same and (word != "r" or tag[0] == NEW) or word == "o":
                over = Op(at=op.at + 1, returned=self._stable(op, party, tag[1:]) if word == "r" else None)
                if same:
                    rest = rest._replace(floor=max(rest.floor, tag[1:]))
                return rows, rest._replace(ops=put(rest.ops, party, over))
            now = op._replace(phase="store", tag=(op.epoch, *tag[1:]), value=value)
            return rows, rest._replace(ops=put(rest.ops, party, now))
        ts = max(tag[1], 100 * op.epoch) + 1
        value = 10 * party + op.at + 1
        if word == "W":
            now = op._replace(phase="store", tag=(op.epoch, ts, 0, 100 + party), value=value)
            return rows, rest._replace(ops=put(rest.ops, party, now))
        chosen = (op.epoch, ts, op.life[0] if op.life[0] > 1 and "names" not in self.without else 0, 1)
        for name, other in rest.named:
            if name[1:] == chosen[1:] and other != value:
                raise Violation(f"the tag {chosen} is chosen twice, for {other} and for {value}")
        now = op._replace(phase="store", tag=chosen, value=value)
        rest = rest._replace(ops=put(rest.ops, party, now), named=rest.named | {(chosen, value)})
        return self.cluster.stored(rows, 0, chosen, value), rest


class Result(NamedTuple):
    path: list[str]  # the shortest way to a violation; [] if there is none
    states: int
    complete: bool


def search(model: Model, limit: int = 2_000_000) -> Result:
    """Breadth first, in all that can happen; not `complete` if there are more states than `limit`."""
    start = model.pack(model.start())
    came: dict[tuple[int, ...], tuple[tuple[int, ...], str] | None] = {start: None}
    queue = deque([start])
    while queue:
        packed = queue.popleft()
        step = "..."
        try:
            for step, after in model.next(model.unpack(packed)):
                number = model.pack(after)
                if number not in came:
                    came[number] = (packed, step)
                    queue.append(number)
        except Violation as violation:
            path = [str(violation), f"(after: {step})"]
            at = packed
            while (before := came[at]) is not None:
                at, step = before
                path.append(step)
            return Result(path[::-1], len(came), False)
        if len(came) > limit:
            return Result([], len(came), False)
    return Result([], len(came), True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=3)
    parser.add_argument("--wipes", default="1", help="how often node 0, 1, ... is wiped, as in 2 or 1,1")
    parser.add_argument("--parties", default="P R,R", help="scripts, separated by blanks: see Scenario")
    parser.add_argument("--copies", type=int, default=0)
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--marks", type=int, default=0)
    parser.add_argument("--break", dest="without", default="", help=f"rules to leave out, of {', '.join(BREAKS)}")
    parser.add_argument("--max", type=int, default=5_000_000)
    args = parser.parse_args()
    scenario = Scenario(
        args.n, tuple(tuple(script.split(",")) for script in args.parties.split()),
        tuple(map(int, args.wipes.split(","))), args.copies, args.epoch, args.late, args.marks,
    )
    began = time.monotonic()
    result = search(Model(scenario, *filter(None, args.without.split(","))), args.max)
    for step in result.path:
        print("  " + step)
    found = "violation" if result.path else "no violation" + ("" if result.complete else ", NOT all")
    print(f"{found} after {result.states} states, {time.monotonic() - began:.1f} s")
    return 1 if result.path else 0


if __name__ == "__main__":
    sys.exit(main())
