"""Processes that serve mounts, and the cleaning up after them, whatever state a failed test left."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from fuse_frontend.loop import loops_of
from fuse_frontend.mounts import IMAGE_NAME, mount_at, mount_table

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
FUSE_CONNECTIONS = Path("/sys/fs/fuse/connections")


def why_no_loop() -> str | None:
    """The reason why loop devices cannot be used here, None where they can."""
    if os.geteuid() != 0:
        return "loop devices need root"
    if not os.access("/dev/loop-control", os.R_OK | os.W_OK):
        return "/dev/loop-control is missing: load the module loop"
    return None


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Poll `condition`; an AssertionError that says `what` did not come true after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        select.select([], [], [], 0.02)


def run(*command: str | Path, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command; an AssertionError with its output when it fails and `check` is set."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace",
                          timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


class Server:
    """A process that serves a mount. Its log is in `log`, what it prints comes from `line()`."""

    def __init__(self, mountpoint: Path, command: list[str], environment: dict[str, str] | None = None,
                 stdout: int | IO[bytes] = subprocess.PIPE) -> None:
        self.mountpoint = mountpoint
        self.image = mountpoint / IMAGE_NAME
        self.log_path = mountpoint.with_name(f"{mountpoint.name}.{random.getrandbits(32):08x}.log")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=stdout, stderr=log, cwd=ROOT, env={**os.environ, **(environment or {})}
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def line(self, timeout_s: float = WAIT_S) -> str:
        """The next line on standard output, "" at its end."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        assert ready, f"no line on standard output; log:\n{self.log}"
        return self.process.stdout.readline().decode().strip()

    def wait_for_log(self, text: str, count: int = 1) -> None:
        wait_until(lambda: self.log.count(text) >= count, f"{text!r} in the log:\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_S)


def connection_of(server: Server) -> Path:
    """What the kernel shows of the mount: `waiting`, `max_background`, `abort`. Skips the test where it does not."""
    directory = FUSE_CONNECTIONS / str(os.minor(server.mountpoint.stat().st_dev))
    if not directory.is_dir() and os.geteuid() == 0:
        # systemd mounts it at the start; containers and small virtual machines go without.
        run("mount", "-t", "fusectl", "fusectl", FUSE_CONNECTIONS, check=False)
    if not directory.is_dir():
        pytest.skip(f"the fusectl file system is not mounted at {FUSE_CONNECTIONS}")
    return directory


def memory_server(mountpoint: Path, size: int, fault_file: Path, *options: str) -> Server:
    fault_file.touch()
    command = [sys.executable, "-m", "tests.fuse.memory_mount", str(mountpoint), str(size), str(fault_file), *options]
    return Server(mountpoint, command)


def clean_up(mountpoint: Path) -> None:
    """Take down what stands on `mountpoint`: file systems, loop devices, the mount. Nothing may fail here."""
    for loop in loops_of(mountpoint / IMAGE_NAME):
        number = Path(f"/sys/block/{loop.name}/dev").read_text().strip()
        for mount in reversed(mount_table()):
            if mount.device == number or mount.source == loop.node:
                run("umount", "-l", mount.mountpoint, check=False)
        run("losetup", "-d", loop.node, check=False)
    while mount_at(mountpoint) is not None:
        if run("fusermount3", "-u", "-z", mountpoint, check=False).returncode != 0:
            break


def leftovers(directory: Path) -> list[str]:
    """Mounts and loop devices below `directory` that are still there."""
    mounts = [mount.mountpoint for mount in mount_table() if mount.mountpoint.startswith(f"{directory}/")]
    backing = [os.fsdecode(path.read_bytes()).strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return mounts + [file for file in backing if file.startswith(f"{directory}/")]
