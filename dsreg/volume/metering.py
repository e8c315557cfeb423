"""What an edge counts for metrics, where they are wanted, over all that its process does with the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsreg.cache.counting import Counts
from dsreg.client import Meter
from dsreg.health.findings import Finding, Severity
from dsreg.histogram import Histogram
from dsreg.store import Flush, Map, Read, Request, Trim, Write, Zero

if TYPE_CHECKING:
    from dsreg.cache import WritebackCache
    from dsreg.client import Client
    from dsreg.volume.requests import Volume


class Served:
    """Requests of one kind that have ended: how long they took, their bytes, and how many have failed."""

    __slots__ = ("failures", "size", "took")

    def __init__(self) -> None:
        self.took = Histogram()
        self.size = 0
        self.failures = 0


class InUse:
    """A client, and the disk that it is used for, once that is there."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.volume: Volume | None = None
        self.cache: WritebackCache | None = None


class EdgeMeter:
    """`edge`: "fuse" or "nbd". `address`: where the metrics are served, (host, port); `token`: what has to be shown for
    them. `in_use`: the disk at this moment; None while an edge has none, as an NBD server without a client.

    A request costs 0.5 us of CPU more.
    """

    def __init__(self, edge: str, address: tuple[str, int], token: bytes = b"") -> None:
        self.edge = edge
        self.address = address
        self.token = token
        self.client = Meter()
        self.cache = Counts()
        self.stalls = 0
        self.in_use: InUse | None = None
        self._served: dict[type, Served] = {kind: Served() for kind in (Read, Write, Zero, Trim, Flush, Map)}

    def ended(self, request: Request, took_s: float, *, failed: bool) -> None:
        kind = type(request)
        served = self._served[kind]
        served.took.observe(took_s)
        served.failures += failed
        if isinstance(request, Write):
            served.size += len(request.data)
        elif not isinstance(request, Flush | Map):
            served.size += request.length

    def stalled(self) -> None:
        self.stalls += 1

    def requests(self) -> Iterator[tuple[str, Served]]:
        """Each kind by name."""
        for kind, served in self._served.items():
            yield kind.__name__.lower(), served

    def findings(self) -> Iterator[Finding]:
        """What is not well."""
        used = self.in_use
        if used is None:
            return
        moment = used.client.moment()
        down = tuple(rank for rank, is_up in moment.connected.items() if not is_up)
        if moment.why_lost:
            yield Finding("attachment", Severity.CRITICAL, (), moment.why_lost)
        if not moment.has_majority:
            yield Finding("quorum_lost", Severity.CRITICAL, down, f"no majority is connected: {used.client.obstacle}")
        elif down:
            yield Finding("node_down", Severity.WARNING, down,
                          f"not connected to node {', '.join(map(str, down))}")
        if used.volume is not None and used.volume.stall_watch.stalled:
            yield Finding("stalled", Severity.CRITICAL, (), "requests wait")
        if used.cache is not None and used.cache.is_failing:
            yield Finding("write_back", Severity.WARNING, (), "what is in the cache cannot be written back")
