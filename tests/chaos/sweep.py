"""The remains of rounds whose process could not clean up: mounts, loop devices, namespaces, processes.

Everything that a round makes carries the id of its process in its name; what carries the id of a process that is
gone is swept away.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuse_frontend.mounts import mount_table

_MARK = "dsreg-chaos-"
_NAME = re.compile(rf"{_MARK}(\d+)-")


def prefix() -> str:
    """What the names of everything made by this process begin with."""
    return f"{_MARK}{os.getpid()}-"


def is_left_over(name: str) -> bool:
    match = _NAME.search(name)
    return match is not None and not Path(f"/proc/{match[1]}").exists()


def sweep() -> None:
    """Remove what dead runs have left, except logs: directories stay."""
    namespaces = [path for path in Path("/run/netns").glob(f"{_MARK}*") if is_left_over(path.name)]
    for path in Path(tempfile.gettempdir()).glob(f"{_MARK}*"):
        if is_left_over(path.name):
            for pid in _processes_in(path):
                os.kill(pid, signal.SIGKILL)
            unmount_below(path)
    for namespace in namespaces:
        subprocess.run(["ip", "netns", "del", namespace.name], check=False)


def _processes_in(directory: Path) -> Iterator[int]:
    """Processes whose working directory is in `directory`: those that a round has started there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = os.readlink(entry / "cwd")
            except OSError:
                continue  # gone, or nothing of ours
            if where.startswith(f"{directory}/") or where == str(directory):
                yield int(entry.name)


def unmount_below(directory: Path) -> None:
    """File systems and loop devices on files below `directory`, also those that hang. FUSE mounts go last: without
    them nobody can tell any more which loop devices stand on their files."""
    mounts = [mount for mount in mount_table() if mount.mountpoint.startswith(f"{directory}/")]
    _unmount([mount.mountpoint for mount in mounts if not mount.fs_type.startswith("fuse")])
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if file.startswith(f"{directory}/"):
            subprocess.run(["losetup", "-d", f"/dev/{backing.parents[1].name}"], check=False, stderr=subprocess.DEVNULL)
    _unmount([mount.mountpoint for mount in mounts if mount.fs_type.startswith("fuse")])


def _unmount(mounts: list[str]) -> None:
    """The topmost first; those that are busy as soon as they no longer are."""
    for where in reversed(mounts):
        if subprocess.run(["umount", where], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)
