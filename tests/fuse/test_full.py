"""Nodes that are full: real nodes on file systems without room, a real mount, and what it says and answers."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsreg.client import BlockingClient
from dsreg.errors import NodesFull
from tests.fuse.test_cluster import mount
from tests.fuse.tools import ROOT, Server, run, wait_until
from tests.processes.cluster import Cluster

pytestmark = pytest.mark.fuse
__all__ = ["mount"]

MIB = 1 << 20
JOURNAL_MIB = 2
# Two journal segments, some MiB of sectors, and room for the small files.
ROOM_MIB = 2 * JOURNAL_MIB + 6


@pytest.fixture
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of a 64 MiB disk, each on a tmpfs that has room for some MiB of it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    cluster = Cluster(tmp_path_factory.mktemp("full") / "cluster", sectors=16384, journal_mib=JOURNAL_MIB)
    mounted: list[Path] = []
    try:
        for rank in cluster.ranks:
            cluster.storage(rank).mkdir(mode=0o700)
            run("mount", "-t", "tmpfs", "-o", f"size={ROOM_MIB}m,mode=700", "tmpfs", cluster.storage(rank))
            mounted.append(cluster.storage(rank))
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        for place in mounted:
            run("umount", "-l", place, check=False)
        for rank in cluster.ranks:
            print(f"--- node {rank}\n{cluster.log(rank).read_text()}")


def make_room(cluster: Cluster, *ranks: int) -> None:
    for rank in ranks:
        run("mount", "-o", "remount,size=128m", cluster.storage(rank))


def dsreg(*arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dsreg", *map(str, arguments)]
    if arguments[0] == "status":
        command += ["--timeout", "30"]  # all nodes answer, on a busy machine later than by default
    return subprocess.run(command, input=data, capture_output=True, cwd=ROOT, timeout=60, check=False)


def fill(image: Path) -> OSError:
    """Write MiB after MiB; the error of the first that fails."""
    descriptor = os.open(image, os.O_RDWR)
    try:
        for number in range(64):
            os.pwrite(descriptor, bytes([number + 1]) * MIB, number * MIB)
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    raise AssertionError("it all fitted")


def is_durable(descriptor: int) -> bool:
    """A write-back that began before there was room may still be failing."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        # EIO: its time ran out when there was room again, but not yet for long enough.
        assert error.errno in (errno.ENOSPC, errno.EIO)
        return False
    return True


@pytest.mark.parametrize("options", [(), ("--shared",), ("--cache=writeback",)])
def test_a_full_disk_is_enospc(full: Cluster, mount: Callable[..., Server], options: tuple[str, ...]) -> None:
    """With the cache it is fsync that says so."""
    server = mount("disk", "--config", str(full.path), "--on-quorum-loss=eio", "--io-timeout=4", *options)
    if "--cache=writeback" in options:
        descriptor = os.open(server.image, os.O_RDWR)
        try:
            os.pwrite(descriptor, bytes([7]) * 16 * MIB, 0)
            with pytest.raises(OSError) as caught:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        assert caught.value.errno == errno.ENOSPC
    else:
        assert fill(server.image).errno == errno.ENOSPC
    assert "no space: the nodes 1, 2, 3 have no room for new data" in server.log and "ENOSPC" in server.log
    report = json.loads(dsreg("status", full.path, "--json").stdout)
    assert report["quorum"] and report["no_space"] and [node["no_space"] for node in report["nodes"]] == [True] * 3
    shown = dsreg("status", full.path).stdout.decode()
    assert shown.count("no space") >= 3 and "writes of new data wait" in shown
    make_room(full, 1, 2)
    with open(server.image, "r+b", buffering=0) as image:
        image.seek(32 * MIB)
        assert image.write(b"x" * MIB) == MIB
        wait_until(lambda: is_durable(image.fileno()), "what was written when there was no space is durable")
    report = json.loads(dsreg("status", full.path, "--json").stdout)
    assert not report["no_space"] and [node["no_space"] for node in report["nodes"]] == [False, False, True]


@pytest.mark.parametrize("options", [(), ("--shared",)])
def test_a_stall_says_no_space_and_ends_when_there_is_some(
    full: Cluster, mount: Callable[..., Server], options: tuple[str, ...]
) -> None:
    server = mount("disk", "--config", str(full.path), *options)
    outcome: list[OSError | None] = []

    def write() -> None:
        descriptor = os.open(server.image, os.O_RDWR)
        try:
            os.pwrite(descriptor, b"y" * 16 * MIB, 0)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)
        finally:
            os.close(descriptor)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        server.wait_for_log("no space: the nodes 1, 2, 3 have no room for new data")
        assert "no majority" not in server.log
        wait_until(lambda: all(node["no_space"] for node in
                               json.loads(dsreg("status", full.path, "--json").stdout)["nodes"]), "status says so")
    finally:
        make_room(full, 2, 3)
        writer.join(60)
    assert outcome == [None]
    server.wait_for_log("requests are answered again")


def test_the_client_says_so_as_well(full: Cluster) -> None:
    with BlockingClient(full.config, timeout_s=4) as client:
        with pytest.raises(NodesFull, match="no space: the nodes 1, 2, 3 have no room"):
            for number in range(64):
                client.write(number * 256, b"d" * MIB)  # zeros take no room
    written = dsreg("write", "8192", "--config", full.path, "--timeout", "4", data=b"d" * MIB)
    assert written.returncode == 1 and b"no space" in written.stderr
