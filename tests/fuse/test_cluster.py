"""`dsreg-fuse` as it is used: real node processes, real mounts, real loop devices."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from dsreg.config import load_config
from fuse_frontend.loop import loops_of
from fuse_frontend.mounts import IMAGE_NAME, mount_at
from fuse_frontend.state import ServingProcess, recall
from tests.fuse.fsx import Fsx
from tests.fuse.tools import ROOT, Server, clean_up, run, wait_until, why_no_loop
from tests.metrics.scraping import read
from tests.node_processes import Nodes, running_nodes
from tests.processes.cluster import free_addresses

pytestmark = pytest.mark.fuse

SIZE = 64 << 20
# A program that waits for a disk cannot be killed: a test that fails must not wait for ever.
NO_HANG = ("--on-quorum-loss=eio", "--io-timeout=40")
FUSE = [sys.executable, "-m", "fuse_frontend.cli"]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three running nodes of a fresh cluster."""
    with running_nodes(tmp_path, SIZE) as nodes:
        yield nodes


@pytest.fixture
def mount(tmp_path: Path, servers: list[Server]) -> Callable[..., Server]:
    """`mount(name, *options)`: start `dsreg-fuse` in the foreground and wait until it is up."""

    def start(name: str, *options: str, environment: dict[str, str] | None = None,
              stdout: int | IO[bytes] = subprocess.PIPE) -> Server:
        mountpoint = tmp_path / name
        mountpoint.mkdir(exist_ok=True)
        server = Server(mountpoint, [*FUSE, *options, str(mountpoint)], environment, stdout)
        servers.append(server)
        wait_until(lambda: f"{server.image} is up" in server.log or server.process.poll() is not None, "the mount")
        assert server.process.poll() is None, server.log
        return server

    return start


@pytest.fixture
def disk(nodes: Nodes, mount: Callable[..., Server]) -> Server:
    return mount("disk", "--config", str(nodes.config.path), *NO_HANG)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[list[Path]]:
    """Mount points in this list are cleared after the test, and the daemons that serve them are gone."""
    mountpoints: list[Path] = []
    yield mountpoints
    for mountpoint in mountpoints:
        serving = recall(mountpoint)
        clean_up(mountpoint)
        if serving is not None:
            wait_until(partial(has_ended, serving), f"the end of process {serving.pid}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any configuration, but with the embedded cluster below `home`."""
    home = tmp_path / "home"
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    for variable, name in (("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(variable, str(home / name))
    return home


def has_ended(serving: ServingProcess) -> bool:
    return not serving.is_alive


def fuse(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(*FUSE, *arguments, check=False)


# --- bytes --------------------------------------------------------------------------------------------
def test_random_io_while_nodes_die(disk: Server, nodes: Nodes, tmp_path: Path, rng: random.Random) -> None:
    """Threads on disjoint ranges; each node in turn is killed and comes back."""
    quarter = SIZE // 16
    seeds = [rng.getrandbits(64) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        parts = [
            pool.submit(Fsx(disk.image, tmp_path / f"plain{n}", n * quarter, quarter, seeds[n]).run, 60)
            for n in range(3)
        ]
        for rank in (1, 2, 3):
            nodes.kill(rank)
            (tmp_path / "probe").write_bytes(disk.image.open("rb").read(4096))
            nodes.start(rank)
            with disk.image.open("r+b") as image:  # a majority without the next victim is back
                image.seek(SIZE - 4096)
                image.write(bytes([rank]) * 4096)
                os.fsync(image.fileno())
        for part in parts:
            part.result()


def test_two_mounts_see_each_others_writes(nodes: Nodes, mount: Callable[..., Server]) -> None:
    disk, other = (mount(name, "--config", str(nodes.config.path), *NO_HANG, "--shared") for name in ("disk", "other"))
    descriptors = [os.open(server.image, os.O_RDWR) for server in (disk, other)]
    try:
        for turn in range(40):
            writer, reader = descriptors[turn % 2], descriptors[1 - turn % 2]
            data, offset = os.urandom(5000 + turn), turn * 3333
            assert os.pwrite(writer, data, offset) == len(data)
            assert os.pread(reader, len(data), offset) == data
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.usefixtures("loop_devices")
def test_file_system_and_fio_on_a_cluster(
    nodes: Nodes, mount: Callable[..., Server], tmp_path: Path, rng: random.Random
) -> None:
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--attach")
    device = server.line()
    files = tmp_path / "files"
    files.mkdir()
    if shutil.which("fio"):
        run("fio", "--name=verify", f"--filename={device}", "--direct=1", "--rw=randwrite", "--bsrange=4k-64k",
            "--verify_state_save=0", "--size=8m", "--ioengine=libaio", "--iodepth=32", "--verify=crc32c",
            "--verify_fatal=1", "--do_verify=1")
    run("mkfs.ext4", "-q", device)
    run("mount", device, files)
    content = rng.randbytes(3_000_000)
    (files / "file").write_bytes(content)
    nodes.kill(2)
    os.sync()
    nodes.start(2)
    run("umount", files)
    run("fsck.ext4", "-fn", device)
    run("mount", device, files)
    assert (files / "file").read_bytes() == content
    run("umount", files)
    done = fuse("--detach", server.mountpoint)
    assert (done.returncode, server.wait()) == (0, 0), done.stderr


# --- quorum loss ----------------------------------------------------------------------------------------
def test_quorum_loss_is_an_error_if_asked_for(nodes: Nodes, mount: Callable[..., Server]) -> None:
    server = mount("disk", "--config", str(nodes.config.path), "--on-quorum-loss=eio", "--io-timeout=5")
    descriptor = os.open(server.image, os.O_RDWR)
    try:
        assert os.pwrite(descriptor, b"before", 0) == 6
        nodes.kill(1, 2)
        for attempt in (lambda: os.pwrite(descriptor, b"during", 4096), lambda: os.pread(descriptor, 6, 4096)):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EIO
        nodes.start(1, 2)

        def is_back() -> bool:
            try:
                return os.pread(descriptor, 6, 0) == b"before"
            except OSError:
                return False

        wait_until(is_back, "the quorum")
        assert os.pwrite(descriptor, b"after!", 4096) == 6
        assert os.pread(descriptor, 6, 4096) == b"after!"
    finally:
        os.close(descriptor)


def test_quorum_loss_blocks_by_default(nodes: Nodes, mount: Callable[..., Server]) -> None:
    disk = mount("disk", "--config", str(nodes.config.path))
    watchdog = threading.Timer(60, disk.process.kill)  # ends what waits for the disk
    watchdog.start()
    descriptor = os.open(disk.image, os.O_RDWR)
    try:
        assert os.pwrite(descriptor, b"before", 0) == 6
        nodes.kill(2, 3)
        with ThreadPoolExecutor(2) as pool:
            try:
                writing = pool.submit(os.pwrite, descriptor, b"during", 4096)
                reading = pool.submit(os.pread, descriptor, 6, 0)
                disk.wait_for_log("has been waiting for")
                assert not writing.done() and not reading.done()
            finally:
                nodes.start(2, 3)
            assert writing.result() == 6 and reading.result() == b"before"
        disk.wait_for_log("requests are answered again")
        assert os.pread(descriptor, 6, 4096) == b"during"
    finally:
        os.close(descriptor)
        watchdog.cancel()


# --- the embedded cluster ---------------------------------------------------------------------------------
def test_without_configuration_there_is_a_cluster_anyway(home: Path, mount: Callable[..., Server]) -> None:
    first = mount("first", "--size", "64MiB", "--shared")
    assert first.image.stat().st_size == SIZE
    assert f"dsreg status {home}/data/dsreg/default/cluster.toml" in first.log  # nobody can guess where it is
    with first.image.open("r+b") as image:
        image.write(b"kept between runs")
    second = mount("second", "--shared")
    assert "that another process runs" in second.log
    assert second.image.open("rb").read(17) == b"kept between runs"
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second.wait_for_log("this process runs them now")
    with second.image.open("r+b") as image:
        image.write(b"KEPT")
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    third = mount("first")
    assert third.image.open("rb").read(17) == b"KEPT between runs"
    nodes = load_config(home / "data" / "dsreg" / "default" / "cluster.toml").nodes
    addresses = [f"{node.host}:{node.port}" for node in nodes]
    third.signal(signal.SIGTERM)
    assert third.wait() == 0
    listening = run("ss", "-ltn").stdout if shutil.which("ss") else ""
    assert not any(f" {address} " in listening for address in addresses)


def test_a_killed_mount_leaves_a_cluster_that_starts_again(home: Path, mount: Callable[..., Server]) -> None:
    first = mount("disk", "--size", "64MiB")
    with first.image.open("r+b") as image:
        image.write(b"acknowledged")
    first.signal(signal.SIGKILL)
    first.wait()
    refused = fuse(first.mountpoint)
    assert refused.returncode == 1 and "stale mount" in refused.stderr and "--detach" in refused.stderr
    assert fuse("--detach", first.mountpoint).returncode == 0
    assert mount("disk").image.open("rb").read(12) == b"acknowledged"


def test_another_size_is_refused(home: Path, mount: Callable[..., Server], tmp_path: Path) -> None:
    mount("disk", "--size", "64MiB")
    (tmp_path / "other").mkdir()
    refused = fuse("--size", "128MiB", tmp_path / "other")
    assert refused.returncode == 1 and "exists and has 64MiB" in refused.stderr


# --- daemons and messages -------------------------------------------------------------------------------
def test_daemon_with_a_loop_device_and_its_end(home: Path, tmp_path: Path, daemons: list[Path]) -> None:
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    daemons.append(mountpoint)
    log_file = tmp_path / "daemon.log"
    attach = () if why_no_loop() else ("--attach",)
    started = fuse("--daemon", "--size", "64MiB", "--log-file", log_file, *attach, mountpoint)
    assert started.returncode == 0, started.stderr
    assert started.stdout.split() == [device.node for device in loops_of(mountpoint / IMAGE_NAME)]
    assert (mountpoint / IMAGE_NAME).stat().st_size == SIZE
    serving = recall(mountpoint)
    assert serving is not None and serving.is_alive and serving.log_file == str(log_file)
    assert "is up" in log_file.read_text()
    log_file.rename(tmp_path / "moved")
    os.kill(serving.pid, signal.SIGHUP)
    wait_until(log_file.exists, "the new log file")
    wait_until(lambda: "SIGHUP: the log file was opened again" in log_file.read_text(), "a word in it")
    assert mount_at(mountpoint) is not None and serving.is_alive
    again = fuse("--daemon", mountpoint)
    assert again.returncode == 1 and f"served by process {serving.pid}" in again.stderr
    done = fuse("--detach", mountpoint)
    assert done.returncode == 0, done.stderr
    assert not serving.is_alive and mount_at(mountpoint) is None and not loops_of(mountpoint / IMAGE_NAME)


@pytest.mark.usefixtures("loop_devices")
@pytest.mark.parametrize("where", ["a full disk", "a reader that is gone"])
def test_a_device_whose_name_cannot_be_printed_stays(home: Path, mount: Callable[..., Server], where: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, os.fdopen(writing, "wb") as pipe:
        server = mount("disk", "--attach", "--size", "64MiB", stdout=full if where == "a full disk" else pipe)
    server.wait_for_log("could not be reported")
    [device] = loops_of(server.image)
    assert f"attached as {device.node}, but this could not be reported" in server.log
    assert Path(device.node).open("rb").read(4096) == bytes(4096)
    done = fuse("--detach", server.mountpoint)
    assert (done.returncode, server.wait()) == (0, 0), done.stderr
    assert "Traceback" not in server.log


@pytest.mark.usefixtures("loop_devices")
def test_a_daemon_whose_device_cannot_be_printed_stays(home: Path, tmp_path: Path, daemons: list[Path]) -> None:
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    daemons.append(mountpoint)
    options = ("--daemon", "--attach", "--size", "64MiB", "--log-file", tmp_path / "log")
    started = run("sh", "-c", 'exec "$@" >/dev/full', "sh", *FUSE, *options, mountpoint, check=False)
    [device] = loops_of(mountpoint / IMAGE_NAME)
    assert started.returncode == 1 and f"is up, but {device.node} cannot be printed" in started.stderr
    assert fuse("--detach", mountpoint).returncode == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("life", ["--foreground", "--daemon"])
def test_closed_standard_files_take_no_harm(
    home: Path, tmp_path: Path, daemons: list[Path], closed: tuple[int, ...], life: str
) -> None:
    """Nothing else gets the numbers 0 to 2, where output would go into it."""
    mountpoint, log = tmp_path / "disk", tmp_path / "log"
    mountpoint.mkdir()
    daemons.append(mountpoint)
    attach = () if why_no_loop() else ("--attach",)
    command = [*FUSE, life, "--size", "64MiB", "--log-file", log, *attach, mountpoint]
    redirections = " ".join(f"{number}>&-" for number in closed)
    process = subprocess.Popen(["sh", "-c", f'exec "$@" {redirections}', "sh", *map(str, command)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and "is up" in log.read_text() or bool(process.poll()), "the mount")
        assert mount_at(mountpoint) is not None
        serving = recall(mountpoint)
        assert serving is not None
        if life == "--foreground":
            for number in closed:
                assert os.readlink(f"/proc/{serving.pid}/fd/{number}") == os.devnull
        done = fuse("--detach", mountpoint)
        # The name of a device is for stdout; where that is closed, a shell that waits for it is told so.
        unprinted = life == "--daemon" and bool(attach) and 1 in closed
        assert (done.returncode, process.wait(30)) == (0, int(unprinted)), done.stderr
    finally:
        clean_up(mountpoint)
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def test_a_daemon_that_cannot_start_says_so(home: Path, tmp_path: Path, daemons: list[Path]) -> None:
    """losetup fails after the mount is up: everything is taken down again."""
    mountpoint, losetup = tmp_path / "disk", tmp_path / "bin" / "losetup"
    mountpoint.mkdir()
    daemons.append(mountpoint)
    losetup.parent.mkdir()
    losetup.write_text("#!/bin/sh\necho no loop today >&2\nexit 1\n")
    losetup.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{losetup.parent}:{os.environ['PATH']}")
        failed = fuse("--daemon", "--attach", "--size", "64MiB", "--log-file", tmp_path / "log", mountpoint)
    assert failed.returncode == 1 and "no loop today" in failed.stderr and not failed.stdout
    assert mount_at(mountpoint) is None


def test_a_mount_has_metrics(nodes: Nodes, mount: Callable[..., Server]) -> None:
    [address] = free_addresses(1)
    disk = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--metrics", f"{address[0]}:{address[1]}")
    with disk.image.open("r+b", buffering=0) as image:
        image.write(b"m" * 8192)
        os.fsync(image.fileno())
    found = read(address)
    assert found["dsreg_edge_request_bytes_total{edge=fuse,operation=write}"] == 8192
    assert found["dsreg_edge_request_duration_seconds_count{edge=fuse,operation=flush}"] >= 1
    assert found["dsreg_client_has_majority"] == found["dsreg_client_attachment{state=held}"] == 1
    disk.signal(signal.SIGTERM)
    assert disk.wait() == 0, "the server of the metrics ends with the mount"
