"""A mount of a disk in memory, as a process: what `dsreg-fuse` does, without a cluster.

    python -m tests.fuse.memory_mount MOUNTPOINT SIZE FAULT_FILE [--attach] [--pyfuse3] [--cache | --turns]

FAULT_FILE says how requests fail from now on: "timeout", "nospace", "closed", "bug", "hang" (until it changes), or
nothing. Prints "up" and the loop device, if any, when the mount answers. With --turns, requests are answered at the end
of the turn; FAULT_FILE means nothing then.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import trio

from dsreg.block_device import BlockDevice
from dsreg.cache import WritebackCache
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientClosed, DsregError, NoSpace, OperationTimeout, Outcome, WritebackFailed
from dsreg.memory import prepare_to_serve_block_io
from dsreg.store import Done, Flush, Request
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume
from fuse_frontend import bindings
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions, serve
from fuse_frontend.mounts import MountError
from tests.stores import OfTasks, Tasks


class FaultyStore:
    """Sectors in memory, and failures on demand."""

    def __init__(self, sectors: int, fault_file: Path) -> None:
        self.sectors = sectors
        self._memory = Tasks(MemoryStore(sectors))
        self._fault_file = fault_file

    async def fail_on_demand(self) -> None:
        while (fault := self._fault_file.read_text()) == "hang":  # noqa: ASYNC110
            await trio.sleep(0.02)
        if fault == "timeout":
            raise OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED)
        if fault == "closed":
            raise ClientClosed("closed", Outcome.DID_NOT_HAPPEN)
        if fault == "nospace":
            raise NoSpace("no room")

    def is_buggy(self) -> bool:
        return self._fault_file.read_text() == "bug"

    async def read(self, sector: int, count: int = 1) -> bytes:
        await self.fail_on_demand()
        return await self._memory.read(sector, count)

    async def write(self, sector: int, data: bytes) -> None:
        await self.fail_on_demand()
        await self._memory.write(sector, data)


class FaultyDisk(BlockDevice):
    """A flush, too, fails on demand; by itself it only waits for writes. A bug is one of the disk itself."""

    def __init__(self, store: FaultyStore) -> None:
        super().__init__(OfTasks(store))
        self._faulty = store

    def submit(self, request: Request, done: Done) -> None:
        if self._faulty.is_buggy():
            raise ZeroDivisionError("a bug on purpose")
        if isinstance(request, Flush):
            trio.lowlevel.spawn_system_task(self._flush_or_fail, done)
        else:
            super().submit(request, done)

    async def _flush_or_fail(self, done: Done) -> None:
        try:
            await self._faulty.fail_on_demand()
        except DsregError as error:
            done(b"", error)
        else:
            super().submit(Flush(), done)


def on_up(attached: Loop | None) -> None:
    print("up", attached.node if attached else "", flush=True)


async def serve_watched(disk: BlockDevice, options: MountOptions) -> None:
    volume = Volume(disk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.stall_watch.watch)
        await serve(volume, options, on_up)
        nursery.cancel_scope.cancel()


async def run(size: int, fault_file: Path, options: MountOptions, kind: set[str]) -> None:
    store = FaultyStore(size // SECTOR_SIZE, fault_file)
    if "--turns" in kind:
        await serve_watched(BlockDevice(MemoryStore(size // SECTOR_SIZE, holds=True)), options)
    elif "--cache" in kind:
        async with WritebackCache(OfTasks(store)) as cache:
            await serve_watched(BlockDevice(cache), options)
    else:
        await serve_watched(FaultyDisk(store), options)


def main() -> None:
    mountpoint, size, fault_file, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    prepare_to_serve_block_io()
    binding = bindings.PYFUSE3 if "--pyfuse3" in rest else bindings.DIRECT
    options = MountOptions(Path(mountpoint).resolve(), attach="--attach" in rest, binding=binding)
    try:
        trio.run(run, int(size), Path(fault_file), options, set(rest))
    except* (MountError, WritebackFailed) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        sys.exit(str(error))


if __name__ == "__main__":
    main()
