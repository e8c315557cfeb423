"""A node's directory, which can fail, fill up, get damaged, lose power and outlive the process.

Adds to MemoryFiles: a hook before each operation (where time passes, power fails), a failed fsync that
forgets, and handles that die with the process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from dsreg.testing.memory_files import Chooser, Kind, MemoryFiles, Operation
from tests.simulation.loop import Loop

# Pages left when a disk is made full: none to few, so that some records fit and others do not.
FULL_MARGIN_PAGES = (0, 0, 1, 4)


class Crash(BaseException):
    """The node loses power in the middle of what it is doing. No code of the product may catch it."""


class SimFiles(MemoryFiles):
    """`pass_time` is called before each change and each sync. `crash_in`: power fails that many steps from now;
    before and after each such operation is a step. `fail_next`: the next operation of that kind fails.
    """

    def __init__(self, loop: Loop, cold_share: float) -> None:
        super().__init__()
        self.pass_time: Callable[[], None] | None = None
        self.crash_in = 0  # 0: not at all
        self.fail_next: Kind | None = None
        self._loop = loop
        self._cold_share = cold_share

    # --- what the storage sees ------------------------------------------------------------------
    @property
    def cold(self) -> bool:
        return self._loop.chance(self._cold_share)

    @cold.setter
    def cold(self, cold: bool) -> None:
        """The share decides."""

    def inject(self, kind: Kind, name: str) -> None:
        if self.pass_time is not None:
            self.pass_time()
        self._step()
        if self.fail_next is kind:
            self.fail_next = None
            if kind is Kind.SYNC:
                self._forget(name)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _forget(self, name: str) -> None:
        """A failed fsync: pages that were not written count as clean from now on, and go with the next crash."""
        unsynced = self._names[name].unsynced
        unsynced[:] = [operation for operation in unsynced if self._loop.chance(0.5)]

    def record(self, operation: Operation) -> None:
        """No log is kept: the simulator replays from the seed."""
        self._step()

    def _step(self) -> None:
        if self.dead:
            raise Crash
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                raise Crash

    # --- what the world does --------------------------------------------------------------------
    def fill(self) -> None:
        self.capacity = self.used() + self._loop.rng.choice(FULL_MARGIN_PAGES)

    def empty(self) -> None:
        self.capacity = None

    def after_power_loss(self, chooser: Chooser) -> SimFiles:
        return self._successor(self.crash(chooser))

    def after_kill(self) -> SimFiles:
        """The process is gone: its handles are dead, its lock is free; the page cache is as it was."""
        self.dead = True
        return self._successor(self)

    def copied(self) -> SimFiles:
        """The same files in another directory, all of it durable."""
        return self._successor(MemoryFiles.holding({name: inode.seen for name, inode in self._names.items()}))

    def _successor(self, content: MemoryFiles) -> SimFiles:
        files = SimFiles(self._loop, self._cold_share)
        files.capacity = self.capacity
        files._names = content._names
        files._durable_names = content._durable_names
        files._unsynced = content._unsynced
        files._unreadable = self._unreadable
        return files
