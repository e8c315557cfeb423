"""Each check finds what it is there for, and nothing where all is well or a node is of a version that does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import CHECKS, by_check, examine
from dsreg.health.findings import Finding, Severity, State
from tests.cli.test_health import answer, found
from tests.cli.test_in_sync import healing, learning

GIB = 1 << 30
# A disk of 10 GiB; what a node of this version says where nothing is wrong.
USUAL: dict[str, Any] = {
    "round_trip_s": 0.001, "unix_s": 1_800_000_000.0, "clock_ahead_s": 0.2, "version": "1.0.0",
    "sectors": 10 * GIB // 4096, "storage": {"size_bytes": 100 * GIB, "available_bytes": 50 * GIB, "values_bytes": GIB},
    "syncs": {"count": 100, "median_s": 0.004}, "plain_write_s": None, "unsealed_connections": 0,
}


def usual(rank: int, **report: Any) -> NodeAnswer:
    return answer(rank, **{**USUAL, "heal": healing(), **report})


WELL = [usual(1), usual(2), usual(3)]
DOWN = answer(3, "connection refused")


def filled(available: int, values: int = GIB) -> dict[str, int]:
    return {"size_bytes": 100 * GIB, "available_bytes": available, "values_bytes": values}


def of(check: str, answers: Sequence[NodeAnswer], no_quorum: str = "") -> list[Finding]:
    return [finding for finding in found(answers, no_quorum) if finding.check == check]


def keys(uses: str, *accepts: str, late: str = "") -> dict[str, Any]:
    """Of a node. `late`: a client that is connected, and uses another key."""
    others = [{"peer": late, "node": False, "key": "a", "connected": True, "seen_s": 0.0}] if late else []
    one = {"uses": "s", "accepts": ["s"]}
    return {"client": {"uses": uses, "accepts": [*accepts]}, "system": one, "others": others, "others_left_out": 0}


# Check, what the nodes say, how bad it is, ranks, a part of the sentence.
CASES: list[tuple[str, list[NodeAnswer], Severity, tuple[int, ...], str]] = [
    ("node_down", [*WELL[:2], DOWN], Severity.WARNING, (3,), "connection refused"),
    ("waits", [*WELL[:2], usual(3, lives={"waits_for": "rank 3 has an empty directory"})], Severity.WARNING, (3,),
     "does not serve yet: rank 3 has an empty directory"),
    ("directory_changed", [usual(1, lives={"faults": {"3": "its directory has changed"}}), *WELL[1:]],
     Severity.WARNING, (3,), "node 3 is not counted: its directory has changed"),
    ("damage", [*WELL[:2], usual(3, damaged=1)], Severity.WARNING, (3,), "1 damaged sectors"),
    ("node_full", [*WELL[:2], usual(3, no_space=True)], Severity.WARNING, (3,), "no space for new data"),
    ("no_space", [WELL[0], usual(2, no_space=True), usual(3, no_space=True)], Severity.CRITICAL, (), "nodes 2, 3"),
    ("disk_filling", [*WELL[:2], usual(3, storage=filled(8 * GIB))], Severity.WARNING, (3,),
     "is 92% full, 8.0 GiB are left"),
    ("disk_filling", [*WELL[:2], usual(3, storage=filled(4 * GIB))], Severity.WARNING, (3,), "96% full"),
    ("unknown_sectors", [*WELL[:2], usual(3, heal=learning(3).report["heal"])],  # type: ignore[index]
     Severity.WARNING, (3,), "has yet to learn 6.0 MiB"),
    ("behind", [*WELL[:2], usual(3, heal=healing(in_sync=False, behind=3 << 20))], Severity.WARNING, (3,),
     "lacks 3.0 MiB"),
    ("no_spare", [*WELL[:2], DOWN], Severity.WARNING, (), "would stop the disk (not answering: node 3)"),
    ("no_spare", [*WELL[:2], usual(3, heal=healing(in_sync=False, compared=0.5))], Severity.NOTICE, (),
     "would stop the disk (comparing: node 3)"),
    ("link_down", [*WELL[:2], usual(3, peers={"1": "down", "2": "sealed"})], Severity.WARNING, (3, 1),
     "does not reach node 1"),
    ("members_changing",
     [usual(rank, configuration={"number": 2, "members": [1, 2], "joining": [1, 2, 3]}) for rank in (1, 2, 3)],
     Severity.WARNING, (1, 2, 3), "members are being changed"),
    ("slow_node", [*WELL[:2], usual(3, round_trip_s=0.8)], Severity.WARNING, (3,), "takes 0.8 s to answer"),
    ("slow_sync", [*WELL[:2], usual(3, syncs={"count": 99, "median_s": 0.3})], Severity.WARNING, (3,),
     "its disk takes 0.300 s for a sync, those of the others 0.004 s"),
    ("clock", [*WELL[:2], usual(3, clock_ahead_s=-7200.0)], Severity.WARNING, (3,), "2 h 0 min behind those of"),
    ("clock", [usual(rank, unix_s=500.0, clock_ahead_s=-1.8e9) for rank in (1, 2, 3)][:1] + WELL[1:],
     Severity.WARNING, (1,), "before 14 November 2023"),
    ("keys_changing", [*WELL[:2], usual(3, keys=keys("a", "a", "b"))], Severity.WARNING, (3,),
     "the key of the clients is being changed"),
    ("keys_changing", [usual(1, keys=keys("a", "a")), usual(2, keys=keys("b", "b"))], Severity.WARNING, (1, 2),
     "the key of the clients is being changed"),
    ("keys_changing", [usual(1, keys=keys("b", "b", "a", late="10.0.0.9:4242")), *WELL[1:]], Severity.WARNING, (1,),
     "not under the key of the nodes: 10.0.0.9"),
    ("plain_clients", [*WELL[:2], usual(3, plain_write_s=7.0, epoch=4, attached_by="host 9")], Severity.WARNING, (3,),
     "wrote to it 7 s ago, through node 3, while it is attached by host 9"),
    ("versions_differ", [*WELL[:2], usual(3, version="1.1.0 compiled")], Severity.NOTICE, (1, 2, 3),
     "(1.0.0: 1, 2; 1.1.0: 3)"),
    ("unsealed", [*WELL[:2], usual(3, unsealed_connections=2)], Severity.NOTICE, (3,), "on 2 connections from outside"),
]


@pytest.mark.parametrize(("check", "answers", "severity", "ranks", "part"), CASES,
                         ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)])
def test_what_is_found(
    check: str, answers: list[NodeAnswer], severity: Severity, ranks: tuple[int, ...], part: str
) -> None:
    (finding,) = of(check, answers)
    assert (finding.severity, finding.ranks) == (severity, ranks)
    assert part in finding.sentence


def test_each_check_is_tested() -> None:
    assert {check.name for check in CHECKS} - {case[0] for case in CASES} == {"quorum_lost"}  # below
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_where_all_is_well_nothing_is_found() -> None:
    assert found(WELL) == () and found(WELL[:1], alone=True) == ()


def test_a_node_of_an_older_version_is_not_complained_about() -> None:
    assert found([usual(1), usual(2), answer(3)]) == ()


def test_a_quorum_that_is_lost_is_the_first_thing_that_is_said() -> None:
    findings = found([WELL[0], answer(2, "connection refused"), DOWN], "no majority answered a read within 2 s")
    assert findings[0].check == "quorum_lost" and findings[0].severity is Severity.CRITICAL
    assert "Nothing is lost by waiting" in findings[0].to_do
    assert not of("no_spare", [WELL[0], DOWN], "no majority answered"), "the quorum says more"


def test_by_name() -> None:
    checks = by_check(found([*WELL[:2], DOWN]))
    assert list(checks) == [check.name for check in CHECKS]
    assert {name for name, severity in checks.items() if severity >= 0} == {"node_down", "no_spare"}


# --- thresholds -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("report", "is_slow"), [
    ({"round_trip_s": 0.4}, False),  # below the floor, however quick the others are
    ({"syncs": {"count": 99, "median_s": 0.09}}, False),
    ({"syncs": {"count": 3, "median_s": None}}, False),
    ({"syncs": {"count": 99, "median_s": 0.1}}, True),
])
def test_the_floor(report: dict[str, Any], is_slow: bool) -> None:
    findings = found([*WELL[:2], usual(3, **report)])
    assert bool(findings) is is_slow


def test_where_all_are_slow_none_is_called_so() -> None:
    slow = {"round_trip_s": 2.0, "syncs": {"count": 99, "median_s": 1.0}}
    assert found([usual(rank, **slow) for rank in (1, 2, 3)]) == ()
    assert found([usual(1, **slow), usual(2, **slow), usual(3, round_trip_s=4.0)]) == (), "twice is not four times"


def test_a_file_system_with_room_for_all_that_may_be_written_is_not_full() -> None:
    """One made for this disk alone stays nearly full for ever."""
    assert found([*WELL[:2], usual(3, storage=filled(GIB, values=9 * GIB + 1))]) == ()
    assert of("disk_filling", [*WELL[:2], usual(3, storage=filled(GIB, values=9 * GIB))])
    assert found([*WELL[:2], usual(3, storage=filled(30 * GIB), sectors=1 << 40)]) == (), "less than 80 %"


def test_a_majority_that_is_nearly_full_is_critical() -> None:
    nearly = {"storage": filled(4 * GIB)}
    findings = of("disk_filling", [WELL[0], usual(2, **nearly), usual(3, **nearly)])
    assert [finding.severity for finding in findings] == [Severity.CRITICAL] * 2


def test_a_clock_is_judged_by_the_others_and_not_by_that_of_whoever_asks() -> None:
    assert found([usual(rank, clock_ahead_s=9000.0) for rank in (1, 2, 3)]) == ()
    assert [f.ranks for f in of("clock", [*WELL[:2], usual(3, clock_ahead_s=61.0)])] == [(3,)]
    late = usual(3, clock_ahead_s=61.0, round_trip_s=2.0)
    assert not of("clock", [usual(1, round_trip_s=1.0), usual(2, round_trip_s=1.0), late]), "it was read at any time"


def test_who_wrote_long_ago_is_forgotten() -> None:
    assert found([*WELL[:2], usual(3, plain_write_s=61.0)]) == ()


def test_nobody_who_is_down_is_missed_twice() -> None:
    """The others do not reach it either."""
    cut = [usual(rank, peers={"1": "sealed", "2": "sealed", "3": "down"}) for rank in (1, 2)]
    assert not of("link_down", [*cut, DOWN])
    assert len(of("link_down", [*cut, WELL[2]])) == 2
    assert [f.check for f in examine(State(cut[:1], alone=True))] == ["link_down"]


def test_a_cluster_that_has_nothing_to_spare_does_not_lack_any() -> None:
    one = usual(1, heal=healing(peers=0), peers={})
    assert found([one]) == ()
    two = [usual(rank, heal=healing(peers=1), configuration={"number": 1, "members": [1, 2], "joining": []})
           for rank in (1, 2)]
    assert found(two) == ()
