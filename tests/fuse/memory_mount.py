"""A mount of a disk in memory, as a process: what `dsreg-fuse` does, without a cluster.

    python -m tests.fuse.memory_mount MOUNTPOINT SIZE FAULT_FILE [--attach]

FAULT_FILE says how requests fail from now on: "timeout", "nospace", "bug", "hang" (until it changes), or
nothing. Prints "up" and the loop device, if any, when the mount answers.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import trio

from dsreg.errors import NoSpace, OperationTimeout, Outcome
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions, serve
from fuse_frontend.mounts import MountError
from fuse_frontend.process import prepare_to_serve_block_io


class MemoryDisk:
    """A block device in memory that fails on demand."""

    def __init__(self, size: int, fault_file: Path) -> None:
        self.size = size
        self.content = bytearray(size)
        self.fault_file = fault_file

    async def _pass(self) -> None:
        await trio.lowlevel.checkpoint()
        while (fault := self.fault_file.read_text()) == "hang":
            await trio.sleep(0.02)
        if fault == "timeout":
            raise OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED)
        if fault == "nospace":
            raise NoSpace("no room")
        if fault == "bug":
            raise ZeroDivisionError("a bug on purpose")

    async def read(self, offset: int, length: int) -> bytes:
        await self._pass()
        return bytes(self.content[offset:offset + length])

    async def write(self, offset: int, data: bytes) -> None:
        await self._pass()
        assert offset + len(data) <= self.size
        self.content[offset:offset + len(data)] = data

    async def flush(self) -> None:
        await self._pass()


def on_up(attached: Loop | None) -> None:
    print("up", attached.node if attached else "", flush=True)


def main() -> None:
    mountpoint, size, fault_file, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    prepare_to_serve_block_io()
    disk = MemoryDisk(int(size), Path(fault_file))
    try:
        trio.run(serve, disk, MountOptions(Path(mountpoint).resolve(), attach="--attach" in rest), on_up)
    except* MountError as group:
        sys.exit(str(group.exceptions[0]))


if __name__ == "__main__":
    main()
