"""Node processes of one cluster, each of which can be killed, stopped, continued, ended and started again."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsreg.client import BlockingClient
from dsreg.config import ClusterConfig, create_cluster, format_address, load_config
from dsreg.config.edit import with_address
from dsreg.constants import MAX_SECTORS
from dsreg.storage import Identity
from tests.processes import raw

ROOT = Path(__file__).resolve().parents[2]
# Far more than anything takes here; whoever waits this long has found a fault.
TIMEOUT_S = 30.0
# Pause between two looks at something that has no event of its own.
POLL_S = 0.005
# Two files of this size are filled with zeros at the first start: the smallest that a node takes.
JOURNAL_MIB = 2

Address = tuple[str, int]
_numbers = itertools.count(1)


def own_host() -> str:
    """An IP address of the loopback network that nobody else uses. Outgoing connections come from 127.0.0.1: so none
    can take the port of a node that is down, and none that is tried again and again can connect to itself."""
    return f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}.{next(_numbers) % 250 + 1}"


def free_addresses(count: int) -> list[Address]:
    """That nobody uses, or will come to use."""
    host = own_host()
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    addresses = [listener.getsockname()[:2] for listener in sockets]
    for listener in sockets:
        listener.close()
    return addresses


class Cluster:
    """The files of a cluster of `nodes` nodes with `sectors` sectors in `directory`, and its processes.

    `config` has the true addresses. `views` (rank -> rank -> address) lets a node see others elsewhere, as
    behind a proxy, and only there: set it before `start`. `trees`: where the code is that a node is started with, if it
    is not that of this tree. `create`: makes the files, as dsreg.config.create_cluster.
    """

    def __init__(
        self, directory: Path, *, nodes: int = 3, sectors: int = 2048, journal_mib: int = JOURNAL_MIB,
        create: Callable[[Path, int, Sequence[str]], Path] = create_cluster,
    ) -> None:
        self.directory = directory
        addresses = [f"{host}:{port}" for host, port in free_addresses(nodes)]
        self.path = create(directory, sectors * 4096, addresses)
        self.config: ClusterConfig = load_config(self.path)
        self.ranks = tuple(node.rank for node in self.config.nodes)
        self._journal_size = f"{journal_mib}MiB"
        self.views: dict[int, dict[int, Address]] = {}
        self.files: dict[int, Path] = {}  # of nodes that have another file than `path`
        self.trees: dict[int, Path] = {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._all: list[subprocess.Popen[bytes]] = []

    # --- where things are -------------------------------------------------------------------------
    def address(self, rank: int) -> Address:
        node = self.config.node(rank)
        return node.host, node.port

    def storage(self, rank: int) -> Path:
        return self.directory / f"node-{rank}"

    def log(self, rank: int) -> Path:
        return self.directory / f"node-{rank}.log"

    def only(self, *ranks: int) -> ClusterConfig:
        """The configuration of a client that knows these nodes alone, and looks for no others."""
        nodes = tuple(node for node in self.config.nodes if node.rank in ranks)
        return dataclasses.replace(self.config, nodes=nodes, learn_addresses=False)

    def seen_at(self, addresses: dict[int, Address]) -> ClusterConfig:
        """The configuration of a client that finds these nodes at these addresses."""
        return dataclasses.replace(self._moved(addresses), learn_addresses=False)

    def _moved(self, addresses: dict[int, Address]) -> ClusterConfig:
        nodes = tuple(
            dataclasses.replace(node, host=addresses[node.rank][0], port=addresses[node.rank][1])
            if node.rank in addresses else node
            for node in self.config.nodes
        )
        return dataclasses.replace(self.config, nodes=nodes)

    def identity(self, rank: int) -> Identity:
        """What its directory belongs to."""
        return Identity(self.config.cluster_id, rank, self.ranks, self.config.sectors)

    def pid(self, rank: int) -> int:
        return self.processes[rank].pid

    def report(self, rank: int) -> dict[str, Any]:
        """The status of a node that runs, or that is about to."""
        with BlockingClient(self.only(rank), TIMEOUT_S) as client:
            return client.status(rank, TIMEOUT_S)

    def exchange(self, rank: int, address: Address) -> None:
        """The node is stopped, and is to be at this address from now on. It alone has the file of its new machine;
        `path` stays as it was."""
        assert rank not in self.processes
        file = self.files[rank] = self.directory / f"file-of-{rank}.toml"
        file.write_text(with_address(self.path.read_text(), rank, format_address(*address)))
        self.config = self._moved({rank: address})

    # --- what can be done to them -----------------------------------------------------------------
    def spawn(
        self, rank: int, storage: Path | None = None, program: tuple[str, ...] = ("-m", "dsreg"),
        options: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process for this rank and do not wait for it. `program`: what Python runs. `options`: more."""
        where = self.storage(rank) if storage is None else storage
        arguments = ["--config", str(self._view(rank)), "--rank", str(rank), "--storage", str(where),
                     "--journal-size", self._journal_size, *options]
        with open(self.log(rank), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", *program, "node", *arguments], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(self.trees.get(rank, ROOT))},
            )
        self._all.append(process)
        return process

    def start(self, *ranks: int, options: Sequence[str] = ()) -> None:
        """Start these nodes (none given: all) and wait until they serve. `options`: of `dsreg node`."""
        for rank in ranks or self.ranks:
            assert rank not in self.processes, f"node {rank} runs"
            self.processes[rank] = self.spawn(rank, options=options)
        for rank in ranks or self.ranks:
            self.wait(rank)

    def wait(self, rank: int) -> None:
        """Until the node answers a command, which it does once it has recovered: one that needs no other node."""
        process = self.processes[rank]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            assert process.poll() is None, f"node {rank} ended with {process.returncode}: {self.log(rank).read_text()}"
            assert time.monotonic() < deadline, f"node {rank} does not answer"
            try:
                with raw.RawClient(self.address(rank), self.config.client_key) as client:
                    client.send(client.read_frame(1, MAX_SECTORS))
                    assert client.response() == raw.Response(raw.INVALID, raw.READ_ANSWER, 1, b"")
                return
            except ConnectionError:
                time.sleep(POLL_S)

    def kill(self, *ranks: int) -> None:
        """SIGKILL to these nodes (none given: all that run), first to all, then wait."""
        chosen = ranks or tuple(self.processes)
        for rank in chosen:
            self.processes[rank].kill()
        for rank in chosen:
            self.processes.pop(rank).wait(TIMEOUT_S)

    def pause(self, rank: int) -> None:
        """SIGSTOP, and until the process has stopped."""
        os.kill(self.pid(rank), signal.SIGSTOP)
        status = Path(f"/proc/{self.pid(rank)}/stat")
        until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", f"node {rank} stopped")

    def resume(self, rank: int) -> None:
        os.kill(self.pid(rank), signal.SIGCONT)

    def terminate(self, rank: int) -> int:
        """SIGTERM; the exit code."""
        process = self.processes.pop(rank)
        process.terminate()
        return process.wait(TIMEOUT_S)

    def close(self) -> None:
        """End everything that was started, print the logs (shown if the test failed) and judge them."""
        for process in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.processes.clear()
        text = ""
        for rank in self.ranks:
            if self.log(rank).exists():
                text += self.log(rank).read_text(errors="replace")
        print(text)
        assert "Traceback" not in text, "a node has run into a bug, see its log"

    def _view(self, rank: int) -> Path:
        """The configuration file as this node sees it."""
        if rank not in self.views:
            return self.files.get(rank, self.path)
        text = self.path.read_text()
        for other, address in self.views[rank].items():
            text = with_address(text, other, format_address(*address))
        text = text.replace("[cluster]", "[cluster]\nlearn_addresses = false")
        path = self.directory / f"seen-by-{rank}.toml"
        path.write_text(text)
        return path


def until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Look again and again until `condition()` is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)


def dsreg(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, until it has ended."""
    command = [sys.executable, "-P", "-m", "dsreg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          check=False)


def healed(cluster: Cluster) -> None:
    """Until every node has all that the others have."""
    done = dsreg("wait", "--healed", cluster.path, "--timeout", TIMEOUT_S)
    assert done.returncode == 0, done
