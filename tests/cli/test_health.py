"""What `dsreg status --check` makes of the nodes' answers, and what of it fits a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsreg.cli.health import Health, NodeAnswer, assess, assess_one
from dsreg.cli.status_table import _COLUMNS, fitting
from dsreg.config import NodeAddress


def answer(rank: int, fault: str = "", **report: Any) -> NodeAnswer:
    peers = {str(peer): "sealed" for peer in (1, 2, 3) if peer != rank}
    told = None if fault else {"damaged": 0, "peers": peers, **report}
    return NodeAnswer(NodeAddress(rank, f"host{rank}", 7001, Path()), told, fault)


WELL = [answer(1), answer(2), answer(3)]


def test_well() -> None:
    assert assess(WELL, "") == assess_one(WELL[0]) and assess(WELL, "").health is Health.WELL
    assert assess(WELL, "").reasons == ()


@pytest.mark.parametrize(("bad", "reason"), [
    (answer(3, "connection refused"), "node 3 (host3:7001): connection refused"),
    (answer(3, damaged=4), "node 3 (host3:7001): 4 damaged sectors, repaired from the others when next used"),
    (answer(3, peers={"1": "down", "2": "sealed"}), "node 3 (host3:7001): does not reach node 1"),
    (answer(3, peers={"1": "unsealed"}),
     "node 3 (host3:7001): does not use node 1, which does not seal its connections"),
    (answer(3, peers={"1": "silent"}),
     "node 3 (host3:7001): hears nothing from node 1 (other keys, or it speaks only the contract)"),
])
def test_degraded(bad: NodeAnswer, reason: str) -> None:
    found = assess([*WELL[:2], bad], "")
    assert found.health is Health.DEGRADED and found.reasons == (reason,)


def test_a_contract_link_is_no_fault() -> None:
    assert assess([answer(1, peers={"2": "contract", "3": "extension"}), *WELL[1:]], "").health is Health.WELL


def test_critical() -> None:
    found = assess([*WELL[:2], answer(3, "no route to host")], "no majority answered")
    assert found.health is Health.CRITICAL
    assert found.reasons == ("no quorum: no majority answered", "node 3 (host3:7001): no route to host")


def test_one_node_alone() -> None:
    assert assess_one(answer(1, "connection refused")).health is Health.CRITICAL
    assert assess_one(answer(1, peers={"2": "down", "3": "down"})).health is Health.DEGRADED


def test_columns_that_do_not_fit_are_left_out_from_the_last() -> None:
    rows = [["1", "10.0.0.1:7001", "answers", "2 of 2", "10.1", "12 d 3 h", "1", "123456", "0.1.0 compiled"]]
    assert fitting(rows, 160) == list(range(len(_COLUMNS)))
    for width in range(1, 160):
        shown = fitting(rows, width)
        assert shown[:3] == [0, 1, 2], "rank, address and state are always there"
        total = sum(max(len(rows[0][i]), len(_COLUMNS[i])) for i in shown) + 2 * (len(shown) - 1)
        assert total <= width or shown == [0, 1, 2]


def test_a_long_fault_leaves_room_for_the_others() -> None:
    rows = [["1", "10.0.0.1:7001", "answers", "2 of 2", "1.0", "3 s", "1", "0", "0.1.0"],
            ["2", "10.0.0.2:7001", "connects, but: no status from node 2 within 2.0 s", *[""] * 6]]
    assert len(fitting(rows, 80)) >= 6
