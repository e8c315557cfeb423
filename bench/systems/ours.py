"""dsreg: three nodes by `dsreg up`, and `dsreg-fuse --attach` or `dsreg-nbd` on them."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.jobs import Target, nbd_socket
from bench.processes import command_line, tree
from bench.shell import ROOT, BenchFailed, Daemon, call, is_mounted, node_ports, wait_until
from bench.systems.base import System
from dsreg.version import VERSION
from fuse_frontend import bindings
from fuse_frontend.mounts import MountError

DSREG = (sys.executable, "-m", "dsreg")
DSREG_FUSE = (sys.executable, "-m", "fuse_frontend.cli")
DSREG_NBD = (sys.executable, "-m", "nbd_frontend.cli")
DURABLE = "after fdatasync at a majority of the nodes"
NODES = 3
STOP_ATTEMPTS, STOP_ATTEMPT_S = 3, 10.0


class Cluster:
    """The nodes of one configuration on this host, with the code of `tree`, as `dsreg up` runs them: one that dies is
    started again."""

    def __init__(self, directory: Path, nodes: int, size: int, tree: Path = ROOT) -> None:
        self.config = directory / "cluster.toml"
        hosts = [word for port in node_ports(nodes) for word in ("--host", f"127.0.0.1:{port}")]
        call(*DSREG, "init", directory, "--size", f"{size >> 20}MiB", *hosts, tree=tree)
        self.nodes = nodes
        self.tree = tree
        self._directory = directory
        self._up: Daemon | None = None

    def start(self, stack: ExitStack) -> None:
        """Return when every node listens."""
        self._up = Daemon("up", [*DSREG, "up", str(self.config)], self._directory, self.tree)
        stack.callback(self._up.stop)
        self._up.wait_for(lambda: f"all {self.nodes} nodes listen" in self.up.log, "all nodes listen")

    @property
    def up(self) -> Daemon:
        assert self._up is not None, "not started"
        return self._up

    def node_pids(self) -> dict[int, int]:
        """The pid of each rank that runs now."""
        pids = {}
        for pid in tree([self.up.pid]):
            if rank := re.search(r"--rank (\d+)", " ".join(command_line(pid))):
                pids[int(rank[1])] = pid
        return pids

    def kill(self, rank: int) -> None:
        """SIGKILL; `dsreg up` starts the node again after a fifth of a second, as it does in use."""
        os.kill(self.node_pids()[rank], signal.SIGKILL)

    def restore(self) -> None:
        """Return when all nodes answer."""
        wait_until(self._all_answer, f"all nodes of {self.config} answer")

    def _all_answer(self) -> bool:
        try:
            status = json.loads(call(*DSREG, "status", self.config, "--json", tree=self.tree))
        except BenchFailed:
            return False
        return bool(status["answering"] == self.nodes)


class OnNodes(System):
    """A frontend on `NODES` nodes of its own; `tree`: whose code all of it runs."""

    def __init__(self, key: str, label: str, durable: str, tree: Path = ROOT) -> None:
        super().__init__(key, label, durable)
        self.replicas = NODES
        self._tree = tree
        self._cluster: Cluster | None = None
        self._frontend: Daemon | None = None

    @property
    def cluster(self) -> Cluster:
        assert self._cluster is not None, "not started"
        return self._cluster

    @property
    def frontend(self) -> Daemon:
        assert self._frontend is not None, "not started"
        return self._frontend

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        self._cluster = Cluster(directory / "cluster", NODES, size, self._tree)
        self._cluster.start(stack)
        self._start_frontend(directory, stack)

    @abstractmethod
    def _start_frontend(self, directory: Path, stack: ExitStack) -> None:
        """Set `_frontend`, and return when the disk can be used."""

    def roots(self) -> Sequence[int]:
        return (self.cluster.up.pid, self.frontend.pid)

    def memory_pids(self) -> list[int]:
        return [pid for _, pid in sorted(self.cluster.node_pids().items())]

    def kill_replica(self, number: int) -> None:
        self.cluster.kill(number % NODES + 1)

    def restore(self) -> None:
        self.cluster.restore()


class Ours(OnNodes):
    """Through FUSE and a loop device. `binding`: of `dsreg-fuse --binding`; `options`: its other options."""

    tools = ("fusermount3", "losetup")
    packages = ("fuse3", "mount")

    def __init__(self, key: str = "ours", label: str = "dsreg (direct)", binding: str = bindings.DIRECT,
                 options: tuple[str, ...] = (), durable: str = DURABLE, tree: Path = ROOT) -> None:
        super().__init__(key, label, durable, tree)
        self.options = (f"--binding={binding}", *options)
        self._binding = binding

    def missing(self) -> str | None:
        try:
            bindings.choose(self._binding, loop_device=True)
        except MountError as error:
            return str(error)
        return super().missing()

    def _start_frontend(self, directory: Path, stack: ExitStack) -> None:
        mountpoint = directory / "mnt"
        mountpoint.mkdir()
        command = [*DSREG_FUSE, "--config", str(self.cluster.config), *self.options, "--attach", str(mountpoint)]
        self._frontend = Daemon("frontend", command, directory, self._tree)
        stack.callback(_stop_frontend, self._frontend, mountpoint, self._tree)
        self._frontend.wait_for(lambda: self._device() != "", "dsreg-fuse names its loop device")
        self.device = self._device()

    def _device(self) -> str:
        """The line on standard output that is nothing but the device's name."""
        found = re.search(r"^(/dev/loop\d+)\n", self.frontend.log, re.MULTILINE)
        return found[1] if found else ""

    def version(self) -> str:
        return f"dsreg {VERSION}, `dsreg up` with {NODES} nodes, `dsreg-fuse {' '.join(self.options)} --attach`"


class OursNbd(OnNodes):
    """Through `dsreg-nbd` at a unix socket: no FUSE, no loop device, no kernel but for the socket."""

    has_device = False
    engine = "nbd"

    def __init__(self) -> None:
        super().__init__("ours-nbd", "dsreg (NBD)", DURABLE)
        self._socket = Path()

    def _start_frontend(self, directory: Path, stack: ExitStack) -> None:
        self._socket = directory / "nbd.sock"
        command = [*DSREG_NBD, "--config", str(self.cluster.config), "--socket", str(self._socket)]
        self._frontend = Daemon("frontend", command, directory, self._tree)
        stack.callback(self._frontend.stop)
        self._frontend.wait_for(self._socket.exists, "dsreg-nbd listens")

    def target(self) -> Target:
        return nbd_socket(self._socket)

    def version(self) -> str:
        return f"dsreg {VERSION}, `dsreg up` with {NODES} nodes, `dsreg-nbd --socket`; fio's engine nbd"


def _stop_frontend(frontend: Daemon, mountpoint: Path, tree: Path) -> None:
    """Loop device, mount and process, in order; where the server is gone already, what it left.

    More than once: one that is told to stop while it starts may come to mount and attach first, and then stays.
    """
    for _ in range(STOP_ATTEMPTS):
        if is_mounted(mountpoint):
            call(*DSREG_FUSE, "--detach", mountpoint, tree=tree)
        if frontend.ends_within(STOP_ATTEMPT_S):
            break
    frontend.stop()
