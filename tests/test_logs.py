"""One format for all logs; priorities for the journal; a log file that is opened again at SIGHUP."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.listening import free_ports
from dsreg.logs import FIELDS, FORMAT_VARIABLE, text_of

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
    assert re.fullmatch(STAMP + "CRITICAL node-7 dsreg.x: two; lines", third), "an event is one line"
    assert re.fullmatch(STAMP + "ERROR node-7 dsreg.x: a bug", rest)


def test_lines_in_the_journal() -> None:
    lines = stderr_of(SPEAK, is_journal=True)
    assert lines[:4] == ["<6>INFO node-7 dsreg.x: fine", "<4>WARNING node-7 dsreg.x: 3 odd",
                         "<2>CRITICAL node-7 dsreg.x: two; lines", "<3>ERROR node-7 dsreg.x: a bug"]
    assert lines[-1].startswith("<3>ZeroDivisionError") and all(line.startswith("<3>") for line in lines[4:])


PASS_ON = """
from dsreg.logs import pass_on
pass_on("node-2", 2, "dsreg.supervisor", "2026-01-31T12:00:00.123Z ERROR node-2 dsreg.node: bad")
pass_on("node-2", 2, "dsreg.supervisor", "killed by SIGKILL")
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
reopen_at_hangup(path, [log_to_file(path)] if path else [])
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


# --- JSON -------------------------------------------------------------------------------------------
SPEAK_JSON = """
import logging, sys
from dsreg.logs import log_to_stderr
log_to_stderr("node-7", 1, "json", 7)
log = logging.getLogger("dsreg.x")
log.warning("%d odd \\u00e9 \\udcff", 3, extra={"node": 2, "peer": "10.0.0.2:7001"})
log.error("two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a bug")
[].pop()
"""


def test_objects() -> None:
    code = f"{SPEAK_JSON.rpartition('[].pop')[0]}\n"
    records = [json.loads(line) for line in stderr_of(code, is_journal=False)]
    head = {"process": "node-7", "rank": 7, "logger": "dsreg.x"}
    for record in records:
        assert re.fullmatch(STAMP.strip(), record.pop("time")) and {**record, **head} == record
    rest = [{name: value for name, value in record.items() if name not in head} for record in records]
    assert rest[0] == {"level": "WARNING", "message": "3 odd \u00e9 \udcff", "node": 2, "peer": "10.0.0.2:7001"}
    assert rest[1] == {"level": "ERROR", "message": "two\nlines"}
    traceback = rest[2].pop("traceback")
    assert rest[2] == {"level": "ERROR", "message": "a bug"}
    assert traceback.startswith("Traceback (most") and traceback.endswith("ZeroDivisionError: division by zero")


def test_objects_in_the_journal_have_their_priority() -> None:
    code = f"{SPEAK_JSON.rpartition('[].pop')[0]}\n"
    lines = stderr_of(code, is_journal=True)
    assert [line[:3] for line in lines] == ["<4>", "<3>", "<3>"]
    assert all("time" in json.loads(line[3:]) for line in lines)


def test_the_end_by_a_bug_is_one_object(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPEAK_JSON)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=30,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1 and last["level"] == "CRITICAL" and "IndexError" in last["message"]
    assert "[].pop()" in last["traceback"]


PASS_ON_JSON = """
from dsreg.logs import log_to_stderr, pass_on, text_of
log_to_stderr("up", 0, "json")
line = '{"time": "2026-01-31T12:00:00.123Z", "level": "ERROR", "process": "node-2", "logger": "a", "message": "bad"}'
pass_on("node-2", 2, "dsreg.supervisor", line)
pass_on("node-2", 2, "dsreg.supervisor", "killed by SIGKILL")
pass_on("node-2", 2, "dsreg.supervisor", '{"time": broken')
assert text_of(line) == "bad" and text_of('{"time": broken') == '{"time": broken'
"""


def test_objects_of_other_processes() -> None:
    ours, other, broken = map(json.loads, stderr_of(PASS_ON_JSON, is_journal=False))
    assert ours == {"time": "2026-01-31T12:00:00.123Z", "level": "ERROR", "process": "node-2", "logger": "a",
                    "message": "bad"}
    assert other.pop("time") and broken["message"] == '{"time": broken'
    assert other == {"level": "WARNING", "process": "node-2", "rank": 2, "logger": "dsreg.supervisor",
                     "message": "killed by SIGKILL"}
    assert [line[:3] for line in stderr_of(PASS_ON_JSON, is_journal=True)] == ["<3>", "<4>", "<4>"]


def calls_of_loggers() -> Iterator[tuple[str, ast.Call]]:
    """Each call of a logger in the product, and where it is."""
    for top in ("dsreg", "fuse_frontend", "nbd_frontend"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                        and isinstance(node.func.value, ast.Name) and node.func.value.id in ("log", "_log")):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_fields_of_records_are_the_known_ones() -> None:
    found = set()
    for where, call in calls_of_loggers():
        [extra, *_] = [keyword.value for keyword in call.keywords if keyword.arg == "extra"] or [ast.Dict([], [])]
        if isinstance(extra, ast.Dict):
            names = {ast.literal_eval(key) for key in extra.keys if key is not None}
            assert names <= set(FIELDS), where
            found |= names
        text = "".join(value.value for value in call.args[:2]
                       if isinstance(value, ast.Constant) and isinstance(value.value, str))
        assert "\n" not in text, f"{where}: an event is one line"
        if re.match(r"node %d (is|has|\()", text) and "configuration" not in ast.dump(extra):
            assert "node" in names, f"{where}: says of which node it is in the field"
    assert found


def test_each_field_is_documented() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    fields = {name for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert fields == {"time", "level", "process", "rank", "logger", "message", "traceback", *FIELDS}


# --- processes --------------------------------------------------------------------------------------
def test_a_cluster_that_logs_objects(tmp_path: Path) -> None:
    """The format is given by the environment to all, or by the option, which goes to the nodes that are started."""
    dsreg = [sys.executable, "-P", "-m", "dsreg"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ports = free_ports(range(20000, 30000), 3)
    hosts = [f"--host=127.0.0.1:{port}" for port in ports]
    subprocess.run([*dsreg, "init", str(tmp_path / "c"), "--size", "1MiB", *hosts], env=environment, check=True,
                   capture_output=True, timeout=60)
    file = tmp_path / "c" / "cluster.toml"
    with subprocess.Popen([*dsreg, "up", str(file), "-v", "--log-format", "json"], stderr=subprocess.PIPE, text=True,
                          env=environment) as up:
        assert up.stderr is not None
        records = []
        for line in up.stderr:
            records.append(json.loads(line))
            if "nodes listen" in records[-1]["message"]:
                up.send_signal(signal.SIGTERM)
        assert up.wait() == 0
    assert {"level", "process", "logger", "message", "time"} <= set.intersection(*(set(record) for record in records))
    assert {record.get("rank") for record in records} == {None, 1, 2, 3}
    broken = tmp_path / "broken.toml"
    broken.write_text("[cluster]\n")
    done = subprocess.run([*dsreg, "node", "-c", str(broken), "--rank", "1"], capture_output=True, text=True,
                          env={**environment, FORMAT_VARIABLE: "json"}, check=False, timeout=60)
    assert done.returncode == 2
    assert {json.loads(line)["level"] for line in done.stderr.splitlines()} == {"ERROR"}
