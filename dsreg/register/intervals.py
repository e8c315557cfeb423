"""Intervals: how long to wait before a message is sent again, and how much longer each time after that."""

from __future__ import annotations

from collections.abc import Callable


class Intervals:
    """From `first_s`, doubling up to `max_s` (seconds). `jitter` gives a factor for each (around 1), so that nodes do
    not send again in step."""

    def __init__(self, first_s: float, max_s: float, jitter: Callable[[], float]) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter

    def first(self) -> float:
        return self._first_s * self._jitter()

    def after(self, interval_s: float) -> float:
        """The one after `interval_s`."""
        return min(interval_s * 2, self._max_s) * self._jitter()
