"""`dsreg top` on real nodes: on a terminal with keys, of changing size, and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsreg.client import Attach, BlockingClient
from dsreg.config import load_config
from tests.cli.terminal import TIMEOUT_S, Output, resize
from tests.cli.test_real_cluster import Cluster

INTERVAL = "0.2"  # of a person who is in a hurry


@pytest.fixture
def cluster(tmp_path: Path, dsreg: list[str]) -> Iterator[Cluster]:
    started = Cluster(tmp_path / "cluster", dsreg)
    try:
        started.wait_for(b"all 3 nodes listen")
        started.begun()
        yield started
    finally:
        started.stop()
        print(started.log.decode())


class Top(Output):
    """It runs, on a terminal of its own from which it gets keys (`keys`), or which it only writes to."""

    def __init__(self, cluster: Cluster, *options: str, columns: int = 100, rows: int = 30, keys: bool = True) -> None:
        terminal, other = pty.openpty()
        resize(terminal, columns, rows)
        self.before = termios.tcgetattr(other)
        process = subprocess.Popen(
            [*cluster.dsreg, "top", str(cluster.path), "--interval", INTERVAL, "--timeout", "20", *options],
            stdin=other if keys else subprocess.DEVNULL, stdout=other, stderr=subprocess.PIPE,
            env={**{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
                 "TERM": "xterm"})
        super().__init__(process, terminal)
        self._other = other  # stays open, so that what the terminal is like can be seen afterwards

    def resize(self, columns: int, rows: int) -> None:
        resize(self.output, columns, rows)

    def press(self, keys: bytes) -> None:
        os.write(self.output, keys)

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it wrote to stderr; the terminal is as it was."""
        self.until(lambda text: text.endswith("\x1b[?1049l"))
        assert "\x1b[?25h" in self.text, "the cursor is there again"
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert termios.tcgetattr(self._other) == self.before
        return self.process.returncode, errors.decode()

    def close(self) -> None:
        super().close()
        os.close(self._other)


@pytest.fixture
def top(cluster: Cluster) -> Iterator[Callable[..., Top]]:
    started: list[Top] = []

    def start(*options: str, **others: Any) -> Top:
        started.append(Top(cluster, *options, **others))
        return started[-1]

    yield start
    for each in started:
        each.close()


def screens(text: str) -> int:
    return text.count("\x1b[H")


def test_on_a_terminal(cluster: Cluster, top: Callable[..., Top]) -> None:
    seen = top()
    seen.until(lambda text: "q: quit  p: pause" in text and "3 of 3 nodes answer" in text and "reads/s" in text)
    assert seen.text.startswith("\x1b[?1049h"), "on a screen of its own"
    with BlockingClient(load_config(cluster.path), TIMEOUT_S, attach=Attach(name="somebody, process 7")) as client:
        client.write(0, bytes(4096))
        seen.until(lambda text: "attached by somebody, process 7" in text and "\x1b[1msomebody, process 7" in text)
    seen.press(b"p")
    seen.until(lambda text: "PAUSED; q: quit  p: go on" in text)
    seen.press(b"x ")
    seen.until(lambda text: screens(text) >= 3 and "PAUSED" not in text.split("\x1b[H")[-2])
    seen.resize(40, 12)
    seen.process.send_signal(signal.SIGWINCH)  # it has no controlling terminal, whose kernel would
    seen.until(lambda text: screens(text) >= 3)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.text.split("\x1b[H")[-2]).replace("\r", "").split("\n")
    assert len(last) == 12 and max(map(len, last)) <= 40, last
    seen.press(b"q")
    assert seen.ended() == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order(top: Callable[..., Top], number: int, code: int) -> None:
    seen = top(keys=number != signal.SIGTERM)
    seen.until(lambda text: "quit" in text)
    assert ("Ctrl-C: quit" in seen.text) == (number == signal.SIGTERM), "where there are no keys"
    seen.process.send_signal(number)
    assert seen.ended() == (code, "")


def test_it_goes_on_after_it_was_stopped(top: Callable[..., Top]) -> None:
    seen = top()
    seen.until(lambda text: "quit" in text)
    seen.process.send_signal(signal.SIGSTOP)
    termios.tcsetattr(seen._other, termios.TCSANOW, seen.before)  # as a shell does
    seen.process.send_signal(signal.SIGCONT)
    seen.until(lambda text: "\x1b[?1049h" in text and screens(text) >= 2)
    seen.press(b"q")
    assert seen.ended() == (0, "")


def run(cluster: Cluster, *options: str) -> str:
    done = subprocess.run([*cluster.dsreg, "top", str(cluster.path), "--interval", INTERVAL, *options],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


def test_without_a_terminal(cluster: Cluster) -> None:
    text = run(cluster, "--once")
    assert "\x1b" not in text and text.count("reads/s") == 1 and "3 of 3 nodes answer" in text
    assert re.search(r"^1 +answers +\S.* +0 +0 +", text, re.MULTILINE), "with rates"
    (line,) = run(cluster, "--once", "--json").splitlines()
    assert all(node["rates"]["writes"] == 0 for node in json.loads(line)["nodes"])
    command = [*cluster.dsreg, "top", str(cluster.path), "--interval", INTERVAL]
    for options, mark in (((), "reads/s"), (("--json",), '"findings"')):
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen = 0
            while seen < 3:
                seen += mark in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        assert process.returncode == 0 and "Traceback" not in rest


def test_a_node_that_is_gone(cluster: Cluster) -> None:
    pid = cluster.node_pids()[3]
    os.kill(pid, signal.SIGSTOP)
    try:
        report = json.loads(run(cluster, "--once", "--json", "--timeout", "1"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [node["answers"] for node in report["nodes"]] == [True, True, False]
    assert report["nodes"][2]["state"].startswith("connects, but: no status") and report["health"] == "degraded"
