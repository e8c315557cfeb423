"""The members and the size of a cluster change: all interleavings of small clusters.

The model is configurations_rule.py; the rules are in docs/configurations.md. Deeper:
`python -m tests.register.configurations_rule --help`.
"""

from __future__ import annotations

import pytest

from tests.register.configurations_cluster import BREAKS
from tests.register.configurations_rule import Model, scenario_of
from tests.register.lives_rule import search

SAFE = {
    "one node is exchanged": scenario_of("012", "013", "P q"),
    "three nodes become one": scenario_of("012", "0", "P q"),
    "one node becomes three": scenario_of("0", "012", "P q"),
    "a write and two reads through coordinators, one becomes two": scenario_of("0", "01", "W R,R"),
    "an attachment after another, one becomes two": scenario_of("0", "01", "P A,r,r", epoch=1, late=True),
    "two attachments, one epoch, three become one": scenario_of("012", "0", "A A", epoch=1),
    "a client that knows no configurations": scenario_of("012", "0", "O q"),
    "a larger disk": scenario_of("012", "012*2", "P S"),
    "in what a larger disk has more": scenario_of("012", "012*2", "P q", wiped=0, beyond=True),
    "in that, and members change": scenario_of("012", "012*2,0", "P q", beyond=True),
    "two proposers": scenario_of("012", "0 012*2", ""),
    "a change is finished and cancelled": scenario_of("012", "0 -0", "", last=3),
    "a member loses its directory": scenario_of("012", "0", "P q", wiped=0),
    "a new member loses its directory": scenario_of("0", "012", "P q", wiped=1),
    "a member that has told what it has does": scenario_of("01", "2", "P q", wiped=0, steps=True),
}

BROKEN = {
    "joint": scenario_of("012", "0", "P q"),
    "old_side": scenario_of("012", "0", "P q"),
    "new_side": scenario_of("0", "012", "P q"),
    "mixed": scenario_of("012", "0", "P q"),
    "two_numbers": scenario_of("012", "0", "P q"),
    "old_client": scenario_of("012", "0", "O q"),
    "one_size": scenario_of("012", "012*2", "P S"),
    "accepted": scenario_of("012", "0 012*2", ""),
    "promised": scenario_of("012", "0 012*2", ""),
    "vote_old": scenario_of("012", "0", "P q"),
    "learn": scenario_of("0", "012", "P q"),
    "early_tell": scenario_of("012", "0", "P q"),
    "scan": scenario_of("012", "0", "P q"),
    "even": scenario_of("01", "2", "P q", wiped=0, steps=True),
    "adopt": scenario_of("012", "0", "A A", epoch=1),
    "two_owners": scenario_of("012", "0", "A A", epoch=1),
    "own_list": scenario_of("0", "012", "P q"),
    "reuse": scenario_of("01", "0,01", "N N", namer=1),
    "claim_old": scenario_of("012", "0", "P q", wiped=0),
    "claim_new": scenario_of("012", "013", "P q", wiped=1),
    "votes_lost": scenario_of("012", "0 012*2", "", wiped=1),
    "claimed_end": scenario_of("012", "012*2", "P q", wiped=0, beyond=True),
    "drop": scenario_of("012", "0", "P q", wiped=0),
}


@pytest.mark.parametrize("name", SAFE)
def test_nothing_is_lost(name: str) -> None:
    result = search(Model(SAFE[name]))
    assert result.path == [] and result.complete


@pytest.mark.parametrize("rule", BROKEN)
def test_without_a_rule_something_is_lost(rule: str) -> None:
    assert search(Model(BROKEN[rule], rule)).path != []


def test_each_rule_is_left_out_once() -> None:
    assert set(BROKEN) == set(BREAKS)
