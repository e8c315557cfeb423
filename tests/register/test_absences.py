"""Nodes that have been out of reach for long are told of once, and once more when they are back."""

from __future__ import annotations

from dsreg.register.absences import LOST_AFTER_S, Absences, describe_absence
from dsreg.register.quorum import majority_of


def test_a_restart_is_not_worth_a_word() -> None:
    absences = Absences([2, 3], 100.0)
    assert absences.check({2, 3}, 101.0) == []
    assert absences.check({2}, 101.0 + LOST_AFTER_S - 0.1) == []
    for seconds in (1, 2):
        assert absences.check({2, 3}, 101.0 + LOST_AFTER_S + seconds) == []
    assert absences.check({2}, 101.0 + 2 * LOST_AFTER_S) == []


def test_lost_once_and_back_once() -> None:
    absences = Absences([2, 3], 0.0)
    for now_s in (49.0, 50.0):
        absences.check({2, 3}, now_s)
    assert absences.check({2}, 50.0 + LOST_AFTER_S) == [(3, False, LOST_AFTER_S)]
    assert absences.check({2}, 90.0) == []
    assert absences.check({2, 3}, 94.0) == []
    assert absences.check({2, 3}, 95.0) == [(3, True, 45.0)]
    assert absences.check({2, 3}, 96.0) == []


def test_a_node_that_binds_its_port_for_a_moment_is_not_back() -> None:
    absences = Absences([2], 0.0)
    told = [change for now_s in range(60) for change in absences.check({2} if now_s % 7 == 6 else set(), now_s)]
    assert told == [(2, False, LOST_AFTER_S)]


def test_a_node_that_was_never_there() -> None:
    absences = Absences([2], 7.0)
    assert absences.check(set(), 7.0 + LOST_AFTER_S) == [(2, False, LOST_AFTER_S)]


def test_what_is_said() -> None:
    lost = describe_absence(3, "c:7001", False, 10.2, (1, 2), majority_of((1, 2, 3)))
    assert lost == ("node 3 (c:7001) has been out of reach for 10 s: is it up, and the network? "
                    "2 of 3 nodes are in reach, 2 are needed: the disk goes on")
    assert describe_absence(2, "b:1", False, 10, (1,), majority_of((1, 2, 3))).endswith(
        "1 of 3 nodes are in reach, 2 are needed: reads and writes wait")
    assert describe_absence(2, "b:1", True, 71, (1, 2), majority_of((1, 2, 3))) == (
        "node 2 (b:1) is in reach again, after 71 s")
