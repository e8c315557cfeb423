"""tests.fuse.memory_mount, which on demand reads a request from the kernel that is not there.

That is what happens when the process that made a request is killed after the kernel has announced the request and
before it is read. Once the file FAULT_FILE.hasty exists, the wait for a request ends at once, and the file goes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from tests.fuse import memory_mount

LOOK_S = 0.02
_wait_readable = trio.lowlevel.wait_readable


async def wait_readable(fd: int) -> None:
    if os.readlink(f"/proc/self/fd/{fd}") != "/dev/fuse":
        await _wait_readable(fd)
        return
    while not is_asked_for():
        with trio.move_on_after(LOOK_S):
            await _wait_readable(fd)
            return


def is_asked_for() -> bool:
    if not HASTY.exists():
        return False
    HASTY.unlink()
    return True


if __name__ == "__main__":
    HASTY = Path(f"{sys.argv[3]}.hasty")
    trio.lowlevel.wait_readable = wait_readable  # type: ignore[assignment]
    memory_mount.main()
