"""What all scenarios share: nodes that are killed, stopped and started under clients that work."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.chaos.workers import Workers
from tests.processes import raw
from tests.processes.cluster import Cluster
from tests.processes.history import value_of
from tests.simulation.checker import Operation

# Clients of each kind. Few: each does several things at once, and the nodes need the machine as well.
KINDS = ("client", "impatient", "raw", "raw")


class ChaosCluster(Cluster):
    """A cluster whose logs are kept in its directory, and whose nodes have their storage where `storages` says.
    `options`: of a node, at each start."""

    def __init__(self, directory: Path, *, nodes: int = 3, sectors: int = 256) -> None:
        super().__init__(directory, nodes=nodes, sectors=sectors)
        self.storages: dict[int, Path] = {}
        self.options: dict[int, tuple[str, ...]] = {}

    def spawn(
        self, rank: int, storage: Path | None = None, program: tuple[str, ...] = ("-m", "dsreg"),
        options: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        return super().spawn(rank, storage, program, (*self.options.get(rank, ()), *options))

    def storage(self, rank: int) -> Path:
        return self.storages.get(rank) or super().storage(rank)

    def exited(self) -> list[int]:
        """Nodes that ended by themselves; they count as down from here on."""
        found = [rank for rank, process in self.processes.items() if process.poll() is not None]
        for rank in found:
            self.processes.pop(rank)
        return found

    def close(self) -> None:
        """Kill everything; AssertionError if a log shows a bug."""
        for process in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.processes.clear()
        for rank in self.ranks:
            if self.log(rank).exists():
                text = self.log(rank).read_text(errors="replace")
                assert "Traceback" not in text, f"node {rank} has run into a bug:\n{text[text.find('Traceback'):]}"


class Scenario:
    """A cluster, its clients, and what can be done to them. Everything random follows from `seed`.

    `faults` counts what was done, `counts` what came of it, such as "kills": processes that got SIGKILL. Subclasses
    add faults of their own to `actions`, and undo them in `heal`.
    """

    name = "tcp"
    sectors = 64
    # Mean seconds between two faults.
    interval_s = 0.25
    # The actions that are no faults but the end of some.
    mends = ("start", "resume")

    def __init__(self, seed: int, directory: Path, stack: contextlib.ExitStack) -> None:
        self.rng = random.Random(f"{self.name} {seed}")
        self.directory = directory
        self.stack = stack
        self.faults: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.paused: set[int] = set()
        self.cluster = self.make_cluster()
        stack.callback(self.cluster.close)
        self.start_all()
        self.workers = self.make_workers()
        stack.callback(self.workers.close)
        self.workers.until_busy()

    # --- what a scenario may do in its own way ----------------------------------------------------
    def make_cluster(self) -> ChaosCluster:
        return ChaosCluster(self.directory / "cluster", nodes=self.rng.choice((3, 3, 5)), sectors=self.sectors)

    def make_workers(self) -> Workers:
        return Workers(self.cluster.path, self.directory, self.rng, KINDS, self.sectors)

    def actions(self) -> dict[str, tuple[int, Callable[[], bool]]]:
        """Name -> (weight, what to do). It returns False if there was nothing to do it to."""
        return {
            "kill": (4, self.kill_one),
            "kill all": (1, self.kill_all),
            "stop": (1, self.stop_one),
            "start": (6, self.start_one),
            "pause": (3, self.pause_one),
            "resume": (5, self.resume_one),
            "client kill": (1, self.kill_client),
        }

    def node_exited(self, rank: int) -> None:
        """A node ended by itself."""
        raise AssertionError(f"node {rank} ended by itself, see {self.cluster.log(rank)}")

    def node_stopped(self, rank: int, code: int) -> None:
        """A node ended after SIGTERM."""
        # One that has just been started may not have come to handling signals yet.
        assert code in (0, -signal.SIGTERM), f"node {rank} ended with {code} after SIGTERM"

    def heal(self) -> None:
        """The end of all faults; all nodes run."""
        for rank in sorted(self.paused):
            self.cluster.resume(rank)
        self.paused.clear()
        self.look()
        self.start_all()
        # Those that were started one by one have not been waited for.
        for rank in self.cluster.ranks:
            self.cluster.wait(rank)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Where connections to the nodes are made from."""
        yield

    # --- steps --------------------------------------------------------------------------------------
    def look(self) -> None:
        for rank in self.cluster.exited():
            self.node_exited(rank)

    def step(self) -> None:
        """One fault, or the end of one."""
        self.look()
        actions = self.actions()
        names = list(actions)
        # Mostly there should be a majority at work: without one the rest of the faults has nothing to hit.
        useful = len(self.cluster.processes) - len(self.paused)
        if useful <= len(self.cluster.ranks) // 2 and self.rng.random() < 0.8:
            names = [name for name in self.mends if name in actions]
        (name,) = self.rng.choices(names, [actions[name][0] for name in names])
        if actions[name][1]() and name not in self.mends:
            self.faults[f"{self.name} {name}"] += 1
        self.workers.check()

    def run(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            # The pace of the schedule: nothing is waited for.
            time.sleep(min(self.rng.expovariate(1 / self.interval_s), 2.0))
            self.step()

    # --- nodes and clients ------------------------------------------------------------------------
    def up(self) -> list[int]:
        return sorted(set(self.cluster.processes) - self.paused)

    def down(self) -> list[int]:
        return sorted(set(self.cluster.ranks) - set(self.cluster.processes))

    def start_all(self) -> None:
        if down := self.down():
            self.cluster.start(*down)

    def kill_one(self) -> bool:
        if not self.cluster.processes:
            return False
        rank = self.rng.choice(sorted(self.cluster.processes))
        self.kill(rank)
        return True

    def kill(self, *ranks: int) -> None:
        self.cluster.kill(*ranks)
        self.paused -= set(ranks)
        self.counts["kills"] += len(ranks)

    def kill_all(self) -> bool:
        if self.cluster.processes:
            self.kill(*self.cluster.processes)
        return True

    def stop_one(self) -> bool:
        if not (up := self.up()):
            return False
        rank = self.rng.choice(up)
        self.node_stopped(rank, self.cluster.terminate(rank))
        return True

    def start_one(self) -> bool:
        if not (down := self.down()):
            return False
        rank = self.rng.choice(down)
        self.cluster.processes[rank] = self.cluster.spawn(rank)
        return True

    def pause_one(self) -> bool:
        if not (up := self.up()):
            return False
        rank = self.rng.choice(up)
        self.cluster.pause(rank)
        self.paused.add(rank)
        return True

    def resume_one(self) -> bool:
        if not self.paused:
            return False
        rank = self.rng.choice(sorted(self.paused))
        self.paused.remove(rank)
        self.cluster.resume(rank)
        return True

    def kill_client(self) -> bool:
        self.workers.replace_one()
        self.counts["kills"] += 1
        return True

    # --- the end --------------------------------------------------------------------------------------
    def last_reads(self, sectors: set[int]) -> list[Operation]:
        """Each of these sectors, read once through each node."""
        found = []
        for rank in self.cluster.ranks:
            with self.place(), raw.RawClient(self.cluster.address(rank), self.cluster.config.client_key) as client:
                for sector in sorted(sectors):
                    start = time.monotonic()
                    value = value_of(client.read(sector))
                    found.append(Operation(sector, False, value, start, time.monotonic(), label=f"last, at {rank}"))
        return found
