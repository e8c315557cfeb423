"""One disk, one mount: refusal, take-over, sharing, and the wait for a majority."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest

from dsreg.constants import CLIENT_KEY_SIZE
from fuse_frontend.mounts import mount_at
from tests.fuse.test_cluster import FUSE, NO_HANG, Nodes, fuse, mount, nodes
from tests.fuse.tools import Server

pytestmark = pytest.mark.fuse
__all__ = ["mount", "nodes"]


def test_a_second_mount_is_refused_and_told_what_to_do(nodes: Nodes, mount: Callable[..., Server]) -> None:
    first = mount("first", "--config", str(nodes.config.path), *NO_HANG)
    second = first.mountpoint.with_name("second")
    second.mkdir()
    refused = fuse("--config", nodes.config.path, second)
    assert refused.returncode == 1 and not refused.stdout
    assert f":{first.mountpoint}, process {first.process.pid}, which is alive" in refused.stderr.replace("\n", " ") or (
        "which is alive" in refused.stderr  # a long name is cut off
    )
    for word in ("dsreg-fuse: the disk is attached by", "detach it there", "--take-over", "--shared"):
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr and mount_at(second) is None
    daemon = fuse("--daemon", "--log-file", second.with_name("log"), "--config", nodes.config.path, second)
    assert daemon.returncode == 1 and "--take-over" in daemon.stderr and mount_at(second) is None
    with first.image.open("r+b") as image:
        image.write(b"still good")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert mount("second", "--config", str(nodes.config.path)).image.open("rb").read(10) == b"still good"


def test_take_over_ends_the_first_with_errors_and_says_why_once(nodes: Nodes, mount: Callable[..., Server]) -> None:
    first = mount("first", "--config", str(nodes.config.path), *NO_HANG)
    descriptor = os.open(first.image, os.O_RDWR)
    try:
        assert os.pwrite(descriptor, b"before", 0) == 6
        second = mount("second", "--config", str(nodes.config.path), *NO_HANG, "--take-over")
        for attempt in range(3):
            with pytest.raises(OSError) as caught:
                os.pwrite(descriptor, b"beyond", 4096 * attempt)
            assert caught.value.errno == errno.EIO
            with pytest.raises(OSError) as caught:
                os.pread(descriptor, 6, 1 << 20)
            assert caught.value.errno == errno.EIO
    finally:
        os.close(descriptor)
    first.wait_for_log("another client has taken the disk over")
    first.wait_for_log("Every request fails with an I/O error from now on")  # said by another task than the one above
    assert first.log.count("Every request fails with an I/O error from now on") == 1
    with second.image.open("r+b") as image:
        assert image.read(6) == b"before"
        image.write(b" and after")
    done = fuse("--detach", first.mountpoint)
    assert (done.returncode, first.wait()) == (0, 0), done.stderr
    assert second.image.open("rb").read(16) == b"before and after"


def test_a_mount_that_was_killed_is_in_nobodys_way(nodes: Nodes, mount: Callable[..., Server]) -> None:
    first = mount("first", "--config", str(nodes.config.path), *NO_HANG)
    first.signal(signal.SIGKILL)
    first.wait()
    mount("second", "--config", str(nodes.config.path), *NO_HANG)


def test_without_a_majority_it_waits_and_says_so(nodes: Nodes, servers: list[Server]) -> None:
    nodes.kill(1, 2)
    mountpoint = nodes.config.path.parent.with_name("disk")
    mountpoint.mkdir()
    for last in (False, True):
        server = Server(mountpoint, [*FUSE, "--config", str(nodes.config.path), *NO_HANG, str(mountpoint)])
        servers.append(server)
        server.wait_for_log("no majority of the nodes can be reached: 1 of 3 nodes are connected, 2 are needed")
        assert mount_at(mountpoint) is None
        if last:
            nodes.start(1, 2)
            server.wait_for_log("disk.img is up")
            assert server.image.open("rb").read(4096) == bytes(4096)
        else:
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert "SIGTERM: the disk was not attached yet" in server.log and "Traceback" not in server.log


def test_take_over_and_shared_exclude_each_other(nodes: Nodes) -> None:
    refused = fuse("--config", nodes.config.path, "--take-over", "--shared", nodes.config.path.parent)
    assert refused.returncode == 2 and "exclude each other" in refused.stderr


def test_a_key_that_no_node_accepts_is_an_error_and_not_a_wait(nodes: Nodes) -> None:
    here = nodes.config.path.parent
    strange = here.with_name("strange")
    strange.mkdir()
    (strange / "cluster.toml").write_text((here / "cluster.toml").read_text())
    (strange / "client.key").write_text("5a" * CLIENT_KEY_SIZE)
    (strange / "client.key").chmod(0o600)
    mountpoint = here.with_name("disk")
    mountpoint.mkdir()
    for mode in ("--foreground", "--daemon"):
        log_file = here.with_name(f"log{mode}")
        refused = fuse("--config", strange / "cluster.toml", mode, "--log-file", log_file, mountpoint)
        assert refused.returncode == 2, "units do not try again"
        assert "\ndsreg-fuse: no node accepts the client key: client_key_file" in "\n" + refused.stderr
        assert "Traceback" not in refused.stderr and mount_at(mountpoint) is None


def test_ctrl_c_while_it_waits(nodes: Nodes, servers: list[Server]) -> None:
    nodes.kill(1, 2)
    mountpoint = nodes.config.path.parent.with_name("disk")
    mountpoint.mkdir()
    server = Server(mountpoint, [*FUSE, "--config", str(nodes.config.path), *NO_HANG, str(mountpoint)])
    servers.append(server)
    server.wait_for_log("no majority of the nodes can be reached: 1 of 3 nodes are connected, 2 are needed")
    server.signal(signal.SIGINT)
    assert server.wait() == 130 and "Traceback" not in server.log
