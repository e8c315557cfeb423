"""Disk: the blocking calls of a node, which are commits, reads from a cold disk and checkpoints.

Each runs in a thread, one of each kind at a time; while one runs, work gathers for the next (group commit). But on a
disk that syncs sooner than a thread could be woken and could answer, a commit is made at once, at the end of the turn
that brought the work.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from dsreg.histogram import Histogram, Lately
from dsreg.node.interpreter import Interpreter
from dsreg.node.worker import Worker
from dsreg.register.effects import Load, Verify
from dsreg.storage import Commit, Refusal, Ticket

# After this many seconds without a commit the journal is emptied, so that a restart finds little to replay.
IDLE_CHECKPOINT_S = 2.0
# Reads that wait for a cold disk at one time; a disk answers several sooner than one after the other.
LOADERS = 8
# A commit that takes no longer is not handed to the thread. That costs 75 us of CPU at every node of a write, and makes
# the turns that come meanwhile compete with it; what it buys is that reads need not wait for the sync.
AT_ONCE_S = 0.002
# How much one commit changes what is expected of the next.
_WEIGHT = 1 / 8
# Between two warnings about a full disk.
COMPLAIN_S = 60.0
# A node says that it has no space for so long after it has refused a store for it; and on, while its file system has
# less than the second figure left, until a store that needs room has found some.
FULL_S = 10.0
FULL_BYTES = 16 << 20
# How long syncs take lately is said of so many seconds, or up to twice as many, and not of fewer than so many syncs.
SYNCS_WINDOW_S = 60.0
LEAST_SYNCS = 16
# A slow command is said to have waited for the syncs among so many of the last ones: of a disk that is slow, minutes.
LAST_SYNCS = 256
# Bounds of a histogram of what commits write: one sector and its record, and on to the largest.
COMMIT_BYTES = tuple(8192 << 2 * step for step in range(6))

_NO_SPACE = Refusal.NO_SPACE

log = logging.getLogger("dsreg.node")


class Signal:
    """Wakes one waiting task; setting it twice before the task looks is setting it once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Disk:
    """Owns the threads' side of `interpreter.storage`."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._storage = interpreter.storage
        self._commit = Signal()
        # Bounded by the operations of this node and what its peers have outstanding here.
        self._loads, self._loads_here = trio.open_memory_channel[Load](math.inf)
        self._verifies, self._verifies_here = trio.open_memory_channel[Verify](1)  # one at a time: see Scrub
        self.on_verified: Callable[[Verify, bool], None] = lambda verify, is_sure: None
        self._after_commit: list[Load] = []  # loads of sectors that the commit under way stores over
        self._checkpoint = Signal()
        self._committing = False
        self._commit_s = AT_ONCE_S  # what a commit takes, as the last ones did; the first goes to the thread
        self._complain_again = -math.inf
        self.syncs = Lately(SYNCS_WINDOW_S)
        self.commit_bytes = Histogram(COMMIT_BYTES)
        self.last_syncs: deque[tuple[float, float]] = deque(maxlen=LAST_SYNCS)  # from when to when, by perf_counter
        self.checkpoints = Histogram()  # how long they took, in seconds
        self._refused_s: float | None = None  # when a store found no room last; None: one has found some since
        interpreter.on_work = self._on_work
        interpreter.on_slow_load = self._loads.send_nowait
        interpreter.handles(Verify, self._verifies.send_nowait)

    def _on_work(self) -> None:
        if self._committing:
            return
        if self._commit_s >= AT_ONCE_S:
            if self._storage.has_work():  # else a turn of reads would cost a pass of the scheduler more
                self._commit.set()
            return
        self._committing = True
        while self._commit_s < AT_ONCE_S and (commit := self._storage.next_commit(punches=False)) is not None:
            self._time(commit)
            self._committed(commit, self._storage.finish_commit(commit))
        self._committing = False
        if self._commit_s >= AT_ONCE_S:
            self._commit.set()  # the disk has become slow
        elif not self._storage.punching.is_over:
            self._commit.set()  # that is for the thread

    def _time(self, commit: Commit) -> None:
        started = time.perf_counter()
        commit.run()
        ended = time.perf_counter()
        self.last_syncs.append((started, ended))
        if commit.records:
            self._commit_s += (ended - started - self._commit_s) * _WEIGHT

    def is_full(self, directory: Path) -> bool:
        """Whether there is no room for new data. `directory`: that of the storage."""
        if self._refused_s is None:
            return False
        if trio.current_time() - self._refused_s < FULL_S:
            return True
        room = os.statvfs(directory)
        return room.f_bavail * room.f_frsize < FULL_BYTES

    def report(self, directory: Path) -> dict[str, object]:
        """For STATUS. `directory`: that of the storage."""
        system = os.statvfs(directory)
        available = system.f_bavail * system.f_frsize
        return {
            "no_space": self.is_full(directory),
            "storage": {
                # As df has it: without what is kept for root.
                "size_bytes": (system.f_blocks - system.f_bfree) * system.f_frsize + available,
                "available_bytes": available,
                "values_bytes": self._storage.check.values_bytes(),
            },
            "syncs": self.syncs.report(self._interpreter.clock(), LEAST_SYNCS),
        }

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_commits)
            for _ in range(LOADERS):
                nursery.start_soon(self._run_loads)
            nursery.start_soon(self._run_checkpoints)
            nursery.start_soon(self._run_verifies)

    async def _run_commits(self) -> None:
        with contextlib.closing(Worker("dsreg-commits")) as worker:
            while True:
                await self._commit.wait()
                self._committing = True
                while (commit := self._storage.next_commit()) is not None:
                    await worker.run(functools.partial(self._time, commit))
                    self._committed(commit, self._storage.finish_commit(commit))
                self._committing = False

    def _committed(self, commit: Commit, tickets: list[Ticket]) -> None:
        if any([ticket.refusal is _NO_SPACE for ticket in tickets]):
            self._no_space(trio.current_time())
        elif self._refused_s is not None and any(record.home_first for record in commit.records if not record.refused):
            self._refused_s = None
            log.warning("there is space again: writes of new data are accepted")
        if commit.written:
            self.syncs.observe(commit.sync_s, self._interpreter.clock())
            self.commit_bytes.observe(commit.size)
        waiting, self._after_commit = self._after_commit, []
        for load in waiting:
            self._loads.send_nowait(load)
        self._interpreter.committed(tickets)
        if self._storage.checkpoint_due(idle=False):
            self._checkpoint.set()

    def _no_space(self, now_s: float) -> None:
        self._refused_s = now_s
        if now_s >= self._complain_again:
            self._complain_again = now_s + COMPLAIN_S
            log.warning("no space in the storage directory: writes of new data are refused until there is some; "
                        "nothing is lost")

    async def _run_loads(self) -> None:
        async for load in self._loads_here:
            first, count = load.question.first, load.question.count
            loaded = self._storage.load(first, count, wait=False)
            if loaded is None:
                job = self._storage.load_job(first, count)
                await trio.to_thread.run_sync(job.run)
                loaded = self._storage.finish_load(job)
            if loaded is None and self._committing:
                self._after_commit.append(load)
            elif loaded is None:
                self._loads.send_nowait(load)
            else:
                self._interpreter.loaded(load, loaded)

    async def _run_verifies(self) -> None:
        """The slots first: the values are checked against what they say, which is in the page cache then."""
        async for verify in self._verifies_here:
            slots = self._storage.check.slot_job(*verify)
            await trio.to_thread.run_sync(slots.run)
            is_sure = self._storage.check.finish(slots)
            values = self._storage.load_job(*verify)
            await trio.to_thread.run_sync(values.run_from_disk)
            is_sure &= self._storage.finish_load(values) is not None
            self.on_verified(verify, is_sure)

    async def _run_checkpoints(self) -> None:
        while True:
            with trio.move_on_after(IDLE_CHECKPOINT_S) as idle:
                await self._checkpoint.wait()
            if not self._storage.checkpoint_due(idle=idle.cancelled_caught):
                continue
            checkpoint = self._storage.next_checkpoint()
            if checkpoint is not None:
                began_s = time.perf_counter()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(checkpoint.run)
                self.checkpoints.observe(time.perf_counter() - began_s)
                self._storage.finish_checkpoint(checkpoint)
                self._commit.set()  # a commit may have waited for room in the journal
