"""The log of slow requests: at most one line a second, and how many were left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

log = logging.getLogger(__name__)

# A disk that is slow is so for thousands of requests.
INTERVAL_S: Final = 1.0


class SlowLog:
    """Of requests that took `limit_s` or longer. `clock`: seconds. `tick` is due about every second."""

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self.clock = clock
        self._said_s = -math.inf
        self._left_out = 0
        self._longest_s = 0.0  # of those

    def is_due(self, took_s: float) -> bool:
        """Whether to `say` it; it is counted if not."""
        if self.clock() - self._said_s >= INTERVAL_S:
            return True
        self._left_out += 1
        self._longest_s = max(self._longest_s, took_s)
        return False

    def say(self, text: str, fields: Mapping[str, object]) -> None:
        self._said_s = self.clock()
        log.warning("%s%s", text, self._more(), extra={**fields, "suppressed": self._left_out})
        self._left_out, self._longest_s = 0, 0.0

    def tick(self) -> None:
        """Time has passed: those that were left out are told without another one that is slow."""
        if self._left_out and self.clock() - self._said_s >= INTERVAL_S:
            self._said_s = self.clock()
            log.warning("slow%s", self._more(), extra={"suppressed": self._left_out})
            self._left_out, self._longest_s = 0, 0.0

    def _more(self) -> str:
        """What was left out, to be put behind a line."""
        if not self._left_out:
            return ""
        return f" ({self._left_out} more since the last line, the longest {milliseconds(self._longest_s)} ms)"


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def covered_s(spans: Iterable[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """How much of the time from `begin_s` to `end_s` is in one of `spans` at least, each from a moment to a later
    one, in any order."""
    total, reached_s = 0.0, begin_s
    for first_s, last_s in sorted(spans):
        first_s, last_s = max(first_s, reached_s), min(last_s, end_s)
        if last_s > first_s:
            total += last_s - first_s
            reached_s = last_s
    return total
