"""A file system on the loop device of a dsreg mount, that is torn down by force and brought up again."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.chaos.scenario import ChaosCluster
from tests.chaos.sweep import unmount_below
from tests.processes.cluster import ROOT, until

# An I/O-bound start on a busy machine; recovery itself is far quicker.
UP_S = 60.0
COMMAND_S = 120.0
# e2fsck: errors were corrected, as the replay of the journal is called.
CORRECTED = 1


def run(*command: str | Path, good: tuple[int, ...] = (0,)) -> str:
    """What the command prints; AssertionError, with that, if it fails or takes longer than COMMAND_S. In that case it
    is left to itself: what waits for a disk cannot be killed before the disk goes."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=COMMAND_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"{command}: not done within {COMMAND_S:.0f} s") from None
    assert process.returncode in good, f"{command}: {process.returncode}\n{output}{errors}"
    return output


class Disk:
    """A frontend of the cluster that `config` says, its loop device, ext4 on `files`. Everything is in `directory`.
    `place`: where the frontend runs, a context in which it is started."""

    def __init__(
        self, directory: Path, config: Path, *, cache: str = "none",
        place: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.directory = directory
        self.files = directory / "files"
        self.mountpoint = directory / "mnt"
        self.log = directory / "frontend.log"
        self.frontend: subprocess.Popen[bytes] | None = None
        self._config = config
        self._cache = cache
        self._place = place
        self.files.mkdir()
        self.mountpoint.mkdir()

    def attach(self) -> None:
        with self._place(), open(self.log, "ab") as log:
            self.frontend = subprocess.Popen(
                [sys.executable, "-m", "fuse_frontend.cli", str(self.mountpoint), "--config", str(self._config),
                 "--attach", f"--cache={self._cache}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        assert self.frontend.stdout is not None
        ready, _, _ = select.select([self.frontend.stdout], [], [], UP_S)
        self.device = self.frontend.stdout.readline().decode().strip() if ready else ""
        assert self.device.startswith("/dev/loop"), f"no loop device: {self.log.read_text()}"

    def format(self) -> None:
        run("mkfs.ext4", "-q", "-E", "nodiscard", self.device)

    def mount(self) -> None:
        run("mount", self.device, self.files)

    def unmount(self) -> None:
        run("umount", self.files)

    def look_at(self) -> None:
        """AssertionError if anything of the file system, which is not mounted, is to be corrected."""
        run("e2fsck", "-f", "-n", self.device)

    def down(self) -> None:
        """SIGKILL to the frontend, wherever it is; unmount and detach what stood on it. Nobody may be using the
        files any more."""
        if self.frontend is None:
            return
        self.frontend.kill()
        self.frontend.wait()
        assert self.frontend.stdout is not None
        self.frontend.stdout.close()
        self.frontend = None
        unmount_below(self.directory)
        backing = Path("/sys/block") / Path(self.device).name / "loop" / "backing_file"

        def is_let_go() -> bool:
            """Somebody else may have the device by now."""
            try:
                return str(self.directory) not in backing.read_text()
            except OSError:
                return True

        until(is_let_go, f"{self.device} is free", UP_S)


class Stack(Disk):
    """A disk with its nodes, which are torn down and brought up together."""

    def __init__(self, directory: Path, *, size_bytes: int, cache: str, stack: contextlib.ExitStack) -> None:
        self.cluster = ChaosCluster(directory / "cluster", nodes=3, sectors=size_bytes // 4096)
        super().__init__(directory, self.cluster.path, cache=cache)
        stack.callback(self.cluster.close)
        stack.callback(self.down)
        self._killed: tuple[int, ...] = ()
        self.cluster.start()
        self.attach()
        self.format()
        self.mount()

    # --- up -------------------------------------------------------------------------------------------
    def up(self, *, by_kernel: bool, without: int = 0) -> None:
        """Bring up what is down, but for the node `without`, and look at the file system. Its journal is replayed by
        the kernel or by e2fsck; after that there must be nothing left to correct."""
        if down := [rank for rank in self.cluster.ranks if rank not in (*self.cluster.processes, without)]:
            self.cluster.start(*down)
        self.attach()
        if by_kernel:
            self.mount()
            self.unmount()
        else:
            run("e2fsck", "-p", self.device, good=(0, CORRECTED))
        self.look_at()
        self.mount()

    # --- down -----------------------------------------------------------------------------------------
    def signal_all(self) -> int:
        """SIGKILL to all nodes and the frontend, as close to one moment as possible; how many that were. `down` waits
        for their end."""
        self._killed = tuple(self.cluster.processes)
        victims = [*self.cluster.processes.values(), *([self.frontend] if self.frontend is not None else [])]
        for process in victims:
            process.kill()
        return len(victims)

    def down(self) -> None:
        """Nodes that run go on, those that were killed are waited for."""
        if self._killed:
            self.cluster.kill(*self._killed)
            self._killed = ()
        super().down()
