"""What the kernel knows: the mount table, and who holds a file, a directory or a device.

Everything is read from /proc and /sys. Nothing here opens or stats a file below a mount point, so that
nothing here waits for a file system that does not answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dsreg.errors import DsregError

FS_TYPE = "fuse.dsreg"
IMAGE_NAME = "disk.img"


class MountError(DsregError):
    """Something about a mount or a loop device cannot be done; the message says what to do about it."""


class Mount(NamedTuple):
    """One line of mountinfo. `device` is "major:minor"."""

    device: str
    mountpoint: str
    fs_type: str
    source: str


class User(NamedTuple):
    """A process that has something open, or stands in it."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def _unescape(field: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mount_table(text: str | None = None) -> list[Mount]:
    """All mounts of this mount namespace, oldest first. `text`: a mountinfo to parse instead."""
    if text is None:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    table = []
    for line in text.splitlines():
        fixed, _, rest = line.partition(" - ")
        fields = fixed.split(" ")
        fs_type, source, *_ = rest.split(" ")
        table.append(Mount(fields[2], _unescape(fields[4]), _unescape(fs_type), _unescape(source)))
    return table


def mount_at(mountpoint: Path, table: list[Mount] | None = None) -> Mount | None:
    """The mount that is visible at `mountpoint` (absolute, without symbolic links), None if it is none."""
    found = None
    for mount in mount_table() if table is None else table:
        if mount.mountpoint == str(mountpoint):
            found = mount  # a later mount covers an earlier one
    return found


def mounts_of_device(number: str, node: str, table: list[Mount] | None = None) -> list[str]:
    """Where the block device `number` ("7:0"), also known as `node` ("/dev/loop0"), is mounted.

    Some file systems (btrfs) show a number of their own: those are found by their source.
    """
    table = mount_table() if table is None else table
    return [mount.mountpoint for mount in table if mount.device == number or mount.source == node]


def resolve(mountpoint: Path) -> Path:
    """`mountpoint` as the kernel writes it. Symbolic links are followed above the last name only,

    and there only where that needs no answer from a file system that may be gone.
    """
    absolute = Path(os.path.abspath(mountpoint))
    if mount_at(absolute) is not None:
        return absolute
    try:
        return absolute.resolve()
    except OSError as error:
        raise MountError(f"{mountpoint}: {error.strerror}") from None


def _links(pid: str) -> Iterator[str]:
    """Where the open files, the working directory and the root of a process point."""
    base = f"/proc/{pid}"
    names = ["cwd", "root"]
    try:
        names += [f"fd/{fd}" for fd in os.listdir(f"{base}/fd")]
    except OSError:
        pass  # gone, or of another user
    for name in names:
        try:
            yield os.readlink(f"{base}/{name}")
        except OSError:
            continue


def users_of(path: Path, *, below: bool = False) -> list[User]:
    """Processes, except this one, that have `path` open, or with `below` anything in that directory.

    Without root only the processes of the same user can be seen.
    """
    target = str(path)
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        if any(link == target or (below and link.startswith(target + "/")) for link in _links(pid)):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            found.append(User(int(pid), name))
    return found
