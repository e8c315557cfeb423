"""Three node processes on this host, each of which can be killed and started again."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from dsreg.listening import free_ports

from .report import DemoFailed

NODES = 3
SIZE = "1GiB"
PORTS = range(20000, 32768)
START_S = 20.0
STOP_S = 10.0
DSREG = (sys.executable, "-m", "dsreg")


def node_ports() -> list[int]:
    """One for each node, free now. Raises DemoFailed.

    From below the range that the kernel takes for outgoing connections: a node that is down must find its
    port free when it comes back.
    """
    ports = free_ports(PORTS, NODES)
    if len(ports) < NODES:
        raise DemoFailed(f"no {NODES} free ports from {PORTS.start} to {PORTS.stop - 1}")
    return ports


class Cluster:
    """Configuration, storage, logs and processes of the nodes, all below `directory`."""

    def __init__(self, directory: Path, size: str = SIZE) -> None:
        self.directory = directory
        self.size = size
        self.config = directory / "cluster.toml"
        self.ports = node_ports()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def storage(self, rank: int) -> Path:
        return self.directory / f"storage-{rank}"

    def init(self) -> None:
        """Writes the configuration and the keys, with ports that are free on this host."""
        command = [*DSREG, "init", str(self.directory), "--nodes", str(NODES), "--size", self.size]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"dsreg init: {done.stderr.strip()}")
        ports = iter(self.ports)
        text = re.sub(r'^(address\s*=\s*"[^":]*):\d+"', lambda m: f'{m[1]}:{next(ports)}"', self.config.read_text(),
                      flags=re.MULTILINE)
        self.config.write_text(text)

    def start(self, rank: int) -> None:
        """Starts node `rank` and returns when it accepts connections."""
        command = [*DSREG, "node", "--config", str(self.config), "--rank", str(rank),
                   "--storage", str(self.storage(rank))]
        # A session of its own: Ctrl-C must reach the nodes last, after the file system above them is unmounted.
        with open(self.directory / f"node-{rank}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
        self.processes[rank] = process
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[rank - 1]), 1.0).close()
                return
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DemoFailed(f"node {rank} does not accept connections: {error}") from error
                time.sleep(0.02)

    def kill(self, rank: int) -> None:
        """SIGKILL: the node has no chance to finish anything."""
        process = self.processes.pop(rank)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def terminate(self, rank: int) -> None:
        """SIGTERM, and SIGKILL with DemoFailed for a node that has not ended after STOP_S seconds."""
        process = self.processes.pop(rank)
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise DemoFailed(f"node {rank} did not end within {STOP_S:.0f} s of SIGTERM and was killed") from error

    def start_missing(self) -> None:
        """Starts every node that is not running, so that nothing above waits for a majority."""
        for rank in range(1, NODES + 1):
            if rank not in self.processes or self.processes[rank].poll() is not None:
                self.start(rank)

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what is still there after STOP_S seconds."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        late = []
        for rank, process in self.processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                late.append(rank)
        self.processes.clear()
        if late:
            raise DemoFailed(f"nodes {late} did not end within {STOP_S:.0f} s of SIGTERM and were killed")

    def log_tails(self, lines: int = 15) -> str:
        """The last lines of every log below the directory."""
        tails = []
        for path in sorted(self.directory.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            tails.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(tails)


class Outage:
    """Kills one node when a third of the work is done and starts it again at two thirds."""

    def __init__(self, cluster: Cluster, rank: int) -> None:
        self.cluster = cluster
        self.rank = rank
        self.pieces_without = 0
        self._began: float | None = None
        self.lasted_s: float | None = None

    def advance(self, done: int, total: int) -> None:
        """To be called after each piece of work: `done` of `total` pieces."""
        if self._began is None:
            if 3 * done >= total:
                self.cluster.kill(self.rank)
                self._began = time.monotonic()
        elif self.lasted_s is None:
            self.pieces_without += 1
            if 3 * done >= 2 * total:
                self.lasted_s = time.monotonic() - self._began
                self.cluster.start(self.rank)
