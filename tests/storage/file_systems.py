"""Real file systems of any size, on loop devices and in memory, for root. Nothing of them is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
_MAKE = {
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096"),
}
KINDS = (*_MAKE, "tmpfs")


def why_not(kind: str) -> str | None:
    """Why this file system cannot be made and mounted here; None where it can."""
    if os.geteuid() != 0:
        return "needs root to mount file systems"
    if kind in _MAKE and shutil.which(_MAKE[kind][0]) is None:
        return f"{_MAKE[kind][0]} is not installed"
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if kind not in known and _run("modprobe", kind).returncode:
        return f"the kernel has no {kind}"
    return None


@contextlib.contextmanager
def mounted(kind: str, size_bytes: int, directory: Path) -> Iterator[Path]:
    """A new file system of `kind` and of that size, mounted below `directory`, which keeps its image."""
    target = directory / f"{kind}-mount"
    target.mkdir()
    if kind == "tmpfs":
        _must("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(target))
    else:
        image = directory / f"{kind}-image"
        with open(image, "wb") as file:
            file.truncate(size_bytes)
        _must(*_MAKE[kind], str(image))
        _must("mount", "-o", "loop", str(image), str(target))
    try:
        yield target
    finally:
        if _run("umount", str(target)).returncode:  # a test that failed holds files of it open
            _must("umount", "--lazy", str(target))


def fill(directory: Path) -> None:
    """Take all the room that there is, in pieces that become smaller and smaller."""
    fd = os.open(directory / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = MIB
        while size >= 4096:
            try:
                os.write(fd, os.urandom(size))
                os.fsync(fd)
            except OSError:
                size //= 2
    finally:
        os.close(fd)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")


def _must(*command: str) -> None:
    done = _run(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
