"""The start of a daemon: what it waits for, and why it ended, is said on standard error, whatever the reason."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.cli.standard_files import EXIT_INTERRUPTED
from fuse_frontend.loop import loops_of
from fuse_frontend.mounts import IMAGE_NAME, mount_at
from fuse_frontend.state import recall
from tests.fuse.test_cluster import FUSE, Nodes, daemons, fuse, home, nodes
from tests.fuse.tools import ROOT, WAIT_S, wait_until, why_no_loop

pytestmark = pytest.mark.fuse
__all__ = ["daemons", "home", "nodes"]


class Starting:
    """`dsreg-fuse --daemon` that has not come up yet; `stderr` grows."""

    def __init__(self, *arguments: str | Path) -> None:
        self.stderr = ""
        self.process = subprocess.Popen([*FUSE, "--daemon", *map(str, arguments)], cwd=ROOT, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.daemon = 0  # the process in the background, once it has said something

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.stderr, f"{text!r} on standard error, which has:\n{self.stderr}")
        [child] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.daemon = int(child)


    def end(self) -> int:
        """Wait for it; the exit code."""
        try:
            code = self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            self._reader.join(WAIT_S)
        assert self.process.stdout is not None and self.process.stdout.read() == ""
        self.process.stdout.close()
        return code


@pytest.fixture
def starting(nodes: Nodes, tmp_path: Path) -> Iterator[Starting]:
    """It waits for a majority."""
    nodes.kill(1, 2)
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    attach = () if why_no_loop() else ("--attach",)
    starting = Starting("--config", nodes.config.path, "--log-file", tmp_path / "log", *attach, mountpoint)
    try:
        starting.wait_for("1 of 3")
        yield starting
    finally:
        starting.process.kill()
        starting.process.wait()
        if starting.daemon:
            with contextlib.suppress(ProcessLookupError):
                os.kill(starting.daemon, signal.SIGKILL)
    assert mount_at(mountpoint) is None


@pytest.mark.parametrize("whom", ["the one that waits", "the daemon"])
def test_a_wait_is_said_and_so_is_its_end_by_a_signal(starting: Starting, whom: str) -> None:
    assert "majority" in starting.stderr
    os.kill(starting.process.pid if whom == "the one that waits" else starting.daemon, signal.SIGTERM)
    assert starting.end() == 1
    assert "ended by a signal before the mount was up" in starting.stderr and "The log is in" in starting.stderr


def test_a_daemon_that_is_killed_leaves_a_reason(starting: Starting) -> None:
    os.kill(starting.daemon, signal.SIGKILL)
    assert starting.end() == 1
    assert "the daemon was killed by SIGKILL before the mount was up" in starting.stderr
    said, _, logged = starting.stderr.partition("and ends with:\n")
    assert "1 of 3" in said and "1 of 3" in logged, "the end of its log"


def test_ctrl_c_ends_both(starting: Starting) -> None:
    os.kill(starting.process.pid, signal.SIGINT)
    assert starting.end() == EXIT_INTERRUPTED
    assert "ended by a signal before the mount was up" in starting.stderr


@pytest.mark.parametrize("name", ["d" * 245, os.fsdecode(b"disk \xff 'and' \\ more"), "line\nline"], ids=ascii)
def test_any_name_will_do(home: Path, tmp_path: Path, daemons: list[Path], name: str) -> None:
    mountpoint = tmp_path / name
    mountpoint.mkdir()
    daemons.append(mountpoint)
    attach = () if why_no_loop() else ("--attach",)
    started = fuse("--daemon", "--size", "64MiB", *attach, mountpoint)
    assert started.returncode == 0, started.stderr
    serving = recall(mountpoint)
    assert serving is not None and serving.is_alive and serving.log_file is not None
    log = Path(serving.log_file).read_text(errors="replace")
    assert "Traceback" not in log and "Logging error" not in log
    assert started.stdout.split() == [device.node for device in loops_of(mountpoint / IMAGE_NAME)]
    done = fuse("--detach", mountpoint)
    assert done.returncode == 0, done.stderr
    assert mount_at(mountpoint) is None and not serving.is_alive


def test_a_log_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    for place in ("/proc/dsreg.log", "/proc/version/dsreg.log"):
        for life in ("--daemon", "--foreground"):
            failed = fuse(life, "--size", "64MiB", "--log-file", place, mountpoint)
            assert failed.returncode == 1 and place.rpartition("/")[0] in failed.stderr
            assert "Traceback" not in failed.stderr and "without a word" not in failed.stderr
