"""What `dsreg health` makes of the nodes' answers, and what of it fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsreg.cli.health import lines_of
from dsreg.cli.status_table import _COLUMNS, fitting
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.errors import AuthenticationFailed, OperationTimeout, Outcome
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import examine, to_do, worst
from dsreg.health.findings import Finding, Severity, State
from dsreg.health.serving import why_no_space
from dsreg.survey import Survey


def answer(rank: int, fault: str = "", **report: Any) -> NodeAnswer:
    peers = {str(peer): "sealed" for peer in (1, 2, 3) if peer != rank}
    told = None if fault else {"damaged": 0, "peers": peers, **report}
    return NodeAnswer(NodeAddress(rank, f"host{rank}", 7001, Path()), told, fault)


def found(answers: Sequence[NodeAnswer], no_quorum: str = "", *, alone: bool = False) -> tuple[Finding, ...]:
    return examine(State(answers, no_quorum, "/etc/dsreg/cluster.toml", alone=alone))


def sentences(findings: Sequence[Finding]) -> list[str]:
    return [finding.sentence for finding in findings]


WELL = [answer(1), answer(2), answer(3)]


def test_well() -> None:
    assert found(WELL) == found(WELL[:1], alone=True) == ()
    assert worst(()) is Severity.NOTICE == 0


@pytest.mark.parametrize(("bad", "reason"), [
    (answer(3, "connection refused"), "node 3 (host3:7001): connection refused"),
    (answer(3, damaged=4), "node 3 (host3:7001): 4 damaged sectors, to be repaired from the other nodes"),
    (answer(3, heal={"in_sync": False, "behind_bytes": 3 << 20, "rate": 0, "left_s": None, "peers": {}}),
     "node 3 (host3:7001): lacks 3.0 MiB, which it fetches from the other nodes"),
    (answer(3, peers={"1": "down", "2": "sealed"}), "node 3 (host3:7001): does not reach node 1"),
    (answer(3, peers={"1": "unsealed"}),
     "node 3 (host3:7001): does not use node 1, which does not seal its connections"),
    (answer(3, peers={"1": "silent"}),
     "node 3 (host3:7001): gets no answer from node 1 (wrong keys, or it speaks only the contract)"),
])
def test_degraded(bad: NodeAnswer, reason: str) -> None:
    findings = found([*WELL[:2], bad])
    assert worst(findings) is Severity.WARNING and sentences(findings) == [reason]
    assert 3 in findings[0].ranks


def test_a_contract_link_is_a_notice() -> None:
    findings = found([answer(1, peers={"2": "contract", "3": "extension"}), *WELL[1:]])
    assert worst(findings) is Severity.NOTICE
    assert sentences(findings) == ["node 1 (host1:7001): talks with nodes 2, 3 without encryption"]


def test_critical() -> None:
    findings = found([*WELL[:2], answer(3, "no route to host")], "no majority answered")
    assert worst(findings) is Severity.CRITICAL
    assert sentences(findings) == ["no quorum: no majority answered", "node 3 (host3:7001): no route to host"]


def test_a_wrong_key_is_said_once() -> None:
    """Each node says the same of it; a node that does not answer at all is one of several things that may be wrong."""
    answers = tuple(replace(answer(rank, "has another client key"), refuses=True) for rank in (1, 2, 3))
    config = config_of([*answers])
    wrong = AuthenticationFailed("no node accepts the client key", Outcome.DID_NOT_HAPPEN)
    assert sentences(Survey(answers, wrong).findings(config)) == ["no quorum: no node accepts the client key"]
    assert worst(Survey(answers, wrong).findings(config)) is Severity.CRITICAL
    late = OperationTimeout("no majority answered", Outcome.DID_NOT_HAPPEN)
    assert len(Survey(answers, late).findings(config)) == 4
    assert to_do(Survey(answers, late).findings(config)) == [], "they are up"
    assert sentences(Survey((*WELL[:2], answers[2])).findings(config)) == [
        "node 3 (host3:7001): has another client key"]


def test_one_node_alone() -> None:
    assert worst(found([answer(1, "connection refused")], alone=True)) is Severity.CRITICAL
    findings = found([answer(1, peers={"2": "down", "3": "down"})], alone=True)
    assert [(each.check, each.severity) for each in findings] == [("link_down", Severity.WARNING)] * 2
    told = {"number": 3, "members": [1, 2, 3], "joining": []}
    assert found([answer(1, configuration=told)], alone=True) == (), "nothing is known of the others"


def test_what_is_said() -> None:
    down = found([*WELL[:2], answer(3, "connection refused")])
    assert lines_of("2 of 3 nodes answer", down) == [
        "degraded: 2 of 3 nodes answer; node 3 (host3:7001): connection refused",
        "to do: start node 3, with its directory; what is missed is fetched then",
    ]
    quiet = found([answer(1, peers={"2": "extension", "3": "sealed"}), *WELL[1:]])
    assert lines_of("3 of 3 nodes answer", quiet) == [
        "well: 3 of 3 nodes answer", "notice: node 1 (host1:7001): talks with node 2 without encryption"]


def config_of(answers: list[NodeAnswer]) -> ClusterConfig:
    nodes = tuple(each.node for each in answers)
    return ClusterConfig(1 << 22, bytes(32), b"", nodes, bytes(16), Path("/etc/dsreg/cluster.toml"))


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
    findings = found([WELL[0], full(2), full(3)])
    assert worst(findings) is Severity.CRITICAL
    assert findings[0].sentence == (
        "no space: writes of new data wait for room on nodes 2, 3 (1 of 3 nodes have some, 2 are needed)")
    findings = found([*WELL[:2], full(3)])
    assert worst(findings) is Severity.WARNING
    assert sentences(findings) == ["node 3 (host3:7001): no space for new data"]


def test_room_is_not_what_is_wanted_where_no_majority_answers() -> None:
    answers = (full(1), answer(2, "connection refused"), answer(3, "connection refused"))
    assert why_no_space(answers) == ""
    assert why_no_space((full(1), WELL[1], answers[2])).startswith("writes of new data wait for room on node 1 (1 of 3")
    late = OperationTimeout("no majority answered", Outcome.DID_NOT_HAPPEN)
    findings = found(answers, Survey(answers, late).fault)
    assert findings[0].sentence == "no quorum: no majority answered"
    assert not any(finding.check == "no_space" for finding in findings)


@pytest.mark.parametrize(("lives", "answering"), [
    ({}, 3), ({"waits_for": "rank 3 has an empty directory"}, 2), ({"faults": {"2": "its directory has changed"}}, 2),
    ({"waits_for": "rank 3 has an empty directory", "faults": {"1": "its directory has changed"}}, 1),
])
def test_nodes_that_wait_or_have_changed_do_not_serve(lives: dict[str, Any], answering: int) -> None:
    survey = Survey((*WELL[:2], answer(3, lives=lives)))
    assert survey.quorum and survey.answering == answering
    assert (found(survey.answers) == ()) is (answering == 3)


def test_a_link_to_a_node_that_has_not_started() -> None:
    findings = found([*WELL[:2], answer(3, peers={"1": "waiting"})])
    assert sentences(findings) == ["node 3 (host3:7001): waits for node 1 to start with its directory"]
