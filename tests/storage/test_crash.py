"""Power loss at every operation, in random workloads, and kill -9 of a real process."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsreg.errors import DamagedStorage
from dsreg.storage import Identity, OsFiles, StableStorage, Ticket
from dsreg.storage.layout import GROUP_SECTORS
from dsreg.testing.memory_files import Chooser, Kind, MemoryFiles, Operation, drop_all, keep_all, random_chooser
from tests.storage.support import IDENTITY, checkpoint_now, commit_all, contents, open_storage, store

SECTORS = 10 * GROUP_SECTORS  # so that groups are added all the time
SMALL = Identity(IDENTITY.cluster, 1, (1, 2, 3), SECTORS)


@dataclass
class History:
    """What was asked for and what was acknowledged, by the length of the log at that moment."""

    files: MemoryFiles
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # log length, sector, ts
    acknowledged: list[tuple[int, int, int]] = field(default_factory=list)
    reserved: list[tuple[int, int]] = field(default_factory=list)
    incarnations: list[tuple[int, int]] = field(default_factory=list)
    waiting: dict[int, tuple[Ticket, int, int, int]] = field(default_factory=dict)

    @property
    def now(self) -> int:
        return len(self.files.log)

    def store(self, storage: StableStorage, first: int, count: int, ts: int) -> None:
        ticket = store(storage, first, count, ts)
        self.asked += [(self.now, first + index, ts) for index in range(count)]
        self.waiting[id(ticket)] = (ticket, first, count, ts)

    def acknowledge(self, done: list[Ticket]) -> None:
        for ticket in done:
            entry = self.waiting.pop(id(ticket), None)
            if entry is not None:
                _, first, count, ts = entry
                assert ticket.done and ticket.ok
                self.acknowledged += [(self.now, first + index, ts) for index in range(count)]

    def check(self, storage: StableStorage, upto: int) -> None:
        """Every acknowledged value is there or a newer one that was asked for; nothing is invented or mixed."""
        low, allowed = [0] * SECTORS, [{0} for _ in range(SECTORS)]
        for when, sector, ts in self.acknowledged:
            if when <= upto:
                low[sector] = max(low[sector], ts)
        for when, sector, ts in self.asked:
            if when <= upto:
                allowed[sector].add(ts)
        found = contents(storage, 0, SECTORS)
        for sector in range(SECTORS):
            assert found[sector] >= low[sector] and found[sector] in allowed[sector], (sector, upto)
        assert storage.ts_reserved >= max((ts for when, ts in self.reserved if when <= upto), default=0)
        assert storage.incarnation > max((number for when, number in self.incarnations if when <= upto), default=0)


def workload(rng: random.Random) -> History:
    """Two starts, stores of all shapes, a checkpoint between commits and one beside one, reservations."""
    files = MemoryFiles()
    history = History(files)
    storage = open_storage(files, SMALL)
    history.incarnations.append((history.now, storage.incarnation))
    ts = 0
    for step in range(16):
        for _ in range(rng.randrange(1, 4)):
            ts += 1
            first = rng.randrange(SECTORS)
            history.store(storage, first, rng.randrange(1, min(20, SECTORS - first) + 1), ts)
        reservation = storage.reserve(100 * step) if step % 5 == 1 else None
        checkpoint = storage.next_checkpoint() if step in (3, 9) else None
        commit = storage.next_commit()
        assert commit is not None
        if step == 9 and checkpoint is not None:
            checkpoint.run()
            storage.finish_checkpoint(checkpoint)
        commit.run()
        history.acknowledge(storage.finish_commit(commit))
        if step == 3 and checkpoint is not None:
            checkpoint.run()
            storage.finish_checkpoint(checkpoint)
        if reservation is not None:
            history.reserved.append((history.now, 100 * step))
        if step == 7:
            storage.close()
            storage = open_storage(files, SMALL)
            history.incarnations.append((history.now, storage.incarnation))
    return history


@pytest.mark.parametrize("fate", [drop_all, keep_all, None], ids=["drop", "keep", "tear"])
def test_power_loss_at_every_operation(fate: Chooser | None, rng: random.Random) -> None:
    history = workload(rng)
    log = history.files.log
    assert len(log) > 100
    for upto in range(len(log) + 1):
        crashed = MemoryFiles.from_log(log[:upto]).crash(fate or random_chooser(rng))
        history.check(open_storage(crashed, SMALL), upto)


@pytest.mark.parametrize("fate", [drop_all, None], ids=["drop", "tear"])
def test_power_loss_after_a_restart_that_followed_a_kill(fate: Chooser | None, rng: random.Random) -> None:
    """What a killed process wrote and did not sync is there to read, and gone at the next power loss."""
    history = workload(rng)
    log = history.files.log
    for upto in range(len(log) + 1):
        killed = MemoryFiles.from_log(log[:upto])
        open_storage(killed, SMALL)
        history.check(open_storage(killed.crash(fate or random_chooser(rng)), SMALL), upto)


def test_power_loss_during_recovery(rng: random.Random) -> None:
    """A crash in the middle of what follows a crash, at every operation of it."""
    history = workload(rng)
    log = history.files.log
    for upto in rng.sample(range(len(log) // 2, len(log)), 6):
        crashed = MemoryFiles.from_log(log[:upto]).crash(random_chooser(rng))
        before = crashed.crash(drop_all)
        recovering = before.crash(keep_all)
        storage = open_storage(recovering, SMALL)
        incarnation = storage.incarnation
        for stop in range(len(recovering.log) + 1):
            again = before.crash(keep_all)
            for operation in recovering.log[:stop]:
                again.redo(operation)
            second = open_storage(again.crash(random_chooser(rng)), SMALL)
            history.check(second, upto)
            assert second.incarnation >= incarnation


def test_an_interrupted_creation_is_completed(rng: random.Random) -> None:
    files = MemoryFiles()
    open_storage(files, SMALL)
    for upto in range(len(files.log) + 1):
        storage = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(random_chooser(rng)), SMALL)
        assert contents(storage, 0, SECTORS) == [0] * SECTORS


def test_random_persists_crashes_and_restarts(rng: random.Random) -> None:
    """Against a model: two dicts, what must be there and what may be."""
    for _ in range(4):
        files = MemoryFiles()
        storage = open_storage(files, SMALL)
        sure, maybe = [0] * SECTORS, [{0} for _ in range(SECTORS)]
        for step in range(120):
            ts = rng.randrange(1, 10 + 3 * step)
            first = rng.randrange(SECTORS)
            count = rng.randrange(1, SECTORS - first + 1) if rng.random() < 0.3 else 1
            store(storage, first, count, ts)
            for sector in range(first, first + count):
                maybe[sector].add(ts)
            action = rng.random()
            if action < 0.3:
                commit_all(storage)
                sure = [max(possible) for possible in maybe]
                assert contents(storage, 0, SECTORS) == sure
            elif action < 0.4 and storage.checkpoint_due(idle=True):
                checkpoint_now(storage)
            elif action < 0.55:
                commit = storage.next_commit() if rng.random() < 0.5 else None
                if commit is not None:
                    commit.run()  # durable, and nobody was told
                files = files.crash(random_chooser(rng))
                storage = open_storage(files, SMALL)
                found = contents(storage, 0, SECTORS)
                for sector in range(SECTORS):
                    assert found[sector] >= sure[sector] and found[sector] in maybe[sector]
                sure, maybe = found, [{ts} for ts in found]


# --- a mutant of the order must be found ------------------------------------------------------------
@pytest.mark.parametrize("kind", ["journal", "tags", "sectors"])
def test_a_sync_that_does_nothing_is_found(kind: str, rng: random.Random) -> None:
    """The checks above fail if the disk lies: they depend on each of these syncs."""
    history = workload(rng)
    lying = [op for op in history.files.log if not (op.kind is Kind.SYNC and op.name.startswith(kind))]
    moved = _positions(history.files.log, lambda op: not (op.kind is Kind.SYNC and op.name.startswith(kind)))
    with pytest.raises((AssertionError, DamagedStorage)):
        for upto in range(0, len(history.files.log) + 1, 3):
            crashed = MemoryFiles.from_log(lying[:moved[upto]]).crash(random_chooser(rng))
            history.check(open_storage(crashed, SMALL), upto)


def _positions(log: list[Operation], kept: Callable[[Operation], bool]) -> list[int]:
    """For each prefix of the log how many of its operations are kept."""
    positions = [0]
    for operation in log:
        positions.append(positions[-1] + kept(operation))
    return positions


# --- kill -9 ----------------------------------------------------------------------------------------
CHILD = """
import sys, threading
from dsreg.storage import OsFiles
from tests.storage.support import IDENTITY, open_storage, store
from tests.storage.test_crash import runs
storage = open_storage(OsFiles(sys.argv[1]))
ts = int(sys.argv[2])
thread = None
while True:
    ts += 1
    tickets = [store(storage, first, count, ts) for first, count in runs(ts)]
    while not all(ticket.done for ticket in tickets):
        if storage.checkpoint_due(idle=False):
            checkpoint = storage.next_checkpoint()
            thread = threading.Thread(target=checkpoint.run)
            thread.start()
        commit = storage.next_commit()
        if commit is not None:
            commit.run()
            storage.finish_commit(commit)
        if thread is not None and (commit is None or not thread.is_alive()):
            thread.join()
            storage.finish_checkpoint(checkpoint)
            thread = None
    assert all(ticket.ok for ticket in tickets)
    print(ts, flush=True)
"""
AREA = 600
PARTS = 8


def runs(ts: int) -> list[tuple[int, int]]:
    """What the child stores with this ts."""
    return [(ts * 37 % 500 + AREA * part, 1 + ts % 9) for part in range(PARTS)]


def test_kill_9_of_a_writer(tmp_path: Path, rng: random.Random) -> None:
    root = Path(__file__).resolve().parents[2]
    expected = [0] * (AREA * PARTS)
    last = 0
    for _ in range(4):
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(rng.randrange(50, 150))]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()  # acknowledged before the kill and not read yet
        acknowledged = max(int(line) for line in lines if line.endswith("\n"))
        assert acknowledged >= last + 50
        for ts in range(last + 1, acknowledged + 1):
            for first, count in runs(ts):
                expected[first:first + count] = [ts] * count
        # The batch under way when it was killed may be there, or a part of it.
        under_way = {first + index for first, count in runs(acknowledged + 1) for index in range(count)}
        storage = open_storage(OsFiles(tmp_path))
        found = [ts for first in range(0, AREA * PARTS, 200) for ts in contents(storage, first, 200)]
        storage.close()
        for sector, ts in enumerate(found):
            assert ts == expected[sector] or ts == acknowledged + 1 and sector in under_way, (sector, ts)
        expected = found
        last = acknowledged + 1
