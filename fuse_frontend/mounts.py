"""The kernel's mount table, and which processes hold a file, a directory or a device.

Everything is read from /proc and /sys. Nothing here opens or stats a file below a mount point, so that
nothing here waits for a file system that does not answer.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dsreg.errors import DsregError

FS_TYPE = "fuse.dsreg"
IMAGE_NAME = "disk.img"


class MountError(DsregError):
    """Something about a mount or a loop device cannot be done; the message says what to do about it."""


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. `device` is "major:minor". `parent`: the `number` of the mount that it is on. `shared` and
    `master`: the peer groups that it passes changes on to, and takes them from; "" for none."""

    device: str
    mountpoint: str
    fs_type: str
    source: str
    number: str = ""
    # What may change while it is mounted:
    parent: str = field(default="", compare=False)
    shared: str = field(default="", compare=False)
    master: str = field(default="", compare=False)


class User(NamedTuple):
    """A process that has something open, or stands in it."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def unescape(field: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mount_table(text: str | None = None) -> list[Mount]:
    """All mounts of this mount namespace, oldest first. `text`: a mountinfo to parse instead."""
    if text is None:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    table = []
    for line in text.split("\n"):  # names may have any other character that ends a line
        if not line:
            continue
        fixed, _, rest = line.partition(" - ")
        number, parent, device, _, mountpoint, _, *optional = fixed.split(" ")
        fs_type, source, *_ = rest.split(" ")
        groups = dict(group.split(":") for group in optional if ":" in group)
        table.append(Mount(
            device, unescape(mountpoint), unescape(fs_type), unescape(source), number, parent,
            groups.get("shared", ""), groups.get("master", ""),
        ))
    return table


def mount_at(mountpoint: Path, table: list[Mount] | None = None) -> Mount | None:
    """The mount that is visible at `mountpoint` (absolute, without symbolic links), None if it is none."""
    found = None
    for mount in mount_table() if table is None else table:
        if mount.mountpoint == str(mountpoint):
            found = mount  # a later mount covers an earlier one
    return found


def quoted(word: str | Path) -> str:
    """For a shell, whatever is in it."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    shown = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\{byte:03o}" for byte in os.fsencode(text))
    return f"$'{''.join(shown)}'"


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
    """Where the open files, the program, the working directory and the root of a process point.

    Not what it has mapped: to read that means to wait for its page faults, which may wait for this very disk.
    """
    base = f"/proc/{pid}"
    names = ["cwd", "root", "exe"]
    try:
        names += [f"fd/{fd}" for fd in os.listdir(f"{base}/fd")]
    except OSError:
        pass  # gone, or of another user
    for name in names:
        try:
            yield os.readlink(f"{base}/{name}")
        except OSError:
            continue


def processes() -> list[str]:
    """The numbers of all but this one, ascending."""
    return sorted((pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()), key=int)


def user(pid: str) -> User | None:
    """None if it has ended."""
    try:
        return User(int(pid), Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    except OSError:
        return None


def users_of(path: Path | str, *, below: bool = False) -> list[User]:
    """Processes, except this one, that have `path` open, or with `below` anything in that directory.

    Without root only the processes of the same user can be seen.
    """
    target, found = str(path), []
    for pid in processes():
        if any(link == target or (below and link.startswith(target + "/")) for link in _links(pid)):
            one = user(pid)
            found += [] if one is None else [one]
    return found
