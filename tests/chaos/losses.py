"""Nodes that lose their directories, or their machines, one after the other, and rejoin: docs/lives.md."""

from __future__ import annotations

import random
import shutil

from dsreg.config import load_config
from tests.chaos.scenario import ChaosCluster
from tests.processes.cluster import TIMEOUT_S, dsreg, free_addresses, until

# Far more than it takes to fetch all that is written at the lowest of these rates.
HEALED_S = 120.0
# Limits on how fast a node learns. Low ones, so that more happens before it knows all; None is the default, no limit.
HEAL_RATES = (None, "8MiB", "2MiB")


class Losses:
    """What is lost of `cluster`. The next directory is lost only after `healed`, or is that of the same rank: so a
    majority of directories that know what was acknowledged is always left.

    `rank`: whose directory is lost and not healed yet, 0: nobody's.
    """

    def __init__(self, cluster: ChaosCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rank = 0
        self._rng = rng
        self._life = 0
        self._machines = 0
        # The file that is edited. `cluster.path`, which the others start with, is behind by at most one exchange.
        self._file = cluster.directory / "edited.toml"
        shutil.copy(cluster.path, self._file)

    def delete(self, rank: int) -> None:
        """The node is killed, and its directory is deleted."""
        self._lose(rank)
        shutil.rmtree(self.cluster.storage(rank))

    def exchange(self, rank: int) -> None:
        """The node's machine is gone with its directory; the next one, at another address, has an empty directory."""
        self._others_follow()
        self._lose(rank)
        shutil.rmtree(self.cluster.storage(rank))
        self._machines += 1
        machine = self.cluster.directory / f"machine-{self._machines}"
        self.cluster.storages[rank] = machine
        ((host, port),) = free_addresses(1)
        words = ("replace", self._file, "--rank", rank, "--address", f"{host}:{port}")
        refusals: list[str] = []

        def is_replaced() -> bool:
            """Not before the others have noticed that the node is gone, and agree on what was written last."""
            done = dsreg(*words)
            refusals.append(done.stderr)
            return done.returncode == 0

        until(is_replaced, "dsreg replace", TIMEOUT_S)
        own = self.cluster.files[rank] = machine.with_suffix(".toml")
        shutil.copy(self._file, own)
        self.cluster.config = load_config(self._file)
        if self._rng.random() < 0.5:
            self._others_follow()

    def rejoin(self) -> None:
        """Start the node that has lost its directory; it is not waited for."""
        rate = self._rng.choice(HEAL_RATES)
        limit = () if rate is None else ("--heal-rate", rate)
        self.cluster.options[self.rank] = ("--rejoin", *limit)
        self.cluster.processes[self.rank] = self.cluster.spawn(self.rank)

    def begun(self) -> None:
        """Wait until its next life is accepted: it serves from then on, and needs the option no more."""
        self.cluster.wait(self.rank)
        until(lambda: self._lives(self.rank)["stage"] == "started", f"node {self.rank} rejoins")
        if self._rng.random() < 0.5:
            _, *limit = self.cluster.options[self.rank]
            self.cluster.options[self.rank] = tuple(limit)

    def healed(self) -> None:
        """Wait until every node has all that the others have."""
        done = dsreg("wait", self._file, "--healed", "--timeout", f"{HEALED_S:g}")
        assert done.returncode == 0, f"not healed after {HEALED_S:g} s: {done.stderr}"
        if self.rank:
            lives = self._lives(self.rank)
            assert lives["stage"] == "started" and lives["life"] > self._life, f"node {self.rank}: {lives}"
            self.cluster.options.pop(self.rank, None)
            self.rank = 0

    def _lose(self, rank: int) -> None:
        assert self.rank in (0, rank), f"node {self.rank} is not healed"
        self._life = self._lives(rank)["life"]
        self.rank = rank
        self.cluster.kill(rank)

    def _lives(self, rank: int) -> dict[str, int | str]:
        found = self.cluster.report(rank)["lives"]
        assert isinstance(found, dict)
        return found

    def _others_follow(self) -> None:
        """Everybody has the edited file, at the next start."""
        shutil.copy(self._file, self.cluster.path)
        self.cluster.files.clear()
