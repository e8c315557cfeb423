"""What status says is compared with what is known: each kind of lie is found, and what is so is not taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.truth import Decided, State, Truth, check_reports

MEMBERS = 0b1110
UP = dict.fromkeys((1, 2, 3), State.UP)


def node(rank: int, **more: Any) -> dict[str, Any]:
    return {"rank": rank, "answers": True, "fault": "", "incarnation": 1, "directory_fault": "", "damaged": 0,
            "no_space": False, "copy": {"state": "in sync"}, "counters": {}, **more}


def silent(rank: int, fault: str = "connection refused") -> dict[str, Any]:
    return {"rank": rank, "answers": False, "fault": fault, "directory_fault": "", "copy": {"state": ""}}


def report(truth: Truth, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Of a moment that is just over."""
    return {"time": truth.now.since_s + 1, "config_fault": "", "quorum": True, "fault": "", "epoch": 1,
            "attached_by": "desk", "configuration": {"number": 1, "members": [1, 2, 3], "joining": []},
            "answering": sum(each["answers"] for each in nodes), "can_lose": 1, "nodes": nodes, **more}


@pytest.fixture
def truth() -> Truth:
    return Truth({1: Decided(MEMBERS)}, UP, 1, "desk")


@pytest.fixture
def compare(truth: Truth, tmp_path: Path) -> Callable[..., None]:
    """One report, of a time in which all that is known held."""
    def compare(*nodes: dict[str, Any], **more: Any) -> None:
        path = tmp_path / "status"
        path.write_text(json.dumps(report(truth, *nodes, **more)) + "\n")
        check_reports(truth, path, truth.now.since_s)

    return compare


def test_what_is_so_is_not_taken_for_a_lie(truth: Truth, compare: Callable[..., None]) -> None:
    compare(node(1), node(2), node(3))
    truth.change({3: State.DOWN})
    compare(node(1), node(2), silent(3), can_lose=0)
    truth.change({3: State.BACK})
    compare(node(1), node(2), node(3, copy={"state": "behind"}), can_lose=0)
    compare(node(1), node(2), node(3, counters={"healed": 7}))
    empty = {"lives": {"waits_for": "rank 3 has an empty directory"}, "directory_fault": "it is another one"}
    compare(node(1), node(2), node(3, **empty, copy={"state": "no links"}), can_lose=0)
    late = "no majority answered a read within 2 s"
    compare(node(1), silent(2, "no connection in time"), node(3, copy={"state": "behind"}), can_lose=0, quorum=False,
            fault=late)


@pytest.mark.parametrize(("change", "nodes", "more", "complaint"), [
    ({}, [node(1), node(2), node(3)], {"can_lose": 2}, "no more than 1 can be lost"),
    ({}, [node(1), node(2), node(3)], {"epoch": 2}, "the attachment"),
    ({}, [node(1), node(2), node(3)], {"attached_by": ""}, "the attachment"),
    ({}, [node(1), node(2), silent(3)], {"can_lose": 0}, "node 3 is up"),
    ({}, [node(1), node(2), node(3)], {"quorum": False, "fault": "no majority"}, "there is a quorum"),
    ({}, [node(1), node(2), node(3, damaged=1)], {}, "node 3"),
    ({}, [node(1), node(2), node(3, directory_fault="it is another one")], {}, "node 3 has its directory"),
    ({3: State.BACK}, [node(1), node(2), node(3, directory_fault="it is another one", copy={"state": "behind"})],
     {"can_lose": 0}, "node 3 has its directory"),
    ({}, [node(1), node(2), node(3, incarnation=2), node(3)], {}, "node 3 has started 2 times"),
    ({3: State.DOWN}, [node(1), node(2), silent(3)], {}, "no more than 0 can be lost"),
    ({3: State.DOWN}, [node(1), node(2), node(3)], {"can_lose": 0}, "node 3 is down"),
    ({3: State.BACK}, [node(1), node(2), node(3)], {}, "node 3 has missed something"),
    ({}, [node(1), node(2), node(3)], {"configuration": {"number": 2, "members": [1, 2, 3], "joining": []}},
     "configuration 2"),
    ({}, [node(1), node(2)], {"configuration": {"number": 1, "members": [1, 2], "joining": []}}, "the members"),
])
def test_a_lie_is_found(
    truth: Truth, compare: Callable[..., None], change: dict[int, State], nodes: list[dict[str, Any]],
    more: dict[str, Any], complaint: str,
) -> None:
    truth.change(change)
    with pytest.raises(AssertionError, match=complaint):
        compare(*nodes, **more)


def test_while_nothing_is_done_it_says_all_that_may_be_lost(truth: Truth, compare: Callable[..., None]) -> None:
    truth.change(is_quiet=True)
    compare(node(1), node(2), node(3))
    with pytest.raises(AssertionError, match="1 can be lost"):
        compare(node(1), node(2), node(3, copy={"state": "compares"}), can_lose=0)
    compare(node(1), node(2), silent(3, "no status from node 3 within 2.0 s"), can_lose=0)


def test_what_changes_while_the_nodes_are_asked_may_be_said_either_way(truth: Truth) -> None:
    began_s = truth.now.since_s
    truth.change({3: State.DOWN})
    assert [known.nodes[3] for known in truth.between(began_s, truth.now.since_s)] == [State.UP, State.DOWN]
    assert [known.nodes[3] for known in truth.between(truth.now.since_s + 1, truth.now.since_s + 2)] == [State.DOWN]
