"""Clusters for the tests: one of three nodes for those that leave it as it was, fresh ones for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.cluster import Cluster


@pytest.fixture(autouse=True)
def _slow_starts(allow_logs: Callable[[str], None]) -> None:
    """A node listens first, and answers once it has loaded its modules and replayed its journal: on a loaded machine
    that takes so long that a client says so, and asks again."""
    allow_logs("does not answer the HELLO")


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a Cluster of one's own, with its keyword arguments; nothing of it runs yet."""
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made)}", **options))
        return made[-1]

    try:
        yield make
    finally:
        for cluster in made:
            cluster.close()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three running nodes, for this test alone."""
    fresh = make_cluster()
    fresh.start()
    return fresh


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three running nodes for all tests of a module: they must use sectors of their own and kill nobody."""
    cluster = Cluster(tmp_path_factory.mktemp("shared") / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
