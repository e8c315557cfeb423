"""The write-back cache: a store of sectors in front of another one, whose writes return when they are buffered.

    BlockDevice
        | read, write, flush
    WritebackCache (writeback.py, trio): waits for room, reads what is not buffered, carries the runs out
        |
    WriteBuffer (core.py, pure): what is dirty, what goes out next, what a flush waits for
        | extents.py: pieces of buffers over ranges of sectors
    Client

limits.py has the numbers. What is durable when: docs/fuse.md, "The write-back cache".
"""

from __future__ import annotations

from dsreg.cache.core import Limits
from dsreg.cache.writeback import WritebackCache

__all__ = ["Limits", "WritebackCache"]
