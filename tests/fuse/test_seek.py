"""lseek(2) with SEEK_DATA and SEEK_HOLE, asked in the bytes of the kernel."""

from __future__ import annotations

import errno
import os
import struct

import pytest
import trio

from dsreg.block_device import BlockDevice
from dsreg.chunks import extents_of
from dsreg.constants import MAX_MAP_CHUNKS, SECTOR_SIZE
from dsreg.errors import ClientClosed, DsregError, Outcome
from dsreg.store import SETTLED, Done, Submitted
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume
from fuse_frontend.direct import DirectBinding
from fuse_frontend.files import IMAGE_INODE, DiskFiles
from fuse_frontend.kernel import Opcode
from tests.fuse.kernel_end import KernelEnd
from tests.fuse.test_operations import Kernel, expect

MIB = 1 << 20
HALF = MIB // 2
ODD = 7 * MIB + HALF  # its last piece is no whole chunk
DATA, HOLE = os.SEEK_DATA, os.SEEK_HOLE


class Store(MemoryStore):
    """Tells of `told` chunks at a time."""

    told = 1 << 40
    error: DsregError | None = None

    def map(self, first: int, count: int, done: Done) -> Submitted:
        if self.error is not None:
            done(b"", self.error)
            return SETTLED
        return super().map(first, min(count, self.told * 256), done)


class Empty(MemoryStore):
    def map(self, first: int, count: int, done: Done) -> Submitted:
        done(b"\1" * min(count // 256, 700), None)
        return SETTLED


async def lseek(kernel: Kernel, offset: int, whence: int) -> int:
    asked = struct.pack("=QQII", IMAGE_INODE, offset, whence, 0)
    answer = await kernel.ask(Opcode.LSEEK, IMAGE_INODE, asked)
    found: int = struct.unpack("=Q", answer)[0]
    return found


@pytest.fixture
def store() -> Store:
    return Store(ODD // SECTOR_SIZE)


@pytest.fixture
def kernel(store: Store, end: KernelEnd, nursery: trio.Nursery) -> Kernel:
    binding = DirectBinding(DiskFiles(Volume(BlockDevice(store)), 1000, 1001), end.fd)
    nursery.start_soon(binding.run)
    return Kernel(end)


@pytest.mark.parametrize("told", [1, 2, 1 << 40])
async def test_what_is_found(kernel: Kernel, store: Store, told: int) -> None:
    """Data in the chunks 2, 3 and 5, and what is left at the end, of which nothing is known."""
    store.told = told
    for chunk in (2, 3, 5):
        store.content[chunk * 256 + 17] = b"x" * SECTOR_SIZE
    for offset, data, hole in (
        (0, 2 * MIB, 0), (MIB + 5, 2 * MIB, MIB + 5), (2 * MIB, 2 * MIB, 4 * MIB), (3 * MIB + 1, 3 * MIB + 1, 4 * MIB),
        (4 * MIB, 5 * MIB, 4 * MIB), (5 * MIB + HALF, 5 * MIB + HALF, 6 * MIB), (6 * MIB, 7 * MIB, 6 * MIB),
        (7 * MIB + 3, 7 * MIB + 3, ODD), (ODD - 1, ODD - 1, ODD),
    ):
        assert (await lseek(kernel, offset, DATA), await lseek(kernel, offset, HOLE)) == (data, hole), offset


async def test_behind_the_end_there_is_neither(kernel: Kernel) -> None:
    for whence in (DATA, HOLE):
        for offset in (ODD, ODD + 1, (1 << 63) - 1):
            await expect(errno.ENXIO, lseek(kernel, offset, whence))
    await expect(errno.EINVAL, lseek(kernel, 0, os.SEEK_END))


async def test_a_hole_up_to_the_end_has_no_data_behind(end: KernelEnd, nursery: trio.Nursery) -> None:
    """Also of a disk of many questions, of which each is answered at once."""
    binding = DirectBinding(DiskFiles(Volume(BlockDevice(Empty(40 * MAX_MAP_CHUNKS * 256))), 1000, 1001), end.fd)
    nursery.start_soon(binding.run)
    await expect(errno.ENXIO, lseek(Kernel(end), 5, DATA))
    assert await lseek(Kernel(end), 5, HOLE) == 5


@pytest.mark.allow_logs("closed")
async def test_a_disk_that_has_failed(kernel: Kernel, store: Store) -> None:
    store.error = ClientClosed("closed", Outcome.DID_NOT_HAPPEN)
    await expect(errno.EIO, lseek(kernel, 0, DATA))


@pytest.mark.parametrize(
    ("holes", "offset", "length", "expected"),
    [
        (b"", 0, 5, []), (b"\1", 0, 5, [(5, True)]), (b"\0\0\1", 5, 9 * MIB, [(2 * MIB - 5, False), (MIB, True)]),
        (b"\1\0\1", MIB, 2 * MIB, [(MIB, True), (MIB, False)]), (b"\1\1", HALF, MIB, [(MIB, True)]),
    ],
)
def test_extents(holes: bytes, offset: int, length: int, expected: list[tuple[int, bool]]) -> None:
    assert extents_of(holes, offset, length) == expected
