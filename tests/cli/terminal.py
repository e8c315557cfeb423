"""A command on a terminal of a given size, as a person sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence


def run_on_terminal(
    command: Sequence[str], columns: int, environment: Mapping[str, str] | None = None, *, stdin: int | None = None
) -> tuple[int, str]:
    """(exit code, all that it wrote, escape sequences included). `environment` comes on top of this process's own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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
