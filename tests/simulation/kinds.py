"""Directed runs: where several rare things have to meet in a moment, chance alone takes too many seeds.

Each kind sets the stage for one such meeting, and leaves open when it comes about: few sectors that everybody wants,
and what makes the window wide (distances, slow disks, slow checkpoints, coarse clocks, rivals that come again and
again). Everything else is as in a quiet run. Half of all seeds are of a kind, the others know all faults.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.options import Options

DIRECTED = 0.5
SWARM = "swarm"

# Faults that only directed runs know: see traps.py.
TRAPS = frozenset({"tags_named", "coordinator_lost", "late_hold", "first_hold", "leftover", "columns"})


def _late_hold(rng: random.Random) -> dict[str, Any]:
    """An attachment is accepted here at once and there late; meanwhile others write in its epoch."""
    return {
        "sectors": 1, "extension_clients": 1, "contract_clients": 1, "frontends": 1, "reads": 0.3,
        "latency_s": 0.000005, "disk_s": 0.0001, "faults": ("late_hold",), "fault_interval_s": 0.3, "max_faults": 6,
        "operations": 10,
    }


def _named_twice(rng: random.Random) -> dict[str, Any]:
    """A node names a tag and is restarted; whom it named it for stores under it late. The disk has been attached."""
    return {
        "sectors": 1, "extension_clients": 3, "frontends": 1, "reads": 0.1, "faults": ("tags_named",), "think_s": 0.5,
        "fault_interval_s": 3.0, "max_faults": 12, "one_home": True,
    }


def _lost_copy(rng: random.Random) -> dict[str, Any]:
    """A coordinator loses its own copy of a write, and the only other one is hidden; then it writes again."""
    return {
        "nodes": 5, "sectors": 1, "contract_clients": 1, "frontends": rng.choice((0, 1)), "reads": 0.1,
        "spread": 1000.0, "faults": ("coordinator_lost",), "fault_interval_s": 0.5, "max_faults": 40, "think_s": 1.0,
    }


def _frozen(rng: random.Random) -> dict[str, Any]:
    """Attachments take over from each other, while a node still has to store what it has accepted: the disk is slow, or
    the journal full. Their clocks may be coarse, as nobody else writes."""
    return {
        "sectors": 2, "frontends": rng.choice((2, 3)), "reads": 0.5, "max_run": 2, "depth": 2, "spread": 30.0,
        "disk_spread": rng.choice((1.0, 30.0)), "checkpoint_factor": rng.choice((1.0, 30.0, 300.0)),
        "journal_bytes": 48 * 1024, "faults": ("client_crash", "power"), "fault_interval_s": 0.1, "max_faults": 15,
        "tries": 12, "clock_step_s": rng.choice((0.0, 0.01, 0.3)),
    }


def _overtaken(rng: random.Random) -> dict[str, Any]:
    """Nodes coordinate writes while the disk is attached, again and again."""
    return {
        "sectors": rng.choice((1, 4)), "contract_clients": 3, "frontends": 2, "reads": 0.2, "spread": 100.0,
        "disk_s": rng.choice((0.0005, 0.01)), "promise_step": 2, "faults": ("client_crash",), "depth": 2,
        "fault_interval_s": 0.1, "max_faults": 15, "tries": 12, "operations": 60,
    }


def _first_hold(rng: random.Random) -> dict[str, Any]:
    """The disk is attached for the first time while nodes promise the tags of the writes that they coordinate."""
    return {
        "sectors": 8, "contract_clients": 3, "frontends": 1, "reads": 0.1, "depth": 4, "latency_s": 0.0001,
        "disk_s": 0.01, "promise_step": 2, "attach_after_s": 1.0, "faults": ("first_hold",), "fault_interval_s": 0.05,
        "max_faults": 2, "operations": 60,
    }


def _far_apart(rng: random.Random) -> dict[str, Any]:
    """Some are near each other and others far away, so one copy is there long before the next; and messages come
    twice."""
    return {
        "nodes": rng.choice((3, 5)), "sectors": 1, "extension_clients": 2, "contract_clients": 2, "reads": 0.5,
        "spread": 1000.0, "disk_spread": rng.choice((1.0, 30.0)), "sealed": 0.0,
        "frames": (("duplicate", 0.5),), "operations": 60,
    }



def _columns(rng: random.Random) -> dict[str, Any]:
    """Runs, of which one node has the newer value of one sector and another node that of the other, as several nodes
    coordinate writes of one sector at a time."""
    return {
        "sectors": 2, "extension_clients": 3, "contract_clients": 3, "max_run": 2, "spread": 1000.0, "disk_s": 0.0001,
        "faults": ("columns",), "fault_interval_s": 0.2, "max_faults": 30, "operations": 5,
    }



def _leftover(rng: random.Random) -> dict[str, Any]:
    """An attachment dies when one node has its write, the next one restamps it slowly, and others write meanwhile."""
    return {
        "sectors": 1, "contract_clients": 2, "frontends": 1, "reads": 0.1, "spread": 300.0, "latency_s": 0.0002,
        "disk_s": 0.0001, "faults": ("leftover",), "fault_interval_s": 2.0, "max_faults": 20, "operations": 15,
        "think_s": 2.0,
    }


KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "late_hold": _late_hold,
    "named_twice": _named_twice,
    "lost_copy": _lost_copy,
    "frozen": _frozen,
    "overtaken": _overtaken,
    "first_hold": _first_hold,
    "far_apart": _far_apart,
    "columns": _columns,
    "leftover": _leftover,
}


def directed(options: Options) -> Options:
    """As the seed has it: the same, or a directed run."""
    # With numbers of its own, so that the other runs stay what they were.
    rng = random.Random(f"kind {options.seed}")
    if rng.random() >= DIRECTED:
        return options
    kind = rng.choice(list(KINDS))
    quiet: dict[str, Any] = {
        "nodes": 3, "extension_clients": 0, "contract_clients": 0, "frontends": 0, "operations": 40, "depth": 1,
        "max_run": 1, "think_s": 0.0, "abandon": 0.0, "journal_bytes": 256 * 1024, "latency_s": 0.0005, "skew": 1.0,
        "tail": 0.0, "split": 0.0, "disk_s": 0.0005, "cold": 0.0, "contract_nodes": 0.0, "receipts": False,
        "absent_at_end": 0, "faults": (), "frames": (),
    }
    return dataclasses.replace(options, kind=kind, **{**quiet, **KINDS[kind](rng)})
