"""What a script knows about a cluster, moment by moment, and whether `dsreg status` says nothing else."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsreg.register.configuration import quorum_of
from dsreg.register.quorum import mask


class State(enum.Enum):
    """Of a node. DOWN: it surely does not run, or has no directory. BACK: it was started, after commits that it has not
    seen. UP: it surely runs, and is linked to the others. UNSURE: anything between."""

    DOWN = "down"
    BACK = "back"
    UP = "up"
    UNSURE = "unsure"


@dataclasses.dataclass(frozen=True)
class Decided:
    """Who decides, as in a configuration: masks."""

    ranks: int
    joining: int = 0

    @property
    def members(self) -> int:
        return self.ranks | self.joining


@dataclasses.dataclass(frozen=True)
class Known:
    """From `since_s` (time.time()) on. `numbers`: of the configurations one of which is in force. `is_quiet`: nothing
    is being done, and what was done before is complete."""

    since_s: float
    nodes: Mapping[int, State]
    numbers: frozenset[int]
    is_quiet: bool


class Truth:
    """`decided`: the configurations by number. `addresses`: of the nodes, at the end. `starts`: how often each node was
    started. `epoch`, `by`: of the attachment, from beginning to end."""

    def __init__(self, decided: Mapping[int, Decided], nodes: Mapping[int, State], epoch: int, by: str) -> None:
        self.decided = dict(decided)
        self.starts = Counter({rank: 1 for rank in nodes})
        self.epoch = epoch
        self.by = by
        self._known = [Known(time.time(), dict(nodes), frozenset({1}), True)]

    @property
    def now(self) -> Known:
        return self._known[-1]

    def change(self, nodes: Mapping[int, State] = {}, numbers: Sequence[int] = (), *, is_quiet: bool = False) -> None:
        """From now on: of these nodes, and one of these configurations. What is not given stays."""
        before = self.now
        self._known.append(Known(
            time.time(), {**before.nodes, **nodes}, frozenset(numbers) or before.numbers, is_quiet))

    def between(self, start_s: float, end_s: float) -> list[Known]:
        """All that held at some moment of these."""
        ends_s = [known.since_s for known in self._known[1:]] + [float("inf")]
        return [known for known, ends in zip(self._known, ends_s, strict=True)
                if known.since_s <= end_s and ends > start_s]


def check_reports(truth: Truth, path: Path, began_s: float) -> Counter[str]:
    """All lines that `dsreg status --watch --json`, started at `began_s`, has printed to the file. AssertionError if
    one says what was not so. Counts what was said."""
    counts: Counter[str] = Counter()
    starts: dict[int, set[int]] = {}
    number = 0
    for line in path.read_text().splitlines():
        report = json.loads(line)
        known = truth.between(began_s, report["time"])
        try:
            _check(truth, known, report)
            assert report["configuration"]["number"] >= number, "the configuration goes back"
            for node in report["nodes"]:
                if node["answers"]:
                    starts.setdefault(node["rank"], set()).add(node["incarnation"])
        except AssertionError as error:
            raise AssertionError(f"status says what is not so: {error}\nknown: {known}\n{line}") from None
        number, began_s = report["configuration"]["number"], report["time"]
        counts["reports"] += 1
        counts["reports that lack an answer in time"] += is_late(report)
        counts[f"can lose {report['can_lose']}"] += 1
    for rank, seen in starts.items():
        assert len(seen) <= truth.starts[rank], f"node {rank} has started {len(seen)} times, by {path}"
    return counts


def _check(truth: Truth, known: Sequence[Known], report: Mapping[str, Any]) -> None:
    """`known`: all that held while the nodes were asked."""
    assert not report["config_fault"], "the file can be read"
    assert report["quorum"] or _is_late(report["fault"]), "there is a quorum"
    assert (report["epoch"], report["attached_by"]) == (truth.epoch, truth.by), "the attachment"
    number = report["configuration"]["number"]
    assert any(number in each.numbers for each in known), f"configuration {number}"
    decided = truth.decided[number]
    assert mask(report["configuration"]["members"]) == decided.ranks, "the members"
    assert mask(report["configuration"]["joining"]) == decided.joining, "the members to come"
    for node in report["nodes"]:
        states = {each.nodes.get(node["rank"], State.UNSURE) for each in known}
        _check_node(states, node)
    limit = max(_most(decided, each) for each in known)
    assert report["can_lose"] <= limit, f"no more than {limit} can be lost"
    if all(each.is_quiet for each in known) and not is_late(report):
        assert report["can_lose"] == limit, f"{limit} can be lost"
        assert report["answering"] == decided.members.bit_count(), "all answer"


def is_late(report: Mapping[str, Any]) -> bool:
    """Whether something had no answer in time: on a machine with much else to do that is so, and no lie."""
    return _is_late(report["fault"]) or any(_is_late(node["fault"]) for node in report["nodes"])


def _is_late(fault: str) -> bool:
    return re.search(r" within [0-9.]+ s$| in time$|does not answer the HELLO", fault) is not None


def _check_node(states: set[State], node: Mapping[str, Any]) -> None:
    rank = node["rank"]
    if states == {State.DOWN}:
        assert not node["answers"] and node["fault"], f"node {rank} is down"
        return
    if states == {State.UP}:
        assert node["answers"] or _is_late(node["fault"]), f"node {rank} is up"
    if states == {State.BACK} and node["answers"] and node["copy"]["state"] == "in sync":
        assert node["counters"].get("healed"), f"node {rank} has missed something, and has fetched nothing"
    if node["answers"]:
        # For a moment after its start the directory of one that rejoins is another one, and empty.
        rejoins = State.BACK in states and node.get("lives", {}).get("waits_for")
        assert rejoins or not node["directory_fault"], f"node {rank} has its directory"
        assert not node["damaged"] and not node["no_space"], f"node {rank}"


def _most(decided: Decided, known: Known) -> int:
    """How many nodes may be lost at most, if those have everything that may have."""
    return quorum_of(decided).spare(mask(rank for rank, state in known.nodes.items() if state != State.DOWN))
