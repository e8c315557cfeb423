"""Daemons: going to the background, and the report to the parent that waits for the start."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dsreg.cli.standard_files import EXIT_INTERRUPTED

log = logging.getLogger(__name__)

# What is left of the log, in bytes, where the daemon has not said itself why it ended.
LAST_WORDS_BYTES = 4096


class Parent(logging.Handler):
    """The side of a daemon that the shell waits for: told what the start waits for, and at last that all is well, or
    why it is not. As a log handler it passes on warnings and errors until then.

    On the pipe: one JSON object a line, {"say": text}, {"up": output} or {"failed": reason, "code": exit code}.
    """

    def __init__(self, pipe: int) -> None:
        super().__init__(logging.WARNING)
        self._pipe = pipe

    def report_up(self, output: str) -> None:
        """The parent prints `output` and exits with 0. What is written to the terminal ends here."""
        self._send({"up": output}, is_last=True)

    def report_failure(self, message: str, code: int) -> None:
        """The parent prints `message` as an error, and exits with `code`, 1 to 255."""
        self._send({"failed": message, "code": code}, is_last=True)

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"say": record.getMessage()}, is_last=False)

    def _send(self, message: dict[str, str | int], is_last: bool) -> None:
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, json.dumps(message).encode() + b"\n")  # less than a pipe takes at once
        except BrokenPipeError:
            is_last = True
            log.info("the process that started this one no longer waits for it")
        if is_last and self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
            logging.getLogger().removeHandler(self)


def daemonize(log_file: Path) -> Parent:
    """Continue in the background, in a session of its own, with all output in `log_file`. Raises OSError if that cannot
    be written.

    Returns in the child only. The parent waits for the child's report, or its end, and exits.
    """
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    log_start = os.fstat(output).st_size
    receiving, sending = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) > 0:
        os.close(sending)
        _wait_for_report(receiving, child, log_file, log_start)
    os.close(receiving)
    os.setsid()
    os.chdir("/")
    devnull = os.open(os.devnull, os.O_RDWR)
    for source, target in ((devnull, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for descriptor in (devnull, output):
        if descriptor > 2:
            os.close(descriptor)
    parent = Parent(sending)
    logging.getLogger().addHandler(parent)
    return parent


def _wait_for_report(pipe: int, child: int, log_file: Path, log_start: int) -> NoReturn:
    signals: list[int] = []

    def give_up(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        os.kill(child, signal.SIGTERM)  # it has not been waited for, so it is there

    # Whoever interrupts the start means the daemon, too. Its end closes the pipe.
    signal.signal(signal.SIGINT, give_up)
    signal.signal(signal.SIGTERM, give_up)
    with os.fdopen(pipe, "rb") as stream:
        for line in stream:
            report = json.loads(line)
            if "say" in report:
                _tell(report["say"])
            elif "up" in report:
                _print_and_exit(report["up"])
            else:
                _tell(f"{report['failed']}\nThe log is in {log_file}")
                os._exit(EXIT_INTERRUPTED if signal.SIGINT in signals else report["code"])
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    _tell(f"the daemon {how} before the mount was up\nThe log is in {log_file}{_last_words(log_file, log_start)}")
    os._exit(EXIT_INTERRUPTED if signal.SIGINT in signals else 1)


def _tell(text: str) -> None:
    sys.stderr.write(f"dsreg-fuse: {text}\n")
    sys.stderr.flush()


def _print_and_exit(output: str) -> NoReturn:
    try:
        sys.stdout.write(output)
        sys.stdout.flush()
    except OSError as error:
        _tell(f"the mount is up, but {output.strip()} cannot be printed: {error.strerror}")
        os._exit(1)
    os._exit(0)


def _last_words(log_file: Path, start: int) -> str:
    """The end of what stands in the log from `start` on; empty, or with a heading."""
    try:
        with open(log_file, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - LAST_WORDS_BYTES))
            text = file.read().decode(errors="replace").rstrip()
    except OSError:
        return ""
    return f", and ends with:\n{text}" if text else ""
