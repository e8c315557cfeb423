"""FSYNC against the real block device: which writes it waits for."""

from __future__ import annotations

import struct

import trio
import trio.testing

from dsreg.block_device import BlockDevice
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume
from fuse_frontend.direct import DirectBinding
from fuse_frontend.files import IMAGE_INODE, DiskFiles
from fuse_frontend.kernel import Opcode
from tests.fuse.kernel_end import KernelEnd, io_in
from tests.stores import OfTasks, Tasks

SECTORS = 16


class Slow:
    """A store whose writes wait until they `may` end."""

    def __init__(self) -> None:
        self.sectors = SECTORS
        self.may = trio.Event()
        self._memory = Tasks(MemoryStore(SECTORS))

    async def read(self, sector: int, count: int = 1) -> bytes:
        return await self._memory.read(sector, count)

    async def write(self, sector: int, data: bytes) -> None:
        await self.may.wait()
        await self._memory.write(sector, data)


async def test_an_fsync_waits_for_a_write_of_the_same_turn(nursery: trio.Nursery) -> None:
    """Of a part of a sector, which begins by reading it."""
    end, store = KernelEnd(), Slow()
    binding = DirectBinding(DiskFiles(Volume(BlockDevice(OfTasks(store))), 1000, 1001), end.fd)
    nursery.start_soon(binding.run)
    for _ in range(20):
        store.may = trio.Event()
        write = end.send(Opcode.WRITE, IMAGE_INODE, io_in(IMAGE_INODE, 100, 1) + b"x")
        fsync = end.send(Opcode.FSYNC, IMAGE_INODE, struct.pack("=QII", IMAGE_INODE, 0, 0))
        await trio.testing.wait_all_tasks_blocked(0.002)
        assert end.is_silent()
        store.may.set()
        assert [(await end.receive())[:2] for _ in range(2)] == [(write, 0), (fsync, 0)]
    binding.close()
    end.close()
