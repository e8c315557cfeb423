"""The nodes: which of them are asked, and how far one may be behind."""

from __future__ import annotations

import pytest

from dsreg.client.events import KeyRefused, OtherDisk
from dsreg.client.limits import (
    AVOID_FIRST_S,
    AVOID_MAX_S,
    COMPARE_AGAIN_S,
    MAX_LAGGING,
    MAX_LAGGING_BYTES,
    PROBE_S,
    SILENCE_S,
)
from dsreg.client.node_selector import NodeSelector
from dsreg.client.node_view import NodeView


def ring(*ranks: int, up: tuple[int, ...] | None = None) -> NodeSelector:
    made = NodeSelector(ranks or (1, 2, 3))
    for rank in made.by_rank if up is None else up:
        made.connected(made.by_rank[rank])
    return made


def nearest(made: NodeSelector, home: int, now_s: float = 0.0) -> list[int]:
    return [node.rank for node in made.nearest(home, now_s)]


# --- near -----------------------------------------------------------------------------------------
def test_the_nearest_are_those_round_the_ring_from_the_home() -> None:
    made = ring(4, 7, 2, 9)
    assert [nearest(made, home) for home in range(4)] == [[4, 7, 2, 9], [7, 2, 9, 4], [2, 9, 4, 7], [9, 4, 7, 2]]


def test_nodes_that_are_down_or_stopping_are_not_near() -> None:
    made = ring(up=(1, 3))
    made.by_rank[3].stopping = True
    assert nearest(made, 1) == [1]


def test_nodes_that_did_not_answer_come_last_for_a_while() -> None:
    made = ring()
    made.by_rank[2].avoid(10.0)
    assert nearest(made, 1, 10.0) == [3, 1, 2]
    assert nearest(made, 1, 10.0 + AVOID_FIRST_S) == [2, 3, 1]
    made.by_rank[2].avoid(100.0)
    made.by_rank[2].answered(100.0)
    assert nearest(made, 1, 100.0) == [2, 3, 1]


def test_the_while_doubles_up_to_a_limit() -> None:
    node, now_s, found = NodeView(1, 0), 0.0, []
    for _ in range(6):
        node.avoid(now_s)
        node.avoid(now_s)  # another operation: the same failure
        found.append(node.avoided_until_s - now_s)
        now_s = node.avoided_until_s
    assert found == [AVOID_FIRST_S, 2 * AVOID_FIRST_S, 4 * AVOID_FIRST_S, 8 * AVOID_FIRST_S, AVOID_MAX_S, AVOID_MAX_S]


@pytest.mark.parametrize(("nodes", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majorities(nodes: int, majority: int) -> None:
    assert ring(*range(1, nodes + 1)).quorum.needed == majority


# --- silence and refusals -------------------------------------------------------------------------
def test_silent_nodes_are_asked_once_and_then_given_up() -> None:
    made = ring()
    made.by_rank[2].silent_since_s = 10.0
    assert made.owes_answers
    assert made.silent(10.0 + PROBE_S - 0.1) == ([], [])
    assert made.silent(10.0 + PROBE_S) == ([made.by_rank[2]], [])
    assert made.silent(10.0 + PROBE_S) == ([], [])
    assert made.silent(10.0 + SILENCE_S) == ([], [made.by_rank[2]])


def test_a_refusal_counts_once_all_were_tried_and_none_was_ever_good() -> None:
    made = ring(up=())
    for rank, refusal in ((1, KeyRefused(1)), (2, None)):
        made.by_rank[rank].tried, made.by_rank[rank].refusal = True, refusal
        assert made.refusal is None
    made.by_rank[3].tried, made.by_rank[3].refusal = True, OtherDisk(3, 5, 6)
    assert made.refusal == KeyRefused(1)
    made.connected(made.by_rank[2])
    assert made.refusal is None


# --- behind ---------------------------------------------------------------------------------------
def test_a_node_may_be_behind_with_so_many_puts() -> None:
    node = NodeView(1, 0)
    for request in range(MAX_LAGGING):
        assert node.lag(request, 4096) == []
    assert node.lag(MAX_LAGGING, 4096) == [0]
    assert node.lag(MAX_LAGGING + 1, 4096) == [1]
    assert len(node.lagging) == MAX_LAGGING and node.lagging_bytes == MAX_LAGGING * 4096


def test_a_node_may_be_behind_with_so_many_bytes() -> None:
    node, size = NodeView(1, 0), 1 << 20
    full = MAX_LAGGING_BYTES // size
    for request in range(full):
        assert node.lag(request, size) == []
    assert node.lag(full, 4096) == [0]
    assert node.lag(full + 1, size) == [1]
    assert node.lagging_bytes == sum(node.lagging.values()) <= MAX_LAGGING_BYTES


def test_a_node_that_was_spared_something_is_to_compare_when_it_has_caught_up_or_from_time_to_time() -> None:
    node, now_s = NodeView(1, 0), 100.0
    for request in range(MAX_LAGGING):
        node.lag(request, 4096)
    assert not node.is_to_compare(now_s), "it gets all of this"
    node.lag(MAX_LAGGING, 4096)
    node.compares_s = now_s
    assert not node.is_to_compare(now_s + COMPARE_AGAIN_S - 1) and node.is_to_compare(now_s + COMPARE_AGAIN_S)
    for request in range(1, MAX_LAGGING + 1):
        assert not node.is_to_compare(now_s)
        node.catch_up(request)
    assert node.is_to_compare(now_s)
    node.lose()
    assert not node.is_to_compare(now_s), "it compares when somebody attaches over a new connection"


def test_what_a_node_has_caught_up_with_does_not_count() -> None:
    node = NodeView(1, 0)
    for turn in range(3 * MAX_LAGGING):
        assert node.lag(turn, 4096) == []
        assert node.catch_up(turn)
        assert not node.catch_up(turn)
    assert not node.lagging and node.lagging_bytes == 0


def test_a_broken_connection_ends_what_it_was_behind_with() -> None:
    node = NodeView(1, 0, up=True)
    node.owed[9] = None
    node.lag(8, 4096)
    node.silent_since_s = 1.0
    assert node.lose() == [9]
    assert not node.up and not node.owed and not node.lagging and node.lagging_bytes == 0
    assert node.silent_since_s is None
