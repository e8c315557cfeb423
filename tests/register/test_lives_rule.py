"""A node whose directory was lost claims a new life and rejoins: all interleavings of small clusters.

The model is lives_rule.py; the rules are in docs/lives.md. Deeper: `python -m tests.register.lives_rule`.
"""

from __future__ import annotations

import pytest

from tests.register.lives_cluster import Scenario
from tests.register.lives_rule import Model, search


def scenario(
    nodes: int, parties: str, *wipes: int, copies: int = 0, epoch: int = 0, late: bool = False, marks: int = 0
) -> Scenario:
    scripts = tuple(tuple(script.split(",")) for script in parties.split())
    return Scenario(nodes, scripts, wipes, copies, epoch, late, marks)


SAFE = {
    "a write and two reads through coordinators": scenario(3, "W R,R", 1),
    "one node wiped twice": scenario(3, "P q", 2),
    "two nodes wiped": scenario(3, "P q", 1, 1),
    "two nodes wiped, one of them twice": scenario(3, "P q", 2, 1),
    "an older directory put back": scenario(3, "P q", 1, copies=1),
    "names of a node that was wiped": scenario(3, "W0 W0", 1),
    "clients that know no lives": scenario(3, "O o q", 1),
    "two attachments, one epoch": scenario(3, "A A", 1, epoch=1),
    "two attachments, one that knows no lives": scenario(3, "a A", 1, epoch=1),
    "an attachment after another": scenario(3, "P A,r,r", 1, epoch=1, late=True),
    "four nodes": scenario(4, "P q", 1, 1),
    "four nodes and coordinators": scenario(4, "W R", 1),
    "five nodes": scenario(5, "P q", 1, 1),
    "five nodes and an older directory": scenario(5, "P q", 1, copies=1),
    "five nodes, two attachments": scenario(5, "A A", 1, epoch=1),
}

BROKEN = {
    "claim": scenario(3, "P q", 1),
    "early_ack": scenario(3, "P A,r,r", 1, epoch=1, late=True),
    "early_name": scenario(3, "W0 W0", 2),
    "notice": scenario(3, "P q", 1),
    "drop": scenario(3, "P q", 1),
    "merge": scenario(3, "P q", 1, 1),
    "void": scenario(5, "P q", 1, 1),
    "weak_acceptor": scenario(5, "A A", 1, 1, epoch=1),
    "scan": scenario(3, "P q", 1),
    "learner_reads": scenario(3, "P q", 1),
    "adopt": scenario(3, "A A", 1, epoch=1),
    "early_adopt": scenario(3, "A A", 1, epoch=1),
    "two_owners": scenario(3, "A A", 1, epoch=1),
    "names": scenario(3, "W0 W0", 1),
    "old_client": scenario(3, "O q", 1),
    "rolled_back": scenario(3, "P q", 1, copies=1),
    "gate": scenario(3, "P q", 1, copies=1, marks=1),
    "few": scenario(3, "P q", 1, copies=1, marks=1),
    "early_mark": scenario(3, "P q", 1, copies=1, marks=1),
    "claimed_mark": scenario(3, "P q", 2, copies=1, marks=1),
}


@pytest.mark.parametrize("name", SAFE)
def test_nothing_is_lost(name: str) -> None:
    result = search(Model(SAFE[name]))
    assert result.path == [] and result.complete


@pytest.mark.parametrize("losses", [1, 2])
def test_an_older_directory_is_noticed_by_what_others_have_heard(losses: int) -> None:
    result = search(Model(scenario(3, "P q", losses, copies=1, marks=1)))
    assert result.path == [] and result.complete


def test_nor_may_a_client_that_knows_no_lives_attach_the_disk() -> None:
    assert search(Model(scenario(3, "a A", 1, epoch=1), "old_client")).path != []


@pytest.mark.parametrize("rule", BROKEN)
def test_without_a_rule_something_is_lost(rule: str) -> None:
    assert search(Model(BROKEN[rule], rule)).path != []


def test_the_id_of_a_directory_is_why_one_that_acknowledges_too_early_is_not_counted() -> None:
    """With numbers alone, a node that is wiped again before anybody has heard of its life takes the same one."""
    twice = scenario(3, "P q", 2)
    assert search(Model(twice, "early_ack")).path == []
    assert search(Model(twice, "early_ack", "ids")).path != []
