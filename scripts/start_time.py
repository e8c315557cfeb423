"""How soon a node that is started again answers a read: `python -m scripts.start_time [--against CHECKOUT]`.

Three nodes on this host, of this version and, by turns, of the one in another checkout. From the start of the process
to the answer: of one node while the others run, and of three nodes that are started together after all were killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from dsreg.client import BlockingClient
from dsreg.config import load_config
from scripts.demo.cluster import NODES, Cluster

ROOT = Path(__file__).resolve().parents[1]
AWAY = NODES  # the rank of the node that is started again
PATIENCE_S = 30.0
POLL_S = 0.002


class Started:
    """Nodes of the version in `checkout`, with their files in `directory`."""

    def __init__(self, directory: Path, checkout: Path) -> None:
        cluster = Cluster(directory, "64MiB")
        cluster.init()
        self.config = load_config(cluster.config)
        self._environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            command = [sys.executable, "-P", "-m", "dsreg", "node", "--config", str(self.config.path), "--rank",
                       str(rank), "--storage", str(self.config.nodes[rank - 1].storage)]
            with open(self._directory / f"{rank}.log", "ab") as log:
                self._processes[rank] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
                )

    def kill(self, *ranks: int) -> None:
        for rank in ranks:
            process = self._processes.pop(rank)
            process.kill()
            process.wait()

    def close(self) -> None:
        self.kill(*self._processes)

    def answers(self, rank: int) -> None:
        """Wait until this node has answered a read, for which it needs another one."""
        node = self.config.nodes[rank - 1]
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((node.host, node.port), PATIENCE_S):
                break
            time.sleep(POLL_S)
        with BlockingClient(dataclasses.replace(self.config, nodes=(node,)), PATIENCE_S) as client:
            client.read(0)

    def took_s(self, *ranks: int) -> float:
        """From the start of these nodes until the last of them has answered."""
        self.kill(*ranks)
        began = time.perf_counter()
        self.start(*ranks)
        for rank in ranks:
            self.answers(rank)
        return time.perf_counter() - began


@contextlib.contextmanager
def clusters(checkouts: dict[str, Path]) -> Iterator[dict[str, Started]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name, checkout in checkouts.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            started = found[name] = Started(directory, checkout)
            stack.callback(started.close)
            started.start(*range(1, NODES + 1))
            for rank in range(1, NODES + 1):
                started.answers(rank)
        yield found


@click.command()
@click.option("--against", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Another checkout.")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
def main(against: Path | None, rounds: int) -> None:
    """Measure by turns."""
    checkouts = {"this version": ROOT} | ({"the other one": against.resolve()} if against is not None else {})
    kinds = {"one of three": (AWAY,), "three together": tuple(range(1, NODES + 1))}
    took: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in kinds for name in checkouts}
    with clusters(checkouts) as found:
        for _ in range(rounds):
            for kind, ranks in kinds.items():
                for name, started in found.items():
                    took[kind, name].append(started.took_s(*ranks))
    for (kind, name), times in took.items():
        click.echo(f"{kind}, {name}: median {statistics.median(times):.3f} s, {min(times):.3f} to {max(times):.3f} s")


if __name__ == "__main__":
    main()
