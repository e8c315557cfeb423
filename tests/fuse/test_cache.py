"""The write-back cache under a real mount: what a program sees, what fsync vouches for, what a crash may take."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from fuse_frontend.cli import _check_cache
from fuse_frontend.mounts import mount_at
from tests.fuse.conftest import SIZE
from tests.fuse.fsx import Fsx
from tests.fuse.tools import Server, run

pytestmark = pytest.mark.fuse


@pytest.fixture
def cached(memory: Callable[..., Server]) -> Server:
    """A mount of a 64 MiB disk in memory with a write-back cache in front of it."""
    server = memory("--cache")
    assert server.line() == "up", server.log
    return server


def test_a_cache_is_for_a_disk_that_nobody_else_has() -> None:
    _check_cache("writeback", is_exclusive=True)
    _check_cache("none", is_exclusive=False)
    with pytest.raises(click.UsageError, match="Leave out --shared, or the cache"):
        _check_cache("writeback", is_exclusive=False)


@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "O_DIRECT"])
def test_random_io_against_a_plain_file(cached: Server, tmp_path: Path, rng: random.Random, direct: bool) -> None:
    quarter = SIZE // 4
    seeds = [rng.getrandbits(64) for _ in range(5)]
    with ThreadPoolExecutor(4) as pool:
        parts = [
            pool.submit(Fsx(cached.image, tmp_path / f"plain{n}", n * quarter, quarter, seeds[n], direct).run, 150)
            for n in range(4)
        ]
        for part in parts:
            part.result()
    whole = Fsx(cached.image, tmp_path / "plain", 0, SIZE, seeds[4], direct)
    whole.adopt()
    whole.run(150)


def test_writes_go_on_without_the_disk_and_fsync_does_not(cached: Server, fault: Path) -> None:
    descriptor = os.open(cached.image, os.O_RDWR)
    try:
        fault.write_text("hang")
        assert os.pwrite(descriptor, b"x" * 8192, 4096) == 8192
        assert os.pread(descriptor, 8192, 4096) == b"x" * 8192
        os.close(os.dup(descriptor))  # FLUSH does not wait
        with ThreadPoolExecutor(1) as pool:
            syncing = pool.submit(os.fsync, descriptor)
            try:
                cached.wait_for_log("an fsync has been waiting for")
                assert not syncing.done()
            finally:
                fault.write_text("")
            syncing.result()
    finally:
        fault.write_text("")
        os.close(descriptor)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_a_synchronous_write_waits_for_the_disk(cached: Server, fault: Path, flag: int) -> None:
    descriptor = os.open(cached.image, os.O_RDWR | flag)
    try:
        assert os.pwrite(descriptor, b"x" * 4096, 0) == 4096
        fault.write_text("timeout")
        with pytest.raises(OSError) as caught:
            os.pwrite(descriptor, b"y" * 4096, 0)
        assert caught.value.errno == errno.EIO
    finally:
        fault.write_text("")
        os.close(descriptor)


def test_fsync_fails_until_the_data_is_durable(cached: Server, fault: Path) -> None:
    descriptor = os.open(cached.image, os.O_RDWR)
    try:
        fault.write_text("timeout")
        assert os.pwrite(descriptor, b"x" * 4096, 0) == 4096
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                os.fsync(descriptor)
            assert caught.value.errno == errno.EIO
        fault.write_text("")
        os.fsync(descriptor)
        os.fsync(descriptor)
    finally:
        fault.write_text("")
        os.close(descriptor)
    assert "4096 buffered bytes are not written back: no majority" in cached.log


@pytest.mark.parametrize("end", ["SIGTERM", "fusermount3"])
def test_an_orderly_end_loses_nothing(cached: Server, end: str) -> None:
    with cached.image.open("r+b") as image:
        image.write(b"x" * 100_000)
    if end == "SIGTERM":
        cached.signal(signal.SIGTERM)
    else:
        run("fusermount3", "-u", cached.mountpoint)
    assert cached.wait() == 0
    assert "lost" not in cached.log


def test_sigterm_leaves_a_disk_mounted_that_cannot_be_written_back(cached: Server, fault: Path) -> None:
    fault.write_text("timeout")
    with cached.image.open("r+b") as image:
        image.write(b"x" * 4096)
    cached.signal(signal.SIGTERM)
    cached.wait_for_log("stays mounted: ")
    assert "are not written back: no majority" in cached.log
    assert mount_at(cached.mountpoint) is not None
    fault.write_text("")
    cached.signal(signal.SIGTERM)
    assert cached.wait() == 0


def test_sigterm_unmounts_a_disk_that_can_never_be_written_back(cached: Server, fault: Path) -> None:
    fault.write_text("closed")
    with cached.image.open("r+b") as image:
        image.write(b"x" * 4096)
        image.flush()
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(image.fileno())
    cached.signal(signal.SIGTERM)
    assert cached.wait() == 1
    assert "unmounting all the same: 4096 buffered bytes are not written back: closed" in cached.log
    assert mount_at(cached.mountpoint) is None and "Traceback" not in cached.log


def test_an_unmount_that_loses_something_is_an_error(cached: Server, fault: Path) -> None:
    fault.write_text("timeout")
    with cached.image.open("r+b") as image:
        image.write(b"x" * 8192)
    run("fusermount3", "-u", cached.mountpoint)
    assert cached.wait() == 1
    assert "closed with 8192 bytes in it, which are lost" in cached.log


@pytest.mark.usefixtures("loop_devices")
def test_the_loop_device_has_a_cache_that_it_flushes(memory: Callable[..., Server], fault: Path) -> None:
    server = memory("--attach", "--cache")
    device = server.line().split()[1]
    assert Path(f"/sys/block/{Path(device).name}/queue/write_cache").read_text().strip() == "write back"
    if shutil.which("fio"):
        run("fio", "--name=verify", f"--filename={device}", "--direct=1", "--rw=randwrite", "--bsrange=4k-64k",
            "--verify_state_save=0", "--size=32m", "--ioengine=libaio", "--iodepth=32", "--verify=crc32c", "--fsync=50",
            "--verify_fatal=1", "--do_verify=1", "--verify_backlog=300")
    descriptor = os.open(device, os.O_RDWR)
    try:
        os.pwrite(descriptor, b"x" * 4096, 0)
        fault.write_text("timeout")
        os.pwrite(descriptor, b"y" * 4096, 4096)
        with pytest.raises(OSError) as caught:
            os.fsync(descriptor)
        assert caught.value.errno == errno.EIO
        fault.write_text("")
        os.pwrite(descriptor, b"z" * 4096, 4096)
        os.fsync(descriptor)
    finally:
        fault.write_text("")
        os.close(descriptor)
    run("mkfs.ext4", "-q", device)
    run("fsck.ext4", "-fn", device)
    assert "Traceback" not in server.log
