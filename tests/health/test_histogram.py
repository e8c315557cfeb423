"""Durations in buckets, and those of the last minutes."""

from __future__ import annotations

import math
import random

import pytest

from dsreg.histogram import BOUNDS_S, Histogram, Lately, quantile_in


def test_each_value_is_in_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 99.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2] and histogram.count == 6
    assert histogram.total == pytest.approx(105.6)


@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_a_quantile_is_in_its_bucket(share: float, seed: int = 20261130) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        values = [rng.choice(BOUNDS_S) * rng.random() * 2 for _ in range(rng.randrange(1, 40))]
        histogram = Histogram()
        for value in values:
            histogram.observe(value)
        found, ordered = quantile_in(BOUNDS_S, histogram.counts, share), sorted(values)
        rank = len(values) * share
        low, high = ordered[max(0, math.ceil(rank) - 1)], ordered[min(len(values) - 1, math.floor(rank))]
        floor = max((bound for bound in BOUNDS_S if bound < low), default=0.0)
        ceiling = min((bound for bound in BOUNDS_S if bound >= high), default=BOUNDS_S[-1])
        assert floor <= found <= ceiling, (seed, values)


def test_what_is_old_is_forgotten() -> None:
    lately = Lately(60.0)
    for _ in range(20):
        lately.observe(1.0, 1000.0)
    assert lately.report(1000.0, 16)["count"] == 20
    assert lately.report(1061.0, 16) == {"count": 20, "median_s": pytest.approx(0.75)}
    lately.observe(0.002, 1062.0)
    assert lately.report(1063.0, 16)["count"] == 21
    assert lately.report(1122.0, 16) == {"count": 1, "median_s": None}, "one says nothing"
    assert lately.report(5000.0, 16) == {"count": 0, "median_s": None}
    assert lately.whole.count == 21
