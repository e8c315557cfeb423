"""Logging: one line an event for all processes, as text or as JSON, with priorities where systemd's journal takes them.

    2026-01-31T12:00:00.123Z WARNING node-1 dsreg.node: text
    {"time": "2026-01-31T12:00:00.123Z", "level": "WARNING", "process": "node-1", "logger": "dsreg.node", ...}

The journal keeps the time itself, which text leaves out there, and takes the priority from a `<4>` in front of a line
(sd-daemon(3)). What the fields of JSON are: docs/logs.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType

TEXT, JSON = FORMATS = ("text", "json")
# Names the format for processes that are told none; children are given that of their parent.
FORMAT_VARIABLE = "DSREG_LOG_FORMAT"

# What a record may have beside its message, as `extra` of a call; it has those that it is about.
FIELDS = (
    "node",  # rank of the node that it is about; `rank` is that of the process
    "peer",  # address of the other end of a connection
    "configuration",  # number
    "path",  # file, directory, mount point or device
    "operation",  # read, write, ...
    "offset", "bytes",  # of the request of an edge
    "sector", "sectors",  # the first one, and how many
    "error",  # kind
    "took_ms", "queue_ms", "quorum_ms", "sync_ms", "last_node",  # of slow requests: dsreg.slow
    "suppressed",  # so many more like it were not logged
)

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_LINE = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z ({'|'.join(_PRIORITIES)}) ")

# The beginning of a line, up to its text.
_HEAD = re.compile(rf"{_LINE.pattern}\S+ \S+: ")

_log = logging.getLogger("dsreg.logs")


class Lines(logging.Formatter):
    """Text, of the process `who`; see the module. A traceback comes in lines of its own, with the priority of the
    first; a message is one line."""

    def __init__(self, who: str, *, for_journal: bool) -> None:
        stamp = "" if for_journal else "%(asctime)s.%(msecs)03dZ "
        super().__init__(f"{stamp}%(levelname)s {who} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._for_journal = for_journal

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return _with_priority(text, record.levelname) if self._for_journal else text


class Objects(logging.Formatter):
    """JSON, of the process `who`, which is the node `rank` or none."""

    def __init__(self, who: str, rank: int | None, *, for_journal: bool) -> None:
        super().__init__()
        self._who = who
        self._rank = {} if rank is None else {"rank": rank}
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _stamp(record.created), "level": record.levelname, "process": self._who, **self._rank,
            "logger": record.name, "message": record.getMessage(),
        }
        fields.update((name, record.__dict__[name]) for name in FIELDS if name in record.__dict__)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        text = _dumps(fields)
        return _with_priority(text, record.levelname) if self._for_journal else text


class _Process:
    """How this process logs: it has one stderr."""

    def __init__(self) -> None:
        self.who = ""
        self.rank: int | None = None
        self.format = TEXT

    def formatter(self, *, for_journal: bool) -> logging.Formatter:
        if self.format == JSON:
            return Objects(self.who, self.rank, for_journal=for_journal)
        return Lines(self.who, for_journal=for_journal)


_process = _Process()


def one_line(text: str) -> str:
    """The lines of `text` as one."""
    return text if text.isprintable() else "; ".join(filter(None, (line.strip() for line in text.splitlines())))


def text_of(line: str) -> str:
    """What a line of a log says; the whole of it if it has another format."""
    found = _parse(line)
    return str(found["message"]) if found else _HEAD.sub("", line, count=1)


def log_to_stderr(who: str, verbosity: int, log_format: str = TEXT, rank: int | None = None) -> None:
    """Verbosity 0 shows warnings and worse, 1 info, 2 all. `log_format`: one of FORMATS. `rank`: of a node."""
    _process.who, _process.rank, _process.format = who, rank, log_format
    handler = logging.StreamHandler()
    handler.setFormatter(_process.formatter(for_journal=stderr_is_journal()))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
    if log_format == JSON:
        sys.excepthook = _log_bug


def _log_bug(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What ends the process and is no operating error: Python writes its traceback in lines of no format."""
    _log.critical("a bug in this program has ended it: %r", error, exc_info=(kind, error, traceback))


def log_to_file(path: Path) -> int:
    """As well as to stderr, and in its format; the descriptor of the file. Raises OSError."""
    stream = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", encoding="utf-8",
                  errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_process.formatter(for_journal=False))
    logging.getLogger().addHandler(handler)
    return stream.fileno()


def for_children() -> dict[str, str]:
    """The environment that has child processes log as this one does."""
    return {FORMAT_VARIABLE: _process.format}


def reopen_at_hangup(path: Path | None, descriptors: Sequence[int]) -> None:
    """From now on SIGHUP does this and nothing else: `path`, which may have been moved away, is opened again in place
    of `descriptors`. With None there is nothing to open."""

    def reopen(signum: int, frame: FrameType | None) -> None:
        if path is None:
            _log.info("SIGHUP: there is no log file to open again")
            return
        try:
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            _log.warning("SIGHUP: %s cannot be opened again, the log goes on where it was: %s", path, error.strerror)
            return
        for descriptor in descriptors:
            os.dup2(fresh, descriptor, inheritable=descriptor <= 2)
        os.close(fresh)
        _log.info("SIGHUP: the log file was opened again")

    signal.signal(signal.SIGHUP, reopen)


def pass_on(who: str, rank: int, name: str, line: str) -> None:
    """A line that another process has written, the node `rank`, to stderr: as it stands if it has our format already,
    else under `name` as a warning. Where nobody reads stderr any more it is lost."""
    if _process.format == JSON:
        found = _parse(line)
        level = str(found["level"]) if found else "WARNING"
        if not found:
            line = _dumps({"time": _stamp(time.time()), "level": level, "process": who, "rank": rank, "logger": name,
                           "message": line})
        line = _with_priority(line, level) if stderr_is_journal() else line
    else:
        ours = _LINE.match(line)
        level = ours[1] if ours else "WARNING"
        if not ours:
            line = f"{_stamp(time.time())} {level} {who} {name}: {line}"
        if stderr_is_journal():
            line = _with_priority(line[line.index(" ") + 1:], level)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def stderr_is_journal() -> bool:
    """Whether systemd's journal reads stderr: $JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def said(program: str, message: str, level: int = logging.ERROR) -> str:
    """The line on stderr by which `program` says something to whoever has called it, that may be a person."""
    name = logging.getLevelName(level)
    if _process.format == TEXT:
        return f"<{_PRIORITIES[name]}>{program}: {message}" if stderr_is_journal() else f"{program}: {message}"
    record = logging.LogRecord(program, level, "", 0, message, None, None)
    return _process.formatter(for_journal=stderr_is_journal()).format(record)


def _parse(line: str) -> dict[str, object] | None:
    """The fields of a line of JSON that a process of ours has written; None if it is none."""
    if not line.startswith('{"time": '):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if found.keys() >= {"level", "process", "logger", "message"} else None


def _dumps(fields: dict[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def _stamp(unix_s: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(unix_s))}.{int(unix_s * 1000) % 1000:03d}Z"


def _with_priority(text: str, level: str) -> str:
    prefix = f"<{_PRIORITIES.get(level, 6)}>"
    return "\n".join(prefix + line for line in text.split("\n"))
