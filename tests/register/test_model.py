"""Three replicas under random interleavings, losses, crashes and damage: is every sector linearizable?

Few operations and every order tried, so that the answer is beyond doubt. One seed makes one run; the test
prints the first of its seeds, a failure its own.
"""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import highest
from dsreg.register import atomic_register as register
from dsreg.register.quorum import Majority, Quorum, mask
from tests.protocol.values import data
from tests.register.cluster import Cluster
from tests.register.linearizable import Op, linearizable

SECTORS = 2
OPERATIONS = 7
STEPS = 150


class Call:
    """A client's operation. A write is a WRITE, or a TAG and then STOREs, to as many nodes as it takes. The TAG may go
    to all nodes, which ask no other: the highest tag that a majority names counts."""

    def __init__(self, number: int, kind: CommandKind, first: int, count: int, invoked: int) -> None:
        self.number = number  # 1..255; the fill of what it writes
        self.kind = kind
        self.first = first
        self.count = count
        self.invoked = invoked
        self.returned: int | None = None
        self.data = b""  # read, or to be written
        self.tags = b""
        self.alone = False
        self.named: dict[int, bytes] = {}

    def history(self) -> list[tuple[int, Op]]:
        write = self.kind is not CommandKind.READ
        ops = []
        for offset in range(self.count):
            value = self.data[offset * SECTOR_SIZE] if self.data else None
            ops.append((self.first + offset, Op(write, value, self.invoked, self.returned)))
        return ops


class Asked(NamedTuple):
    """The connection over which one of several nodes was asked."""

    call: Call
    rank: int


class Run:
    def __init__(self, seed: int, nodes: int = 3, quorum: Quorum | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        pairs = itertools.combinations(range(1, nodes + 1), 2)
        contract = frozenset(pair for pair in pairs if self.rng.random() < 0.3)
        self.cluster = Cluster(nodes, self.rng, contract, quorum=quorum)
        self.calls: list[Call] = []
        self.clock = itertools.count()  # orders invocations and responses
        # A node that has lost its tags and crashes may choose a WRITE's tag again: two faults at once, which the
        # algorithm does not promise to survive. Tags that were named are reserved, and are tried with all of it.
        self.lose_tags = self.rng.random() < 0.3
        self.damaged: dict[int, int] = {}  # sector -> rank

    def go(self) -> None:
        begin = sorted(self.rng.sample(range(STEPS), OPERATIONS))
        for step in range(STEPS):
            if step in begin:
                self._invoke()
            elif self.rng.random() < 0.06:
                self._fault()
            elif self.rng.random() < 0.05:
                self._store_elsewhere()
            else:
                self.cluster.step()
            self._collect()
        for number in range(SECTORS):  # what the survivors ended up with must fit in
            self.cluster.settle()
            self._collect()
            call = self._new_call(CommandKind.READ, number, 1)
            self._send(call)
        self.cluster.settle()
        self._collect()
        assert all(call.returned is not None for call in self.calls[-SECTORS:])

    def faults(self) -> list[str]:
        """What is wrong with the histories; empty for nothing."""
        ops = [pair for call in self.calls for pair in call.history()]
        histories = {sector: [op for at, op in ops if at == sector] for sector in range(SECTORS)}
        return [
            f"seed {self.seed}, sector {sector}: {history}"
            for sector, history in histories.items()
            if not linearizable(history, initial=0)
        ]

    # --- clients ----------------------------------------------------------------------------------
    def _new_call(self, kind: CommandKind, first: int, count: int) -> Call:
        call = Call(len(self.calls) + 1, kind, first, count, next(self.clock))
        if kind is not CommandKind.READ:
            call.data = data(*[call.number] * count)
        self.calls.append(call)
        return call

    def _invoke(self) -> None:
        kinds = [CommandKind.READ, CommandKind.TAG, CommandKind.READ if self.lose_tags else CommandKind.WRITE]
        first = self.rng.randrange(SECTORS)
        call = self._new_call(self.rng.choice(kinds), first, self.rng.randint(1, SECTORS - first))
        call.alone = call.kind is CommandKind.TAG and self.rng.random() < 0.7
        self._send(call)

    def _send(self, call: Call) -> None:
        if call.alone:
            for rank in self.cluster.nodes:
                command = Command.tag(call.number, call.first, call.count, alone=True)
                self.cluster.command(rank, Asked(call, rank), command)
            return
        kind = CommandKind.STORE if call.tags else call.kind
        written = call.data if kind in (CommandKind.WRITE, CommandKind.STORE) else b""
        command = Command(kind, call.number, call.first, call.count, call.tags, written, kind > CommandKind.WRITE)
        up = [rank for rank, node in self.cluster.nodes.items() if node.up]
        if up:
            self.cluster.command(self.rng.choice(up), call, command)

    def _store_elsewhere(self) -> None:
        """A client that waits for a STORE sends it to one more node."""
        waiting = [call for call in self.calls if call.tags and call.returned is None]
        if waiting:
            self._send(self.rng.choice(waiting))

    def _collect(self) -> None:
        responses, self.cluster.responses = self.cluster.responses, []
        for who, response in responses:
            if isinstance(who, Asked):
                self._name(who, response)
                continue
            assert isinstance(who, Call) and response.request == who.number
            self._respond(who, response)

    def _name(self, asked: Asked, response: Response) -> None:
        call, rank = asked
        if call.tags or response.status is Status.REFUSED:
            return
        assert response.status is Status.OK
        call.named[rank] = response.tags
        if self.cluster.quorum.decided(mask(call.named)):
            call.tags, call.alone = highest(list(call.named.values())), False
            self._send(call)

    def _respond(self, call: Call, response: Response) -> None:
        assert response.status is Status.OK
        if response.kind is CommandKind.TAG:
            assert not call.tags
            call.tags = response.tags
            self._send(call)
        elif call.returned is None:
            call.returned = next(self.clock)
            if response.kind is CommandKind.READ:
                call.data = bytes(response.data)

    # --- faults -----------------------------------------------------------------------------------
    def _fault(self) -> None:
        rank, node = self.rng.choice(list(self.cluster.nodes.items()))
        if not node.up:
            self.cluster.restart(rank)
            return
        match self.rng.choice(["crash", "crash", "full", "damage"]):
            case "crash":
                self.cluster.crash(rank)
            case "full":
                node.storage.full = not node.storage.full
            case "damage":  # one copy at most of each sector, or nobody could repair it
                sector = self.rng.randrange(SECTORS)
                # A value lost under a tag that is known, at two nodes of a run: not covered (docs/verification.md).
                elsewhere = not self.lose_tags and set(self.damaged.values()) - {rank}
                if sector not in self.damaged and not elsewhere:
                    self.damaged[sector] = rank
                    node.storage.damage(sector, tag_too=self.lose_tags)


def run(seed: int) -> list[str]:
    one = Run(seed)
    try:
        one.go()
    except AssertionError as error:
        error.add_note(f"seed of this run: {seed}")
        raise
    return one.faults()


@pytest.mark.parametrize("part", range(4))
def test_every_sector_is_linearizable(seed: int, part: int) -> None:
    for number in range(200):
        assert run(seed + 200 * part + number) == []


@pytest.mark.parametrize("kind", [CommandKind.READ, CommandKind.WRITE, CommandKind.TAG])
def test_runs_that_wait_for_each_others_repairs_finish(rng: random.Random, kind: CommandKind) -> None:
    """Two nodes have each lost another sector of the run that both have an operation on."""
    cluster = Cluster(3, rng)
    for rank, sector in ((1, 0), (2, 1)):
        cluster.nodes[rank].storage.damage(sector, tag_too=True)
    for rank in (1, 2):
        written = data(1, 1) if kind is CommandKind.WRITE else b""
        cluster.command(rank, "client", Command(kind, rank, 0, 2, data=written))
    cluster.settle()
    assert sorted(response.request for _, response in cluster.responses) == [1, 2]


# --- the test must be able to fail ----------------------------------------------------------------
@pytest.mark.pure
def test_a_majority_that_is_too_small_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Majority, "decided", lambda self, answers: answers != 0)
    assert any(run(number) for number in range(200))


@pytest.mark.pure
def test_a_read_that_looks_at_one_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "highest", lambda vectors: vectors[0])
    assert any(run(number) for number in range(500))


# --- the checker ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([Op(True, 1, 0, 1), Op(False, 1, 2, 3)], True),
        ([Op(True, 1, 0, 1), Op(False, 0, 2, 3)], False),  # an old value after the write returned
        ([Op(True, 1, 0, 4), Op(False, 0, 1, 2), Op(False, 1, 2, 3)], True),
        ([Op(True, 1, 0, 5), Op(False, 1, 1, 2), Op(False, 0, 3, 4)], False),  # new, then old
        ([Op(True, 1, 0, None), Op(False, 0, 1, 2), Op(False, 1, 3, 4)], True),  # took effect late
        ([Op(True, 1, 0, None), Op(False, 0, 1, 2)], True),  # never took effect
        ([Op(True, 1, 0, None), Op(False, 1, 1, 2), Op(False, 0, 3, 4)], False),
        ([Op(True, 1, 0, 1), Op(True, 2, 2, 3), Op(False, 1, 4, 5)], False),
        ([Op(True, 1, 0, 3), Op(True, 2, 1, 2), Op(False, 1, 4, 5)], True),
        ([Op(False, 7, 0, 1)], False),  # nobody wrote it
    ],
)
def test_checker(history: list[Op], expected: bool) -> None:
    assert linearizable(history, initial=0) is expected
