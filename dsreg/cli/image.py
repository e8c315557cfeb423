"""A file that is there when it is complete, and that an interrupted copy can go on with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from dsreg.cli.holes import sink_of
from dsreg.cli.transfer import Sink
from dsreg.config.durable import sync_directory
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError

# What is read again at most after an interruption.
CHECKPOINT_BYTES = 256 << 20


class ImageError(DsregError):
    """A copy cannot go on with what is there."""


class What(NamedTuple):
    """The sectors [first, first + sectors) of the disk of a cluster (16 bytes)."""

    cluster: bytes
    first: int
    sectors: int


class PartialImage:
    """What is to become `path`, beside it: `PATH.part`, and `PATH.progress` with how much of that is on disk. Both are
    gone once it has."""

    def __init__(self, path: Path, what: What) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.done = 0  # sectors that need not be read
        self._progress = path.with_name(f"{path.name}.progress")
        self._what = what
        self._descriptor = -1
        self._written = self._saved = 0  # bytes

    @contextmanager
    def opened(self, resume: bool) -> Iterator[Sink]:
        """For the sectors from `done` on. With `resume`, goes on with what is there. Raises ImageError and OSError."""
        self.done = self._left() if resume else 0
        if not self.done:
            self._progress.unlink(missing_ok=True)
        self._written = self._saved = self.done * SECTOR_SIZE
        self._descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(self._descriptor, self._written)  # what came after it may be on disk in part
            os.lseek(self._descriptor, 0, os.SEEK_END)
            write = sink_of(self._descriptor, str(self.part))

            async def sink(data: bytes, times: int = 1) -> None:
                await write(data, times)
                self._written += times * len(data)
                if self._written - self._saved >= CHECKPOINT_BYTES:
                    await trio.to_thread.run_sync(self._save)

            yield sink
        finally:
            os.close(self._descriptor)

    def complete(self) -> None:
        """All is there: give it its name."""
        finish(self.part, self.path)
        self._progress.unlink(missing_ok=True)

    def _save(self) -> None:
        os.fdatasync(self._descriptor)
        self._saved = self._written
        content = {"cluster": self._what.cluster.hex(), "first": self._what.first, "sectors": self._what.sectors,
                   "done": self._saved // SECTOR_SIZE}
        fresh = self._progress.with_name(f"{self._progress.name}.new")
        fresh.write_text(json.dumps(content))
        fresh.replace(self._progress)

    def _left(self) -> int:
        """Sectors that an earlier copy has left."""
        try:
            told = json.loads(self._progress.read_text())
            found, done = What(bytes.fromhex(told["cluster"]), told["first"], told["sectors"]), int(told["done"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            raise ImageError(f"{self._progress} cannot be understood; remove it and begin anew") from None
        if found != self._what:
            raise ImageError(f"{self.part} is of another copy; begin anew, without --resume")
        if not self.part.exists() or self.part.stat().st_size < done * SECTOR_SIZE:
            raise ImageError(f"{self.part} is not what {self._progress} tells of; begin anew, without --resume")
        return done


def finish(part: Path, path: Path) -> None:
    """Make `part`, which is complete, durable as `path`."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(part, path)
    sync_directory(path.absolute().parent)
