"""A command on a terminal of a given size, as a person sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

TIMEOUT_S = 60


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Output:
    """What `process` writes to the other side of the descriptor `output`: a terminal, or a pipe."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process, self.output = process, output
        self.text = ""

    def until(self, holds: Callable[[str], Any]) -> None:
        """Read on until `holds` is true of all that was written since the last time."""
        deadline = time.monotonic() + TIMEOUT_S
        self.text = ""
        while not holds(self.text):
            readable, _, _ = select.select([self.output], [], [], deadline - time.monotonic())
            assert readable, f"this came last: {self.text[-4000:]!r}"
            self.text += os.read(self.output, 65536).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.output)


def run_on_terminal(
    command: Sequence[str], columns: int, environment: Mapping[str, str] | None = None, *, stdin: int | None = None
) -> tuple[int, str]:
    """(exit code, all that it wrote, escape sequences included). `environment` comes on top of this process's own."""
    master, slave = pty.openpty()
    resize(slave, columns, 24)
    environment = {**os.environ, "TERM": "xterm", **(environment or {})}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, stdin=slave if stdin is None else stdin, stdout=slave, stderr=slave, env=environment,
                          start_new_session=True) as process:
        os.close(slave)
        output = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other side open any longer
            while chunk := os.read(master, 65536):
                output += chunk
        code = process.wait(timeout=60)
    os.close(master)
    return code, output.decode()
