"""Loop devices on an image, by losetup(8), verified in /sys/block."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trio

from dsreg.constants import SECTOR_SIZE
from fuse_frontend.mounts import MountError, users_of

SYS_BLOCK = Path("/sys/block")
# How long `losetup -d` may take until the device is really free: it waits for whoever still has the device
# open, which for a moment is udev.
RELEASE_TIMEOUT_S = 10.0
# udev looks at a device after each change of it; a program that stays for longer uses it.
PASSING_USER_S = 3.0
POLL_INTERVAL_S = 0.05
# The kernel asks for the attributes of the image again after fuse_frontend.files.ATTR_TIMEOUT_S; on a machine that is
# busy that takes longer.
RESIZE_TIMEOUT_S = 30.0
# In which /sys/block counts.
_SECTOR_BYTES = 512


class Loop(NamedTuple):
    """One loop device in use."""

    name: str  # "loop0"
    backing_file: str

    @property
    def node(self) -> str:
        return f"/dev/{self.name}"


def attribute(name: str, attribute: str) -> str | None:
    """A file of /sys/block/<name>, None where there is none (device not in use)."""
    try:
        return (SYS_BLOCK / name / attribute).read_text(errors="surrogateescape").rstrip("\n")
    except OSError:
        return None


def loops_of(image: Path) -> list[Loop]:
    """The loop devices on `image` (absolute, without symbolic links)."""
    found = []
    for entry in sorted(SYS_BLOCK.glob("loop*"), key=lambda entry: (len(entry.name), entry.name)):
        if attribute(entry.name, "loop/backing_file") == str(image):
            found.append(Loop(entry.name, str(image)))
    return found


def sequence_of(name: str) -> str | None:
    """A number that the kernel gives out once for each time that a device is attached; None before Linux 5.15."""
    return attribute(name, "diskseq")


def recorded_loop(name: str, sequence: str, image: Path) -> Loop | None:
    """The loop device `name` if it is still the one on `image` that had `sequence`, else None.

    Once the mount of the image is gone, the kernel shows no more of it than a name in the root directory.
    """
    backing_file = attribute(name, "loop/backing_file")
    if backing_file not in (str(image), f"/{image.name}") or sequence_of(name) != sequence:
        return None
    return Loop(name, backing_file)


async def attach(image: Path) -> Loop:
    """Set up a loop device with direct I/O and 4096-byte blocks, and make sure that both took.

    Raises MountError, and then no device is left behind.
    """
    output = await _losetup("--direct-io=on", "-b", str(SECTOR_SIZE), "-f", "--show", str(image))
    loop = Loop(Path(output.strip()).name, str(image))
    # Both are dropped without an error where the block sizes do not fit.
    dio, block_size = attribute(loop.name, "loop/dio"), attribute(loop.name, "queue/logical_block_size")
    if dio == "1" and block_size == str(SECTOR_SIZE):
        return loop
    await detach(loop)
    raise MountError(
        f"{loop.node} did not take direct I/O with {SECTOR_SIZE}-byte blocks "
        f"(dio={dio}, logical_block_size={block_size}); it has been detached again"
    )


async def grow(loop: Loop, image: Path, size: int) -> bool:
    """The device gets the size of the image, once that is `size` bytes as the kernel sees it: it looks again after a
    while. False: it had that. Raises MountError."""
    if _size_of(loop) == size:
        return False
    if not await _until_in_thread(lambda: image.stat().st_size >= size, RESIZE_TIMEOUT_S):
        raise MountError(f"{image} has not become {size} bytes long within {RESIZE_TIMEOUT_S:.0f} s")
    await _losetup("-c", loop.node)
    if (found := _size_of(loop)) < size:
        raise MountError(f"{loop.node} has {found} bytes after `losetup -c`, not {size}")
    return True


def _size_of(loop: Loop) -> int:
    """In bytes."""
    return int(attribute(loop.name, "size") or 0) * _SECTOR_BYTES


async def detach(loop: Loop) -> None:
    """Detach, and return when the device is really free. Raises MountError, saying who holds it.

    The caller has made sure that nothing stands on it (`holders.of_device`). A program that has the device open
    is not cut off: losetup would only mark it, and the device would go under the next one.
    """
    node = Path(loop.node)
    if not await _until(lambda: not users_of(node), PASSING_USER_S):
        raise MountError(f"{loop.node} is open in {', '.join(map(str, users_of(node)))}")
    await _losetup("-d", loop.node)
    if not await _until(lambda: attribute(loop.name, "loop/backing_file") != loop.backing_file, RELEASE_TIMEOUT_S):
        holders = ", ".join(map(str, users_of(node))) or "no process that this user can see"
        raise MountError(f"losetup -d {loop.node} did not finish within {RELEASE_TIMEOUT_S:.0f} s; held by: {holders}")


async def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `condition` came true within `timeout_s` seconds. The kernel tells nobody, so it is polled."""
    with trio.move_on_after(timeout_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL_S)
        return True
    return condition()


async def _until_in_thread(condition: Callable[[], bool], timeout_s: float) -> bool:
    """The same, where to look at it asks this very process."""
    with trio.move_on_after(timeout_s):
        while not await trio.to_thread.run_sync(condition, abandon_on_cancel=True):  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL_S)
        return True
    return False


async def _losetup(*arguments: str) -> str:
    """Run losetup; its standard output. Raises MountError with what it said."""
    try:
        done = await trio.run_process(
            ["losetup", *arguments], capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise MountError("losetup is not installed (Debian: apt install mount)") from None
    except OSError as error:
        raise MountError(f"losetup cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise MountError(f"losetup {' '.join(arguments)}: {said}")
    return done.stdout.decode()
