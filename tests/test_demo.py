"""The demonstration does what it says, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo import on_disk

ROOT = Path(__file__).resolve().parent.parent
FILES = "150"


def loop_devices() -> set[str]:
    """The files behind all loop devices of this host."""
    return {path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")}


def processes_naming(text: str) -> list[str]:
    """Command lines that contain `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # has ended meanwhile
        if text in line:
            found.append(line)
    return found


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The directory below which the demonstration makes its own; nothing may be left of that."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    yield directory
    assert not list(directory.iterdir())
    assert str(directory) not in Path("/proc/mounts").read_text(errors="surrogateescape")
    assert not [name for name in loop_devices() if str(directory) in name]
    assert not processes_naming(str(directory))


def start(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.demo", "--files", FILES, *arguments]
    environment = os.environ | {"TMPDIR": str(temporary), "COLUMNS": "200"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed until it ended."""
    try:
        return process.communicate(timeout=120)[0]
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.slow
def test_through_the_client(temporary: Path) -> None:
    process = start(temporary, "--client")
    output = finish(process)
    assert process.returncode == 0, output
    assert f"{FILES} files identical" in output


@pytest.mark.slow
@pytest.mark.fuse
def test_on_a_mounted_file_system(temporary: Path) -> None:
    reason = on_disk.why_not()
    if reason is not None:
        pytest.skip(reason)
    process = start(temporary)
    output = finish(process)
    assert process.returncode == 0, output
    assert f"{FILES} files identical" in output
    assert "clean" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_everything_down(temporary: Path, number: signal.Signals) -> None:
    process = start(temporary)
    assert process.stdout is not None
    for line in process.stdout:
        # The longest step, in either way: nodes run, and the disk is attached where it can be.
        if "SIGKILL" in line:
            break
    process.send_signal(number)
    output = finish(process)
    assert process.returncode == 130, output
    assert "nothing left behind" in output
