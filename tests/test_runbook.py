"""The runbook's procedures keep the data, and what it warns of does lose some."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.client import BlockingClient
from dsreg.config import load_config
from dsreg.constants import SECTOR_SIZE
from scripts.demo.cluster import DSREG, START_S, Cluster
from scripts.demo.report import DemoFailed

OLD, NEW = b"o" * 64 * SECTOR_SIZE, b"n" * 64 * SECTOR_SIZE
TIMEOUT_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """NEW was acknowledged by nodes 1 and 2; node 3 has not heard of it; node 2 is down and its directory gone."""
    cluster = Cluster(tmp_path, size="16MiB")
    cluster.init()
    try:
        cluster.start_missing()
        write(cluster, OLD)
        cluster.terminate(3)
        write(cluster, NEW)
        cluster.kill(2)
        shutil.rmtree(cluster.storage(2))
        cluster.start(3)
        yield cluster
    finally:
        cluster.stop()


def write(cluster: Cluster, data: bytes) -> None:
    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        client.write(0, data)


def read(cluster: Cluster) -> bytes:
    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        return client.read(0, 64)


def read_whole_disk(cluster: Cluster) -> None:
    sectors = load_config(cluster.config).sectors
    command = [*DSREG, "read", "--config", str(cluster.config), "0", str(sectors)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr


def forget_and_start(cluster: Cluster) -> None:
    """The last two steps, for node 2."""
    for rank in (1, 3):
        cluster.terminate(rank)
    for rank in (1, 3):
        command = [*DSREG, "forget", "--storage", str(cluster.storage(rank)), "--rank", "2"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for rank in (1, 3, 2):
        cluster.start(rank)
    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        deadline = time.monotonic() + TIMEOUT_S
        while client.status(2, TIMEOUT_S)["lives"]["stage"] != "started":
            assert time.monotonic() < deadline, "the empty node does not begin"


def test_the_procedure_keeps_what_was_acknowledged(cluster: Cluster) -> None:
    for rank in (1, 3):
        cluster.terminate(rank)
        cluster.start(rank)
    read_whole_disk(cluster)
    forget_and_start(cluster)
    # The majority that would have forgotten: the empty node, and the one that had missed the write.
    cluster.kill(1)
    assert read(cluster) == NEW


def test_the_empty_node_takes_part_again(cluster: Cluster) -> None:
    read_whole_disk(cluster)
    forget_and_start(cluster)
    write(cluster, OLD)
    cluster.kill(3)
    assert read(cluster) == OLD


def test_without_it_the_empty_node_is_refused_and_the_acknowledged_write_stays(cluster: Cluster) -> None:
    with contextlib.suppress(DemoFailed):  # it listens before it is told
        cluster.start(2)
    assert cluster.processes[2].wait(START_S) == 1
    assert "not the directory that the cluster knows" in cluster.log_tails()
    assert read(cluster) == NEW


def test_the_disk_grows_and_never_shrinks(cluster: Cluster) -> None:
    """With one node down, which comes back with the file of before."""
    before = cluster.config.read_text()

    def resize(size: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*DSREG, "resize", str(cluster.config), size, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        assert client.read(0, 64) == NEW  # the two that are up serve
    done = resize("32MiB", "--force")
    assert done.returncode == 0 and "done: configuration 2, 32MiB" in done.stdout, done.stderr
    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        client.write(8191, OLD[:SECTOR_SIZE])
        assert client.sectors == 8192 and client.read(0, 64) == NEW
    assert "a disk cannot shrink" in resize("16MiB", "--force").stderr
    cluster.stop()
    cluster.config.write_text(before)
    for rank in (1, 3):
        cluster.start(rank)
    with BlockingClient(load_config(cluster.config), timeout_s=TIMEOUT_S) as client:
        assert client.read(8191) == OLD[:SECTOR_SIZE] and client.sectors == 8192
