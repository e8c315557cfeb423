"""What `dsreg status --check` makes of the nodes' answers, and what of it fits a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsreg.cli.answers import NodeAnswer
from dsreg.cli.health import Assessment, Health, assess, assess_one, why_no_space
from dsreg.cli.status_table import _COLUMNS, fitting
from dsreg.cli.survey import Survey
from dsreg.config import NodeAddress
from dsreg.errors import AuthenticationFailed, OperationTimeout, Outcome


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
    (answer(3, damaged=4), "node 3 (host3:7001): 4 damaged sectors, to be repaired from the other nodes"),
    (answer(3, heal={"in_sync": False, "behind_bytes": 3 << 20}),
     "node 3 (host3:7001): lacks 3.0 MiB, which it fetches from the other nodes"),
    (answer(3, peers={"1": "down", "2": "sealed"}), "node 3 (host3:7001): does not reach node 1"),
    (answer(3, peers={"1": "unsealed"}),
     "node 3 (host3:7001): does not use node 1, which does not seal its connections"),
    (answer(3, peers={"1": "silent"}),
     "node 3 (host3:7001): gets no answer from node 1 (wrong keys, or it speaks only the contract)"),
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


def test_a_wrong_key_is_said_once() -> None:
    """Each node says the same of it; a node that does not answer at all is one of several things that may be wrong."""
    answers = tuple(answer(rank, "has another client key") for rank in (1, 2, 3))
    wrong = AuthenticationFailed("no node accepts the client key", Outcome.DID_NOT_HAPPEN)
    assert Survey(answers, wrong).assessment == Assessment(
        Health.CRITICAL, ("no quorum: no node accepts the client key",))
    late = OperationTimeout("no majority answered", Outcome.DID_NOT_HAPPEN)
    assert len(Survey(answers, late).assessment.reasons) == 4
    assert Survey((*WELL[:2], answers[2])).assessment.reasons == ("node 3 (host3:7001): has another client key",)


def test_one_node_alone() -> None:
    assert assess_one(answer(1, "connection refused")).health is Health.CRITICAL
    assert assess_one(answer(1, peers={"2": "down", "3": "down"})).health is Health.DEGRADED


ROW = ["1", "10.0.0.1:7001", "answers", "in sync", "", "", "", "", "1", "2 of 2", "10.1", "12 d 3 h", "1", "123456",
       "0.1.0 compiled"]
BEHIND = ["2", "10.0.0.2:7001", "answers", "behind", "12.3 GiB", "98%", "112.4 MiB/s", "1 min 52 s", *ROW[8:]]


@pytest.mark.parametrize("rows", [[ROW], [ROW, BEHIND]])
def test_columns_that_do_not_fit_are_left_out_from_the_last(rows: list[list[str]]) -> None:
    everything = [index for index in range(len(_COLUMNS)) if len(rows) > 1 or index not in range(4, 8)]
    assert fitting(rows, 200) == everything
    for width in range(1, 200):
        shown = fitting(rows, width)
        assert shown == everything[:len(shown)] and shown[:3] == [0, 1, 2], "rank, address and state are always there"
        total = sum(max(len(_COLUMNS[i]), *(len(row[i]) for row in rows)) for i in shown) + 2 * (len(shown) - 1)
        assert total <= width or shown == [0, 1, 2]


def test_progress_fits_eighty_columns() -> None:
    assert [_COLUMNS[index] for index in fitting([ROW, BEHIND], 80)][3:] == ["data", "lacks", "has", "rate", "left"]


def test_a_long_fault_leaves_room_for_the_others() -> None:
    rows = [ROW, ["2", "10.0.0.2:7001", "connects, but: no status from node 2 within 2.0 s", *[""] * 12]]
    assert len(fitting(rows, 80)) >= 6


# --- who serves, and who has room -----------------------------------------------------------------
def full(rank: int) -> NodeAnswer:
    return answer(rank, no_space=True)


def test_a_majority_without_room_is_critical_and_one_node_is_not() -> None:
    found = assess([WELL[0], full(2), full(3)], "")
    assert found.health is Health.CRITICAL
    assert found.reasons[0] == (
        "no space: writes of new data wait for room on nodes 2, 3 (1 have some, 2 are needed)")
    found = assess([*WELL[:2], full(3)], "")
    assert found.health is Health.DEGRADED and found.reasons == ("node 3 (host3:7001): no space for new data",)


def test_room_is_not_what_is_wanted_where_no_majority_answers() -> None:
    answers = (full(1), answer(2, "connection refused"), answer(3, "connection refused"))
    assert why_no_space(answers) == ""
    assert why_no_space((full(1), WELL[1], answers[2])).startswith("writes of new data wait for room on node 1 (1 have")
    late = OperationTimeout("no majority answered", Outcome.DID_NOT_HAPPEN)
    found = assess(answers, Survey(answers, late).fault)
    assert found.reasons[0] == "no quorum: no majority answered" and "no space" not in found.reasons[0]


@pytest.mark.parametrize(("lives", "answering"), [
    ({}, 3), ({"waits_for": "rank 3 has an empty directory"}, 2), ({"faults": {"2": "its directory has changed"}}, 2),
    ({"waits_for": "rank 3 has an empty directory", "faults": {"1": "its directory has changed"}}, 1),
])
def test_nodes_that_wait_or_have_changed_do_not_serve(lives: dict[str, Any], answering: int) -> None:
    survey = Survey((*WELL[:2], answer(3, lives=lives)))
    assert survey.quorum and survey.answering == answering
    assert (assess(survey.answers, "").health is Health.WELL) is (answering == 3)


def test_a_link_to_a_node_that_has_not_started() -> None:
    found = assess([*WELL[:2], answer(3, peers={"1": "waiting"})], "")
    assert found.reasons == ("node 3 (host3:7001): waits for node 1 to start with its directory",)
