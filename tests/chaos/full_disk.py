"""Storage on small file systems that fill up and get space back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.chaos.scenario import ChaosCluster, Scenario
from tests.fuse.tools import why_no_loop

# Two journal segments of 2 MiB, 16 MiB of sectors, tags, and what ext4 takes for itself.
DISK_BYTES = 32 << 20
SECTORS = 4096
_STEPS = (1 << 20, 1 << 16, 4096)


def why_no_small_disks() -> str | None:
    """The reason why this host cannot mount a small file system, None if it can."""
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed (Debian: e2fsprogs)"
    return why_no_loop()


class SmallDisk:
    """An ext4 of DISK_BYTES on `mountpoint`, mounted until `close`."""

    def __init__(self, mountpoint: Path) -> None:
        self.mountpoint = mountpoint
        self.is_full = False
        self._filler = mountpoint / "filler"
        image = mountpoint.with_suffix(".ext4")
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        mountpoint.mkdir()
        _run("mount", "-o", "loop", str(image), str(mountpoint))

    def fill(self, left_bytes: int) -> None:
        """Take all space but about `left_bytes`."""
        left = os.open(self.mountpoint / "left", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        filler = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(left, left_bytes)
            _take(filler, DISK_BYTES)
        finally:
            os.close(left)
            os.close(filler)
            os.unlink(self.mountpoint / "left")
        self.is_full = True

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)
        self.is_full = False

    def close(self) -> None:
        _run("umount", str(self.mountpoint))


def _take(descriptor: int, most: int) -> None:
    """Reserve space, up to `most` bytes, or whatever there is."""
    at = 0
    for step in _STEPS:
        while at + step <= most:
            try:
                os.posix_fallocate(descriptor, at, step)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
            at += step


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


class FullDiskScenario(Scenario):
    """Any number of the nodes' disks fill up while new sectors are written; nodes are killed on full disks, too."""

    name = "full-disk"
    sectors = SECTORS
    mends = (*Scenario.mends, "space")

    def make_cluster(self) -> ChaosCluster:
        cluster = ChaosCluster(self.directory / "cluster", nodes=3, sectors=SECTORS)
        self.disks = {}
        for rank in cluster.ranks:
            self.disks[rank] = disk = SmallDisk(self.directory / f"disk-{rank}")
            self.stack.callback(disk.close)
            cluster.storages[rank] = disk.mountpoint / "storage"
        return cluster

    def actions(self) -> dict[str, tuple[int, Callable[[], bool]]]:
        return {
            **super().actions(),
            "full": (6, self.fill_one),
            "all full": (1, self.fill_all),
            "space": (10, self.empty_one),
        }

    def heal(self) -> None:
        for disk in self.disks.values():
            disk.empty()
        super().heal()

    def fill_one(self) -> bool:
        empty = [disk for disk in self.disks.values() if not disk.is_full]
        if not empty:
            return False
        self.rng.choice(empty).fill(self.rng.choice((0, 0, 4096, 65536, 1 << 20)))
        return True

    def fill_all(self) -> bool:
        empty = [disk for disk in self.disks.values() if not disk.is_full]
        for disk in empty:
            disk.fill(0)
        return bool(empty)

    def empty_one(self) -> bool:
        full = [disk for disk in self.disks.values() if disk.is_full]
        if not full:
            return False
        self.rng.choice(full).empty()
        return True
