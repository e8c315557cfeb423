"""A mount of a disk in memory, as a process: what `dsreg-fuse` does, without a cluster.

    python -m tests.fuse.memory_mount MOUNTPOINT SIZE FAULT_FILE [--attach] [--cache | --begin]

FAULT_FILE says how requests fail from now on: "timeout", "nospace", "closed", "bug", "hang" (until it changes), or
nothing. Prints "up" and the loop device, if any, when the mount answers. With --begin, requests for whole sectors are
begun without a task and answered at the end of a turn; FAULT_FILE means nothing then.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from dsreg.block_device import BlockDevice
from dsreg.cache import WritebackCache
from dsreg.constants import SECTOR_SIZE
from dsreg.core.messages import Buffer
from dsreg.errors import ClientClosed, NoSpace, OperationTimeout, Outcome, WritebackFailed
from dsreg.memory import prepare_to_serve_block_io
from dsreg.testing.memory_client import MemoryClient
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions, serve
from fuse_frontend.mounts import MountError
from fuse_frontend.operations import Done


class FaultyClient(MemoryClient):
    """Sectors in memory, and failures on demand."""

    def __init__(self, sectors: int, fault_file: Path) -> None:
        super().__init__(sectors)
        self._fault_file = fault_file

    async def _pass(self) -> None:
        while (fault := self._fault_file.read_text()) == "hang":  # noqa: ASYNC110
            await trio.sleep(0.02)
        if fault == "timeout":
            raise OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED)
        if fault == "closed":
            raise ClientClosed("closed", Outcome.DID_NOT_HAPPEN)
        if fault == "nospace":
            raise NoSpace("no room")
        if fault == "bug":
            raise ZeroDivisionError("a bug on purpose")

    async def read(self, sector: int, count: int = 1) -> bytes:
        await self._pass()
        return await super().read(sector, count)

    async def write(self, sector: int, data: Buffer) -> None:
        await self._pass()
        await super().write(sector, data)


class FaultyDisk(BlockDevice):
    """A flush, too, fails on demand; by itself it only waits for writes."""

    def __init__(self, client: FaultyClient) -> None:
        super().__init__(client)
        self._client = client

    @property
    def is_flushed(self) -> bool:
        return False

    async def flush(self) -> None:
        await self._client._pass()
        await super().flush()


class BegunDisk:
    """Bytes. Of the requests for whole sectors, every other one is answered at once, the rest at the end of the turn;
    all others need a task."""

    is_cached = False
    obstacle = ""
    is_flushed = False

    def __init__(self, size: int) -> None:
        self.size = size
        self._content = bytearray(size)
        self._begun: list[Callable[[], None]] = []
        self._is_odd = False

    def begin_read(self, offset: int, length: int, done: Done) -> bool:
        return self._begin(offset, length, lambda: done(self._content[offset : offset + length], None))

    def begin_write(self, offset: int, data: bytes, done: Done) -> bool:
        def act() -> None:
            self._content[offset : offset + len(data)] = data
            done(b"", None)

        return self._begin(offset, len(data), act)

    def _begin(self, offset: int, length: int, act: Callable[[], None]) -> bool:
        if offset % SECTOR_SIZE or length % SECTOR_SIZE:
            return False
        self._is_odd = not self._is_odd
        if self._is_odd:
            act()
        else:
            self._begun.append(act)
        return True

    def flush_turn(self) -> None:
        begun, self._begun = self._begun, []
        for act in begun:
            act()

    async def read(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(self._content[offset : offset + length])

    async def write(self, offset: int, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._content[offset : offset + len(data)] = data

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


def on_up(attached: Loop | None) -> None:
    print("up", attached.node if attached else "", flush=True)


async def run(size: int, fault_file: Path, options: MountOptions, kind: set[str]) -> None:
    client = FaultyClient(size // SECTOR_SIZE, fault_file)
    if "--begin" in kind:
        await serve(BegunDisk(size), options, on_up)
    elif "--cache" in kind:
        async with WritebackCache(client) as cache:
            await serve(BlockDevice(cache), options, on_up)
    else:
        await serve(FaultyDisk(client), options, on_up)


def main() -> None:
    mountpoint, size, fault_file, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    prepare_to_serve_block_io()
    options = MountOptions(Path(mountpoint).resolve(), attach="--attach" in rest)
    try:
        trio.run(run, int(size), Path(fault_file), options, set(rest))
    except* (MountError, WritebackFailed) as group:
        sys.exit(str(group.exceptions[0]))


if __name__ == "__main__":
    main()
