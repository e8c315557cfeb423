"""Logging: one line format for all processes, with priorities where systemd's journal takes them.

    2026-01-31T12:00:00.123Z WARNING node-1 dsreg.node: text

The journal keeps the time itself, and takes the priority from a `<4>` in front of a line (sd-daemon(3)).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_LINE = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z ({'|'.join(_PRIORITIES)}) ")

# The beginning of a line, up to its text.
_HEAD = re.compile(rf"{_LINE.pattern}\S+ \S+: ")

_log = logging.getLogger("dsreg.logs")


class Lines(logging.Formatter):
    """Of the process `who`; see the module. A traceback comes in lines of its own, with the priority of the first."""

    def __init__(self, who: str, *, for_journal: bool) -> None:
        stamp = "" if for_journal else "%(asctime)s.%(msecs)03dZ "
        super().__init__(f"{stamp}%(levelname)s {who} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return _with_priority(text, record.levelname) if self._for_journal else text


def text_of(line: str) -> str:
    """What a line of a log says; the whole of it if it has another format."""
    return _HEAD.sub("", line, count=1)


def log_to_stderr(who: str, verbosity: int) -> None:
    """Verbosity 0 shows warnings and worse, 1 info, 2 all."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(who, for_journal=stderr_is_journal()))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])


def log_to_file(who: str, path: Path) -> int:
    """As well as to stderr; the descriptor of the file. Raises OSError."""
    stream = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", encoding="utf-8",
                  errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(who, for_journal=False))
    logging.getLogger().addHandler(handler)
    return stream.fileno()


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


def pass_on(who: str, name: str, line: str) -> None:
    """A line that another process has written, to stderr: as it stands if it has our format already, else under `name`
    as a warning. Where nobody reads stderr any more it is lost."""
    ours = _LINE.match(line)
    level = ours[1] if ours else "WARNING"
    if not ours:
        now_s = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
        line = f"{stamp}.{int(now_s * 1000) % 1000:03d}Z {level} {who} {name}: {line}"
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


def error_prefix() -> str:
    """What stands before an error on stderr that is not logged: its priority, for the journal."""
    return f"<{_PRIORITIES['ERROR']}>" if stderr_is_journal() else ""


def _with_priority(text: str, level: str) -> str:
    prefix = f"<{_PRIORITIES.get(level, 6)}>"
    return "\n".join(prefix + line for line in text.split("\n"))
