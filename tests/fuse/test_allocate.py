"""fallocate(2), asked in the bytes of the kernel."""

from __future__ import annotations

import errno
import os

import pytest

from fuse_frontend.files import IMAGE_INODE
from fuse_frontend.requests import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tests.fuse.test_operations import SIZE, Disk, Kernel, disk, expect, files, kernel

__all__ = ["disk", "files", "kernel"]


async def test_holes_and_zeros(kernel: Kernel, disk: Disk) -> None:
    """Of any alignment, cut off where the disk ends. What is only allocated stays as it is."""
    expected = bytearray(disk.content)
    for mode in (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE, ZERO_RANGE, KEEP_SIZE, 0):
        for offset, length in ((4096, 8192), (9001, 5000), (SIZE - 100, 100)):
            disk.content[offset:offset + length] = expected[offset:offset + length] = os.urandom(length)
            await kernel.allocate(mode, offset, length)
            if mode & ~KEEP_SIZE:
                expected[offset:offset + length] = bytes(length)
            assert disk.content == expected, (mode, offset, length)
    assert disk.trims == 3 and disk.flushes == 0


async def test_no_allocation_makes_the_disk_larger(kernel: Kernel, disk: Disk) -> None:
    before = bytes(disk.content)
    for mode in (ZERO_RANGE, KEEP_SIZE, 0):
        await expect(errno.ENOSPC, kernel.allocate(mode, SIZE - 100, 101))
        await expect(errno.ENOSPC, kernel.allocate(mode, SIZE, 1))
    assert bytes(disk.content) == before
    for mode in (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE):
        disk.content[-100:] = before[-100:]
        await kernel.allocate(mode, SIZE, 4096)
        await kernel.allocate(mode, SIZE + 4096, 1 << 40)
        assert bytes(disk.content) == before
        await kernel.allocate(mode, SIZE - 100, 1 << 40)
        assert bytes(disk.content) == before[:-100] + bytes(100)


@pytest.mark.parametrize("mode", [PUNCH_HOLE, PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 4, 8, 0x20, 0x40, 0x80, 1 << 31])
async def test_allocations_that_are_not_there(kernel: Kernel, disk: Disk, mode: int) -> None:
    """Collapse, insert, unshare and what is yet to come; a hole keeps the size."""
    before = bytes(disk.content)
    await expect(errno.EOPNOTSUPP, kernel.allocate(mode, 0, 4096))
    assert bytes(disk.content) == before


async def test_a_hole_in_a_file_that_was_opened_for_synchronous_writes_is_durable(kernel: Kernel, disk: Disk) -> None:
    disk.is_cached = True
    handle, _ = await kernel.open(os.O_RDWR | os.O_DSYNC)
    for count, mode in enumerate((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE), 1):
        await kernel.allocate(mode, 0, 4096, handle)
        await kernel.allocate(mode, 4096, 4096)
        assert disk.flushes == count and bytes(disk.content[:8192]) == bytes(8192)


async def test_holes_change_the_times(kernel: Kernel, disk: Disk) -> None:
    for mode, changes in ((PUNCH_HOLE | KEEP_SIZE, True), (ZERO_RANGE, True), (0, False)):
        before = await kernel.setattr(1 << 4 | 1 << 5, atime=5, mtime=5)
        await kernel.allocate(mode, 0, 100)
        after = await kernel.getattr(IMAGE_INODE)
        assert (after["mtime"] > 5) is changes and (changes or after == before)
