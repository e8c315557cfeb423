"""One format for all logs; priorities for the journal; a log file that is opened again at SIGHUP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsreg.logs import text_of

ROOT = Path(__file__).resolve().parent.parent
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


def stderr_of(code: str, *, is_journal: bool) -> list[str]:
    """The lines that `code` writes to stderr, which is the journal or only in an environment that names one."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    stream = f"{status.st_dev}:{status.st_ino if is_journal else status.st_ino + 1}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JOURNAL_STREAM": stream}
    with os.fdopen(reader) as lines:
        subprocess.run([sys.executable, "-c", code], stderr=writer, env=environment, check=True, timeout=30)
        os.close(writer)
        return lines.read().splitlines()


SPEAK = """
import logging, sys
from dsreg.logs import log_to_stderr
log_to_stderr("node-7", 1)
log = logging.getLogger("dsreg.x")
log.debug("unseen"); log.info("fine"); log.warning("%d odd", 3); log.critical("two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a bug")
"""


def test_lines_on_a_terminal_or_in_a_file() -> None:
    first, second, third, rest, *_ = stderr_of(SPEAK, is_journal=False)
    assert re.fullmatch(STAMP + "INFO node-7 dsreg.x: fine", first)
    assert re.fullmatch(STAMP + "WARNING node-7 dsreg.x: 3 odd", second)
    assert re.fullmatch(STAMP + "CRITICAL node-7 dsreg.x: two", third) and rest == "lines"


def test_lines_in_the_journal() -> None:
    lines = stderr_of(SPEAK, is_journal=True)
    assert lines[:5] == ["<6>INFO node-7 dsreg.x: fine", "<4>WARNING node-7 dsreg.x: 3 odd",
                         "<2>CRITICAL node-7 dsreg.x: two", "<2>lines", "<3>ERROR node-7 dsreg.x: a bug"]
    assert lines[-1].startswith("<3>ZeroDivisionError") and all(line.startswith("<3>") for line in lines[5:])


PASS_ON = """
from dsreg.logs import pass_on
pass_on("node-2", "dsreg.supervisor", "2026-01-31T12:00:00.123Z ERROR node-2 dsreg.node: bad")
pass_on("node-2", "dsreg.supervisor", "killed by SIGKILL")
"""


def test_lines_of_other_processes() -> None:
    ours, other = stderr_of(PASS_ON, is_journal=False)
    assert ours == "2026-01-31T12:00:00.123Z ERROR node-2 dsreg.node: bad"
    assert re.fullmatch(STAMP + "WARNING node-2 dsreg.supervisor: killed by SIGKILL", other)
    assert stderr_of(PASS_ON, is_journal=True) == [
        "<3>ERROR node-2 dsreg.node: bad", "<4>WARNING node-2 dsreg.supervisor: killed by SIGKILL"]


@pytest.mark.parametrize(("program", "arguments"), [
    ("dsreg", ["status", "/nonexistent.toml"]), ("dsreg-fuse", ["--config", "/nonexistent.toml", "/tmp"])])
def test_errors_of_commands_have_their_priority(program: str, arguments: list[str]) -> None:
    module = "dsreg" if program == "dsreg" else "fuse_frontend.cli"
    code = f"import runpy, sys; sys.argv[1:] = {arguments!r}\n"
    code += f"try: runpy.run_module({module!r}, run_name='__main__')\n"
    code += "except SystemExit as end: assert end.code in (1, 2)"
    [line] = stderr_of(code, is_journal=True)
    assert line.startswith(f"<3>{program}: ")


@pytest.mark.parametrize("with_file", [True, False])
def test_hangup_opens_the_file_again(tmp_path: Path, with_file: bool) -> None:
    path = tmp_path / "log"
    code = """
import logging, os, signal, sys
from pathlib import Path
from dsreg.logs import log_to_file, log_to_stderr, reopen_at_hangup
log_to_stderr("fuse", 1)
path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
reopen_at_hangup(path, [log_to_file("fuse", path)] if path else [])
logging.info("before")
if path:
    path.rename(path.with_suffix(".1"))
os.kill(os.getpid(), signal.SIGHUP)
logging.info("after")
if path:
    print(path.read_text())
    path.unlink(), path.mkdir()
    os.kill(os.getpid(), signal.SIGHUP)
"""
    done = subprocess.run([sys.executable, "-c", code, *([str(path)] if with_file else [])], text=True, timeout=30,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    if not with_file:
        assert "SIGHUP: there is no log file to open again" in done.stderr and "after" in done.stderr
        return
    assert path.with_suffix(".1").read_text().endswith("before\n")
    assert "SIGHUP: the log file was opened again" in done.stdout and done.stdout.strip().endswith("after")
    assert "the log goes on where it was: Is a directory" in done.stderr


def test_what_a_line_says() -> None:
    line = "2026-01-31T12:00:00.123Z CRITICAL node-1 dsreg.node: 127.0.0.1:7001: in use"
    assert text_of(line) == "127.0.0.1:7001: in use"
    assert text_of("Killed: no log line") == "Killed: no log line"
