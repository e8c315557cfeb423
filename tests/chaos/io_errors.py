"""Storage on disks that fail reads, writes and syncs, and lose what was not synced."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.chaos.scenario import ChaosCluster, Scenario
from tests.processes.cluster import ROOT, TIMEOUT_S


class DiskProcess:
    """A tests.chaos.faulty_disk at `mountpoint`, until `close`."""

    def __init__(self, mountpoint: Path, seed: int) -> None:
        self.mountpoint = mountpoint
        mountpoint.mkdir()
        with open(mountpoint.with_suffix(".log"), "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.faulty_disk", str(mountpoint), str(seed)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, cwd=mountpoint.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        assert self._line() == "up"

    def command(self, text: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()
        answer = self._line()
        assert answer.split()[:1] == ["ok"], answer
        return answer.removeprefix("ok").strip()

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        assert ready, f"the disk says nothing: {self.mountpoint.with_suffix('.log')}"
        return self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        """Nobody uses it any more."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class IoErrorsScenario(Scenario):
    """Reads fail at one node only: what cannot be read counts as damaged, and of damage a cluster survives what
    hits a minority. Writes and syncs fail, and power is cut, at any node and at all at once."""

    name = "io-errors"
    mends = (*Scenario.mends, "heal")

    def make_cluster(self) -> ChaosCluster:
        cluster = ChaosCluster(self.directory / "cluster", nodes=3, sectors=self.sectors)
        self.disks = {}
        self.ill: set[int] = set()
        self.victim = self.rng.choice(cluster.ranks)
        for rank in cluster.ranks:
            self.disks[rank] = disk = DiskProcess(self.directory / f"disk-{rank}", self.rng.getrandbits(32))
            self.stack.callback(disk.close)
            cluster.storages[rank] = disk.mountpoint
        return cluster

    def actions(self) -> dict[str, tuple[int, Callable[[], bool]]]:
        return {
            **super().actions(),
            "sync errors": (2, lambda: self.fail("sync")),
            "write errors": (2, lambda: self.fail("write")),
            "read errors": (2, self.fail_reads),
            "power cut": (5, self.cut_power),
            "power cut of all": (2, self.cut_all_power),
            "heal": (8, self.heal_disk),
        }

    def node_exited(self, rank: int) -> None:
        """As it must when a sync fails, or a journal cannot be read."""
        assert rank in self.ill, f"node {rank} ended by itself, see {self.cluster.log(rank)}"
        self.counts["nodes that ended on an I/O error"] += 1
        self.heal_one(rank)

    def node_stopped(self, rank: int, code: int) -> None:
        """It may have met an I/O error just before, or while it stopped."""
        if code == 1 and rank in self.ill:
            self.node_exited(rank)
        else:
            super().node_stopped(rank, code)

    def heal(self) -> None:
        self.look()
        for rank in sorted(self.ill):
            if rank in self.cluster.processes:
                self.kill(rank)
            self.heal_one(rank)
        super().heal()
        for disk in self.disks.values():
            for part in disk.command("heal").split():
                kind, _, count = part.partition("=")
                self.faults[f"{self.name} failed {kind}"] += int(count)

    def heal_one(self, rank: int) -> None:
        self.disks[rank].command("heal")
        self.ill.discard(rank)

    def heal_disk(self) -> bool:
        self.look()
        if not self.ill:
            return False
        rank = self.rng.choice(sorted(self.ill))
        if rank in self.cluster.processes:
            # It may be about to end for an error that it has met: so it is let go before its disk is well again.
            self.kill(rank)
        self.heal_one(rank)
        return True

    def fail(self, kind: str, rank: int | None = None) -> bool:
        rank = self.rng.choice(self.cluster.ranks) if rank is None else rank
        self.ill.add(rank)
        self.disks[rank].command(f"fail {kind} {self.rng.choice((0.02, 0.3, 1.0))}")
        return True

    def fail_reads(self) -> bool:
        return self.fail("read", self.victim)

    def cut_power(self) -> bool:
        self._cut(self.rng.choice(self.cluster.ranks))
        return True

    def cut_all_power(self) -> bool:
        self._cut(*self.cluster.ranks)
        return True

    def _cut(self, *ranks: int) -> None:
        self.look()
        if running := [rank for rank in ranks if rank in self.cluster.processes]:
            self.kill(*running)
        for rank in ranks:
            self.disks[rank].command("power")
