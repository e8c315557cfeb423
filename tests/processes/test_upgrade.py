"""Nodes and clients of the last release beside those of this tree, and the upgrade of a cluster that is in use.

The promise is in docs/releasing.md, the steps are those that `dsreg upgrade --plan` prints.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dsreg.client import BlockingClient
from dsreg.storage import identity
from dsreg.storage.layout import IDENTITY
from tests.processes import release
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, dsreg, until
from tests.processes.history import value_of

PROGRAM = Path(__file__).with_name("upgrade_client.py")
# 32 MiB. Each client writes sectors of its own.
SECTORS = 32 * 256
ATTACHED, PLAIN_NEW, PLAIN_OLD = range(512, SECTORS), range(256), range(256, 512)
# Up to eight processes share two cores with other tests.
LIMIT_S = 4 * TIMEOUT_S
# Acknowledged requests of each client between two steps: with the disk attached, two trims at the least.
STEP = 12


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the last release."""
    try:
        commit = release.last_release()
    except LookupError as reason:
        pytest.skip(str(reason))
    print(f"the last release: {commit}")
    return release.tree_of(commit, tmp_path_factory.mktemp("release"))


class Load:
    """The client program at work, with the code of `tree`, on `sectors`, until `ended`. `name`: of its files."""

    def __init__(self, cluster: Cluster, tree: Path, name: str, kind: str, sectors: range, seed: int) -> None:
        files = [cluster.directory / f"{name}.{what}" for what in ("stop", "said", "faults")]
        self._stop, self._said, self._faults = files
        command = [sys.executable, "-P", PROGRAM, cluster.path, self._stop, seed, sectors.start, len(sectors), kind]
        with self._said.open("wb") as said, self._faults.open("wb") as faults:
            self.process = subprocess.Popen([*map(str, command)], stdout=said, stderr=faults,
                                            env=release.environment(tree))

    def acknowledged(self) -> list[tuple[int, int, int]]:
        """First sector, how many, which value; in order."""
        lines = self._said.read_text().split("\n")[:-1]
        return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]

    def go_on(self, requests: int = STEP) -> None:
        """Until so many more are acknowledged."""
        enough = len(self.acknowledged()) + requests

        def is_enough() -> bool:
            assert self.process.poll() is None, self._faults.read_text()
            return len(self.acknowledged()) >= enough

        until(is_enough, f"{self._said.name} goes on", LIMIT_S)

    def ended(self) -> dict[int, int]:
        """What was acknowledged last, by sector. AssertionError if anything has failed until now."""
        self._stop.touch()
        assert self.process.wait(LIMIT_S) == 0, self._faults.read_text()
        return {sector: value for first, count, value in self.acknowledged() for sector in range(first, first + count)}


class Loads:
    """Those that are at work, one with the disk attached and plain ones, until the end of the block. `acknowledged`: by
    sector, of those that have ended."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.acknowledged: dict[int, int] = {}
        self._cluster, self._rng = cluster, rng
        self._attached: list[Load] = []
        self._plain: list[Load] = []
        self._all: list[Load] = []

    def _begun(self, tree: Path, kind: str, sectors: range) -> list[Load]:
        name, seed = f"client-{len(self._all)}", self._rng.getrandbits(32)
        self._all.append(Load(self._cluster, tree, name, kind, sectors, seed))
        return self._all[-1:]

    def attach(self, tree: Path) -> None:
        """The one before detaches it."""
        self._end(self._attached)
        self._attached = self._begun(tree, "attached", ATTACHED)
        self.go_on()

    def add_plain(self, tree: Path, sectors: range) -> None:
        self._plain += self._begun(tree, "plain", sectors)
        self.go_on()

    def go_on(self) -> None:
        """Until each has got on by a step."""
        for load in self._attached + self._plain:
            load.go_on()

    def end(self) -> None:
        self._end(self._attached + self._plain)

    def _end(self, loads: list[Load]) -> None:
        for load in loads:
            self.acknowledged.update(load.ended())

    def __enter__(self) -> Loads:
        return self

    def __exit__(self, *error: object) -> None:
        for load in self._all:
            load.process.kill()
            load.process.wait()


def format_of(cluster: Cluster, rank: int) -> int:
    return identity.decode((cluster.storage(rank) / IDENTITY).read_bytes()).format


def upgrade(cluster: Cluster, line: str, go_on: Callable[[], None]) -> None:
    """One line of the plan, as an operator types it."""
    if line.startswith("systemctl restart dsreg-node@"):
        rank = int(line.rpartition("@")[2])
        assert cluster.terminate(rank) == 0
        go_on()  # while it is down as well
        del cluster.trees[rank]
        cluster.start(rank)
        assert format_of(cluster, rank) == identity.FORMAT
    elif line.startswith("dsreg wait "):
        done = dsreg(*line.split()[1:], "--timeout", LIMIT_S)
        assert done.returncode == 0, done
        go_on()
    else:
        assert line.startswith("#"), line


@pytest.mark.slow
def test_a_cluster_in_use_is_upgraded_node_by_node(
    make_cluster: Callable[..., Cluster], old: Path, rng: random.Random
) -> None:
    """The disk is attached by a new client, once a node is new by an old one, and once all are by a new one."""
    cluster = make_cluster(sectors=SECTORS, create=partial(release.create_cluster, old))
    cluster.trees = dict.fromkeys(cluster.ranks, old)
    cluster.start()
    with Loads(cluster, rng) as loads:
        loads.attach(ROOT)
        upgrade(cluster, f"dsreg wait --healed {cluster.path}", loads.go_on)
        plan = dsreg("upgrade", "--plan", cluster.path, "--to", "the next one", "--timeout", LIMIT_S)
        assert plan.returncode == 0, plan
        loads.add_plain(ROOT, PLAIN_NEW)
        loads.add_plain(old, PLAIN_OLD)
        assert [format_of(cluster, rank) for rank in cluster.ranks] == [release.storage_format(old)] * 3
        for line in plan.stdout.splitlines():
            upgrade(cluster, line, loads.go_on)
            if line.startswith("dsreg wait") and len(cluster.trees) == 2:
                loads.attach(old)
        assert not cluster.trees, "each node has had its turn"
        loads.attach(ROOT)
        loads.end()
    cluster.kill(rng.choice(cluster.ranks))
    assert 0 in loads.acknowledged.values(), "something is trimmed"
    with BlockingClient(cluster.config, LIMIT_S) as client:
        for first in range(0, SECTORS, 256):
            data = client.read(first, 256)
            for sector, begin in zip(range(first, first + 256), range(0, len(data), 4096), strict=True):
                assert value_of(data[begin : begin + 4096]) == loads.acknowledged.get(sector, 0), sector


def test_the_old_version_refuses_an_upgraded_directory(make_cluster: Callable[..., Cluster], old: Path) -> None:
    if release.storage_format(old) == identity.FORMAT:
        pytest.skip("both versions have one storage format")
    cluster = make_cluster()
    cluster.start()
    cluster.kill(1)
    cluster.trees[1] = old
    assert cluster.spawn(1).wait(LIMIT_S) == 1
    assert (f"identity.toml has format {identity.FORMAT}, written by dsreg" in cluster.log(1).read_text()
            and "start this node with the version that wrote it, or a later one" in cluster.log(1).read_text())
    del cluster.trees[1]
    cluster.start(1)

