"""A directory in memory that tells what is synced from what is not, fails on demand and loses power on demand.

What a power cut leaves of a file: what was synced, and of each 512 bytes written since either the old or the new.
Of names: those at some moment since the directory was last synced, as a journaling file system has it.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter

BLOCK = 512


class Content:
    """One file. `unsynced`: block number -> what it held when it was last synced."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.data = bytearray()
        self.unsynced: dict[int, bytes] = {}
        self.synced_size = 0

    def write(self, offset: int, data: bytes) -> None:
        self._remember(offset, offset + len(data))
        if len(self.data) < offset:
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:offset + len(data)] = data

    def truncate(self, size: int) -> None:
        self._remember(min(size, len(self.data)), max(size, len(self.data)))
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def sync(self) -> None:
        self.unsynced.clear()
        self.synced_size = len(self.data)

    def lose(self, rng: random.Random) -> None:
        """Forget some of what is not synced, or all."""
        kept = rng.choice((0.0, 0.5, 0.9))
        for block, old in self.unsynced.items():
            if rng.random() >= kept:
                end = min((block + 1) * BLOCK, len(self.data))
                old = old.ljust(BLOCK, b"\0")
                self.data[block * BLOCK:end] = old[:end - block * BLOCK]
        if rng.random() >= kept:
            del self.data[self.synced_size:]
            self.data.extend(bytes(self.synced_size - len(self.data)))
        self.sync()

    def _remember(self, start: int, stop: int) -> None:
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if block not in self.unsynced:
                self.unsynced[block] = bytes(self.data[block * BLOCK:(block + 1) * BLOCK])


class MemoryDisk:
    """Names and contents. `shares`: of the calls of a kind ("read", "write", "sync") that fail with EIO from now on.
    A sync that fails forgets some of what it should have made durable, and the next one knows nothing of it.
    `counts`: calls that failed, by kind."""

    def __init__(self, seed: int) -> None:
        self.names: dict[bytes, Content] = {}
        self.shares: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._past: list[dict[bytes, Content]] = [{}]  # the names as synced, and after each change since
        self._last_inode = 1

    # --- names --------------------------------------------------------------------------------------
    def create(self, name: bytes) -> Content:
        self._last_inode += 1
        self.names[name] = content = Content(self._last_inode)
        self._past.append(dict(self.names))
        return content

    def rename(self, old: bytes, new: bytes) -> None:
        self.names[new] = self.names.pop(old)
        self._past.append(dict(self.names))

    def unlink(self, name: bytes) -> None:
        del self.names[name]
        self._past.append(dict(self.names))

    def sync_names(self) -> None:
        self._fail("sync")
        self._past = [dict(self.names)]

    # --- contents -----------------------------------------------------------------------------------
    def read(self, content: Content, offset: int, size: int) -> bytes:
        self._fail("read")
        return bytes(content.data[offset:offset + size])

    def write(self, content: Content, offset: int, data: bytes) -> None:
        try:
            self._fail("write")
        except OSError:
            # Like a page that could not be written: a part of it may be there.
            content.write(offset, data[:self._rng.randrange(len(data)) // BLOCK * BLOCK])
            raise
        content.write(offset, data)

    def sync(self, content: Content) -> None:
        try:
            self._fail("sync")
        except OSError:
            content.lose(self._rng)
            raise
        content.sync()

    def _fail(self, kind: str) -> None:
        if self._rng.random() < self.shares.get(kind, 0.0):
            self.counts[kind] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    # --- power --------------------------------------------------------------------------------------
    def cut_power(self) -> None:
        """What is left of everything; nobody may be using it."""
        self.names = dict(self._rng.choice(self._past))
        self._past = [dict(self.names)]
        for content in {id(content): content for content in self.names.values()}.values():
            content.lose(self._rng)
