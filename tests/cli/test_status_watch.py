"""`dsreg status --watch` on real nodes: on terminals and without one, while nodes come and go, until a signal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import TIMEOUT_S, Output, resize
from tests.cli.test_real_cluster import Cluster, free_port

# Of the nodes' answers: where all answer, and where some do not, so that each look takes that long.
TIMEOUT, SHORT_TIMEOUT = "20", "4"


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


class Watch(Output):
    """A running `dsreg status --watch`, on a terminal or with its output in a pipe."""

    def __init__(
        self, cluster: Cluster, *options: str, columns: int = 0, rows: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [*cluster.dsreg, "status", str(cluster.path), "--watch", "--timeout", TIMEOUT, *options]
        environment = {**os.environ, "TERM": "xterm", **(environment or {})}
        environment.pop("COLUMNS", None)
        if columns:
            output, other = pty.openpty()
            resize(other, columns, rows)
        else:
            output, other = os.pipe()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.PIPE,
                                   env=environment)
        os.close(other)
        super().__init__(process, output)

    def end(self, number: int) -> tuple[int, str, str]:
        """The exit code, what still came, and what was written to stderr."""
        self.process.send_signal(number)
        rest = b""
        with contextlib.suppress(OSError):  # EIO: the other side of a terminal is closed
            while chunk := os.read(self.output, 65536):
                rest += chunk
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, rest.decode(), errors.decode()


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*options: str, **others: Any) -> Watch:
        started.append(Watch(cluster, *options, **others))
        return started[-1]

    yield start
    for each in started:
        each.close()


def stopped(cluster: Cluster, *ranks: int) -> contextlib.ExitStack:
    """These nodes hang until the end of the block."""
    resume, pids = contextlib.ExitStack(), cluster.node_pids()
    for rank in ranks:
        os.kill(pids[rank], signal.SIGSTOP)
        resume.callback(os.kill, pids[rank], signal.SIGCONT)
    return resume


@pytest.mark.parametrize("columns", [40, 80])
def test_it_is_drawn_in_place(watch: Callable[..., Watch], columns: int) -> None:
    seen = watch(columns=columns, environment={"NO_COLOR": "1"})
    seen.until(lambda text: text.count("\x1b[H") >= 3 and text.endswith("\x1b[J"))
    begin, *screens = seen.text.split("\x1b[H")
    assert begin == "\x1b[?25l\x1b[2J"
    for screen in screens:
        assert "quorum: 3 of 3 nodes answer" in re.sub(r"\s+", " ", screen.replace("\x1b[K", ""))
        lines = screen.removesuffix("\x1b[J").split("\r\n")
        assert all(line.endswith("\x1b[K") and len(line) - 3 <= columns for line in lines), screen
        assert len(lines) <= 24
    assert seen.end(signal.SIGINT)[::2] == (0, "")


def test_the_cursor_is_shown_again(watch: Callable[..., Watch]) -> None:
    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 143)):
        seen = watch(columns=80)
        seen.until(lambda text: "quorum" in text)
        ended = seen.end(number)
        assert ended[0] == code and ended[1].endswith("\x1b[?25h\r\n") and ended[2] == ""


@pytest.mark.parametrize(("columns", "environment"), [(0, {}), (80, {"TERM": "dumb"})])
def test_it_is_printed_anew_where_nothing_can_be_drawn(
    watch: Callable[..., Watch], columns: int, environment: dict[str, str]
) -> None:
    seen = watch(columns=columns, environment=environment)
    seen.until(lambda text: text.count("quorum: 3 of 3") >= 2)
    assert "\x1b" not in seen.text
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, every 1 s", seen.text, re.MULTILINE)) >= 2
    assert seen.end(signal.SIGTERM)[::2] == (143, "")


def test_a_quorum_that_is_lost_and_comes_back(cluster: Cluster, watch: Callable[..., Watch]) -> None:
    seen = watch("--timeout", SHORT_TIMEOUT)
    seen.until(lambda text: "can lose 1 more node now" in text)
    with stopped(cluster, 2, 3):
        seen.until(lambda text: "no quorum: 1 of 3 nodes answer" in text)
        assert "can lose 0 more nodes now (not answering: nodes 2, 3)" in seen.text
        assert "to do: start nodes 2, 3" in seen.text and "Nothing is lost by waiting" in seen.text
    seen.until(lambda text: "can lose 1 more node now\n" in text and "\nquorum: 3 of 3" in text)
    assert seen.end(signal.SIGINT)[::2] == (0, "")


def test_one_json_object_a_line(cluster: Cluster, watch: Callable[..., Watch]) -> None:
    seen = watch("--json", "--timeout", SHORT_TIMEOUT)

    def is_seen(text: str) -> bool:
        last = json.loads(text.splitlines()[-1]) if text.endswith("\n") else {}
        return last.get("can_lose") == 0 and last["answering"] == 2

    with stopped(cluster, 3):
        seen.until(is_seen)
    reports = [json.loads(line) for line in seen.text.splitlines()]
    times = [report["time"] for report in reports]
    assert times == sorted(times) and abs(times[-1] - time.time()) < 60
    last = reports[-1]
    assert last["quorum"] and last["answering"] == 2 and last["config_fault"] == ""
    assert last["nodes"][2]["copy"]["state"] == "" and last["nodes"][0]["lives"]["life"] == 1
    assert seen.end(signal.SIGTERM)[::2] == (143, "")


def test_the_file_is_changed_meanwhile(cluster: Cluster, watch: Callable[..., Watch]) -> None:
    seen = watch("--timeout", SHORT_TIMEOUT)
    seen.until(lambda text: "quorum: 3 of 3" in text)
    text = cluster.path.read_text()

    def replace(content: str) -> None:
        new = cluster.path.with_suffix(".new")
        new.write_text(content)
        new.rename(cluster.path)

    replace("this is no TOML")
    seen.until(lambda text: "is shown as it was" in text and "quorum: 3 of 3" in text.partition("as it was")[2])
    port = free_port()
    elsewhere = re.sub(r'(rank = 3\naddress = )"[^"]+"', rf'\1"127.0.0.1:{port}"', text)
    # Else the others tell where it is.
    replace(elsewhere.replace("[cluster]\n", "[cluster]\nlearn_addresses = false\n"))
    seen.until(lambda text: f"127.0.0.1:{port}" in text and "start node 3" in text)
    replace(text)
    seen.until(lambda text: text.endswith("quorum: 3 of 3 nodes answer, 3 are needed\n".replace("3 are", "2 are")))
    assert "is shown as it was" not in seen.text.rpartition("every 1 s")[2]


def test_nobody_reads_on(watch: Callable[..., Watch]) -> None:
    seen = watch()
    seen.until(lambda text: "quorum" in text)
    os.close(seen.output)
    _, errors = seen.process.communicate(timeout=TIMEOUT_S)
    assert seen.process.returncode == 1 and errors == b""
    seen.output = os.open(os.devnull, os.O_RDONLY)
