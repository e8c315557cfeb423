"""The register over TCP, without FUSE and loop device: depth, block size, number of nodes, memory, a node killed."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.processes import CpuMeter, resident_bytes
from bench.settings import Settings
from bench.shell import ROOT, START_S, BenchFailed
from bench.stall import KILL_AT
from bench.systems.ours import NODES, Cluster

GRACE_S = 90.0
FILL_S = 900.0
# Depth at which block sizes are compared: 16 blocks of 1 MiB are what a client keeps in flight at most.
BLOCK_DEPTH = 16
STALL_DEPTH = 16


@dataclass(frozen=True, slots=True)
class TcpLoad:
    """`depth` random reads or writes (`kind`) of `block` bytes in flight, on a cluster of `nodes`."""

    kind: str
    block: int
    depth: int
    nodes: int = NODES

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.block // 1024}k-d{self.depth}"


def system_key(nodes: int, prefix: str = "") -> str:
    return f"{prefix}tcp-n{nodes}"


def loads(settings: Settings) -> list[TcpLoad]:
    """Everything to be measured, each once, N by N within the same load."""
    found: dict[TcpLoad, None] = {}
    for depth in settings.tcp_depths:
        for kind in ("write", "read"):
            counts = settings.tcp_nodes if depth in settings.tcp_node_depths else (NODES,)
            found.update((TcpLoad(kind, 4096, depth, nodes), None) for nodes in counts)
    for block in settings.tcp_blocks:
        for kind in ("write", "read"):
            found[TcpLoad(kind, block, BLOCK_DEPTH)] = None
    for depth in (1, 4):
        for kind in ("write", "read"):
            found[TcpLoad(kind, 1 << 20, depth)] = None
    return list(found)


class TcpClusters:
    """A cluster for each number of nodes, all up at once so that they can be measured in turn. They and the load
    generator run the code of `tree`; `prefix` tells their figures from those of other code."""

    def __init__(self, settings: Settings, tree: Path = ROOT, prefix: str = "") -> None:
        self._settings = settings
        self._tree = tree
        self._prefix = prefix
        self._clusters: dict[int, Cluster] = {}

    def start(self, nodes: int, directory: Path, stack: ExitStack) -> None:
        """Start one and write every sector of the span."""
        cluster = Cluster(directory / self.key(nodes), nodes, self._settings.tcp_span, self._tree)
        cluster.start(stack)
        self._clusters[nodes] = cluster
        self._generate(cluster, {"kind": "fill", "span": self._settings.tcp_span}, FILL_S, None)

    def key(self, nodes: int) -> str:
        """What its figures are recorded under."""
        return system_key(nodes, self._prefix)

    def started(self) -> Iterator[int]:
        return iter(sorted(self._clusters))

    def measure(self, load: TcpLoad) -> dict[str, float]:
        """What `tcp_load` says, and cpu_us: of all nodes (and `dsreg up`) for one operation."""
        cluster = self._clusters[load.nodes]
        os.sync()
        meter = CpuMeter([cluster.up.pid])
        figures = self._generate(cluster, self._request(load, self._settings.tcp_seconds),
                                 self._settings.tcp_seconds + GRACE_S, None)
        nodes_s, _ = meter.read()
        figures["cpu_us"] = 1e6 * nodes_s / max(1.0, figures["operations"])
        return figures

    def stall(self, rank: int | None) -> dict[str, float]:
        """Writes at STALL_DEPTH on NODES nodes; node `rank` is killed after a third of the time, none if None."""
        cluster = self._clusters[NODES]
        os.sync()
        seconds = self._settings.stall_s

        def kill() -> None:
            time.sleep(seconds * KILL_AT)
            assert rank is not None
            cluster.kill(rank)

        request = self._request(TcpLoad("write", 4096, STALL_DEPTH), seconds)
        try:
            return self._generate(cluster, request, seconds + GRACE_S, None if rank is None else kill)
        finally:
            cluster.restore()

    def memory(self, nodes: int) -> dict[str, float]:
        """Resident MB (10^6) of a node: the mean, and the largest."""
        sizes = [resident_bytes(pid) / 1e6 for pid in self._clusters[nodes].node_pids().values()]
        return {"mean_MB": sum(sizes) / len(sizes), "max_MB": max(sizes)}

    def _request(self, load: TcpLoad, seconds: float) -> dict[str, object]:
        return {"kind": load.kind, "block": load.block, "depth": load.depth, "seconds": seconds,
                "span": self._settings.tcp_span, "seed": random.getrandbits(32)}

    def _generate(self, cluster: Cluster, request: dict[str, object], timeout_s: float,
                  meanwhile: Callable[[], None] | None) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.tcp_load", str(cluster.config), json.dumps(request)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._tree,
                              stdin=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                if not select.select([process.stdout], [], [], START_S)[0]:
                    raise BenchFailed(f"the load generator does not start within {START_S:.0f} s")
                if meanwhile is not None:
                    meanwhile()
                output, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise BenchFailed(f"load over TCP {request}: not done after {timeout_s:.0f} s") from None
            finally:
                process.kill()
        if process.returncode:
            raise BenchFailed(f"load over TCP {request}: {errors.decode(errors='replace').strip()[-500:]}")
        figures: dict[str, float] = json.loads(output.split(b"running\n", 1)[1])
        return figures
