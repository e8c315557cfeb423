"""One mount, seen by the programs on the host. The disk is in memory."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuse_frontend.mount import check_mountpoint
from fuse_frontend.mounts import MountError, mount_at
from fuse_frontend.session import MAX_BACKGROUND
from fuse_frontend.state import recall
from tests.fuse.conftest import SIZE
from tests.fuse.fsx import Fsx
from tests.fuse.tools import Server, connection_of, run, wait_until

pytestmark = pytest.mark.fuse


def test_what_a_user_sees(mounted: Server) -> None:
    assert os.listdir(mounted.mountpoint) == ["disk.img"]
    status = mounted.image.stat()
    assert (status.st_size, status.st_mode & 0o7777, status.st_uid) == (SIZE, 0o600, os.getuid())
    mount = mount_at(mounted.mountpoint)
    assert mount is not None and mount.fs_type == "fuse.dsreg"
    serving = recall(mounted.mountpoint)
    assert serving is not None and serving.pid == mounted.process.pid and serving.is_alive


def test_nothing_can_be_created_removed_or_resized(mounted: Server) -> None:
    image, new = mounted.image, mounted.mountpoint / "new"
    attempts: list[Callable[[], object]] = [
        lambda: new.write_bytes(b""), new.mkdir, image.unlink, lambda: image.rename(new), lambda: image.chmod(0o644),
        lambda: os.truncate(image, 0), lambda: os.truncate(image, SIZE + 4096), lambda: new.symlink_to("x"),
        lambda: image.write_bytes(b"O_TRUNC"), lambda: os.link(image, new), lambda: os.mkfifo(new),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionError):
            attempt()
    os.truncate(image, SIZE)
    assert image.stat().st_size == SIZE


def test_the_kernel_keeps_many_requests_in_flight(mounted: Server) -> None:
    directory = connection_of(mounted)
    if os.geteuid() != 0:
        pytest.skip("the kernel takes less than MAX_BACKGROUND from others than root")
    assert int((directory / "max_background").read_text()) == MAX_BACKGROUND
    assert int((directory / "congestion_threshold").read_text()) == MAX_BACKGROUND


def test_the_end_of_the_disk(mounted: Server) -> None:
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        assert os.pread(descriptor, 100, SIZE - 10) == bytes(10)
        assert os.pread(descriptor, 100, SIZE) == b""
        assert os.pwrite(descriptor, b"12345", SIZE - 3) == 3
        with pytest.raises(OSError, match="No space") as caught:
            os.pwrite(descriptor, b"1", SIZE)
        assert caught.value.errno == errno.ENOSPC
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    assert mounted.image.stat().st_size == SIZE


@pytest.mark.parametrize(
    ("block_size", "seek", "count"), [(1, 4095, 7), (513, 3, 40), (4095, 5, 30), (4097, 2, 30), (1000003, 1, 9)]
)
def test_dd_with_odd_block_sizes(mounted: Server, tmp_path: Path, block_size: int, seek: int, count: int) -> None:
    source, plain, back = tmp_path / "source", tmp_path / "plain", tmp_path / "back"
    source.write_bytes(os.urandom(block_size * count))
    plain.write_bytes(bytes(SIZE))
    for target in (plain, mounted.image):
        run("dd", f"if={source}", f"of={target}", f"bs={block_size}", f"seek={seek}", "conv=notrunc,fsync")
    run("cmp", plain, mounted.image)
    run("dd", f"if={mounted.image}", f"of={back}", f"bs={block_size}", f"skip={seek}", f"count={count}")
    run("cmp", source, back)


@pytest.mark.parametrize("options", [(), ("--turns",)], ids=["in tasks", "by turns"])
@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "O_DIRECT"])
def test_random_io_against_a_plain_file(
    memory: Callable[..., Server], tmp_path: Path, rng: random.Random, direct: bool, options: tuple[str, ...]
) -> None:
    """Four threads, each on a quarter of its own; and then one on everything."""
    mounted = memory(*options)
    assert mounted.line() == "up", mounted.log
    quarter = SIZE // 4
    seeds = [rng.getrandbits(64) for _ in range(5)]
    with ThreadPoolExecutor(4) as pool:
        parts = [
            pool.submit(Fsx(mounted.image, tmp_path / f"plain{n}", n * quarter, quarter, seeds[n], direct).run, 150)
            for n in range(4)
        ]
        for part in parts:
            part.result()
    whole = Fsx(mounted.image, tmp_path / "plain", 0, SIZE, seeds[4], direct)
    whole.adopt()
    whole.run(150)


@pytest.mark.parametrize(("kind", "code"), [("timeout", errno.EIO), ("bug", errno.EIO), ("nospace", errno.ENOSPC)])
def test_no_error_ends_the_mount(mounted: Server, fault: Path, kind: str, code: int) -> None:
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        fault.write_text(kind)
        for attempt in (lambda: os.pread(descriptor, 10, 0), lambda: os.pwrite(descriptor, b"x", 0),
                        lambda: os.fsync(descriptor)):
            for _ in range(3):
                with pytest.raises(OSError) as caught:
                    attempt()
                assert caught.value.errno == code
        fault.write_text("")
        assert os.pwrite(descriptor, b"y", 0) == 1
        os.fsync(descriptor)
        assert os.pread(descriptor, 1, 0) == b"y"
    finally:
        fault.write_text("")
        os.close(descriptor)
    assert ("Traceback" in mounted.log) == (kind == "bug")


def test_waiting_requests_are_said_once(mounted: Server, fault: Path) -> None:
    fault.write_text("hang")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(mounted.image.read_bytes)
        try:
            mounted.wait_for_log("has been waiting for")
            assert not reading.done()
            assert os.listdir(mounted.mountpoint) == ["disk.img"]
        finally:
            fault.write_text("")
        assert len(reading.result()) == SIZE
    mounted.wait_for_log("requests are answered again")
    assert mounted.log.count("has been waiting for") == 1


def test_a_program_can_be_started_while_a_write_waits(mounted: Server, fault: Path) -> None:
    """A child process has the descriptor until it executes its program, and closes it then."""
    descriptor = os.open(mounted.image, os.O_RDWR)
    fault.write_text("hang")
    watchdog = threading.Timer(20, fault.write_text, [""])
    watchdog.start()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(os.pwrite, descriptor, b"x", 0)
        try:
            wait_until(writing.running, "the write")
            for _ in range(5):
                run("true")
            assert not writing.done()
        finally:
            watchdog.cancel()
            fault.write_text("")
    os.close(descriptor)


# --- start and end ----------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(mounted: Server, number: signal.Signals) -> None:
    mounted.signal(number)
    assert mounted.wait() == 0
    assert mount_at(mounted.mountpoint) is None
    assert recall(mounted.mountpoint) is None


def test_signals_that_come_together_are_answered_once(mounted: Server) -> None:
    """As from Ctrl-C to a shell that passes it on: what is unmounted is not said to stay mounted."""
    mounted.signal(signal.SIGSTOP)
    mounted.signal(signal.SIGTERM)
    mounted.signal(signal.SIGINT)
    mounted.signal(signal.SIGCONT)
    assert mounted.wait() == 0
    assert "stays mounted" not in mounted.log
    assert mount_at(mounted.mountpoint) is None
    assert recall(mounted.mountpoint) is None  # all of it was taken down


def test_unmounting_ends_the_process(mounted: Server) -> None:
    run("fusermount3", "-u", mounted.mountpoint)
    assert mounted.wait() == 0


def test_an_open_file_keeps_the_mount(mounted: Server) -> None:
    with mounted.image.open("rb"):
        mounted.signal(signal.SIGTERM)
        mounted.wait_for_log("stays mounted: ")
        assert f"(pid {os.getpid()})" in mounted.log
        assert mounted.image.read_bytes() == bytes(SIZE)
    mounted.signal(signal.SIGTERM)
    assert mounted.wait() == 0


def test_a_working_directory_keeps_the_mount(mounted: Server) -> None:
    before = Path.cwd()
    os.chdir(mounted.mountpoint)
    try:
        mounted.signal(signal.SIGTERM)
        mounted.wait_for_log("stays mounted: ")
        assert f"(pid {os.getpid()})" in mounted.log
    finally:
        os.chdir(before)
    mounted.signal(signal.SIGTERM)
    assert mounted.wait() == 0


def test_a_killed_frontend_leaves_a_stale_mount_that_is_explained(mounted: Server) -> None:
    mounted.signal(signal.SIGKILL)
    mounted.wait()
    with pytest.raises(MountError, match=r"stale mount .* dsreg-fuse --detach"):
        check_mountpoint(mounted.mountpoint)


def test_records_of_killed_servers_are_swept(memory: Callable[..., Server]) -> None:
    """As soon as nothing of them is left: a stale mount keeps its record."""
    servers = [memory(name=name) for name in ("first", "second")]
    for server in servers:
        assert server.line() == "up"
        server.signal(signal.SIGKILL)
        server.wait()
    run("fusermount3", "-u", "-z", servers[0].mountpoint)
    assert all(recall(server.mountpoint) for server in servers)
    assert memory(name="third").line() == "up"
    assert recall(servers[0].mountpoint) is None
    assert recall(servers[1].mountpoint) is not None


def test_bad_mount_points_are_explained(mounted: Server, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    for mountpoint, message in (
        (mounted.mountpoint, "already mounted and served by process"),
        (tmp_path / "nowhere", "mkdir -p"),
        (tmp_path / "full" / "something", "not a directory"),
        (tmp_path / "full", "not empty"),
        (Path("/proc"), "already a mount point"),
    ):
        with pytest.raises(MountError, match=message):
            check_mountpoint(mountpoint)


def test_a_second_server_is_refused(mounted: Server, memory: Callable[..., Server]) -> None:
    second = memory()
    assert second.wait() == 1
    assert "already mounted" in second.log
    assert mounted.image.stat().st_size == SIZE


@pytest.mark.slow
def test_killed_readers_leave_no_hung_mount(mounted: Server, rng: random.Random) -> None:
    """Programs that die in the middle of requests: their answers have nobody to go to."""
    for _ in range(20):
        command = f"exec dd if={mounted.image} of=/dev/null bs=1M iflag=direct"
        run("timeout", "-s", "KILL", f"{rng.uniform(0.005, 0.05):.3f}", "sh", "-c", command, check=False)
    wait_until(lambda: mounted.image.stat().st_size == SIZE, "the mount answers")
    assert len(mounted.image.read_bytes()) == SIZE
