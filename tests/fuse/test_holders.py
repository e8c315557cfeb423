"""What holds a device or a mount is found wherever it is, and the commands that are printed release it."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from fuse_frontend import holders, loop
from fuse_frontend.detach import detach
from fuse_frontend.mounts import Mount, MountError, mount_at, mount_table, quoted
from tests.fuse.test_loop import need
from tests.fuse.tools import Server, run, wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("loop_devices")]

SIZE = 64 << 20
NAMES = ["disk", "a disk's \"$name\" \\ `x`", os.fsdecode(b"\xffdisk\n")]


@pytest.fixture(params=NAMES, ids=["plain", "quotes", "bytes"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(memory: Callable[..., Server], name: str = "disk") -> tuple[Server, str]:
    """A mount with a loop device, set up by hand so that it looks for partitions; the name of the device."""
    server = memory(size=SIZE, name=name)
    assert server.line() == "up", server.log
    return server, run("losetup", "-P", "--direct-io=on", "-b", "4096", "-f", "--show", server.image).stdout.strip()


# What is killed or detached may take a moment to be gone; nothing else needs the commands more than once.
MOST_TRIES = 20


async def refused(server: Server, device: str) -> str:
    """What is said about it; nothing is touched."""
    with pytest.raises(MountError) as caught:
        await detach(server.mountpoint)
    print(caught.value)
    assert loop.attribute(Path(device).name, "loop/backing_file") == str(server.image)
    assert mount_at(server.mountpoint) is not None
    return str(caught.value)


async def released(server: Server, device: str, *found: str) -> None:
    """It is refused, with each of `found` said; the commands that are printed make it work."""
    text = await refused(server, device)
    for words in found:
        assert words in text
    for _ in range(MOST_TRIES):
        said, _, commands = text.partition("Release it first, then run this again:\n")
        assert commands, said
        for command in commands.splitlines():
            run("bash", "-c", command, check=False)
        try:
            done = await detach(server.mountpoint)
        except MountError as error:
            text = str(error)
            continue
        assert done[0] == f"{device} detached" and server.wait() == 0
        return
    raise AssertionError(text)


def sleeping(seconds: str = "600", cwd: Path | None = None, stdin: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", seconds], cwd=cwd, stdin=stdin)


@contextlib.contextmanager
def in_a_namespace(
    script: str, *arguments: str | Path, propagation: str = "private"
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a mount namespace of its own, in which `script` has run."""
    process = subprocess.Popen(
        ["unshare", "-m", "--propagation", propagation, "sh", "-ec", f"{script}; echo up; exec cat", "sh",
         *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes directories; what is mounted there is unmounted after the test."""
    made: list[Path] = []

    def make(name: str) -> Path:
        (tmp_path / "places" / name).mkdir(parents=True)
        made.append(tmp_path / "places" / name)
        return made[-1]

    yield make
    for mount in reversed(mount_table()):
        if any(mount.mountpoint == str(place) or mount.mountpoint.startswith(f"{place}/") for place in made):
            run("umount", "-l", mount.mountpoint, check=False)


def partition(device: str) -> str:
    """Make one partition on the device; its name."""
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x82, b"\xfe\xff\xff", 256, 4096)
    table = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    descriptor = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(descriptor, table.ljust(4096, b"\0"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    run("partx", "-u", device)
    wait_until(Path(f"{device}p1").exists, "the partition")
    return f"{device}p1"


async def test_swap_on_a_partition(memory: Callable[..., Server]) -> None:
    need("mkswap", "swapon", "partx")
    server, device = serve(memory)
    part = partition(device)
    run("mkswap", part)
    run("swapon", part)
    try:
        await released(server, device, f"{part} is swap space", f"swapoff {part}")
    finally:
        run("swapoff", part, check=False)


async def test_a_file_system_and_all_that_is_in_it(
    memory: Callable[..., Server], name: str, places: Callable[[str], Path]
) -> None:
    """A bind mount, another file system below it, a loop device on a file, swap space, a program."""
    need("mkfs.ext4", "mkswap")
    server, device = serve(memory, name)
    files, bound = places(f"files {name}"), places(f"bound {name}")
    run("mkfs.ext4", "-q", device)
    run("mount", device, files)
    run("mount", "--bind", files, bound)
    (files / "inner").mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", files / "inner")
    for file in ("image", "swap"):
        (files / file).write_bytes(bytes(8 << 20))
        (files / file).chmod(0o600)
    second = run("losetup", "-f", "--show", files / "image").stdout.strip()
    run("mkswap", files / "swap")
    run("swapon", files / "swap")
    program = sleeping(cwd=files)
    try:
        await released(
            server, device, f"{device} is mounted on {quoted(files)}", f"{device} is mounted on {quoted(bound)}",
            f"umount {quoted(files / 'inner')}", f"losetup -d {second}", f"swapoff {quoted(files / 'swap')}",
            f"sleep (pid {program.pid}) has something open in {quoted(files)}",
        )
    finally:
        program.kill()
        program.wait()
        run("swapoff", files / "swap", check=False)
        run("losetup", "-d", second, check=False)


async def test_a_mount_in_another_namespace(
    memory: Callable[..., Server], name: str, places: Callable[[str], Path]
) -> None:
    need("mkfs.ext4", "unshare", "nsenter")
    server, device = serve(memory, name)
    files = places(f"files {name}")
    run("mkfs.ext4", "-q", device)
    with in_a_namespace('umount "$3"; mount "$1" "$2"', device, files, server.mountpoint) as process:
        await released(
            server, device, f"{device} is mounted on {quoted(files)} in the mount namespace of cat (pid {process.pid})",
            f"nsenter -t {process.pid} -m umount {quoted(files)}",
        )


async def test_a_loop_device_on_the_device(memory: Callable[..., Server], places: Callable[[str], Path]) -> None:
    need("mkfs.ext4")
    server, device = serve(memory)
    second = run("losetup", "-b", "4096", "-f", "--show", device).stdout.strip()
    files = places("files")
    try:
        run("mkfs.ext4", "-q", second)
        run("mount", second, files)
        await released(server, device, f"{second} is mounted on {files}", f"{second} is a loop device on {device}")
    finally:
        run("umount", files, check=False)
        run("losetup", "-d", second, check=False)


# --- the mount itself ---------------------------------------------------------------------------
async def test_a_bind_mount_and_a_program(
    memory: Callable[..., Server], name: str, places: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, device = serve(memory, name)
    bound = places(f"bound {name}")
    run("mount", "--bind", server.mountpoint, bound)
    third = run("losetup", "-f", "--show", bound / "disk.img").stdout.strip()
    program = sleeping(cwd=server.mountpoint)
    try:
        await released(
            server, device, f"{quoted(server.mountpoint)} is also mounted on {quoted(bound)}", f"losetup -d {third}",
            f"sleep (pid {program.pid}) has something open in {quoted(server.mountpoint)}",
        )
    finally:
        program.kill()
        program.wait()


async def test_a_program_alone_is_given_a_moment(
    memory: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is detached before it is known that the mount is free."""
    server, device = serve(memory)
    with server.image.open("rb") as image:
        program = sleeping(stdin=image)
    try:
        await released(server, device, f"sleep (pid {program.pid}) has something open", f"kill {program.pid}")
    finally:
        program.kill()
        program.wait()
    server, device = serve(memory, "another")
    program = sleeping("0.5", cwd=server.mountpoint)
    assert (await detach(server.mountpoint))[0] == f"{device} detached"
    assert program.wait() == 0 and server.wait() == 0


@pytest.mark.parametrize("propagation", ["private", "slave"])
async def test_a_copy_of_the_mount_in_another_namespace(
    memory: Callable[..., Server], places: Callable[[str], Path], propagation: str, tmp_path: Path
) -> None:
    """One that goes with the mount is in nobody's way."""
    need("unshare", "nsenter")
    shared = places("shared")
    run("mount", "--bind", shared, shared)
    run("mount", "--make-shared", shared)
    (shared / "a disk").mkdir()
    server = memory(size=SIZE, name=str((shared / "a disk").relative_to(tmp_path)))
    assert server.line() == "up", server.log
    device = run("losetup", "-b", "4096", "-f", "--show", server.image).stdout.strip()
    with in_a_namespace("true", propagation=propagation) as process:
        if propagation == "private":
            where = quoted(server.mountpoint)
            await released(server, device, f"{where} is mounted on {where} in the mount namespace of cat (pid "
                           f"{process.pid})", f"nsenter -t {process.pid} -m umount {where}")
        else:
            assert (await detach(server.mountpoint))[0] == f"{device} detached" and server.wait() == 0


# --- stacks -------------------------------------------------------------------------------------
def test_stacks_are_released_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LVM on RAID, dm-crypt on a partition: as /sys shows them. (Not every kernel that runs this test has them.)"""
    def device(path: str, number: str, *holds: str, **files: str) -> None:
        (tmp_path / path / "holders").mkdir(parents=True)
        (tmp_path / path / "dev").write_text(number)
        for holder in holds:
            (tmp_path / path / "holders" / holder).mkdir()
        for name, text in files.items():
            file = tmp_path / path / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(loop, "SYS_BLOCK", tmp_path)
    device("loop9", "777:9", "md5")
    device("loop9/loop9p1", "777:10", "md5", "dm-1", partition="1")
    device("md5", "777:5", "dm-0", md__level="raid1")
    device("dm-0", "777:0", dm__name="vg-a--b", dm__uuid="LVM-xyz")
    device("dm-1", "777:1", "dm-2", dm__name="it's", dm__uuid="CRYPT-LUKS2-x")
    device("dm-2", "777:2", dm__name="linear", dm__uuid="")
    table = [Mount("777:0", "/srv/a b", "ext4", "/dev/mapper/vg-a--b", "70", "1")]
    monkeypatch.setattr(holders, "mount_table", lambda text=None: table)
    monkeypatch.setattr(holders, "_other_namespaces", lambda: [])
    monkeypatch.setattr(holders, "_swaps", lambda: ["/dev/mapper/linear"])
    assert holders.commands_of(holders.of_device("loop9")) == [
        "swapoff /dev/mapper/linear", "dmsetup remove linear", """cryptsetup close 'it'"'"'s'""",
        "umount '/srv/a b'", "lvchange -an /dev/mapper/vg-a--b", "mdadm --stop /dev/md5",
    ]


def test_mounts_are_released_from_the_last_and_what_is_beside_them_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop9").mkdir()
    (tmp_path / "loop9" / "dev").write_text("777:9")
    table = [
        Mount("777:9", "/srv/no/disk", "ext4", "/dev/loop9", "70", "1"),
        Mount("0:90", "/srv/no/disk/a", "tmpfs", "tmpfs", "71", "70"),
        Mount("0:91", "/srv/no/disk/a/b", "tmpfs", "tmpfs", "72", "71"),
        Mount("0:92", "/srv/no/disk2", "tmpfs", "tmpfs", "73", "1"),
        Mount("777:9", "/srv/no/again", "ext4", "/dev/loop9", "74", "1"),
    ]
    monkeypatch.setattr(loop, "SYS_BLOCK", tmp_path)
    monkeypatch.setattr(holders, "mount_table", lambda text=None: table)
    monkeypatch.setattr(holders, "_other_namespaces", lambda: [])
    monkeypatch.setattr(holders, "_swaps", lambda: ["/srv/no/disk2/swap", "/srv/no/disk/a/swap"])
    assert holders.commands_of(holders.of_device("loop9")) == [
        "umount /srv/no/again", "umount /srv/no/disk/a/b", "swapoff /srv/no/disk/a/swap", "umount /srv/no/disk/a",
        "umount /srv/no/disk",
    ]


WORDS = ["/mnt/disk", "a b", "it's", "$HOME `x` \"\\", "new\nline", os.fsdecode(b"\xff\xfe'\\")]


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_quoted_words_mean_what_they_are(word: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
