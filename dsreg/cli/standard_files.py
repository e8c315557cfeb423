"""stdin, stdout and stderr, of which whoever started us may have closed some."""

from __future__ import annotations

import os
import sys


def open_standard_files() -> None:
    """Point those of the files 0, 1 and 2 that are closed to /dev/null.

    Otherwise the next files that are opened, sockets of the client say, would take these numbers, and what is meant
    for the terminal would go there; and Python has None for such a file in `sys`.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
