"""StallWatch: logs once that requests wait too long, for a majority or for space, and once that they go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from dsreg.store import Flush, Map, Read, Request, Write

log = logging.getLogger(__name__)

# A healthy request takes milliseconds and a fail-over to another node a second or so: what takes
# this long waits for nodes that are down.
STALL_S = 5.0
# How often the oldest request is looked at. The log line comes at most this much late.
CHECK_INTERVAL_S = 0.5


class StallWatch:
    """Knows the requests under way. `watch()` is a task. `why()`: what they wait for, as far as is known, else "".

    Whoever begins a request puts (`clock()`, the request) under a number of its own into `started`, and takes it out at
    its end: two steps in a dictionary are all that a request pays. They stand in order of start, so that the first is
    the oldest.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, why: Callable[[], str] = lambda: "") -> None:
        self.clock = clock
        self.on_stall: Callable[[], None] = lambda: None  # they have begun to wait too long
        self._why = why
        self.started: dict[int, tuple[float, Request]] = {}
        self.stalled = False

    @property
    def oldest_s(self) -> float:
        """How long the oldest request has taken so far; 0 if there is none."""
        oldest = next(iter(self.started.values()), None)
        return 0.0 if oldest is None else self.clock() - oldest[0]

    def check(self) -> None:
        """Compare the oldest request with the limit, and log where the answer has changed."""
        oldest, age_s = next(iter(self.started.values()), None), self.oldest_s
        if oldest is not None and age_s >= STALL_S and not self.stalled:
            self.stalled = True
            self.on_stall()
            log.warning(
                "%s has been waiting for %.0f s (%d requests wait): %s. Nothing is lost; they continue once that is "
                "over.",
                described(oldest[1]), age_s, len(self.started),
                self._why() or "the nodes do not answer in time; see dsreg status",
            )
        elif age_s < STALL_S and self.stalled:
            self.stalled = False
            log.warning("requests are answered again")

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            await trio.sleep(CHECK_INTERVAL_S)
            self.check()


def described(request: Request) -> str:
    if isinstance(request, Flush):
        return "an fsync"
    length = len(request.data) if isinstance(request, Write) else request.length
    names: dict[type, str] = {Read: "read", Write: "write", Map: "map"}
    what = names.get(type(request), "discard")
    return f"a {what} of {length} bytes at {request.offset}"
