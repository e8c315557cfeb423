"""Histograms of durations, in fixed buckets: cheap enough for what happens a thousand times a second."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

# Seconds: from an answer out of memory to a disk that fails.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """`counts[i]`: values above `bounds[i - 1]` and up to `bounds[i]`; the last one: those above all bounds. `total`:
    their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


def quantile_in(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """About where the quantile `share`, above 0 and up to 1, of at least one value is: within its bucket it is taken to
    be in the same place as among the values there. Above all bounds it is the last one."""
    rank = sum(counts) * share
    below = 0
    for index, number in enumerate(counts[:-1]):
        if number and below + number >= rank:
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * (rank - below) / number
        below += number
    return bounds[-1]


class Lately:
    """Durations of the last `window_s` to twice as many seconds, and in `whole` of all times."""

    def __init__(self, window_s: float) -> None:
        self.whole = Histogram()
        self._window_s = window_s
        self._turn_s = -math.inf  # when `_now` becomes `_before`
        self._now = Histogram()
        self._before = Histogram()

    def observe(self, seconds: float, now_s: float) -> None:
        self._turn(now_s)
        self.whole.observe(seconds)
        self._now.observe(seconds)

    def report(self, now_s: float, least: int) -> dict[str, float | None]:
        """`count` of them and `median_s`; None where there are fewer than `least`, so that it says nothing."""
        self._turn(now_s)
        counts = [now + before for now, before in zip(self._now.counts, self._before.counts, strict=True)]
        count = sum(counts)
        median_s = round(quantile_in(BOUNDS_S, counts, 0.5), 6) if count >= max(least, 1) else None
        return {"count": count, "median_s": median_s}

    def _turn(self, now_s: float) -> None:
        if now_s < self._turn_s:
            return
        self._before = self._now if now_s < self._turn_s + self._window_s else Histogram()
        self._now = Histogram()
        self._turn_s = now_s + self._window_s
