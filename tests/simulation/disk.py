"""The part of dsreg.node.disk, without threads: commits, cold reads and checkpoints take simulated time.

A job is either done in one moment, somewhere between its start and its end, or (`interleave`) operation by
operation, with everything else going on in between, as a thread does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from dsreg.node.disk import IDLE_CHECKPOINT_S
from dsreg.node.interpreter import Interpreter
from dsreg.register.effects import Load, Verify
from dsreg.storage import Checkpoint, Commit, LoadJob
from dsreg.storage.verify import SlotJob
from tests.simulation.files import SimFiles
from tests.simulation.loop import Loop

# Calls what is given to it as the node's process: a failure of it ends that process, and only that.
Guard = Callable[..., None]


class SimDisk:
    """Drives `interpreter.storage`. `disk_s`: what one job takes, in seconds. `witness`: sees what is durable.
    `checkpoint_factor`: how much longer a checkpoint takes."""

    def __init__(
        self,
        loop: Loop,
        interpreter: Interpreter,
        files: SimFiles,
        guard: Guard,
        witness: Callable[[Commit], None],
        disk_s: float,
        interleave: float,
        checkpoint_factor: float,
    ) -> None:
        self.disk_s = disk_s
        self._loop = loop
        self._interpreter = interpreter
        self._storage = interpreter.storage
        self._files = files
        self._guard = guard
        self._witness = witness
        self._interleave = interleave
        self._checkpoint_factor = checkpoint_factor
        self._committing = False
        self._checkpointing = False
        self._loads: deque[Load] = deque()  # of sectors that the commit under way stores over
        interpreter.on_work = self._on_work
        interpreter.on_slow_load = self._on_slow_load
        interpreter.handles(Verify, self._on_verify)
        self.on_verified: Callable[[Verify, bool], None] = lambda verify, is_sure: None
        loop.after(IDLE_CHECKPOINT_S, guard, self._idle)

    @property
    def busy(self) -> bool:
        return self._committing or self._checkpointing

    def stop(self) -> None:
        """Begin no more commits and checkpoints: the storage is about to be closed."""
        self._committing = self._checkpointing = True

    # --- jobs -----------------------------------------------------------------------------------
    def _some_time_s(self) -> float:
        return self.disk_s * (0.5 + self._loop.rng.random())

    def _job(self, run: Callable[[], object], then: Callable[[], None], factor: float = 1.0) -> None:
        """Do `run` in a while, and `then` some time after it."""
        self._loop.after(self._some_time_s() * factor, self._guard, self._run, run, then)

    def _run(self, run: Callable[[], object], then: Callable[[], None]) -> None:
        interleaved = self._loop.chance(self._interleave)
        before = self._files.pass_time
        self._files.pass_time = self._pass_time if interleaved else None
        try:
            run()
        finally:
            self._files.pass_time = before
        self._loop.after(self._some_time_s(), self._guard, then)

    def _pass_time(self) -> None:
        """Between two operations of a job: the rest of the world goes on."""
        passing, self._files.pass_time = self._files.pass_time, None
        self._loop.run(self._loop.now_s + self._some_time_s() / 2)
        self._files.pass_time = passing

    # --- commits --------------------------------------------------------------------------------
    def _on_work(self) -> None:
        if not self._committing:
            self._next_commit()

    def _next_commit(self) -> None:
        commit = self._storage.next_commit()
        self._committing = commit is not None
        if commit is not None:
            self._job(commit.run, partial(self._finish_commit, commit))

    def _finish_commit(self, commit: Commit) -> None:
        tickets = self._storage.finish_commit(commit)
        self._witness(commit)
        self._retry_loads()
        self._committing = True  # what the tickets set off joins the next commit
        self._interpreter.committed(tickets)
        if self._storage.checkpoint_due(idle=False):
            self._checkpoint()
        self._next_commit()

    # --- loads ----------------------------------------------------------------------------------
    def _on_slow_load(self, load: Load) -> None:
        job = self._storage.load_job(load.question.first, load.question.count)
        self._job(job.run, partial(self._finish_load, load, job))

    def _finish_load(self, load: Load, job: LoadJob) -> None:
        loaded = self._storage.finish_load(job)
        if loaded is not None:
            self._interpreter.loaded(load, loaded)
        elif self._committing:
            self._loads.append(load)
        else:
            self._on_slow_load(load)

    def _retry_loads(self) -> None:
        waiting, self._loads = self._loads, deque()
        for load in waiting:
            self._on_slow_load(load)

    # --- scrub ----------------------------------------------------------------------------------
    def _on_verify(self, verify: Verify) -> None:
        job = self._storage.check.slot_job(*verify)
        self._job(job.run, partial(self._verify_values, verify, job))

    def _verify_values(self, verify: Verify, slots: SlotJob) -> None:
        is_sure = self._storage.check.finish(slots)
        job = self._storage.load_job(*verify)
        self._job(job.run_from_disk, partial(self._finish_verify, verify, job, is_sure))

    def _finish_verify(self, verify: Verify, job: LoadJob, is_sure: bool) -> None:
        is_sure &= self._storage.finish_load(job) is not None
        self.on_verified(verify, is_sure)

    # --- checkpoints ----------------------------------------------------------------------------
    def _idle(self) -> None:
        if not self._checkpointing and self._storage.checkpoint_due(idle=True):
            self._checkpoint()
        self._loop.after(IDLE_CHECKPOINT_S, self._guard, self._idle)

    def _checkpoint(self) -> None:
        checkpoint = self._storage.next_checkpoint()
        if checkpoint is not None:
            self._checkpointing = True
            self._job(checkpoint.run, partial(self._finish_checkpoint, checkpoint), self._checkpoint_factor)

    def _finish_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._storage.finish_checkpoint(checkpoint)
        self._checkpointing = False
        self._on_work()  # a commit may have waited for room in the journal
