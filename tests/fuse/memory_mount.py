"""A mount of a disk in memory, as a process: what `dsreg-fuse` does, without a cluster.

    python -m tests.fuse.memory_mount MOUNTPOINT SIZE FAULT_FILE [--attach] [--cache]

FAULT_FILE says how requests fail from now on: "timeout", "nospace", "closed", "bug", "hang" (until it changes), or
nothing. Prints "up" and the loop device, if any, when the mount answers.
"""

from __future__ import annotations

import logging
import sys
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

    async def flush(self) -> None:
        await self._client._pass()
        await super().flush()


def on_up(attached: Loop | None) -> None:
    print("up", attached.node if attached else "", flush=True)


async def run(size: int, fault_file: Path, options: MountOptions, is_cached: bool) -> None:
    client = FaultyClient(size // SECTOR_SIZE, fault_file)
    if is_cached:
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
        trio.run(run, int(size), Path(fault_file), options, "--cache" in rest)
    except* (MountError, WritebackFailed) as group:
        sys.exit(str(group.exceptions[0]))


if __name__ == "__main__":
    main()
