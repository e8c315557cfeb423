"""Families of metrics, made of figures as the program keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dsreg.histogram import Histogram


def gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def gauges(name: str, about: str, label: str, values: Mapping[object, float]) -> Metric:
    """One value for each value of the label."""
    return _labelled(GaugeMetricFamily(name, about, labels=[label]), values)


def one_of(name: str, about: str, label: str, values: Sequence[str], current: str) -> Metric:
    """A state: 1 for the current one, 0 for all others."""
    return gauges(name, about, label, {value: value == current for value in values})


def counter(name: str, about: str, value: float) -> Metric:
    """`name`: without `_total`."""
    return CounterMetricFamily(name, about, value=float(value))


def counters(name: str, about: str, label: str, values: Mapping[object, float]) -> Metric:
    """One value for each value of the label."""
    return _labelled(CounterMetricFamily(name, about, labels=[label]), values)


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[object, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for at, value in values.items():
        family.add_metric([str(at)], float(value))
    return family


def histogram(name: str, about: str, value: Histogram) -> Metric:
    family = HistogramMetricFamily(name, about)
    family.add_metric([], *buckets(value))
    return family


def histograms(name: str, about: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    """One histogram for each value of the label."""
    family = HistogramMetricFamily(name, about, labels=[label])
    for at, value in values.items():
        family.add_metric([at], *buckets(value))
    return family


def buckets(value: Histogram) -> tuple[list[tuple[str, float]], float]:
    """As a HistogramMetricFamily takes them: cumulated, and the sum."""
    bounds = [*(repr(float(bound)) for bound in value.bounds), "+Inf"]
    below, found = 0, []
    for bound, number in zip(bounds, value.counts, strict=True):
        below += number
        found.append((bound, float(below)))
    return found, value.total
