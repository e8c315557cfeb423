"""Every interleaving of small clusters whose members, or whose size, change: the rules of numbered configurations.

One register. Parties run scripts of operations, each of which counts answers (`Scenario.parties`); proposers choose
configurations (configurations_cluster.py). Deeper searches than those of test_configurations_rule.py:
`python -m tests.register.configurations_rule --help`. The rules: docs/configurations.md.

What makes it small, without a loss of what can go wrong:

- What a party has been answered lies with the node that said it, with the configuration that the node knew then. A
  party may hear that late: it goes on with any answers of one number that decide under it.
- A node tells those that learn what it had when it learned of the configuration: what it says later knows more.
- A member of the new set learns just before it votes: earlier is the same, with what has come since. But where a node
  that has told may lose its directory before the vote it is not: `steps`, with one new member.
- A proposer has one ballot for each number. Who hears of a configuration hears of one that was decided.
- Nodes in the same sets are alike: their rows are sorted. A value is the name of its tag.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import product

from tests.register.configurations_cluster import (
    BREAKS,
    NEW,
    NO_NAME,
    NOBODY,
    Cluster,
    Goal,
    Name,
    Op,
    Rest,
    Row,
    Scenario,
    State,
)
from tests.register.configurations_sets import Conf
from tests.register.lives_cluster import Violation, put
from tests.register.lives_rule import search


class Model:
    """`without`: rules that are left out, of BREAKS."""

    def __init__(self, scenario: Scenario, *without: str) -> None:
        self.scenario, self.without = scenario, frozenset(without)
        self.cluster = Cluster(scenario, self.without)
        self.strict = not any(word in "WRN" for script in scenario.parties for word in script)
        self._rows: dict[Row, int] = {}
        self._row_of: list[Row] = []
        self._rests: dict[Rest, int] = {}
        self._rest_of: list[Rest] = []
        groups: dict[tuple, list[int]] = {}
        sets = [scenario.first, *(goal.ranks for goals in scenario.proposers for goal in goals)]
        for j in range(scenario.nodes):
            alone = j if j in (scenario.wiped, scenario.namer) else None
            groups.setdefault((alone, *(j in ranks for ranks in sets)), []).append(j)
        self._alike = [group for group in groups.values() if len(group) > 1]

    def start(self) -> State:
        rows, rest = self.cluster.start()
        for party, script in enumerate(self.scenario.parties):
            if script[0] in "PAO" or script[0] == "W" and not self.scenario.epoch:
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
        for group in self._alike:
            for j, number in zip(group, sorted(numbers[j] for j in group), strict=True):
                numbers[j] = number
        if (number := self._rests.get(rest)) is None:
            number = self._rests[rest] = len(self._rest_of)
            self._rest_of.append(rest)
        return (*numbers, number)

    def unpack(self, packed: tuple[int, ...]) -> State:
        return tuple(self._row_of[number] for number in packed[:-1]), self._rest_of[packed[-1]]

    # --- what can happen ------------------------------------------------------------------------------
    def next(self, state: State) -> Iterator[tuple[str, State]]:
        """Raises Violation."""
        rows, rest = state
        for party in range(len(self.scenario.parties)):
            yield from self._party(rows, rest, party)
        yield from self.cluster.next(state)

    def _says(self, rows: tuple[Row, ...], j: int, party: int, copy: tuple | None) -> tuple[Row, ...]:
        row = rows[j]
        return self.cluster.says(rows, j, party, (copy, row.conf, row.life, row.knows))

    def _has_said(self, row: Row, party: int) -> bool:
        return any(entry[1:3] == (row.conf, row.life) for entry in row.said[party])

    def _decisions(self, rows: tuple[Row, ...], party: int, word: str) -> Iterator[tuple[Conf, list[tuple]]]:
        """What may have been heard, and decides, and the configuration under which it does."""
        if word == "S" and "one_size" in self.without:
            yield from ((entry[1], [entry]) for row in rows for entry in row.said[party])
            return
        confs = {entry[1] for row in rows for entry in row.said[party]}
        ignorant = word == "O"
        for conf in [self.cluster.first] if ignorant else confs:
            for ranks in self.cluster.counted(conf):
                said = [
                    [entry for entry in rows[j].said[party] if ignorant or self._is_counted(entry[1], conf)]
                    for j in sorted(ranks)
                ]
                for entries in product(*said):
                    if self.cluster.agree(sorted(ranks), [entry[2:] for entry in entries]):
                        yield conf, list(entries)

    def _is_counted(self, said: Conf, conf: Conf) -> bool:
        if "mixed" in self.without:
            return True
        return said == conf or "two_numbers" in self.without and said.number == conf.number + 1

    # --- parties ------------------------------------------------------------------------------------
    def _party(self, rows: tuple[Row, ...], rest: Rest, party: int) -> Iterator[tuple[str, State]]:
        op, script = rest.ops[party], self.scenario.parties[party]
        if op.at == len(script):
            return
        word = script[op.at]
        if op.phase == "idle":
            yield from self._begin(rows, rest, party, word)
            return
        if word == "N" and self._namer(rows) != op.life:
            over = op._replace(at=op.at + 1, phase="idle")
            orders = rest.orders | ({op.tag} if op.phase == "store" else set())
            yield f"party {party} has lost its coordinator", (
                self.cluster.forget(rows, party), rest._replace(ops=put(rest.ops, party, over), orders=orders)
            )
            return
        for j, row in enumerate(rows):
            if self.cluster.serves(j, row) and not self._has_said(row, party):
                answered = self._answer(rows, j, party, word, op)
                if answered is not None:
                    yield f"{j} serves {word} of {party}", self._done(answered, rest, party, word)
        if op.phase == "ask":
            yield from self._decide(rows, rest, party, word)

    def _namer(self, rows: tuple[Row, ...]) -> int:
        """The life of the coordinator; 0 while it does not serve."""
        row = rows[self.scenario.namer]
        return row.life if self.cluster.serves(self.scenario.namer, row) else 0

    def _begin(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> Iterator[tuple[str, State]]:
        op = rest.ops[party]
        if word == "q" and rest.floor == NO_NAME:
            return  # it could not miss anything
        op = op._replace(phase="ask", floor=rest.floor, shown=rest.shown)
        if word in "PpO":
            epoch = {"P": self.scenario.epoch, "p": NEW, "O": 0}[word]
            op = op._replace(phase="store", tag=(epoch, 100 * epoch + op.at + 1, 255 - party))
        epochs = {0}
        if word in "prA":
            epochs = {NEW}
        elif word in "WRN" and self.scenario.epoch:
            epochs = {row.promise[0] for row in rows if row.started}
        if word == "N":
            op = op._replace(life=self._namer(rows))
            if not op.life:
                return
        for epoch in epochs:
            now = op._replace(epoch=epoch)
            yield f"party {party} begins {word}", (rows, rest._replace(ops=put(rest.ops, party, now)))

    def _answer(self, rows: tuple[Row, ...], j: int, party: int, word: str, op: Op) -> tuple[Row, ...] | None:
        """The node j answers; None if it does not."""
        row = rows[j]
        epoch, owner = row.promise
        if word == "O" and row.conf.number > 1 and "old_client" not in self.without:
            return None
        if word not in "AS" and not self.cluster.has_it(row):
            return None
        if word == "A":
            if epoch > NEW or epoch == NEW and owner not in (NOBODY, party + 1):
                return None
            return self._says(put(rows, j, row._replace(promise=(NEW, party + 1))), j, party, None)
        if op.phase == "store":
            if op.tag[0] < epoch:
                return None
            return self._says(self.cluster.stored(rows, j, op.tag), j, party, None)
        if word == "S":
            return self._says(rows, j, party, None)
        if word == "q" and row.tag[1:] >= op.floor:
            return None
        if word != "q" and epoch > op.epoch or epoch < op.epoch and word == "r":
            return None
        if epoch < op.epoch:
            rows = put(rows, j, row._replace(promise=(op.epoch, NOBODY)))
        return self._says(rows, j, party, row.tag)

    def _done(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> State:
        """What is done as soon as enough have said so."""
        op = rest.ops[party]
        if word not in "AS" and op.phase != "store":
            return rows, rest
        decision = next(self._decisions(rows, party, word), None)
        if decision is None:
            return rows, rest
        number = decision[0].number
        if word == "S" and number < op.shown:
            raise Violation(f"the size of {decision[0]} is told, though {op.shown} was in use before it was asked for")
        rows = self.cluster.forget(rows, party)
        rest = rest._replace(shown=max(rest.shown, number))
        over = Op(at=op.at + 1, returned=op.returned)
        if word == "A":
            if rest.owner != NOBODY:
                raise Violation(f"the parties {rest.owner - 1} and {party} both have the epoch {NEW}")
            rest = rest._replace(owner=party + 1)
        elif word != "S":
            name = op.tag[1:]
            if word in "rR" and name < op.floor or word not in "rR" and name <= op.floor:
                raise Violation(f"{word} of party {party} is done as {name}, though {op.floor} was shown before")
            if self.scenario.late:
                rest = rest._replace(orders=rest.orders | {op.tag})
            rest = rest._replace(floor=max(rest.floor, name))
            over = over._replace(returned=self._stable(op, party, name) if word == "r" else None)
        return rows, rest._replace(ops=put(rest.ops, party, over))

    def _stable(self, op: Op, party: int, name: Name) -> Name:
        if self.strict and op.returned not in (None, name):
            raise Violation(f"party {party} reads {name} after {op.returned}: what was there before it came up")
        return name

    def _decide(self, rows: tuple[Row, ...], rest: Rest, party: int, word: str) -> Iterator[tuple[str, State]]:
        op = rest.ops[party]
        if word in "AS":
            return
        if word in "WRN" and any(row.promise[0] > op.epoch for row in rows):
            newer = op._replace(epoch=max(row.promise[0] for row in rows), phase="ask")
            yield f"party {party} goes on under a newer epoch", (
                self.cluster.forget(rows, party), rest._replace(ops=put(rest.ops, party, newer))
            )
        seen = set()
        for conf, entries in self._decisions(rows, party, word):
            copies = [entry[0] for entry in entries]
            top = max(copies)
            same = all(copy == top for copy in copies)
            if word == "q":
                raise Violation(f"q of party {party} finds {top}, though {op.floor} was shown before it began")
            if (top, same, conf.number) not in seen:
                seen.add((top, same, conf.number))
                yield f"party {party} decides on {copies}", self._go(rows, rest, party, word, top, same, conf)

    def _go(
        self, rows: tuple[Row, ...], rest: Rest, party: int, word: str, tag: tuple, same: bool, conf: Conf
    ) -> State:
        op = rest.ops[party]
        rows = self.cluster.forget(rows, party)
        if word in "Rr":
            if tag[1:] < op.floor:
                raise Violation(f"{word} of party {party} finds {tag}, though {op.floor} was shown before it began")
            if same and (word != "r" or tag[0] == NEW):
                over = Op(at=op.at + 1, returned=self._stable(op, party, tag[1:]) if word == "r" else None)
                rest = rest._replace(floor=max(rest.floor, tag[1:]), shown=max(rest.shown, conf.number))
                return rows, rest._replace(ops=put(rest.ops, party, over))
            now = op._replace(phase="store", tag=(op.epoch, *tag[1:]))
            return rows, rest._replace(ops=put(rest.ops, party, now))
        ts = max(tag[1], 100 * op.epoch) + 1
        if word == "W":
            now = op._replace(phase="store", tag=(op.epoch, ts, 100 + party))
            return rows, rest._replace(ops=put(rest.ops, party, now))
        namer = self.scenario.namer
        chosen = (op.epoch, max(ts, rows[namer].tag[1] + 1), 1)
        for name, other in rest.named:
            if name[1:] == chosen[1:] and other != party:
                raise Violation(f"the tag {chosen} is chosen twice, by {other} and by {party}")
        rest = rest._replace(
            ops=put(rest.ops, party, op._replace(phase="store", tag=chosen)), named=rest.named | {(chosen, party)}
        )
        return self.cluster.stored(rows, namer, chosen), rest


def goals_of(text: str) -> tuple[Goal, ...]:
    """013,012 for one goal after the other; with a size as in 012*2; with a minus sign if it cancels."""
    goals = []
    for word in text.split(","):
        ranks, _, sectors = word.lstrip("-").partition("*")
        goals.append(Goal(tuple(map(int, ranks)), int(sectors or 1), word.startswith("-")))
    return tuple(goals)


def scenario_of(
    first: str, proposers: str, parties: str, *, wiped: int | None = None, epoch: int = 0, late: bool = False,
    namer: int | None = None, last: int = 9, beyond: bool = False, steps: bool = False,
) -> Scenario:
    """As the command line has it: "012", "013 -012", "P q"."""
    goals = tuple(goals_of(text) for text in proposers.split())
    ranks = {*map(int, first), *(rank for each in goals for goal in each for rank in goal.ranks)}
    scripts = tuple(tuple(script.split(",")) for script in parties.split())
    return Scenario(
        max(ranks) + 1, tuple(map(int, first)), goals, scripts, wiped, epoch, late, namer, last, beyond, steps
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", default="012", help="the ranks of configuration 1")
    parser.add_argument("--proposers", default="013", help=f"goals, separated by blanks: {goals_of.__doc__}")
    parser.add_argument("--parties", default="P R,R", help="scripts, separated by blanks: see Scenario")
    parser.add_argument("--wiped", type=int)
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--namer", type=int)
    parser.add_argument("--last", type=int, default=9, help="no number above this one is proposed")
    parser.add_argument("--beyond", action="store_true", help="the register is one that a larger disk has")
    parser.add_argument("--steps", action="store_true", help="the new member learns step by step")
    parser.add_argument("--break", dest="without", default="", help=f"rules to leave out, of {', '.join(BREAKS)}")
    parser.add_argument("--max", type=int, default=5_000_000)
    args = parser.parse_args()
    scenario = scenario_of(
        args.first, args.proposers, args.parties, wiped=args.wiped, epoch=args.epoch, late=args.late,
        namer=args.namer, last=args.last, beyond=args.beyond, steps=args.steps,
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
