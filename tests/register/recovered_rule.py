"""The rule by which the nodes of a recovered cluster learn (docs/recover.md), searched exhaustively for one register.

`left` nodes, in this order, have a copy of the cluster before; the first of them knows the register at once. Another
one learns from those in front of it, a node that is new from all of them: each has to have told its copy, which it does
once it knows the register itself. A node that does not know it yet stores and acknowledges, and answers no question.
Then there are a write and two reads, one after the other, through coordinators: two phases, a majority for each, every
message at any moment. Or the write is one of an attachment: one phase, with a tag of an epoch above all that was left.

What is demanded: a read returns nothing below the highest copy that was left, nor below what a read has returned that
ended before it began; and what was written, if the write ended before it began. With `broken` a part is left out:

    empty    a new node knows the register at once, as if it had never been written
    one      it learns from one of those that were left, whichever
    answers  a node tells its copy before it knows the register
    epoch    the attachment has an epoch that is not above all that was left
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

WRITE_ABOVE = 100


class Operation(NamedTuple):
    """`phase`: 0 it has not begun, 1 asks, 2 stores, 3 is done. `mask`: who has answered in this phase. `tag`: the
    highest so far; then the one that is stored. `floor`: nothing below may be returned. `after`: the tag of the write,
    if that was done when this began."""

    phase: int = 0
    mask: int = 0
    tag: int = 0
    floor: int = 0
    after: int = 0


class State(NamedTuple):
    copies: tuple[int, ...]
    known: int
    told: tuple[tuple[int, int], ...]  # of each node: the mask of those that have told it, and the highest of that
    operations: tuple[Operation, ...]  # the write, the first read, the second read


class Violation(Exception):
    """What was returned, and how many states were searched until then."""


class Search:
    """`nodes`: how many. `left`: tag of the copy by rank (0..), in the order of the recovery."""

    def __init__(
        self, nodes: int, left: dict[int, int], *, writes: bool = True, attached: bool = False, broken: str = ""
    ) -> None:
        self.nodes = nodes
        self.order = tuple(left)
        self.writes = writes
        self.attached = attached
        self.broken = broken
        self.needed = nodes // 2 + 1
        self.highest = max(left.values())
        copies = tuple(left.get(rank, 0) for rank in range(nodes))
        known = 1 << self.order[0]
        if broken == "empty":
            known |= sum(1 << rank for rank in range(nodes) if rank not in left)
        self.first = State(copies, known, ((0, 0),) * nodes, (Operation(),) * 3)

    def sources(self, rank: int) -> int:
        """A mask."""
        order = self.order[:self.order.index(rank)] if rank in self.order else self.order
        return sum(1 << each for each in order)

    def run(self) -> int:
        """How many states there are. Raises Violation."""
        seen = {self.first}
        todo = deque(seen)
        while todo:
            for state in self.following(todo.popleft()):
                if state not in seen:
                    self.check(state, len(seen))
                    seen.add(state)
                    todo.append(state)
        return len(seen)

    def check(self, state: State, seen: int) -> None:
        for read in state.operations[1:]:
            if read.phase == 3 and (read.tag < read.floor or read.after and read.tag != read.after):
                raise Violation(f"{read.tag} was read after {read.after or read.floor}, in one of {seen} states")

    def following(self, state: State) -> Iterator[State]:
        for rank in range(self.nodes):
            if not state.known >> rank & 1:
                yield from self.learn(state, rank)
        for index, operation in enumerate(state.operations):
            for copies, changed in self.advance(state, index, operation):
                operations = list(state.operations)
                operations[index] = changed
                yield state._replace(copies=copies, operations=tuple(operations))

    def learn(self, state: State, rank: int) -> Iterator[State]:
        mask, highest = state.told[rank]
        sources = self.sources(rank)
        if mask == sources or self.broken == "one" and mask:
            copies = list(state.copies)
            copies[rank] = max(copies[rank], highest)
            told = list(state.told)
            told[rank] = (0, 0)
            yield State(tuple(copies), state.known | 1 << rank, tuple(told), state.operations)
            return
        for source in range(self.nodes):
            if (sources & ~mask) >> source & 1 and (state.known >> source & 1 or self.broken == "answers"):
                told = list(state.told)
                told[rank] = mask | 1 << source, max(highest, state.copies[source])
                yield state._replace(told=tuple(told))

    def advance(
        self, state: State, index: int, operation: Operation
    ) -> Iterator[tuple[tuple[int, ...], Operation]]:
        phase, mask, tag, _, _ = operation
        if phase == 0:
            if index == 2 and state.operations[1].phase < 3 or index == 0 and not self.writes:
                return
            write, *reads = state.operations
            floor = max([self.highest, *(each.tag for each in reads if each.phase == 3)])
            first = Operation(1, 0, 0, floor, write.tag if write.phase == 3 else 0)
            if index == 0 and self.attached:
                first = Operation(2, 0, 1 if self.broken == "epoch" else WRITE_ABOVE)
            yield state.copies, first
        if phase in (1, 2) and mask.bit_count() >= self.needed:
            chosen = tag + WRITE_ABOVE if index == 0 and phase == 1 else tag
            yield state.copies, operation._replace(phase=phase + 1, mask=0, tag=chosen)
            return
        for rank in range(self.nodes):
            if mask >> rank & 1 or phase not in (1, 2):
                continue
            knows = state.known >> rank & 1 or self.broken == "answers"
            if phase == 1 and knows:
                highest = max(tag, state.copies[rank])
                yield state.copies, operation._replace(mask=mask | 1 << rank, tag=highest)
            elif phase == 2:
                copies = list(state.copies)
                copies[rank] = max(copies[rank], tag)
                yield tuple(copies), operation._replace(mask=mask | 1 << rank)
