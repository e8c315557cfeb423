"""Failures of requests: their errno, and their line in the log."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Final

from dsreg.errors import DsregError, NodesFull, NoSpace, OutOfRange

log = logging.getLogger(__name__)

# What stands for an error at a system call, for every edge; EIO for all others. docs/fuse.md has it in words.
ERRNOS: Final[tuple[tuple[type[DsregError], int], ...]] = (
    (NodesFull, errno.ENOSPC),
    (NoSpace, errno.ENOSPC),
    (OutOfRange, errno.EINVAL),
)
# At most one log line a second per kind of error: a file system on a dead disk asks thousands of times.
ERROR_LOG_INTERVAL_S: Final = 1.0


class VolumeError(DsregError):
    """The disk cannot be used here; the message says what to do about it."""


def errno_of(error: DsregError) -> int:
    """The errno for `error`, or for what it came from: a cache fails with the error of the store beneath it."""
    cause: BaseException | None = error
    while isinstance(cause, DsregError):
        for kind, code in ERRNOS:
            if isinstance(cause, kind):
                return code
        cause = cause.__cause__
    return errno.EIO


class ErrorLog:
    """Log lines for failed requests, at most one a second per kind; the rest is counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}  # kind: time of the last line, suppressed since

    def error(self, operation: str, error: DsregError, code: int) -> None:
        kind = type(error).__name__
        now = self._clock()
        last, suppressed = self._last.get(kind, (now - ERROR_LOG_INTERVAL_S, 0))
        if now - last < ERROR_LOG_INTERVAL_S:
            self._last[kind] = (last, suppressed + 1)
            return
        more = f" ({suppressed} more like it)" if suppressed else ""
        log.error("%s: %s: %s -> %s%s", operation, kind, error, errno.errorcode[code], more,
                  extra={"operation": operation, "error": kind, "suppressed": suppressed})
        self._last[kind] = (now, 0)
