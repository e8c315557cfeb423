"""The metrics of a client of the cluster: of an edge, which serves them, or of a program that has one of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dsreg.metrics.making import counter, counters, gauge, gauges, histograms, one_of

if TYPE_CHECKING:
    from dsreg.client import BlockingClient, Client
    from dsreg.client.metering import Meter, Moment

ATTACHMENTS = ("shared", "asking", "claiming", "held", "lost")


def collector(client: Client | BlockingClient) -> Collector:
    """For a registry of prometheus_client, one client for each; it may be asked from any thread.

        client = Client(load_config(path), meter=Meter())
        prometheus_client.REGISTRY.register(collector(client))

    Raises ValueError for a client that was made without a meter.
    """
    if client.meter is None:
        raise ValueError("this client counts nothing for metrics: make it with meter=dsreg.client.Meter()")
    return _OfClient(client, client.meter)


class _OfClient(Collector):
    def __init__(self, client: Client | BlockingClient, meter: Meter) -> None:
        self._client = client
        self._meter = meter

    def collect(self) -> Iterable[Metric]:
        moment = self._client.moment()
        yield from totals(self._meter, moment.connected)
        yield from of_moment(moment)


def totals(meter: Meter, ranks: Iterable[int]) -> Iterator[Metric]:
    """What has happened since the start. `ranks`: the nodes, as far as they are known."""
    commands = [*meter.commands()]
    yield histograms(
        "dsreg_client_quorum_wait_seconds",
        "How long until a majority had answered a command: of get and put the client counts the answers, for read, tag "
        "and store one node does.", "command", {name: took for name, took, _ in commands})
    yield counters(
        "dsreg_client_command_bytes", "Bytes of sectors in commands that a majority has answered.", "command",
        {name: size for name, _, size in commands})
    yield counters("dsreg_client_last_answers", "Commands for which this node was the last of the majority to answer.",
                   "node", {rank: meter.last(rank) for rank in ranks})
    count = meter.counters
    yield counters("dsreg_client_steps", "Steps of operations, by who counted the majority.", "counted_by",
                   {"client": count.quorums, "node": count.coordinated})
    yield counter("dsreg_client_retries", "Commands that were sent again.", count.retries)
    yield counter("dsreg_client_failovers", "Commands that were sent again, to another node.", count.failovers)
    yield counter("dsreg_client_hedges", "Commands not answered in time, and given to another node as well.",
                  count.hedges)
    yield counter("dsreg_client_late_answers", "Answers of nodes to what was settled before.", count.late_answers)
    yield counter("dsreg_client_reconnects", "Connections to nodes after the first one of each.", count.reconnects)
    yield counter("dsreg_client_failures", "Operations that have failed.", count.failures)


def of_moment(moment: Moment) -> Iterator[Metric]:
    """What it is doing."""
    yield gauges("dsreg_client_connected", "Whether the client is connected to that node.", "node",
                 {rank: is_up for rank, is_up in moment.connected.items()})
    yield gauge("dsreg_client_has_majority", "Whether the nodes that it is connected to are a majority.",
                moment.has_majority)
    yield gauge(
        "dsreg_client_spare_nodes",
        "How many of the nodes that it is connected to may be lost, whichever, before requests wait.", moment.spare)
    yield gauge("dsreg_client_operations_unfinished", "Operations of the client at the nodes.", moment.unfinished)
    yield gauge(
        "dsreg_client_operations_waiting",
        "Operations that wait for others on their sectors, or for room, before they go to nodes.", moment.waiting)
    yield gauges(
        "dsreg_client_lagging_bytes", "Bytes of writes that are done, and that this node has not answered yet.",
        "node", {rank: size for rank, size in moment.lagging_bytes.items()})
    yield one_of("dsreg_client_attachment", "1 for what it has of the disk.", "state", ATTACHMENTS, moment.attachment)
    yield gauge("dsreg_client_attachment_epoch", "Epoch of its attachment, 0 if there is none.", moment.epoch)
    yield gauge("dsreg_client_disk_size_bytes", "Size of the disk, as far as the client knows.", 4096 * moment.sectors)
