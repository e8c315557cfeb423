"""Slow requests to a disk, logged with what they have waited for: `slow_ms`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Command
from dsreg.slow import SlowLog, covered_s, milliseconds
from dsreg.store import Flush, Request, Write
from dsreg.volume.stall import described

# A request has several steps: those that took this part of the limit are looked at to see what it has waited for.
PART: Final = 1 / 10
# So many of the last ones. Of a disk that is slow there are more under way; the line is then about some of them.
MOST_STEPS: Final = 256


class Step(NamedTuple):
    """A command that a majority has answered, `rank` as the last of it."""

    began_s: float
    ended_s: float
    first: int
    end: int
    rank: int


class SlowRequests:
    """Requests that took `limit_s` or longer. `clock`: seconds, as the requests are timed by."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.slow = SlowLog(limit_s, clock)
        self.limit_s = limit_s
        self.step_s = limit_s * PART  # as short as a step may be to be told of
        self._steps: deque[Step] = deque(maxlen=MOST_STEPS)

    def answered(self, command: Command, rank: int, took_s: float) -> None:
        """A step is over that took `step_s` or longer."""
        now_s = self.slow.clock()
        self._steps.append(Step(now_s - took_s, now_s, command.first, command.first + command.count, rank))

    def ended(self, request: Request, took_s: float, *, is_cached: bool) -> None:
        """`is_cached`: it waits for what others have written, if for anything."""
        if not self.slow.is_due(took_s):
            return
        now_s = self.slow.clock()
        steps = [step for step in self._steps if step.ended_s >= now_s - took_s]
        fields: dict[str, object] = {"operation": type(request).__name__.lower(), "took_ms": milliseconds(took_s)}
        if not isinstance(request, Flush):
            size = len(request.data) if isinstance(request, Write) else request.length
            fields |= {"offset": request.offset, "bytes": size}
            if not is_cached:
                first, end = request.offset // SECTOR_SIZE, -(-(request.offset + size) // SECTOR_SIZE)
                steps = [step for step in steps if step.first < end and step.end > first]
        quorum_s = covered_s([(step.began_s, step.ended_s) for step in steps], now_s - took_s, now_s)
        fields |= {"queue_ms": milliseconds(took_s - quorum_s), "quorum_ms": milliseconds(quorum_s)}
        last = ""
        if steps:
            fields["last_node"] = max(steps, key=lambda step: step.ended_s).rank
            last = f", of which node {fields['last_node']} was the last"
        self.slow.say(f"{described(request)} took {fields['took_ms']} ms: {fields['queue_ms']} ms until it was sent, "
                      f"{fields['quorum_ms']} ms for a majority{last}", fields)
