"""A cluster of its own for a test: three nodes, each a process that can be killed, stopped and started again."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dsreg.config import ClusterConfig, create_cluster, load_config
from tests.fuse.tools import ROOT, wait_until
from tests.processes.cluster import free_addresses


class Nodes:
    """The nodes of a cluster, each a process that can be killed and started again."""

    def __init__(self, config: ClusterConfig, log: Path) -> None:
        self.config = config
        self._log = log.open("ab")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            node = self.config.nodes[rank - 1]
            command = [sys.executable, "-m", "dsreg", "node", "--config", str(self.config.path), "--rank", str(rank),
                       "--storage", str(node.storage)]
            self._processes[rank] = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=ROOT)

    def kill(self, *ranks: int) -> None:
        for rank in ranks:
            process = self._processes.pop(rank)
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        for rank in ranks:
            self._processes[rank].send_signal(number)

    def all_listen(self) -> bool:
        try:
            for node in self.config.nodes:
                socket.create_connection((node.host, node.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def close(self) -> None:
        self.kill(*list(self._processes))
        self._log.close()


@contextlib.contextmanager
def running_nodes(directory: Path, size: int) -> Iterator[Nodes]:
    """Three running nodes of a fresh cluster in `directory`, for a disk of `size` bytes."""
    addresses = [f"{host}:{port}" for host, port in free_addresses(3)]
    nodes = Nodes(load_config(create_cluster(directory / "cluster", size, addresses)), directory / "nodes.log")
    nodes.start(1, 2, 3)
    try:
        wait_until(nodes.all_listen, "all nodes listen")
        yield nodes
    finally:
        nodes.close()
        print(f"--- log of the nodes\n{(directory / 'nodes.log').read_text(errors='replace')}")
