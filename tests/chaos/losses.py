"""Nodes that lose their directories, or their machines, or get an older state of their directory back, one after the
other, and rejoin: docs/lives.md."""

from __future__ import annotations

import contextlib
import random
import shutil
from typing import Any

from dsreg.config import load_config
from dsreg.storage import OsFiles
from dsreg.storage import marks as marks_file
from dsreg.storage.layout import MARKS, STATE
from dsreg.storage.lives import GIVEN_UP
from dsreg.storage.lives import read as read_lives
from dsreg.storage.state import read as read_state
from tests.chaos.scenario import ChaosCluster
from tests.chaos.stack import run
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
        self._copy = cluster.directory / "copy"
        self._copied = 0  # its mark
        self._is_put_back = False
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

    def copy(self, rank: int) -> None:
        """A snapshot of the node's directory: it stands still meanwhile."""
        shutil.rmtree(self._copy, ignore_errors=True)
        self.cluster.pause(rank)
        run("cp", "-a", self.cluster.storage(rank), self._copy)
        self.cluster.resume(rank)
        with contextlib.closing(OsFiles(self._copy).open(STATE)) as file:
            self._copied = read_state(file, self.cluster.identity(rank).salt).own_mark

    def is_older(self, rank: int) -> bool:
        """Whether both others have heard of a later state than the copy: from then on it is noticed."""
        return all(self._heard(other, rank) > self._copied for other in self.cluster.ranks if other != rank)

    def is_kept(self, rank: int) -> bool:
        """Whether both others have written that they have: it is noticed also if they are killed before."""
        return all(self._kept(other, rank) > self._copied for other in self.cluster.ranks if other != rank)

    def put_back(self, rank: int) -> None:
        """The node is killed, and its directory is again what it was when it was copied."""
        self._lose(rank)
        self._is_put_back = True
        shutil.rmtree(self.cluster.storage(rank))
        run("cp", "-a", self._copy, self.cluster.storage(rank))

    def rejoin(self) -> None:
        """Start the node that has lost its directory; it is not waited for. With an older one it rejoins by itself."""
        rate = self._rng.choice(HEAL_RATES)
        limit = () if rate is None else ("--heal-rate", rate)
        self.cluster.options[self.rank] = limit if self._is_put_back else ("--rejoin", *limit)
        self.cluster.processes[self.rank] = self.cluster.spawn(self.rank)

    def noticed(self) -> None:
        """Wait until the node has given up the life that its older directory has, durably."""
        until(self._has_given_up, f"node {self.rank} notices that its directory is an older one")

    def begun(self) -> None:
        """Wait until its next life is accepted: it serves from then on, and needs the option no more."""
        self.cluster.wait(self.rank)
        until(lambda: self._lives(self.rank)["stage"] == "started", f"node {self.rank} rejoins")
        if self._rng.random() < 0.5:
            options = self.cluster.options[self.rank]
            self.cluster.options[self.rank] = tuple(each for each in options if each != "--rejoin")

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
        self._is_put_back = False
        self.cluster.kill(rank)

    def _lives(self, rank: int) -> dict[str, Any]:
        found = self.cluster.report(rank)["lives"]
        assert isinstance(found, dict)
        return found

    def _heard(self, rank: int, of: int) -> int:
        return int(self._lives(rank)["marks"].get(str(of), 0))

    def _kept(self, rank: int, of: int) -> int:
        """What is in the file `marks` of a node that may run: the file is replaced as a whole."""
        try:
            raw = (self.cluster.storage(rank) / MARKS).read_bytes()
        except FileNotFoundError:
            return 0
        heard = marks_file.decode(raw, self.cluster.identity(rank).salt)
        assert heard is not None, f"node {rank}: the file {MARKS} is damaged"
        life, mark = heard.get(of, (None, 0))
        return mark if life is not None and life.number == self._lives(of)["life"] else 0

    def _has_given_up(self) -> bool:
        """The life in the copy is followed by a later one, or is to be."""
        with contextlib.closing(OsFiles(self.cluster.storage(self.rank))) as files:
            lives = read_lives(files, self.cluster.identity(self.rank).salt).lives
        own = lives.get(self.rank)
        return GIVEN_UP in lives or own is None or own.number > self._life

    def _others_follow(self) -> None:
        """Everybody has the edited file, at the next start."""
        shutil.copy(self._file, self.cluster.path)
        self.cluster.files.clear()
