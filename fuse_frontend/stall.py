"""Notices when requests do not come back: no quorum, usually. Says so once, and once when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

log = logging.getLogger(__name__)

# A healthy request takes milliseconds and a fail-over to another node a second or so: what takes
# this long waits for nodes that are down.
STALL_S = 5.0
# How often the oldest request is looked at. The log line comes at most this much late.
CHECK_INTERVAL_S = 0.5


class StallWatch:
    """Knows the requests under way. `watch()` is a task; `request()` goes around each request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0
        self._started: dict[int, tuple[float, str]] = {}  # in order of start: the first is the oldest
        self.stalled = False

    @contextmanager
    def request(self, what: str) -> Iterator[None]:
        """`what`: the request in a few words, for the log line."""
        key = self._next
        self._next += 1
        self._started[key] = (self._clock(), what)
        try:
            yield
        finally:
            del self._started[key]

    def check(self) -> None:
        """Compare the oldest request with the limit, and log where the answer has changed."""
        started, what = next(iter(self._started.values()), (None, ""))
        age_s = 0.0 if started is None else self._clock() - started
        if age_s >= STALL_S and not self.stalled:
            self.stalled = True
            log.warning(
                "%s has been waiting for %.0f s (%d requests wait): is a majority of the nodes up? "
                "Requests go on by themselves once it is.", what, age_s, len(self._started),
            )
        elif age_s < STALL_S and self.stalled:
            self.stalled = False
            log.warning("requests are answered again")

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            await trio.sleep(CHECK_INTERVAL_S)
            self.check()
