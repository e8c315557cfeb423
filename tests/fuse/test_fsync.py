"""FSYNC against the real block device: which writes it waits for."""

from __future__ import annotations

import struct

import trio
import trio.testing

from dsreg.block_device import BlockDevice
from dsreg.core.messages import Buffer
from dsreg.testing.memory_client import MemoryClient
from fuse_frontend.kernel import Opcode
from fuse_frontend.operations import IMAGE_INODE, DiskOperations
from tests.fuse.kernel_end import KernelEnd, io_in

SECTORS = 16


class Slow(MemoryClient):
    """A store whose writes wait until they `may` end."""

    def __init__(self) -> None:
        super().__init__(SECTORS)
        self.may = trio.Event()

    async def write(self, sector: int, data: Buffer) -> None:
        await self.may.wait()
        await super().write(sector, data)


async def test_an_fsync_waits_for_a_write_whose_task_has_not_run_yet(nursery: trio.Nursery) -> None:
    """Both arrive in one turn. Which of two tasks runs first is chance, so there are some rounds of it."""
    end, store = KernelEnd(), Slow()
    operations = DiskOperations(BlockDevice(store), end.fd, 1000, 1001)
    nursery.start_soon(operations.session.run)
    for _ in range(20):
        store.may = trio.Event()
        write = end.send(Opcode.WRITE, IMAGE_INODE, io_in(IMAGE_INODE, 100, 1) + b"x")
        fsync = end.send(Opcode.FSYNC, IMAGE_INODE, struct.pack("=QII", IMAGE_INODE, 0, 0))
        await trio.testing.wait_all_tasks_blocked(0.002)
        assert end.is_silent()
        store.may.set()
        assert [(await end.receive())[:2] for _ in range(2)] == [(write, 0), (fsync, 0)]
    operations.session.close()
    end.close()
