"""The metrics of an edge: a FUSE mount, or an NBD server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

from dsreg.metrics import of_client
from dsreg.metrics.making import buckets, counter, counters, gauge
from dsreg.version import described_version

if TYPE_CHECKING:
    from dsreg.cache import WritebackCache
    from dsreg.cache.counting import Counts
    from dsreg.volume import Volume
    from dsreg.volume.metering import EdgeMeter


def families(meter: EdgeMeter) -> Iterator[Metric]:
    """All metrics of the edge. Those of what it does at this moment are there while it has the disk."""
    yield InfoMetricFamily("dsreg_edge", "Which edge this is, and its version.",
                           value={"edge": meter.edge, "version": described_version()})
    yield from _requests(meter)
    used = meter.in_use
    moment = None if used is None else used.client.moment()
    yield from of_client.totals(meter.client, () if moment is None else moment.connected)
    yield from _cache_totals(meter.cache)
    if used is None or moment is None:
        return
    yield from of_client.of_moment(moment)
    if used.volume is not None:
        yield from _volume(used.volume)
    if used.cache is not None:
        yield from _cache(used.cache)


def _requests(meter: EdgeMeter) -> Iterator[Metric]:
    labels = ["edge", "operation"]
    took = HistogramMetricFamily(
        "dsreg_edge_request_duration_seconds", "From a request of the edge to its end, by operation.", labels=labels)
    moved = CounterMetricFamily(
        "dsreg_edge_request_bytes", "Bytes that requests of the edge were about.", labels=labels)
    failed = CounterMetricFamily("dsreg_edge_request_errors", "Requests of the edge that failed.", labels=labels)
    for operation, served in meter.requests():
        took.add_metric([meter.edge, operation], *buckets(served.took))
        moved.add_metric([meter.edge, operation], served.size)
        failed.add_metric([meter.edge, operation], served.failures)
    yield from (took, moved, failed)
    yield counter("dsreg_edge_stalls", "How often requests have begun to wait for 5 s or more.", meter.stalls)


def _volume(volume: Volume) -> Iterator[Metric]:
    watch = volume.stall_watch
    yield gauge("dsreg_edge_requests_unfinished", "Requests of the edge that are under way.", len(watch.started))
    yield gauge(
        "dsreg_edge_oldest_request_seconds", "How long the oldest unfinished request has taken so far.", watch.oldest_s)
    yield gauge("dsreg_edge_stalled", "Whether requests have waited for 5 s or more.", watch.stalled)


def _cache_totals(counts: Counts) -> Iterator[Metric]:
    yield counters("dsreg_cache_reads", "Reads by how much of what they wanted was buffered.", "found",
                   {"all": counts.hits, "some": counts.partial_hits, "nothing": counts.misses})
    yield counter("dsreg_cache_flushes", "Flushes of the cache that have ended.", counts.flushes)
    yield counter("dsreg_cache_failed_flushes", "Flushes of the cache that have failed.", counts.failed_flushes)
    yield counter("dsreg_cache_written_bytes", "Bytes that the cache has written back.", counts.written_bytes)
    yield counter("dsreg_cache_failed_runs", "Runs that the cache could not write back; they are tried again.",
                  counts.failed_runs)


def _cache(cache: WritebackCache) -> Iterator[Metric]:
    yield gauge("dsreg_cache_dirty_bytes", "Bytes in the cache that are not known to be durable.", cache.buffered_bytes)
    yield gauge("dsreg_cache_writes_waiting", "Writes that wait for room in the cache.", cache.waiting)
    yield gauge("dsreg_cache_failing", "Whether the cache fails to write back.", cache.is_failing)
