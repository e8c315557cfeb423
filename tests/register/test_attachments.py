"""Attachments that take over from each other, under random interleavings, losses, crashes and damage.

Two things are asked. Every sector is linearizable, with clients of no attachment in between or without. And, where
there are none of those: once a newer attachment has read or written a sector, nothing of an older one comes up there
that was not visible then. (Of a write that never returned linearizability alone would allow that at any time.)
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.register.actions import Action, Copy
from dsreg.register.atomic_register import AtomicRegister, Querying, _compose
from dsreg.register.effects import Fence
from dsreg.register.epochs import Epochs, Go
from dsreg.testing.memory_storage import MemoryStorage
from tests.register import attached
from tests.register.attached import Attachment, Line, Work
from tests.register.cluster import Cluster
from tests.register.linearizable import linearizable

SECTORS = 2
OPERATIONS = 9
STEPS = 260


class Plain:
    """The connection of a client of no attachment, for one operation."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tags = b""


class Run:
    """`plain`: with plain clients as well. `restamps`, `decides`: see Attachment. `restores`: machines of clients are
    put back to earlier states. `one_identity`: who is started again claims under the identity that he had before."""

    def __init__(
        self, seed: int, plain: bool, nodes: int = 3, restamps: bool = True, decides: bool = True,
        restores: bool = False, one_identity: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.cluster = Cluster(nodes, self.rng)
        self.plain = plain
        self.restamps = restamps
        self.decides = decides
        self.restores = restores
        self.one_identity = one_identity
        self.clock = itertools.count(1)
        self.works: list[Work] = []
        self.attachments: list[Attachment] = []
        self.damaged = 0  # the node that has damaged copies; 0: none

    def go(self) -> None:
        self._take_over()
        begin = sorted(self.rng.sample(range(STEPS), OPERATIONS))
        for step in range(STEPS):
            pick = self.rng.random()
            if step in begin:
                self._invoke()
            elif pick < 0.04:
                self._fault()
            elif pick < 0.08:
                self.rng.choice(self.attachments).again()
            elif pick < 0.10:
                self._take_over()
            elif pick < 0.13 and self.restores:
                self.rng.choice(self.attachments).put_back()
            else:
                self.cluster.step()
            self._collect()
        self._settle()
        for attachment in self.attachments:
            attachment.stopped = True
        last = self._take_over()
        for sector in range(SECTORS):
            while not last.epoch:
                self._settle()
            work = last.begin(len(self.works) + 1, False, sector, 1)
            self.works.append(work)
            for _ in range(20):
                self._settle()
                if work.returned is not None:
                    break
            assert work.returned is not None, "the last attachment can read"

    # --- what is asked --------------------------------------------------------------------------------
    def faults(self) -> list[str]:
        ops = [pair for work in self.works for pair in work.history()]
        found = []
        for sector in range(SECTORS):
            history = [op for at, op in ops if at == sector]
            if not linearizable(history, initial=0):
                found.append(f"seed {self.seed}, sector {sector}: {history}")
            if not self.plain:
                found += [f"seed {self.seed}, sector {sector}: {text}" for text in self._risen(sector)]
        return found

    def _risen(self, sector: int) -> list[str]:
        """What came up of older attachments after a newer one had seen the sector."""
        epochs = {work.number: (work.epoch, work.life) for work in self.works} | {0: (0, 0)}
        done = [
            (work, op) for work in self.works for at, op in work.history() if at == sector and op.returned is not None
        ]
        return [
            f"{seen} of epoch {work.epoch}, then {read}, written in epoch {epochs[read.value]}"
            for work, seen in done
            for _, read in done
            if seen.returned is not None and not read.write and read.invoked > seen.returned
            and read.value is not None and read.value != seen.value and epochs[read.value] < (work.epoch, work.life)
        ]

    # --- clients -----------------------------------------------------------------------------------------
    def _take_over(self) -> Attachment:
        number = len(self.attachments) + 1
        made = Attachment(self.cluster, number, self.clock, self.restamps, self.decides, int(self.one_identity))
        self.attachments.append(made)
        return made

    def _invoke(self) -> None:
        first = self.rng.randrange(SECTORS)
        run = len(self.works) + 1, self.rng.random() < 0.5, first, self.rng.randint(1, SECTORS - first)
        able = [attachment for attachment in self.attachments if attachment.is_free(*run[2:])]
        if self.plain and self.rng.random() < 0.5:
            work = Work(*run, next(self.clock), 0)
            self.works.append(work)
            kind = self.rng.choice((CommandKind.WRITE, CommandKind.TAG)) if work.write else CommandKind.READ
            self._ask(Plain(work), kind)
        elif able:
            self.works.append(self.rng.choice(able).begin(*run))
            if run[1] and self.rng.random() < 0.3:  # while the write is on its way
                self._take_over()

    def _ask(self, plain: Plain, kind: CommandKind) -> None:
        work = plain.work
        sent = work.data if kind in (CommandKind.WRITE, CommandKind.STORE) else b""
        command = Command(kind, work.number, work.first, work.count, plain.tags, sent, kind > CommandKind.WRITE)
        self.cluster.command(self.rng.choice(list(self.cluster.nodes)), plain, command)

    def _collect(self) -> None:
        responses, self.cluster.responses = self.cluster.responses, []
        for connection, response in responses:
            if isinstance(connection, Line):
                connection.attachment.respond(connection.rank, response)
            else:
                assert isinstance(connection, Plain)
                self._respond(connection, response)

    def _respond(self, plain: Plain, response: Response) -> None:
        work = plain.work
        if response.status is Status.DISBELIEVED and response.kind is CommandKind.STORE:  # of an epoch unknown there
            self._ask(plain, CommandKind.STORE)
            return
        assert response.status is Status.OK, "rule 6"
        if response.kind is CommandKind.TAG:
            plain.tags = response.tags
            self._ask(plain, CommandKind.STORE)
        elif work.returned is None:
            work.returned = next(self.clock)
            if response.kind is CommandKind.READ:
                work.data = bytes(response.data)

    # --- the world ---------------------------------------------------------------------------------------
    def _settle(self) -> None:
        self.cluster.settle()
        self._collect()
        for attachment in self.attachments:
            attachment.again()
        self.cluster.settle()
        self._collect()

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
            case "damage":  # of one node's copies only: a run that is damaged at two may wait for a write of it
                if self.damaged in (0, rank):
                    self.damaged = rank
                    node.storage.damage(self.rng.randrange(SECTORS))


def run(seed: int, plain: bool, **options: bool) -> list[str]:
    one = Run(seed, plain, **options)
    try:
        one.go()
    except AssertionError as error:
        error.add_note(f"seed of this run: {seed}, plain: {plain}")
        raise
    return one.faults()


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("plain", [False, True])
def test_attachments(seed: int, plain: bool, part: int) -> None:
    for number in range(100):
        assert run(seed + 100 * part + number, plain) == []


def test_the_runs_have_everything_in_them(seed: int) -> None:
    """Attachments that are fenced, their writes that never returned, and reads of several epochs."""
    fenced = lost = 0
    epochs: set[int] = set()
    for number in range(20):
        one = Run(seed + number, plain=False)
        one.go()
        fenced += sum(attachment.fenced for attachment in one.attachments)
        lost += sum(work.returned is None for work in one.works)
        epochs |= {work.epoch for work in one.works if work.returned is not None}
    assert fenced > 10 and lost > 10 and len(epochs) > 3


# --- the test must be able to fail ------------------------------------------------------------------
def is_found(runs: int, plain: bool, **options: bool) -> bool:
    """A history that is wrong, or a run that goes wrong itself."""
    for number in range(runs):
        try:
            if run(number, plain, **options):
                return True
        except AssertionError:
            return True
    return False


@pytest.mark.pure
def test_reads_that_are_not_strict_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules 5 and 8, by the strict variant alone: linearizability does not miss them."""
    ask = AtomicRegister.read
    monkeypatch.setattr(AtomicRegister, "read", lambda self, strict=False: ask(self, False))
    assert is_found(600, plain=False, restamps=False, decides=False)


def test_reads_that_return_what_is_not_raised_are_found() -> None:
    """Rule 10: each coordinator may see another minority's copy, so that it must be stored before it is returned."""
    assert is_found(6000, plain=False, decides=False)


@pytest.mark.pure
def test_a_node_that_keeps_no_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules 1 and 6: PUTs and STOREs of an older attachment are taken as well."""
    before = Epochs.before

    def gate(self: Epochs, command: Command, *rest: Any) -> object:
        return Go() if 0 < command.epoch < self.promised else before(self, command, *rest)

    monkeypatch.setattr(Epochs, "before", gate)
    assert is_found(300, plain=False)


def test_a_fence_that_overtakes_what_was_accepted_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2: an answer under an epoch tells what will ever be of older ones. (The fence goes first here.)"""

    def fences_first(self: MemoryStorage, index: int) -> bool:
        return isinstance(self.queued[index], Fence) or not any(isinstance(each, Fence) for each in self.queued)

    monkeypatch.setattr(MemoryStorage, "may_commit", fences_first)
    assert is_found(4000, plain=False)


@pytest.mark.pure
def test_a_write_that_loses_to_an_older_one_that_was_raised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 3: by copies, the write that a read has restamped meanwhile is the higher one."""
    again = AtomicRegister._decide_again

    def by_copies(self: AtomicRegister, phase: Querying, chosen: Copy, own: Copy | None) -> list[Action]:
        there = self._highest(phase)
        values = _compose(there, list(phase.answers.values()))
        if len(there) == len(chosen.tags) == 16 and there > chosen.tags and values is not None:
            chosen = Copy(there, values)
        return again(self, phase, chosen, own)

    monkeypatch.setattr(AtomicRegister, "_decide_again", by_copies)
    assert is_found(4000, plain=True)


def test_a_clock_that_stands_still_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 4: of what others write under the epoch nothing may run ahead of the attachment's clock."""
    monkeypatch.setattr(attached, "COUNTS_PER_TICK", 0)
    assert is_found(200, plain=True)


def test_a_restarted_client_that_claims_the_epoch_of_its_predecessor_is_found() -> None:
    """Rule 15: what that one has sent may still come, and is not below what is promised."""
    assert is_found(300, plain=False, one_identity=True)
