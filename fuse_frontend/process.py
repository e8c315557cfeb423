"""This process and the kernel: memory that must not wait for our own disk, and life in the background."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

PR_SET_IO_FLUSHER = 57
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
CAP_IPC_LOCK = 14

UP = b"\x00"


def prepare_to_serve_block_io() -> None:
    """Keep the kernel from making this process wait for writes that it has to serve itself.

    Call it before any thread or child is started: both inherit the first setting. What is not permitted
    is logged and left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Memory that this process asks for is not reclaimed through block or file I/O, and its own writes
    # are not throttled with the rest.
    if libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        log.info("PR_SET_IO_FLUSHER is not permitted (%s; it needs CAP_SYS_RESOURCE): under memory pressure "
                 "a disk used on this host may stall", os.strerror(ctypes.get_errno()))
    # With a limit, allocations would start to fail as soon as it is reached.
    if not _has_capability(CAP_IPC_LOCK) and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        log.info("memory is not locked (it needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK): it may be swapped out")
    # ONFAULT: what has been touched stays; the untouched parts of thread stacks cost nothing.
    elif libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        log.info("mlockall is not permitted (%s): memory may be swapped out", os.strerror(ctypes.get_errno()))


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


class Parent:
    """The side of a daemon that the shell waits for: told once that all is well, or why it is not."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def report_up(self, output: str) -> None:
        """The parent prints `output` and exits with 0. What is written to the terminal ends here."""
        self._send(UP + output.encode())

    def report_failure(self, message: str) -> None:
        """The parent prints `message` as an error and exits with 1."""
        self._send(message.encode())

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
    def give_up(signum: int, frame: FrameType | None) -> None:
        os.kill(child, signal.SIGTERM)  # it has not reported yet, so it is there

    # Whoever interrupts the start means the daemon, too. Its end closes the pipe.
    signal.signal(signal.SIGINT, give_up)
    signal.signal(signal.SIGTERM, give_up)
    with os.fdopen(pipe, "rb") as stream:
        report = stream.read()
    if report.startswith(UP):
        sys.stdout.write(report[len(UP):].decode())
        sys.stdout.flush()
        os._exit(0)
    reason = report.decode(errors="replace") or "it ended without a word"
    sys.stderr.write(f"dsreg-fuse: {reason}\nThe log is in {log_file}\n")
    sys.stderr.flush()
    os._exit(1)
