"""The metrics of a node: names by the conventions of Prometheus (base units, `_total`), made of figures that it keeps
anyway, when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from dsreg.health.checks import by_check, examine
from dsreg.health.findings import State
from dsreg.histogram import Histogram
from dsreg.metrics.making import buckets, counter, counters, gauge, histogram
from dsreg.register.quorum import Quorum, mask

_LINKS = ("sealed", "extension", "contract", "waiting", "unsealed", "silent", "down")
# Of these, those over which the nodes work together.
_WORKING = ("sealed", "extension", "contract")
# Why something that comes is not taken: counters of a node's decoders, docs/metrics.md.
REASONS = ("bad_mac", "bad_header", "bad_field", "unknown_type", "bad_record", "bad_seal", "unsealed", "unproven")


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """`status`: the node's STATUS. `requests`: of clients, by operation, how long they took and their bytes of sectors.
    `state`: the node alone, for the checks of dsreg.health. The rest is of its storage, since the start."""

    status: Mapping[str, Any]
    requests: Mapping[str, tuple[Histogram, int]]
    unfinished: int
    unfinished_bytes: int
    syncs: Histogram
    commit_bytes: Histogram
    checkpoints: Histogram
    journal_used: int
    queued_bytes: int
    quorum: Quorum
    state: State


def families(figures: NodeFigures) -> Iterator[Metric]:
    """All metrics of the node."""
    yield InfoMetricFamily("dsreg_build", "Version and rank of the node.", value={
        "version": str(figures.status["version"]), "rank": str(figures.status["rank"])})
    yield from _requests(figures)
    yield from _storage(figures)
    yield from _process(figures.status)
    yield from _disk(figures.status)
    yield from _peers(figures.status)
    yield from _heal(figures.status)
    yield from _health(figures)


def _requests(figures: NodeFigures) -> Iterator[Metric]:
    took = HistogramMetricFamily(
        "dsreg_request_duration_seconds",
        "From the request of a client to its answer, by operation. It has the quorum in it where the node coordinates.",
        labels=["operation"],
    )
    moved = CounterMetricFamily(
        "dsreg_request_bytes", "Bytes of sectors in requests of clients and their answers.", labels=["operation"])
    for operation, (durations, size) in figures.requests.items():
        took.add_metric([operation], *buckets(durations))
        moved.add_metric([operation], size)
    yield took
    yield moved
    yield gauge("dsreg_requests_unfinished", "Requests of clients that are not answered yet.", figures.unfinished)
    yield gauge(
        "dsreg_request_unfinished_bytes", "Bytes of sectors that unanswered requests hold.", figures.unfinished_bytes)
    yield gauge("dsreg_operations_unfinished", "Operations that this node coordinates, under way or queued.",
                 figures.status["unfinished"])
    yield gauge("dsreg_quorum_needed", "Nodes that a majority needs.", figures.quorum.needed)
    yield gauge("dsreg_spare_nodes", "How many of the nodes that this one reaches, itself included, may be lost, "
                "whichever, so that the rest is a majority; whether they have all that was written is not in it.",
                figures.quorum.spare(_reached(figures.status)))
    connections = GaugeMetricFamily("dsreg_connections", "Accepted connections.", labels=["sealed"])
    sealed = figures.status["sealed"]
    connections.add_metric(["true"], sealed)
    connections.add_metric(["false"], figures.status["connections"] - sealed)
    yield connections
    yield from _events(figures.status["counters"])


def _events(found: Mapping[str, int]) -> Iterator[Metric]:
    yield counters("dsreg_rejected_frames", "What came over accepted connections and was not taken, by why.",
                   "reason", {reason: found.get(reason, 0) for reason in REASONS})
    yield counter("dsreg_skipped_bytes", "Bytes that came and belonged to no frame.", found.get("skipped_bytes", 0))
    others = sorted({*found} - {*REASONS, "skipped_bytes"})
    yield counters("dsreg_events", "What the register counts: commands by kind, repairs, what was not believed.",
                   "event", {event: found[event] for event in others})


def _storage(figures: NodeFigures) -> Iterator[Metric]:
    status = figures.status
    yield histogram("dsreg_sync_duration_seconds", "Syncs of the journal, one for each commit.", figures.syncs)
    yield histogram("dsreg_commit_size_bytes", "What a commit writes to the journal.", figures.commit_bytes)
    yield histogram("dsreg_checkpoint_duration_seconds", "Checkpoints of the journal.", figures.checkpoints)
    yield gauge("dsreg_journal_used_bytes", "Journal that no checkpoint has freed yet.", figures.journal_used)
    yield gauge("dsreg_commit_queue_bytes", "Bytes that wait for a commit.", figures.queued_bytes)
    yield gauge("dsreg_disk_size_bytes", "Size of the disk.", 4096 * status["sectors"])
    yield gauge("dsreg_disk_written_bytes", "Of the disk, what holds data here.", 4096 * status["sectors_written"])
    yield gauge("dsreg_no_space", "Whether writes of new data are refused for want of room.", status["no_space"])
    files = status["storage"]
    yield gauge("dsreg_filesystem_size_bytes", "File system of the directory, as df has it.", files["size_bytes"])
    yield gauge(
        "dsreg_filesystem_available_bytes", "What is left of the file system of the directory.",
        files["available_bytes"])
    yield gauge("dsreg_values_bytes", "What the values of the disk take of the file system.", files["values_bytes"])


def _process(status: Mapping[str, Any]) -> Iterator[Metric]:
    """What ProcessCollector cannot tell where the unit hides the rest of /proc."""
    yield counter("dsreg_cpu_seconds", "CPU time that the node has used.", status["cpu_s"])
    yield gauge("dsreg_resident_memory_bytes", "Memory of the node.", status["rss_bytes"])
    yield gauge("dsreg_start_time_seconds", "When it was started, by its clock, since 1970.",
                status["unix_s"] - status["uptime_s"])


def _disk(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield gauge("dsreg_attachment_epoch", "How often the disk was attached.", status["epoch"])
    yield gauge("dsreg_attached", "Whether a client that is connected here has attached it.",
                 bool(status["attached_by"]))
    yield gauge("dsreg_damaged_sectors", "Sectors that are lost here at this moment.", status["damaged"])
    damage = status["damage"]
    found = CounterMetricFamily("dsreg_damage_found", "Sectors found damaged, by what was.", labels=["kind"])
    for kind in ("value", "tag", "contradiction"):
        found.add_metric([kind], damage[kind])
    yield found
    yield CounterMetricFamily(
        "dsreg_damage_repaired", "Sectors found damaged that were repaired.", value=damage["repaired"])
    scrub = status["scrub"]
    yield gauge("dsreg_scrub_running", "Whether a pass of the scrub goes on.", scrub["running"])
    yield gauge("dsreg_scrub_progress_ratio", "How far this pass of the scrub is, 0 to 1.", scrub["progress"])
    yield CounterMetricFamily("dsreg_scrub_passes", "Passes of the scrub that were completed.", value=scrub["passes"])


def _peers(status: Mapping[str, Any]) -> Iterator[Metric]:
    links = GaugeMetricFamily(
        "dsreg_peer_link", "1 for the state in which the link to that node is.", labels=["peer", "state"])
    for peer, link in status["peers"].items():
        for state in _LINKS:
            links.add_metric([peer, state], link == state)
    yield links
    yield gauge("dsreg_life", "Which life of its rank the node has.", status["lives"]["life"])
    yield gauge(
        "dsreg_serving", "Whether the node serves, and does not wait for others to confirm its directory.",
        not status["lives"]["waits_for"])
    yield CounterMetricFamily("dsreg_starts", "Starts of the node with this directory.", value=status["incarnation"])


def _heal(status: Mapping[str, Any]) -> Iterator[Metric]:
    heal = status["heal"]
    yield gauge("dsreg_in_sync", "Whether the node has all that each one has that it reaches.", heal["in_sync"])
    yield gauge("dsreg_behind_bytes", "What the node lacks, as far as is known.", heal["behind_bytes"])
    yield gauge("dsreg_unknown_bytes", "What the node has yet to learn of the disk.", heal["unknown_bytes"])
    yield gauge("dsreg_heal_rate_bytes_per_second", "At which rate the node fetches what it lacks.", heal["rate"])
    lacks = GaugeMetricFamily(
        "dsreg_peer_out_of_sync_bytes", "What the node lacks of what that one has.", labels=["peer"])
    for peer, found in heal["peers"].items():
        lacks.add_metric([peer], found["behind_bytes"])
    yield lacks


def _health(figures: NodeFigures) -> Iterator[Metric]:
    health = GaugeMetricFamily(
        "dsreg_health", "1 if the check finds something to warn of, by what this node says alone: see dsreg health.",
        labels=["check"])
    for check, severity in by_check(examine(figures.state)).items():
        health.add_metric([check], severity > 0)
    yield health


def _reached(status: Mapping[str, Any]) -> int:
    """The mask of the nodes that this one works with, and of itself if it serves."""
    own = [] if status["lives"]["waits_for"] else [status["rank"]]
    return mask([*own, *(int(rank) for rank, link in status["peers"].items() if link in _WORKING)])
