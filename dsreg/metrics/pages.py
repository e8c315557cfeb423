"""What a process serves: /metrics, in the format that the scraper asks for, and /healthz."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from dsreg.health.findings import Finding, Severity
from dsreg.metrics.http import Make, Page


class _Collector:
    """What prometheus_client calls when somebody asks."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def pages(families: Callable[[], Iterable[Metric]], findings: Callable[[], Iterable[Finding]]) -> dict[str, Make]:
    """`families`: all metrics; those of the process come besides. `findings`: what is not well."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(families))
    ProcessCollector(registry=registry)

    def metrics(headers: Mapping[str, str]) -> Page:
        encode, kind = choose_encoder(headers.get("accept", ""))
        return Page(200, kind, encode(registry))

    def health(headers: Mapping[str, str]) -> Page:
        found = [*findings()]
        lines = [f"{finding.severity.name.lower()}: {finding.sentence}" for finding in found] or ["well"]
        is_critical = any(finding.severity is Severity.CRITICAL for finding in found)
        body = "".join(f"{line}\n" for line in lines).encode()
        return Page(503 if is_critical else 200, "text/plain; charset=utf-8", body)

    return {"/metrics": metrics, "/healthz": health}
