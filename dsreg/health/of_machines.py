"""Checks of what the nodes run on: disk, clock, speed, version.

A machine is slow only beside others. Where all of them are, the load is the cause, or a disk that they share, and the
figures are for a graph and not for an alarm. So a node is called slow if it takes SLOW_TIMES as long as the median of
the others *and* more than a floor that no healthy one comes near: neither a busy machine nor a fast cluster in which
one node takes 2 ms in place of 0.2 raises an alarm. Where there are no others to compare with, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dsreg.constants import SECTOR_SIZE
from dsreg.health.answers import NodeAnswer
from dsreg.health.findings import Finding, Severity, State, named
from dsreg.register.quorum import mask
from dsreg.units import duration_text, share_text, size_text

# Of a file system: room for some days at the usual rate, and for some hours. Both are what disk checks commonly have.
FILLING_SHARE = 0.80
NEARLY_FULL_SHARE = 0.95
# Four times: two nodes that do the same differ by up to two, by what else their machines do.
SLOW_TIMES = 4.0
# An answer to STATUS takes a millisecond, and across a continent 200 ms. The client takes a node for lost after 5 s.
SLOW_ANSWER_S = 0.5
# A disk under load syncs within 50 ms, also one that turns. One that takes longer fails, or is shared with a backup.
SLOW_SYNC_S = 0.1
# Machines that keep the time by NTP are within a second, and logs of nodes a minute apart cannot be read together.
CLOCK_S = 60.0
# 14 November 2023. A machine that has no clock starts in 1970, and believes few epochs: dsreg.protocol.plausibility.
FIRST_TIME_S = 1_700_000_000


def number(report: Mapping[str, Any] | None, *keys: str) -> float | None:
    """What the report has there; None: it is of a version that does not say, or does not know."""
    found: Any = report
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def median(values: Sequence[float]) -> float:
    """Of at least one."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def filled(answer: NodeAnswer) -> float | None:
    """How full the file system of the directory is, 0..1, if the disk may still grow beyond what is left there; None:
    all that can still be written has room, or nobody knows."""
    report = answer.report
    size, available = number(report, "storage", "size_bytes"), number(report, "storage", "available_bytes")
    allocated, sectors = number(report, "storage", "values_bytes"), number(report, "sectors")
    if not size or available is None or allocated is None or sectors is None:
        return None
    return None if available > sectors * SECTOR_SIZE - allocated else 1 - available / size


def disk_filling(state: State) -> Iterator[Finding]:
    """A file system has no room for all that the disk can still take, and is filling up. Critical where so many are
    nearly full that the others are no majority: writes of new data will wait then."""
    shares = [(answer, filled(answer) or 0.0) for answer in state.answering]
    roomy = mask(answer.node.rank for answer, share in shares if share < NEARLY_FULL_SHARE)
    will_wait = bool(shares) and not state.alone and not state.no_quorum and not state.force.quorum.decided(roomy)
    for answer, share in shares:
        if share < FILLING_SHARE:
            continue
        is_nearly_full = share >= NEARLY_FULL_SHARE
        left = size_text(number(answer.report, "storage", "available_bytes") or 0)
        yield Finding(
            "disk_filling", Severity.CRITICAL if is_nearly_full and will_wait else Severity.WARNING,
            (answer.node.rank,),
            f"{named(answer)}: the file system of its directory is {share_text(share)} full, {left} are left",
            f"make room {'now' if is_nearly_full else 'soon'} in the file system of node {answer.node.rank}: without "
            "it writes of new data are refused",
        )


def slow_node(state: State) -> Iterator[Finding]:
    """A node answers late. The quickest of a few answers counts: see dsreg.survey."""
    for answer, took_s, usual_s in _slow(_of_each(state, "round_trip_s"), SLOW_ANSWER_S):
        yield Finding(
            "slow_node", Severity.WARNING, (answer.node.rank,),
            f"{named(answer)}: takes {took_s:.1f} s to answer, the others {usual_s:.3f} s",
            f"look at CPU, memory and network of node {answer.node.rank}",
        )


def slow_sync(state: State) -> Iterator[Finding]:
    """The disk of a node takes long to make a commit durable."""
    for answer, took_s, usual_s in _slow(_of_each(state, "syncs", "median_s"), SLOW_SYNC_S):
        yield Finding(
            "slow_sync", Severity.WARNING, (answer.node.rank,),
            f"{named(answer)}: its disk takes {took_s:.3f} s for a sync, those of the others {usual_s:.3f} s",
            f"look at the disk of node {answer.node.rank}, and what else writes to it",
        )


def _of_each(state: State, *keys: str) -> list[tuple[NodeAnswer, float]]:
    """Of those that tell it."""
    return [(answer, value) for answer in state.answering if (value := number(answer.report, *keys)) is not None]


def _slow(took: Sequence[tuple[NodeAnswer, float]], floor_s: float) -> Iterator[tuple[NodeAnswer, float, float]]:
    """Who takes that long, what it takes, and what the others do."""
    for answer, took_s in took:
        others = [other_s for other, other_s in took if other is not answer]
        if others and took_s >= floor_s and took_s >= SLOW_TIMES * (usual_s := median(others)):
            yield answer, took_s, usual_s


def clock(state: State) -> Iterator[Finding]:
    """The clock of a node is not that of the others and of this host. Tags and epochs that are far ahead of a node's
    clock are not believed, and nobody can put logs beside each other."""
    ahead = _of_each(state, "clock_ahead_s")
    usual_s = median([0.0, *(ahead_s for _, ahead_s in ahead)])
    for answer, ahead_s in ahead:
        # It was read at any time of the round trip.
        off_s = max(0.0, abs(ahead_s - usual_s) - (number(answer.report, "round_trip_s") or 0))
        to_do = f"set the clock of node {answer.node.rank}, and keep it by NTP"
        if (number(answer.report, "unix_s") or FIRST_TIME_S) < FIRST_TIME_S:
            yield Finding("clock", Severity.WARNING, (answer.node.rank,),
                          f"{named(answer)}: its clock has a time before 14 November 2023", to_do)
        elif off_s > CLOCK_S:
            way = "ahead of" if ahead_s > usual_s else "behind"
            yield Finding("clock", Severity.WARNING, (answer.node.rank,),
                          f"{named(answer)}: its clock is {duration_text(off_s)} {way} those of the others", to_do)


def versions_differ(state: State) -> Iterator[Finding]:
    """Nodes of two versions work together, as in an upgrade."""
    by_version: dict[str, list[int]] = {}
    for answer in state.answering:
        assert answer.report is not None
        if isinstance(version := answer.report.get("version"), str) and version:
            by_version.setdefault(version.split()[0], []).append(answer.node.rank)  # without the kind of build
    if len(by_version) > 1:
        ranks = tuple(sorted(rank for some in by_version.values() for rank in some))
        said = "; ".join(f"{version}: {', '.join(map(str, some))}" for version, some in sorted(by_version.items()))
        yield Finding("versions_differ", Severity.NOTICE, ranks, f"the nodes are of different versions ({said})",
                      "complete the upgrade: see the runbook, \"Upgrade\"")
