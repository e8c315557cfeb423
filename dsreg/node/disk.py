"""The tasks that do what blocks: commits, reads from a cold disk, checkpoints. Each in a thread, one of
each kind at a time; while one runs, work gathers for the next (group commit)."""

from __future__ import annotations

import trio

from dsreg.node.interpreter import Interpreter

# After this many seconds without a commit the journal is emptied, so that a restart finds little to replay.
IDLE_CHECKPOINT_S = 2.0


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
        self._load = Signal()
        self._checkpoint = Signal()
        self._committing = False
        interpreter.on_work = self._on_work

    def _on_work(self) -> None:
        if not self._committing:
            self._commit.set()
        if self._interpreter.slow_loads:
            self._load.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_commits)
            nursery.start_soon(self._run_loads)
            nursery.start_soon(self._run_checkpoints)

    async def _run_commits(self) -> None:
        while True:
            await self._commit.wait()
            self._committing = True
            while (commit := self._storage.next_commit()) is not None:
                await trio.to_thread.run_sync(commit.run)
                self._interpreter.committed(self._storage.finish_commit(commit))
                if self._storage.checkpoint_due(idle=False):
                    self._checkpoint.set()
            self._committing = False

    async def _run_loads(self) -> None:
        while True:
            await self._load.wait()
            loads = self._interpreter.slow_loads
            while loads:
                load = loads.popleft()
                first, count = load.question.first, load.question.count
                loaded = await self._storage_load(first, count)
                self._interpreter.loaded(load, loaded.tags, loaded.data, bool(loaded.missing))
                self._interpreter.end_turn()

    async def _run_checkpoints(self) -> None:
        while True:
            with trio.move_on_after(IDLE_CHECKPOINT_S) as idle:
                await self._checkpoint.wait()
            if not self._storage.checkpoint_due(idle=idle.cancelled_caught):
                continue
            checkpoint = self._storage.next_checkpoint()
            if checkpoint is not None:
                await trio.to_thread.run_sync(checkpoint.run)
                self._storage.finish_checkpoint(checkpoint)
                self._commit.set()  # a commit may have waited for room in the journal
