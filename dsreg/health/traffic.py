"""What nodes do for clients: rates between two of their answers, and who the clients are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dsreg.health.answers import NodeAnswer
from dsreg.health.of_machines import number
from dsreg.histogram import BOUNDS_S, quantile_in
from dsreg.units import printable

# Commands, as dsreg.protocol.messages names them, by what they are for who has sent them.
READS: Final = ("read", "get")
WRITES: Final = ("write", "store", "put")
# Who has just come is not shown yet: whoever looks at the nodes comes, asks, and goes.
NEW_S: Final = 2.0
_BUCKETS: Final = len(BOUNDS_S) + 1


class Tally(NamedTuple):
    """Requests since the start of a node: how many, bytes of sectors in them, and how long they took: how many in each
    bucket of a dsreg.histogram of durations."""

    requests: int = 0
    bytes: int = 0
    buckets: Sequence[int] = (0,) * _BUCKETS


class Counted(NamedTuple):
    """What a node had done `at_ms` after its start number `start`."""

    at_ms: int
    start: int
    reads: Tally
    writes: Tally


@dataclass(frozen=True, slots=True)
class Rates:
    """For each second; `p50_s`, `p99_s`: how long requests took, None if there were none."""

    reads: float
    writes: float
    read_bytes: float
    written_bytes: float
    p50_s: float | None
    p99_s: float | None

    @property
    def requests(self) -> float:
        return self.reads + self.writes

    @property
    def bytes(self) -> float:
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True)
class User:
    """Who uses the disk. `who`: by which name it was attached, else the address; `ranks`: at which nodes. `requests`,
    `bytes`: for each second, at all these together; None if they are seen for the first time."""

    who: str
    has_attached: bool
    ranks: tuple[int, ...]
    connections: int
    is_sealed: bool
    unfinished: int
    requests: float | None
    bytes: float | None


def of_kinds(tallies: Mapping[str, Tally]) -> tuple[Tally, Tally]:
    """Reads and writes, of tallies by operation."""
    reads, writes = (
        [tally for name, tally in tallies.items() if name in kinds] for kinds in (READS, WRITES)
    )
    return _sum(reads), _sum(writes)


def _sum(tallies: Iterable[Tally]) -> Tally:
    requests = size = 0
    buckets = [0] * _BUCKETS
    for tally in tallies:
        requests += tally.requests
        size += tally.bytes
        buckets = [one + other for one, other in zip(buckets, tally.buckets, strict=True)]
    return Tally(requests, size, tuple(buckets))


def counted(report: Mapping[str, Any] | None) -> Counted | None:
    """Of a node's STATUS; None: it does not answer, or is of a version that does not count."""
    requests = report.get("requests") if report is not None else None
    if report is None or not isinstance(requests, Mapping) or list(requests.get("bounds_s", ())) != list(BOUNDS_S):
        return None
    tallies = {
        name: Tally(int(found["count"]), int(found["bytes"]), tuple(found["buckets"]))
        for name, found in requests["operations"].items()
    }
    return Counted(round(1000 * report["uptime_s"]), report["incarnation"], *of_kinds(tallies))


def rates(before: Counted | None, after: Counted | None) -> Rates | None:
    """None: the node was started between them, or one of them is not known, or they are of the same moment."""
    if before is None or after is None or before.start != after.start or before.at_ms >= after.at_ms:
        return None
    seconds = (after.at_ms - before.at_ms) / 1000
    reads, writes = _since(before.reads, after.reads), _since(before.writes, after.writes)
    counts = [one + other for one, other in zip(reads.buckets, writes.buckets, strict=True)]
    p50_s, p99_s = (quantile_in(BOUNDS_S, counts, share) if any(counts) else None for share in (0.5, 0.99))
    return Rates(reads.requests / seconds, writes.requests / seconds, reads.bytes / seconds, writes.bytes / seconds,
                 p50_s, p99_s)


def _since(before: Tally, after: Tally) -> Tally:
    buckets = [now - then for now, then in zip(after.buckets, before.buckets, strict=True)]
    return Tally(after.requests - before.requests, after.bytes - before.bytes, buckets)


def rates_of_nodes(before: Iterable[NodeAnswer], after: Iterable[NodeAnswer]) -> dict[int, Rates]:
    """By rank, of those that can be told."""
    known = {answer.node.rank: counted(answer.report) for answer in before}
    found = {answer.node.rank: rates(known.get(answer.node.rank), counted(answer.report)) for answer in after}
    return {rank: each for rank, each in found.items() if each is not None}


def queue(answer: NodeAnswer) -> int | None:
    """Requests of clients that the node has yet to answer; None if it does not tell."""
    waiting = number(answer.report, "requests", "unfinished")
    return None if waiting is None else int(waiting)


# --- clients --------------------------------------------------------------------------------------
class _Place(NamedTuple):
    """A connection, at one node: what has come over it, and when, in seconds of the node's life."""

    at_s: float
    requests: int
    bytes: int


def users(before: Sequence[NodeAnswer], after: Sequence[NodeAnswer]) -> list[User]:
    """Who uses the disk: who has attached it first, then who asks for most."""
    known = {key: place for _, key, place, _ in _connections(before)}
    by_name: dict[tuple[str, bool], list[tuple[int, _Place | None, _Place, Mapping[str, Any]]]] = {}
    for rank, key, place, told in _connections(after):
        owner = printable(str(told.get("owner", "")))
        who = owner or printable(str(told["peer"])).rpartition(":")[0]
        by_name.setdefault((who, bool(owner)), []).append((rank, known.get(key), place, told))
    found = [_user(*name, seen) for name, seen in by_name.items()]
    return sorted(found, key=lambda user: (not user.has_attached, -(user.requests or 0), user.who))


def _user(
    who: str, has_attached: bool, seen: Sequence[tuple[int, _Place | None, _Place, Mapping[str, Any]]]
) -> User:
    moved = [
        ((now.requests - before.requests) / seconds, (now.bytes - before.bytes) / seconds)
        for _, before, now, _ in seen if before is not None and (seconds := now.at_s - before.at_s) > 0
    ]
    return User(
        who, has_attached, tuple(sorted({rank for rank, *_ in seen})), len(seen),
        all(told.get("sealed") is True for *_, told in seen),
        sum(int(told.get("unfinished", 0)) for *_, told in seen),
        sum(requests for requests, _ in moved) if moved else None, sum(size for _, size in moved) if moved else None,
    )


def _connections(
    answers: Iterable[NodeAnswer],
) -> Iterable[tuple[int, tuple[int, int, str], _Place, Mapping[str, Any]]]:
    """Rank, what tells it from all others, what has come over it, and what the node says of it."""
    for answer in answers:
        report = answer.report or {}
        for told in report.get("clients", ()):
            if told["since_s"] < NEW_S and not told["owner"]:
                continue
            key = (answer.node.rank, int(report["incarnation"]), str(told["peer"]))
            yield answer.node.rank, key, _Place(report["uptime_s"], told["requests"], told["bytes"]), told
