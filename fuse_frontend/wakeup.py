"""Ends reads of /dev/fuse that have nothing to read.

pyfuse3 waits until the kernel has a request and then reads it by a blocking call, in the thread and under the lock that
everything else needs. If the process that made the request is killed in between, the kernel takes it back: the
call waits for the next request, and with it all that is under way, even the answers for which whoever
would make that request is waiting. A signal ends such a call, and pyfuse3 then waits as it should.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

# A stall ends after at most two of these; two signals a second cost nothing that can be measured.
INTERVAL_S = 0.5


@contextlib.contextmanager
def regular_wakeup() -> Iterator[None]:
    """Interrupt system calls of this process now and then, by SIGALRM. For the main thread."""
    previous = signal.signal(signal.SIGALRM, _nothing)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL_S, INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def _nothing(number: int, frame: object) -> None:
    """A handler, other than none at all, lets the signal interrupt what it finds."""
