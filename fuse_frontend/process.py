"""Life in the background."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dsreg.cli.standard_files import EXIT_INTERRUPTED

log = logging.getLogger(__name__)

UP = b"\x00"


class Parent:
    """The side of a daemon that the shell waits for: told once that all is well, or why it is not."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def report_up(self, output: str) -> None:
        """The parent prints `output` and exits with 0. What is written to the terminal ends here."""
        self._send(UP + output.encode())

    def report_failure(self, message: str, code: int) -> None:
        """The parent prints `message` as an error, and exits with `code`, 1 to 255."""
        self._send(bytes([code]) + message.encode())

    def _send(self, message: bytes) -> None:
        if self._pipe >= 0:
            try:
                with os.fdopen(self._pipe, "wb") as pipe:
                    pipe.write(message)
            except BrokenPipeError:
                log.info("nobody waits for the start any longer")
            self._pipe = -1


def daemonize(log_file: Path) -> Parent:
    """Continue in the background, in a session of its own, with all output in `log_file`.

    Returns in the child only. The parent waits for the child's report, or its end, and exits.
    """
    receiving, sending = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) > 0:
        os.close(sending)
        _wait_for_report(receiving, child, log_file)
    os.close(receiving)
    os.setsid()
    os.chdir("/")
    devnull = os.open(os.devnull, os.O_RDWR)
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((devnull, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for descriptor in (devnull, output):
        if descriptor > 2:
            os.close(descriptor)
    return Parent(sending)


def _wait_for_report(pipe: int, child: int, log_file: Path) -> NoReturn:
    signals: list[int] = []

    def give_up(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        os.kill(child, signal.SIGTERM)  # it has not reported yet, so it is there

    # Whoever interrupts the start means the daemon, too. Its end closes the pipe.
    signal.signal(signal.SIGINT, give_up)
    signal.signal(signal.SIGTERM, give_up)
    with os.fdopen(pipe, "rb") as stream:
        report = stream.read()
    if report.startswith(UP):
        output = report[len(UP):].decode()
        try:
            sys.stdout.write(output)
            sys.stdout.flush()
        except OSError as error:
            sys.stderr.write(f"dsreg-fuse: the mount is up, but {output.strip()} cannot be printed: {error.strerror}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    code, reason = (report[0], report[1:].decode(errors="replace")) if report else (1, "it ended without a word")
    sys.stderr.write(f"dsreg-fuse: {reason}\nThe log is in {log_file}\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED if signal.SIGINT in signals else code)
