"""Loop devices and file systems on the mounted file. The disk is in memory."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fuse_frontend import loop
from fuse_frontend.detach import detach
from fuse_frontend.mount import check_mountpoint
from fuse_frontend.mounts import MountError, mount_at
from fuse_frontend.state import recall
from tests.fuse.fsx import Fsx
from tests.fuse.tools import Server, connection_of, run

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("loop_devices")]

BIG = 400 << 20  # xfs wants 300 MiB


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture
def attached(memory: Callable[..., Server]) -> tuple[Server, str]:
    """A mount with a loop device, and the name of the device."""
    server = memory("--attach", size=BIG)
    word, device = server.line().split()
    assert word == "up"
    return server, device


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A mount point for file systems; what is mounted there is unmounted after the test."""
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


def attribute(device: str, name: str) -> str:
    return Path(f"/sys/block/{Path(device).name}/{name}").read_text().strip()


def make_tree(directory: Path, rng: random.Random) -> None:
    for number in range(60):
        place = directory / f"d{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(rng.randbytes(int(2 ** rng.uniform(0, 19))))


def test_attach_takes_direct_io_and_block_size(attached: tuple[Server, str]) -> None:
    server, device = attached
    assert attribute(device, "loop/dio") == "1"
    assert attribute(device, "queue/logical_block_size") == "4096"
    assert attribute(device, "loop/backing_file") == str(server.image)
    assert int(attribute(device, "size")) * 512 == BIG
    assert [found.node for found in loop.loops_of(server.image)] == [device]


@pytest.mark.parametrize("options", [(), ("-b", "4096"), ("-b", "4096", "--direct-io=on")], ids=" ".join)
def test_random_io_on_a_loop_device(
    mounted: Server, tmp_path: Path, rng: random.Random, options: tuple[str, ...]
) -> None:
    device = Path(run("losetup", *options, "-f", "--show", mounted.image).stdout.strip())
    fsx = Fsx(device, tmp_path / "plain", 4096 * 100, 8 << 20, rng.getrandbits(64), direct="-b" in options)
    fsx.run(150)
    run("losetup", "-d", device)
    run("cmp", "-n", str(8 << 20), "-i", f"0:{4096 * 100}", tmp_path / "plain", mounted.image)


@pytest.mark.parametrize(
    ("make", "check"),
    [(("mkfs.ext4", "-q"), ("fsck.ext4", "-fn")), (("mkfs.xfs", "-q", "-f"), ("xfs_repair", "-n"))],
    ids=["ext4", "xfs"],
)
def test_a_file_system(
    attached: tuple[Server, str], tmp_path: Path, files: Path, rng: random.Random, make: tuple[str, ...],
    check: tuple[str, ...],
) -> None:
    need(make[0], check[0])
    _, device = attached
    tree = tmp_path / "tree"
    make_tree(tree, rng)
    run(*make, device)
    run("mount", device, files)
    run("cp", "-a", tree, files / "copy")
    run("umount", files)
    run(*check, device)
    run("mount", device, files)
    run("diff", "-r", tree, files / "copy")
    run("umount", files)


def test_fio_verifies_what_it_wrote(attached: tuple[Server, str]) -> None:
    need("fio")
    _, device = attached
    run("fio", "--name=verify", f"--filename={device}", "--direct=1", "--rw=randrw", "--bsrange=4k-256k",
        "--verify_state_save=0", "--size=24m", "--ioengine=libaio", "--iodepth=32", "--verify=crc32c",
        "--verify_fatal=1", "--do_verify=1")


def test_what_a_request_costs_can_be_measured() -> None:
    need("fio")
    measured = run(sys.executable, "-m", "scripts.fuse_hops", "--seconds", "0.2").stdout
    rows = re.findall(r"[\d,]+ +\S+ +[\d.]+ +\S+ +[\d.]+ +\S+ +[\d.]+ ", measured)
    assert len(rows) == 10, measured  # five of each binding


def test_a_signal_does_not_tear_a_disk_away(attached: tuple[Server, str], files: Path, rng: random.Random) -> None:
    need("mkfs.ext4")
    server, device = attached
    run("mkfs.ext4", "-q", device)
    run("mount", device, files)
    for number, name in enumerate(("SIGTERM", "SIGINT", "SIGTERM"), 1):
        server.signal(signal.Signals[name])
        server.wait_for_log("stays mounted", number)
    for text in (f"{device} is attached to it", f"{device} is mounted on {files}", f"umount {files}",
                 f"losetup -d {device}", f"dsreg-fuse --detach {server.mountpoint}"):
        assert text in server.log
    content = rng.randbytes(1 << 20)
    (files / "file").write_bytes(content)
    os.sync()
    run("umount", files)
    run("mount", device, files)
    assert (files / "file").read_bytes() == content
    run("umount", files)
    run("losetup", "-d", device)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert mount_at(server.mountpoint) is None


async def test_detach_refuses_until_the_file_system_is_unmounted(attached: tuple[Server, str], files: Path) -> None:
    need("mkfs.ext4")
    server, device = attached
    run("mkfs.ext4", "-q", device)
    run("mount", device, files)
    with pytest.raises(MountError, match=f"{device} is mounted on {files}(.|\n)*umount {files}"):
        await detach(server.mountpoint)
    assert attribute(device, "loop/backing_file") == str(server.image)
    assert mount_at(server.mountpoint) is not None
    run("umount", files)
    done = await detach(server.mountpoint)
    assert done == [f"{device} detached", f"{server.mountpoint} unmounted", f"process {server.process.pid} ended"]
    assert server.wait() == 0
    assert not loop.loops_of(server.image) and mount_at(server.mountpoint) is None
    assert recall(server.mountpoint) is None
    with pytest.raises(MountError, match="nothing is mounted"):
        await detach(server.mountpoint)


async def test_detach_refuses_while_a_program_uses_the_device(
    attached: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, device = attached
    monkeypatch.setattr(loop, "PASSING_USER_S", 0.2)
    descriptor = os.open(device, os.O_RDONLY)
    user = await trio.lowlevel.open_process(["sleep", "60"], stdin=descriptor)
    os.close(descriptor)
    try:
        with pytest.raises(MountError, match=rf"{device} is open in sleep \(pid {user.pid}\)"):
            await detach(server.mountpoint)
        assert mount_at(server.mountpoint) is not None
    finally:
        user.kill()
        await user.wait()


async def test_detach_cleans_up_after_a_killed_frontend(attached: tuple[Server, str]) -> None:
    server, device = attached
    server.signal(signal.SIGKILL)
    server.wait()
    with pytest.raises(MountError, match="stale mount"):
        check_mountpoint(server.mountpoint)
    done = await detach(server.mountpoint)
    assert done == [f"{device} detached", f"{server.mountpoint} unmounted"]
    check_mountpoint(server.mountpoint)


@pytest.mark.parametrize("killed", [False, True], ids=["serving", "killed"])
async def test_detach_finds_a_device_whose_mount_is_gone(attached: tuple[Server, str], killed: bool) -> None:
    server, device = attached
    run("umount", "-l", server.mountpoint)
    if killed:
        server.signal(signal.SIGKILL)
        server.wait()
    assert attribute(device, "loop/backing_file") == "/disk.img"
    done = await detach(server.mountpoint)
    assert done[0] == f"{device} detached"
    if not killed:
        assert done[1:] == [f"process {server.process.pid} ended"] and server.wait() == 0
    assert not (Path("/sys/block") / Path(device).name / "loop").exists()


async def test_a_device_that_nobody_wrote_down_is_left_alone_and_named(mounted: Server) -> None:
    device = run("losetup", "-f", "--show", mounted.image).stdout.strip()
    try:
        run("umount", "-l", mounted.mountpoint)
        mounted.signal(signal.SIGKILL)
        mounted.wait()
        with pytest.raises(MountError, match=f"nothing is mounted(.|\n)*losetup -d {device}"):
            await detach(mounted.mountpoint)
        assert attribute(device, "loop/backing_file") == "/disk.img"
    finally:
        run("losetup", "-d", device)


def test_a_later_device_of_the_same_name_is_another_one(attached: tuple[Server, str]) -> None:
    server, device = attached
    serving = recall(server.mountpoint)
    assert serving is not None and serving.attached() == loop.loops_of(server.image)[0]
    run("losetup", "-d", device)
    run("losetup", device, server.image)
    assert serving.attached() is None


def abort(server: Server) -> None:
    """End the session behind the back of the server."""
    (connection_of(server) / "abort").write_text("1")


def test_a_server_that_cannot_go_on_detaches_first(attached: tuple[Server, str]) -> None:
    server, _ = attached
    abort(server)
    server.wait()
    assert not loop.loops_of(server.image) and mount_at(server.mountpoint) is None
    assert recall(server.mountpoint) is None


async def test_a_server_that_cannot_go_on_leaves_a_disk_in_use_for_detach(
    attached: tuple[Server, str], files: Path
) -> None:
    need("mkfs.ext4")
    server, device = attached
    run("mkfs.ext4", "-q", device)
    run("mount", device, files)
    abort(server)
    server.wait()
    assert f"in use: {device} is mounted on {files}" in server.log
    assert [found.node for found in loop.loops_of(server.image)] == [device]
    run("umount", files)
    assert await detach(server.mountpoint) == [f"{device} detached", f"{server.mountpoint} unmounted"]


async def test_detach_leaves_other_mounts_alone(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="not a mount of dsreg-fuse"):
        await detach(Path("/proc"))
    with pytest.raises(MountError, match="nothing is mounted"):
        await detach(tmp_path)


async def test_attach_without_direct_io_is_undone(tmp_path: Path) -> None:
    """A backing file system without O_DIRECT (ramfs): losetup drops the option and says nothing."""
    directory = tmp_path / "ram"
    directory.mkdir()
    run("mount", "-t", "ramfs", "none", directory)
    image = directory / "disk.img"
    try:
        image.write_bytes(bytes(1 << 20))
        with pytest.raises(MountError, match="losetup|did not take direct I/O"):
            await loop.attach(image)
        assert not loop.loops_of(image)
    finally:
        for left in loop.loops_of(image):
            run("losetup", "-d", left.node)
        run("umount", directory)


def test_attach_that_fails_leaves_no_mount(memory: Callable[..., Server], tmp_path: Path, fault: Path) -> None:
    fault.write_text("timeout")
    (tmp_path / "bin").mkdir()
    losetup = tmp_path / "bin" / "losetup"
    losetup.write_text("#!/bin/sh\necho no loop today >&2\nexit 1\n")
    losetup.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{losetup.parent}:{os.environ['PATH']}")
        server = memory("--attach")
    assert server.wait() == 1
    assert "no loop today" in server.log
    assert mount_at(server.mountpoint) is None


def test_losetup_is_waited_for() -> None:
    """`_until` polls a condition and gives up in time."""
    answers = iter([False, False, True])
    assert trio.run(loop._until, lambda: next(answers), 5.0)
    assert not trio.run(loop._until, lambda: False, 0.1)
