"""Commands, background processes and loop devices, each with a limit in time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dsreg.listening import free_ports
from fuse_frontend.mounts import mount_at

ROOT = Path(__file__).resolve().parent.parent
COMMAND_S = 120.0
START_S = 60.0
STOP_S = 45.0
POLL_S = 0.02
SECTOR_SIZE = 4096
# Below the range that the kernel takes for outgoing connections: a node that is killed must find its port free again.
PORTS = range(20000, 32768)


class BenchFailed(Exception):
    """Something could not be set up, measured or taken down; the text says what was seen instead."""


def call(*command: str | Path, timeout_s: float = COMMAND_S, tree: Path = ROOT) -> str:
    """Run the command in `tree`, whose code `python -m` takes, and return its output. BenchFailed with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=tree,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"{' '.join(words)}: not done after {timeout_s:.0f} s") from None
    except OSError as error:
        raise BenchFailed(f"{words[0]} cannot be started: {error.strerror}") from None
    if done.returncode:
        raise BenchFailed(f"{' '.join(words)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def missing_tools(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


def node_ports(count: int) -> list[int]:
    """`count` different TCP ports of the loopback interface that nobody listens on. Raises BenchFailed."""
    ports = free_ports(PORTS, count)
    if len(ports) < count:
        raise BenchFailed(f"no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")
    return ports


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
    """Poll `condition`; BenchFailed that says `what` did not come true within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)


class Daemon:
    """A process in the background, in `tree`, as with `call`, and in a session of its own: Ctrl-C reaches it through
    us, in the right order."""

    def __init__(self, name: str, command: list[str], directory: Path, tree: Path = ROOT) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        with open(self.log_path, "ab") as log:
            try:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=tree,
                                                start_new_session=True)
            except OSError as error:
                raise BenchFailed(f"{command[0]} cannot be started: {error.strerror}") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        """Wait for `condition` as long as the process runs. BenchFailed with the end of its log."""
        try:
            wait_until(lambda: self.process.poll() is not None or condition(), what, timeout_s)
        except BenchFailed as error:
            raise BenchFailed(f"{error}; the log of {self.name} ends with: {self.tail()}") from None
        if self.process.poll() is not None and not condition():
            raise BenchFailed(f"{self.name} ended with {self.process.returncode} before {what}: {self.tail()}")

    def tail(self) -> str:
        return " | ".join(self.log.splitlines()[-5:])

    def ends_within(self, timeout_s: float) -> bool:
        """SIGTERM, and whether it has ended after that time at the latest."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """SIGTERM and wait. BenchFailed for one that had to be killed."""
        if not self.ends_within(STOP_S):
            self.process.kill()
            self.process.wait()
            raise BenchFailed(f"{self.name} did not end within {STOP_S:.0f} s and was killed")


def stop_pid(pid: int, is_ours: Callable[[int], bool]) -> None:
    """SIGTERM, then SIGKILL, to a process that is not our child. `is_ours` tells it from another that got its pid."""
    for number, timeout_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        if not is_ours(pid):
            return
        try:
            os.kill(pid, number)
            wait_until(lambda: not is_ours(pid), f"process {pid} ends", timeout_s)
        except ProcessLookupError:
            return
        except BenchFailed:
            if number == signal.SIGKILL:
                raise


def make_image(path: Path, size: int, *, allocate: bool) -> None:
    """A file of `size` bytes, with its room on the disk if `allocate`. (FUSE file systems may not know how to.)"""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
        if allocate:
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def attach_loop(image: Path, stack: ExitStack) -> str:
    """A loop device on `image` as all systems get it: direct I/O, 4096-byte blocks. BenchFailed where they do not take:
    then the figures would be of something else. `stack` detaches it."""
    stack.callback(detach_loops, image)  # first: losetup may be done when Ctrl-C comes, and not have told us
    device = call("losetup", "--direct-io=on", "-b", str(SECTOR_SIZE), "-f", "--show", image).strip()
    sys_block = Path("/sys/block", Path(device).name)
    dio = (sys_block / "loop/dio").read_text().strip()
    block = (sys_block / "queue/logical_block_size").read_text().strip()
    if (dio, block) != ("1", str(SECTOR_SIZE)):
        raise BenchFailed(f"{device} on {image} did not take direct I/O with 4096-byte blocks (dio={dio}, {block})")
    return device


def loops_of(image: Path) -> list[str]:
    """The loop devices on `image` (absolute, without symbolic links)."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().rstrip("\n") == str(image):
                found.append(f"/dev/{backing.parts[3]}")
        except OSError:
            continue  # detached meanwhile
    return found


def detach_loops(image: Path) -> None:
    """Detach, and return when `image` is free: `losetup -d` may only mark a device, while somebody has it open."""
    for device in loops_of(image):
        call("losetup", "-d", device)
    wait_until(lambda: not loops_of(image), f"no loop device is on {image}", STOP_S)


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted there, even if its server is dead (then the directory cannot be looked at)."""
    return mount_at(mountpoint) is not None


def unmount(mountpoint: Path) -> None:
    """Unmount if mounted, never lazily."""
    if is_mounted(mountpoint):
        call("umount", mountpoint)
