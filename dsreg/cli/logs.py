"""One line format for everything that a process of ours has to say on stderr."""

from __future__ import annotations

import logging
import time

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def log_to_stderr(who: str, verbosity: int) -> None:
    """`2026-01-31T12:00:00.123Z WARNING <who> logger: text`; verbosity 0 shows warnings and worse, 1 info, 2 all."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s {who} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
