"""Room that is given back from above: holes in the file, discard on a loop device, fstrim. The disk is in memory."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fuse_frontend import bindings
from tests.fuse.conftest import SIZE
from tests.fuse.fsx import Fsx
from tests.fuse.holes import PUNCH, ZERO, fallocate
from tests.fuse.test_loop import attached, attribute, files, need
from tests.fuse.tools import Server, run, wait_until

pytestmark = pytest.mark.fuse
__all__ = ["attached", "files"]

MIB = 1 << 20
trims = pytest.mark.parametrize("binding", [bindings.DIRECT])


def has(device: str, marker: bytes) -> bool:
    """Whether the marker, which fills blocks of 4096 bytes, is anywhere on the device."""
    run("blockdev", "--flushbufs", device)
    with open(device, "rb") as stream:
        while chunk := stream.read(MIB):
            if marker in chunk:
                return True
    return False


@trims
def test_random_io_with_holes(mounted: Server, tmp_path: Path, rng: random.Random) -> None:
    Fsx(mounted.image, tmp_path / "plain", 4096 * 100 + 77, 8 * MIB, rng.getrandbits(64), holes=True).run(300)


def test_data_and_holes_are_found(mounted: Server, binding: str) -> None:
    """By chunks of 1 MiB. With pyfuse3, which has no lseek, the kernel takes all for data."""
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        os.pwrite(descriptor, b"x", 2 * MIB + 77)
        holes = binding == bindings.DIRECT
        assert os.lseek(descriptor, 5, os.SEEK_DATA) == (2 * MIB if holes else 5)
        assert os.lseek(descriptor, 2 * MIB + 99, os.SEEK_DATA) == 2 * MIB + 99
        assert os.lseek(descriptor, 5, os.SEEK_HOLE) == (5 if holes else SIZE)
        assert os.lseek(descriptor, 2 * MIB, os.SEEK_HOLE) == (3 * MIB if holes else SIZE)
        for offset, whence in ((SIZE, os.SEEK_HOLE), (SIZE, os.SEEK_DATA), *[(3 * MIB, os.SEEK_DATA)] * holes):
            with pytest.raises(OSError) as caught:
                os.lseek(descriptor, offset, whence)
            assert caught.value.errno == errno.ENXIO
    finally:
        os.close(descriptor)


@trims
@pytest.mark.usefixtures("loop_devices")
def test_random_io_with_holes_on_a_loop_device(attached: tuple[Server, str], tmp_path: Path, rng: random.Random
                                               ) -> None:
    server, device = attached
    Fsx(Path(device), tmp_path / "plain", 4096 * 100, 8 * MIB, rng.getrandbits(64), direct=True, holes=True).run(300)
    run("cmp", "-n", str(8 * MIB), "-i", f"0:{4096 * 100}", tmp_path / "plain", server.image)


def test_which_binding_makes_holes(mounted: Server, binding: str) -> None:
    """The kernel takes an ENOSYS of pyfuse3 for an answer, and says EOPNOTSUPP; what is in the file stays."""
    data = os.urandom(3 * 4096)
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        for mode in (PUNCH, ZERO):
            os.pwrite(descriptor, data, 4096)
            if binding == bindings.DIRECT:
                fallocate(descriptor, mode, 5000, 5000)
                expected = data[:904] + bytes(5000) + data[5904:]
            else:
                with pytest.raises(OSError) as caught:
                    fallocate(descriptor, mode, 5000, 5000)
                assert caught.value.errno == errno.EOPNOTSUPP
                expected = data
            assert os.pread(descriptor, len(data), 4096) == expected
    finally:
        os.close(descriptor)


def test_what_is_allocated_is_told_where_the_binding_can(mounted: Server, binding: str) -> None:
    """Else all of the file counts as data: copies read it, and lose nothing. The size in blocks is always the whole."""
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        os.pwrite(descriptor, b"x", 2 * MIB + 5)
        if binding == bindings.DIRECT:
            assert os.lseek(descriptor, 4096, os.SEEK_DATA) == 2 * MIB
            assert os.lseek(descriptor, 2 * MIB, os.SEEK_HOLE) == 3 * MIB
            assert os.lseek(descriptor, 4096, os.SEEK_HOLE) == 4096
        else:
            assert os.lseek(descriptor, 4096, os.SEEK_DATA) == 4096
            assert os.lseek(descriptor, 4096, os.SEEK_HOLE) == SIZE
        assert os.fstat(descriptor).st_blocks * 512 == SIZE
    finally:
        os.close(descriptor)


@trims
@pytest.mark.usefixtures("loop_devices")
def test_a_loop_device_discards(attached: tuple[Server, str], rng: random.Random) -> None:
    server, device = attached
    assert int(attribute(device, "queue/discard_max_bytes")) > 0 and int(attribute(device, "queue/discard_granularity"))
    expected = bytearray(rng.randbytes(16 * MIB))
    Path(device).write_bytes(expected)
    for options in ((), ("-z",)):
        offset, length = rng.randrange(8 * MIB) // 4096 * 4096, rng.randrange(1, 4 * MIB) // 4096 * 4096 + 4096
        run("blkdiscard", *options, "-o", str(offset), "-l", str(length), device)
        expected[offset:offset + length] = bytes(length)
        with server.image.open("rb") as image:
            assert image.read(16 * MIB) == expected


@trims
@pytest.mark.usefixtures("loop_devices")
@pytest.mark.parametrize(("kind", "check", "size", "online"), [
    ("ext4", "fsck.ext4", 128 * MIB, False), ("ext4", "fsck.ext4", 128 * MIB, True),
    ("xfs", "xfs_repair", 320 * MIB, False),
], ids=["ext4, fstrim", "ext4, -o discard", "xfs, fstrim"])
def test_deleted_files_are_trimmed(memory: Callable[..., Server], files: Path, rng: random.Random, kind: str,
                                   check: str, size: int, online: bool) -> None:
    """What was in them is nowhere on the device any more; what is in others is. mkfs leaves nothing of both."""
    need(f"mkfs.{kind}", check, "fstrim")
    device = memory("--attach", size=size).line().split()[1]
    run(f"mkfs.{kind}", "-q", device)
    run("mount", *(("-o", "discard") if online else ()), device, files)
    gone, stays, content = rng.randbytes(4096), rng.randbytes(4096), rng.randbytes(20 * MIB)
    (files / "gone").write_bytes(gone * 5000)
    (files / "stays").write_bytes(stays * 5000)
    (files / "content").write_bytes(content)
    os.sync()
    assert has(device, gone) and has(device, stays)
    (files / "gone").unlink()
    os.sync()
    if not online:
        assert has(device, gone)

        def is_trimmed() -> bool:
            assert "trimmed" in run("fstrim", "-v", files).stdout
            return not has(device, gone)

        wait_until(is_trimmed, "what was deleted is trimmed")  # XFS frees the room of a deleted file in the background
    run("umount", files)
    assert not has(device, gone) and has(device, stays)
    run(check, "-n", device)
    run("mount", device, files)
    assert (files / "content").read_bytes() == content and (files / "stays").read_bytes() == stays * 5000
    run("umount", files)
    run(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", device)
    assert not has(device, stays)


@pytest.mark.usefixtures("loop_devices")
def test_a_loop_device_on_a_binding_that_does_not_trim_works(memory: Callable[..., Server], binding: str) -> None:
    """mkfs tries to discard, hears that it cannot, and goes on."""
    need("mkfs.ext4", "fsck.ext4")
    device = memory("--attach", size=SIZE).line().split()[1]
    run("mkfs.ext4", "-q", device)
    run("fsck.ext4", "-fn", device)
