"""Which nodes decide is what the nodes say, whatever cluster.toml lists: docs/configurations.md."""

from __future__ import annotations

from typing import Any

import pytest

from dsreg.cli.scrub import nodes_to_verify
from dsreg.cli.status_json import as_dict
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import to_do, worst
from dsreg.health.findings import Severity
from dsreg.health.in_force import InForce, in_force, of_members
from dsreg.health.in_sync import all_in_sync, can_lose, what_is_missing, why_not_more
from dsreg.register.quorum import mask
from dsreg.survey import Survey
from tests.cli.test_health import answer, found, sentences
from tests.cli.test_in_sync import healing
from tests.cli.test_status_table import config_of, node, shown

FIRST = {"number": 1, "members": [1, 2, 3], "joining": []}
JOINT = {"number": 2, "members": [1, 2, 3], "joining": [1, 2, 3, 4, 5]}
FIVE = {"number": 3, "members": [1, 2, 3, 4, 5], "joining": []}
BACK = {"number": 5, "members": [1, 2, 3], "joining": []}
WAITS = {"number": 0, "members": [], "joining": []}
REFUSED = "connection refused"


def told(rank: int, configuration: dict[str, Any], last: int = 5) -> NodeAnswer:
    """A node that is linked to all others up to that rank, and in sync with them."""
    heal = healing(peers=last)
    heal["peers"].pop(str(rank), None)
    peers = {str(peer): "sealed" for peer in range(1, last + 1) if peer != rank}
    return node(rank, configuration=configuration, heal=heal, peers=peers)


def test_the_latest_that_is_told_is_in_force() -> None:
    found = in_force([told(1, FIRST), told(2, JOINT), told(4, WAITS)])
    assert found == InForce(2, mask((1, 2, 3)), mask((1, 2, 3, 4, 5)))
    assert in_force([node(1), answer(2, REFUSED)]) == InForce(1, mask((1, 2)), 0)
    assert in_force([told(4, WAITS), answer(1, REFUSED)]).members == mask((1, 4))
    assert [each.node.rank for each in of_members([told(rank, BACK) for rank in (1, 2, 3, 4)])] == [1, 2, 3]


@pytest.mark.parametrize(("configuration", "down", "number"), [
    (FIRST, (), 1),
    (FIRST, (4, 5), 1),  # these are no members yet
    (FIRST, (3,), 0),
    (JOINT, (), 1),  # two of 1 2 3 have to stay
    (JOINT, (4, 5), 0),
    (JOINT, (3,), 0),
    (FIVE, (), 2),
    (FIVE, (4, 5), 0),
    (BACK, (4, 5), 1),
])
def test_how_many_may_be_lost(configuration: dict[str, Any], down: tuple[int, ...], number: int) -> None:
    answers = [answer(rank, REFUSED) if rank in down else told(rank, configuration) for rank in range(1, 6)]
    assert can_lose(answers) == number
    assert as_dict(config_of(answers), Survey(tuple(answers)))["can_lose"] == number


def test_those_that_are_yet_to_come_and_those_that_have_left_are_not_missed() -> None:
    answers = [*(told(rank, BACK, last=4) for rank in (1, 2, 3)), answer(4, REFUSED), told(5, BACK)]
    assert worst(found(answers)) is Severity.NOTICE
    assert all_in_sync(answers) and what_is_missing(answers) == [] and why_not_more(answers) == ""
    assert Survey(tuple(answers)).answering == 3
    lines = shown(answers, width=200)
    assert lines[1] == "configuration 5: nodes 1 2 3" and "can lose 1 more node now" in lines[2]
    assert any("no member, not running" in line for line in lines) and any("no member, runs" in line for line in lines)
    assert lines[-1].rstrip() == "quorum: 3 of 3 nodes answer, 2 are needed"
    assert to_do(found(answers)) == []


def test_a_member_that_the_file_does_not_list_is_missed() -> None:
    answers = [told(rank, FIVE) for rank in (1, 2, 3)]
    findings = found(answers)
    assert worst(findings) is Severity.WARNING
    assert "node 4 is not in cluster.toml, and was not found" in sentences(findings)
    assert can_lose(answers) == 0 and not all_in_sync(answers)
    assert what_is_missing(answers)[:2] == ["node 4 was not found", "node 5 was not found"]
    assert shown(answers, width=200)[-1].rstrip() == "quorum: 3 of 5 nodes answer, 3 are needed"


def test_members_are_verified_and_no_others() -> None:
    answers = [*(told(rank, BACK, last=4) for rank in (1, 2)), answer(3, REFUSED), answer(4, REFUSED), told(5, BACK)]
    nodes = nodes_to_verify(config_of(answers), answers)
    assert [(each.node.rank, each.fault) for each in nodes] == [(1, ""), (2, ""), (3, "")]
    answers = [told(rank, FIVE) for rank in (1, 2, 3)]
    missing = [each.told() for each in nodes_to_verify(config_of(answers), answers) if each.fault]
    assert missing == [f"node {rank}: not verified: it is not in /etc/dsreg/cluster.toml, and was not found"
                       for rank in (4, 5)]


def test_a_change_that_is_under_way_is_said_with_what_to_do() -> None:
    answers = [told(rank, JOINT) for rank in range(1, 6)]
    findings = found(answers)
    assert worst(findings) is Severity.WARNING
    assert sentences(findings) == [
        "configuration 2: nodes 1 2 3 together with 1 2 3 4 5, as members are being changed"]
    assert any("dsreg members cancel /etc/dsreg/cluster.toml" in line for line in to_do(findings))
    told_as = as_dict(config_of(answers), Survey(tuple(answers)))
    assert told_as["configuration"] == JOINT and told_as["needed"] == 3


def test_room_is_needed_where_it_decides() -> None:
    """Two of 1 2 3 are full: 4 and 5 have some, and do not decide alone."""
    full = [node(rank, configuration=JOINT, no_space=rank in (2, 3)) for rank in range(1, 6)]
    assert found(full)[0].sentence.startswith("no space: writes of new data wait for room on nodes 2, 3")
    after = [node(rank, configuration=FIVE, no_space=rank in (2, 3)) for rank in range(1, 6)]
    assert worst(found(after)) is Severity.WARNING
