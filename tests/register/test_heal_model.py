"""Every interleaving of a small cluster that heals: is what was acknowledged read, and does nothing come up later?

Three nodes, one register that holds OLD in epoch 1. The attachment A writes NEW in epoch 1; B takes over with epoch 2
and reads twice. At any moment a node takes a copy from another one, and stores it at any later moment, HEALS times in
all. A directory may be lost, and its node name the write of A once more, for another value. `broken` names the part of
the rule that is left out: then something must go wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.register.searching import shortest

N = 3
MAJORITY = 2
HEALS = 2
A, B = 1, 2  # the epochs
OLD, NEW, FOREIGN = 4, 5, 6  # values; the first two are the names of their writes, too

Copy = tuple[int, int, int]  # epoch, name of the write, value
Pair = tuple[int, int]


class Node(NamedTuple):
    """`pulled`: a copy of another node that is on its way, and from whom. `counts`: it has the directory by which it is
    known."""

    promised: int
    copy: Copy
    pulled: tuple[Copy, int] | None = None
    counts: bool = True


class Reading(NamedTuple):
    """One read of B. `answers`: copies by rank, as of when they were given; `decided`: what B takes for read."""

    answers: tuple[Copy | None, ...] = (None,) * N
    must: bool = False  # the write of A had returned when this began
    decided: Copy | None = None
    stored: frozenset[int] = frozenset()
    value: int = 0  # what it has returned


class State(NamedTuple):
    """`sent`: nodes to which the write of A is on its way. `acks`: of it. `heals`: left to do."""

    nodes: tuple[Node, ...]
    sent: frozenset[int]
    acks: frozenset[int]
    took_over: bool
    heals: int
    reads: tuple[Reading, ...]


class Wrong(NamedTuple):
    what: str


class Model:
    def __init__(self, broken: str = "", loses: bool = False) -> None:
        self.broken = broken
        self.loses = loses

    # --- what can happen -----------------------------------------------------------------------------
    def next(self, state: State) -> Iterator[tuple[str, State | Wrong]]:
        yield from self._writes(state)
        yield from self._heals(state)
        if self.loses and all(node.counts for node in state.nodes):
            # Node 2 has forgotten that it ever saw the write, and the same name is given once more.
            node = state.nodes[2]
            yield "2 is lost", self._with(state, 2, node._replace(copy=(A, NEW, FOREIGN), pulled=None, counts=False))
        if not state.took_over:
            for rank, node in enumerate(state.nodes):
                if node.promised < B and node.counts:
                    yield f"{rank} promises", self._with(state, rank, node._replace(promised=B))
            if sum(node.promised == B for node in state.nodes) >= MAJORITY:
                yield "B has attached", state._replace(took_over=True)
        else:
            yield from self._reads(state)

    def _with(self, state: State, rank: int, node: Node) -> State:
        return state._replace(nodes=(*state.nodes[:rank], node, *state.nodes[rank + 1:]))

    def _writes(self, state: State) -> Iterator[tuple[str, State | Wrong]]:
        new = (A, NEW, NEW)
        for rank in state.sent:
            node, sent = state.nodes[rank], state.sent - {rank}
            if node.promised > A or not node.counts:
                yield f"{rank} refuses NEW", state._replace(sent=sent)
            else:
                after = self._with(state, rank, node._replace(copy=max(node.copy, new)))
                yield f"{rank} stores NEW", after._replace(sent=sent, acks=state.acks | {rank})

    def _heals(self, state: State) -> Iterator[tuple[str, State | Wrong]]:
        for rank, node in enumerate(state.nodes):
            if not node.counts or node.pulled is None and not state.heals:
                continue
            if node.pulled is not None:
                yield self._adopts(state, rank, node, *node.pulled)
                continue
            for other, source in enumerate(state.nodes):
                trusted = source.counts or self.broken == "takes from whom nobody counts"
                if other != rank and trusted and (source.copy > node.copy or self.broken == "takes what is lower"):
                    # What is asked under an epoch is promised before it is answered; and a newer one is followed.
                    copy = source.copy
                    if self.broken == "value of another copy":
                        copy = (*copy[:2], node.copy[2])
                    asked = source._replace(promised=max(source.promised, node.promised))
                    after = self._with(state, other, asked)._replace(heals=state.heals - 1)
                    yield f"{rank} takes from {other}", self._with(after, rank, node._replace(pulled=(copy, other)))

    def _adopts(self, state: State, rank: int, node: Node, copy: Copy, other: int) -> tuple[str, State | Wrong]:
        promised = max(node.promised, copy[0])
        if self.broken == "restamps":
            copy = (promised, *copy[1:])
        if copy <= node.copy and self.broken != "takes what is lower":
            copy = node.copy
        after = self._with(state, rank, Node(promised, copy))
        if self.broken == "acknowledges" and copy[1] == NEW:
            after = after._replace(acks=state.acks | {rank})
        return f"{rank} adopts from {other}", after

    # --- B -------------------------------------------------------------------------------------------
    def _reads(self, state: State) -> Iterator[tuple[str, State | Wrong]]:
        number = next((number for number, read in enumerate(state.reads) if not read.value), None)
        if number is None:
            return
        read = state.reads[number]

        def became(after: Reading, base: State = state) -> State:
            return base._replace(reads=(*base.reads[:number], after, *base.reads[number + 1:]))

        for rank, node in enumerate(state.nodes):
            if not node.counts:
                continue
            if read.decided is None and read.answers[rank] is None:
                answers = (*read.answers[:rank], node.copy, *read.answers[rank + 1:])
                asked = self._with(state, rank, node._replace(promised=B))
                must = read.must or not any(read.answers) and len(state.acks) >= MAJORITY
                yield f"{rank} answers", became(read._replace(answers=answers, must=must), asked)
            elif read.decided is not None and rank not in read.stored:
                stored = self._with(state, rank, Node(B, max(node.copy, read.decided), node.pulled))
                yield f"{rank} stores what was read", became(read._replace(stored=read.stored | {rank}), stored)
        if read.decided is None:
            for value, decided in self._verdicts(read):
                if decided is not None:
                    yield "B decides", became(read._replace(decided=decided))
                else:
                    yield self._returns(became(read._replace(value=value)), number)
        elif len(read.stored) >= MAJORITY:
            yield self._returns(became(read._replace(value=read.decided[2])), number)

    def _verdicts(self, read: Reading) -> Iterator[tuple[int, Copy | None]]:
        """What the answers so far allow: to return a value, or to take a copy, which is stored under epoch B first."""
        told = [copy for copy in read.answers if copy is not None]
        if len(told) < MAJORITY:
            return
        tag = max(copy[:2] for copy in told)
        agree = sum(copy[:2] == tag for copy in told)
        for value in {copy[2] for copy in told if copy[:2] == tag}:
            if agree >= MAJORITY and tag[0] == B or agree == N:
                yield value, None
            else:
                yield 0, (B, tag[1], value)

    def _returns(self, state: State, number: int) -> tuple[str, State | Wrong]:
        value = state.reads[number].value
        what = f"read {number} returns {value}"
        if value == FOREIGN:
            return what, Wrong("a value that was never written")
        if state.reads[number].must and value != NEW:
            return what, Wrong("what was acknowledged is not read")
        if number and value != state.reads[0].value:
            return what, Wrong("the second read returns something else than the first")
        # What of the answers has led there does not matter any more.
        done = state.reads[number]._replace(answers=(None,) * N, decided=None, stored=frozenset())
        return what, state._replace(reads=(*state.reads[:number], done, *state.reads[number + 1:]))


def search(model: Model, limit: int = 1_500_000) -> list[str]:
    """The shortest way to something wrong; [] if there is none in all that can happen."""
    nodes = (Node(A, (A, OLD, OLD)),) * N
    start = State(nodes, frozenset(range(N)), frozenset(), False, HEALS, (Reading(), Reading()))
    found = shortest(start, model.next, lambda after: isinstance(after, Wrong), limit)
    if found is None:
        return []
    path, wrong = found
    return [*path, f"{path[-1]}: {wrong.what}"]


def test_nothing_goes_wrong_whenever_a_node_heals() -> None:
    assert search(Model(loses=True)) == []


@pytest.mark.parametrize("broken", [
    "restamps", "takes what is lower", "value of another copy", "acknowledges",
])
def test_each_part_of_the_rule_is_needed(broken: str) -> None:
    assert search(Model(broken)) != []


def test_what_nobody_counts_is_not_taken() -> None:
    assert search(Model("takes from whom nobody counts", loses=True)) != []
