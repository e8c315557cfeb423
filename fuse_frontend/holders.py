"""What holds a block device or a mount, in whichever way and mount namespace, and what to type to release it.

    of_device    mounts of it and of its partitions, with what is mounted, swap space, open or under a loop device
                 in them; swap space, stacks (LVM, dm-crypt, RAID) with all that is on these, loop devices, programs
    of_mount     bind mounts, copies in other mount namespaces, loop devices on those, programs

All of it is read from /proc and /sys, and nothing is touched.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fuse_frontend import loop
from fuse_frontend.loop import attribute
from fuse_frontend.mounts import Mount, User, mount_table, processes, quoted, unescape, user, users_of

BTRFS = Path("/sys/fs/btrfs")


class Use(NamedTuple):
    """`text`: who holds what. `command`: ends that, as a shell takes it. `passes`: it may end by itself, as udev's
    look at a device does."""

    text: str
    command: str
    passes: bool = False


def of_device(name: str) -> list[Use]:
    """Of the device `name` ("loop0"), in the order in which it has to be released."""
    look = _Look()
    uses = list(look.block(name, loop.SYS_BLOCK / name))
    if not uses and _is_claimed(f"/dev/{name}"):
        uses.append(Use(f"/dev/{name} is held by the kernel, perhaps mounted in a mount namespace without a process",
                        "lsns -t mnt"))
    return uses


def of_mount(mountpoint: Path, mount: Mount, server: int | None) -> list[Use]:
    """Of the mount `mount` that is seen at `mountpoint`, apart from loop devices on it. `server`: who serves it."""
    return list(_Look().fuse(str(mountpoint), mount, server))


def commands_of(uses: Iterable[Use]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(use.command for use in uses))


class _Look:
    """What the kernel showed at one moment."""

    def __init__(self) -> None:
        self._here = mount_table()
        self._elsewhere = list(_other_namespaces())
        self._swaps = _swaps()
        self._loops = [(entry.name, backing) for entry in sorted(loop.SYS_BLOCK.glob("loop*"))
                       if (backing := attribute(entry.name, "loop/backing_file")) is not None]
        self._seen: set[str] = set()  # devices: a stack may stand on several parts of one

    # --- devices --------------------------------------------------------------------------------
    def block(self, name: str, place: Path) -> Iterator[Use]:
        """`place`: of the device below /sys."""
        if name in self._seen:
            return
        self._seen.add(name)
        for part in sorted(place.glob(f"{name}*")):
            if (part / "partition").exists():
                yield from self.block(part.name, part)
        node, nodes = f"/dev/{name}", _nodes(name, place)
        holders = place / "holders"
        for holder in sorted(entry.name for entry in holders.iterdir()) if holders.is_dir() else ():
            is_new = holder not in self._seen
            yield from self.block(holder, loop.SYS_BLOCK / holder)
            if is_new:
                yield _stack(node, holder)
        yield from self._looped(lambda backing: backing in nodes, node)
        yield from self._mounts(node, (place / "dev").read_text().strip(), nodes)
        for swap in self._swaps:
            if swap in nodes or _is_device(swap, place):
                yield Use(f"{node} is swap space", f"swapoff {quoted(swap)}")
        for one in dict.fromkeys(one for path in sorted(nodes) for one in users_of(path)):
            yield Use(f"{node} is open in {one}", f"kill {one.pid}", passes=True)

    def _looped(self, is_on: Callable[[str], bool], what: str) -> Iterator[Use]:
        for name, backing in self._loops:
            if is_on(backing) and name not in self._seen:
                yield from self.block(name, loop.SYS_BLOCK / name)
                yield Use(f"/dev/{name} is a loop device on {what}", f"losetup -d /dev/{name}")

    def _mounts(self, node: str, number: str, nodes: set[str]) -> Iterator[Use]:
        siblings = _btrfs_siblings(node)

        def is_on(mount: Mount) -> bool:
            return mount.device == number or mount.source in nodes or mount.source in siblings

        ours = [mount for mount in self._here if is_on(mount)]
        yield from self._copies(is_on, ours, node)
        yield from self._unmounts(ours, f"{node} is mounted on")

    # --- mounts ---------------------------------------------------------------------------------
    def fuse(self, mountpoint: str, mount: Mount, server: int | None) -> Iterator[Use]:
        ours = [other for other in self._here if other.device == mount.device]
        yield from self._copies(lambda other: other.device == mount.device, ours, quoted(mountpoint))
        others = [other for other in ours if other.number != mount.number]
        yield from self._unmounts(others, f"{quoted(mountpoint)} is also mounted on")
        # What is on the mount itself, and who is in it. The loop devices on it are the caller's.
        yield from self._unmounts([other for other in self._here if other.mountpoint.startswith(f"{mountpoint}/")
                                   and other not in others], "another mount is on")
        yield from _programs(mountpoint, {server})

    def _unmounts(self, mounts: list[Mount], what: str) -> Iterator[Use]:
        """Mounts of this namespace, the last one first, with what is mounted, swap space, open or under a loop device
        in them."""
        below = [mount for mount in self._here if mount not in mounts and _is_below(mount.mountpoint, mounts)]
        for mount in reversed([mount for mount in self._here if mount in mounts or mount in below]):
            place = f"{mount.mountpoint.rstrip('/')}/"
            yield from self._looped(partial(_begins_with, place), quoted(mount.mountpoint))
            for swap in self._swaps:
                if swap.startswith(place):
                    yield Use(f"{quoted(swap)} is swap space", f"swapoff {quoted(swap)}")
            yield from _programs(mount.mountpoint, set())
            text = f"{what} {quoted(mount.mountpoint)}" if mount in mounts else (
                f"{quoted(mount.source)} is mounted below that, on {quoted(mount.mountpoint)}")
            yield Use(text, f"umount {quoted(mount.mountpoint)}")

    def _copies(self, is_on: Callable[[Mount], bool], ours: list[Mount], what: str) -> Iterator[Use]:
        """Mounts in other namespaces, but for those that go when one of ours goes."""
        groups = self._groups_that_follow(ours)
        for one, table in self._elsewhere:
            parents = {mount.number: mount for mount in table}
            for mount in reversed(table):
                if not is_on(mount):
                    continue
                parent = parents.get(mount.parent)
                if parent is not None and (parent.shared in groups or parent.master in groups):
                    continue
                where = quoted(mount.mountpoint)
                text = f"{what} is mounted on {where} in the mount namespace of {one}"
                yield Use(text, f"nsenter -t {one.pid} -m umount {where}", passes=True)  # with its last process

    def _groups_that_follow(self, ours: list[Mount]) -> set[str]:
        """The peer groups that hear of it when one of `ours` is unmounted: that of what it is mounted on, and those
        that take their changes from there."""
        parents = {mount.number: mount for mount in self._here}
        groups = {parents[mount.parent].shared for mount in ours if mount.parent in parents} - {""}
        tables = [self._here, *(table for _, table in self._elsewhere)]
        followers = [(mount.master, mount.shared) for table in tables for mount in table if mount.master]
        while more := {shared for master, shared in followers if shared and master in groups} - groups:
            groups |= more
        return groups


# --- how things are written in /proc and /sys -----------------------------------------------------
def _other_namespaces() -> Iterator[tuple[User, list[Mount]]]:
    """The other mount namespaces, each by a process in it, and their mounts. Without root: those that can be seen."""
    known = {os.readlink("/proc/self/ns/mnt")}
    for pid in processes():
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in known:
                continue
            table = mount_table(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))
        except OSError:
            continue
        if (one := user(pid)) is not None:
            known.add(namespace)
            yield one, table


def _swaps() -> list[str]:
    """The paths of what is swap space."""
    lines = Path("/proc/swaps").read_text(errors="surrogateescape").split("\n")[1:]
    return [unescape(line.split(" ")[0].split("\t")[0]) for line in lines if line]


def _nodes(name: str, place: Path) -> set[str]:
    """The names of the device below /dev."""
    nodes = {f"/dev/{name}"}
    try:
        nodes.add(f"/dev/mapper/{(place / 'dm/name').read_text().strip()}")
    except OSError:
        pass  # it is not one of the device mapper
    return nodes


def _is_device(path: str, place: Path) -> bool:
    """Whether `path`, of something below /dev, is another name of the device."""
    if not path.startswith("/dev/"):
        return False
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return False
    return f"{os.major(number)}:{os.minor(number)}" == (place / "dev").read_text().strip()


def _btrfs_siblings(node: str) -> set[str]:
    """The devices of the same btrfs, which is mounted under the name of one of them."""
    name = node.rpartition("/")[2]
    return {f"/dev/{entry.name}" for devices in BTRFS.glob("*/devices") if (devices / name).exists()
            for entry in devices.iterdir()}


def _stack(node: str, holder: str) -> Use:
    """That `node` is a part of the device `holder`, and how to end it."""
    place = loop.SYS_BLOCK / holder
    name, kind = attribute(holder, "dm/name"), attribute(holder, "dm/uuid") or ""
    text = f"{node} is part of /dev/{holder}"
    if name is not None:
        text += f" ({name})"
        if kind.startswith("LVM-"):
            return Use(text, f"lvchange -an {quoted(f'/dev/mapper/{name}')}")
        if kind.startswith("CRYPT-"):
            return Use(text, f"cryptsetup close {quoted(name)}")
        return Use(text, f"dmsetup remove {quoted(name)}")
    if (place / "md").is_dir():
        return Use(text, f"mdadm --stop /dev/{holder}")
    if (place / "bcache").is_dir():
        return Use(text, f"echo 1 > {place}/bcache/stop")
    return Use(text, f"lsblk /dev/{holder}")


def _programs(directory: str, but: set[int | None]) -> Iterator[Use]:
    for one in users_of(directory, below=True):
        if one.pid not in but:
            text = f"{one} has something open in {quoted(directory)}, or stands in it"
            yield Use(text, f"kill {one.pid}", passes=True)


def _begins_with(prefix: str, path: str) -> bool:
    return path.startswith(prefix)


def _is_below(path: str, mounts: list[Mount]) -> bool:
    return any(path.startswith(f"{mount.mountpoint.rstrip('/')}/") for mount in mounts)


def _is_claimed(node: str) -> bool:
    """Whether the kernel keeps the device for a mount or the like, in whichever namespace."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
