"""Clusters as nodes tell of them, for the page: well, in trouble, and with people who mean harm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsreg.config import NodeAddress
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import examine
from dsreg.health.findings import State
from dsreg.health.traffic import Counted, Tally
from dsreg.histogram import BOUNDS_S
from dsreg.page.view import View

GIB = 1 << 30
SECTORS = 10 * GIB // 4096
FILE = "/etc/dsreg/cluster.toml"
OWNER = "web-1, process 4711"


def buckets(number: int, median: int) -> list[int]:
    """Of so many requests: most in this bucket, some slower."""
    found = [0] * (len(BOUNDS_S) + 1)
    found[median], found[median + 1], found[median + 3] = number - number // 5 - number // 90, number // 5, number // 90
    return found


def operation(number: int, median: int) -> dict[str, Any]:
    return {"count": number, "bytes": 4096 * number, "seconds": 1.0, "buckets": buckets(number, median)}


def healing(behind: int = 0, unknown: int = 0, rate: int = 0, known: float = 1.0) -> dict[str, Any]:
    lacking = behind or unknown
    peers = {str(peer): {"in_sync": not lacking, "behind_bytes": behind, "compared": 1.0} for peer in (1, 2)}
    return {"in_sync": not lacking, "behind_bytes": behind, "unknown_bytes": unknown, "known": known, "rate": rate,
            "left_s": lacking / rate if rate else None if lacking else 0.0, "peers": peers}


def scrub(**changed: Any) -> dict[str, Any]:
    return {"period_days": 14, "running": False, "progress": 1.0, "verified_bytes": 3 * GIB, "total_bytes": 3 * GIB,
            "last_s": 190_000.0, "next_s": 900_000.0, **changed}


def clients(rank: int, uptime_s: float, owner: str = OWNER) -> list[dict[str, Any]]:
    return [
        {"peer": f"10.0.0.21:4000{rank}", "owner": owner, "sealed": True, "since_s": 9000.0, "unfinished": 3,
         "requests": int(4200 * uptime_s), "bytes": int(17e6 * uptime_s)},
        {"peer": f"10.0.0.40:5120{rank}", "owner": "", "sealed": False, "since_s": 90.0, "unfinished": 0,
         "requests": int(12 * uptime_s), "bytes": int(50e3 * uptime_s)},
    ]


def up(rank: int, uptime_s: float = 180_000.0, **report: Any) -> NodeAnswer:
    """A node that is well and busy."""
    peers = {str(peer): "sealed" for peer in (1, 2, 3) if peer != rank}
    usual: dict[str, Any] = {
        "round_trip_s": 0.0012, "uptime_s": uptime_s, "incarnation": 4, "sectors": SECTORS, "version": "1.0.0",
        "sectors_written": SECTORS // 3, "damaged": 0, "no_space": False, "peers": peers, "epoch": 12,
        "attached_by": OWNER, "heal": healing(), "lives": {"life": 1},
        "storage": {"size_bytes": 100 * GIB, "available_bytes": (60 - rank) * GIB, "values_bytes": 3 * GIB},
        "syncs": {"count": 900, "median_s": 0.0008 + rank / 5000}, "unix_s": 1_800_000_000.0, "clock_ahead_s": 0.0,
        "damage": {"value": 0, "tag": 0, "contradiction": 0, "repaired": 0, "open": 0, "sectors": []},
        "scrub": scrub(last_s=190_000.0 + rank, next_s=900_000.0 + 7000 * rank),
        "requests": {"bounds_s": [*BOUNDS_S], "unfinished": rank, "unfinished_bytes": 4096 * rank, "operations": {
            "get": operation(int((1200 + 300 * rank) * uptime_s), 2), "put": operation(int(3000 * uptime_s), 4)}},
        "clients": clients(rank, uptime_s), "clients_left_out": 0, "plain_write_s": None, "unsealed_connections": 0,
    }
    return NodeAnswer(NodeAddress(rank, f"10.0.0.{rank}", 7001, Path()), {**usual, **report})


def down(rank: int, fault: str = "connection refused") -> NodeAnswer:
    return NodeAnswer(NodeAddress(rank, f"10.0.0.{rank}", 7001, Path()), None, fault)


def history(samples: int = 121, busy: bool = True) -> list[Counted]:
    """Of ten minutes, with a quiet minute in them."""
    found, reads, writes = [], 0, 0
    for number in range(samples):
        is_quiet = not busy or 60 <= number < 72
        reads += 0 if is_quiet else int(5 * (1500 + 600 * math.sin(number / 9)))
        writes += 0 if is_quiet else int(5 * (3000 + 900 * math.sin(number / 5 + 2)))
        found.append(Counted(1000 + 5000 * number, 4, Tally(reads, 4096 * reads, tuple(buckets(reads, 2))),
                             Tally(writes, 4096 * writes, tuple(buckets(writes, 4)))))
    return found


def view(answers: Sequence[NodeAnswer], no_quorum: str = "", **changed: Any) -> View:
    before = [
        up(answer.node.rank, answer.report["uptime_s"] - 5.0) for answer in answers
        if answer.report is not None and answer.report.get("requests")
    ]
    return View(**{
        "rank": 1, "file": FILE, "sectors": SECTORS, "answers": answers, "no_quorum": no_quorum, "before": before,
        "findings": examine(State(answers, no_quorum, FILE)), "history": history(), "refresh_s": 5,
        "when": "2026-11-30 19:10:03 UTC", **changed})


WELL = view([up(1), up(2), up(3)])
DOWN = view([up(1), up(2), down(3)])
HEALING = view([
    up(1), up(2, scrub=scrub(running=True, progress=0.43, verified_bytes=GIB, next_s=0.0)),
    up(3, uptime_s=312.0, heal=healing(behind=700 << 20, rate=24 << 20), clients=[]),
])
LEARNING = view([up(1), up(2), up(3, heal=healing(unknown=6 * GIB, known=0.4, rate=31 << 20))])
NO_QUORUM = view([up(1, attached_by="", clients=[]), down(2, "no connection in time"), down(3)],
                 "no majority answered a read within 1 s")
SCENES = {"well": WELL, "down": DOWN, "healing": HEALING, "learning": LEARNING, "no-quorum": NO_QUORUM}
