"""What `dsreg status` shows people, on terminals of any size."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dsreg.cli.status_json import as_dict
from dsreg.cli.status_table import print_survey
from dsreg.cli.status_watch import fitting_lines
from dsreg.errors import OperationTimeout, Outcome
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import to_do
from dsreg.survey import Survey
from tests.cli.test_health import answer, config_of
from tests.cli.test_in_sync import DOWN, healed, healing, learning

LATE = OperationTimeout("no majority answered a read within 2 s", Outcome.DID_NOT_HAPPEN)


def node(rank: int, **report: Any) -> NodeAnswer:
    usual = {"round_trip_s": 0.0012, "uptime_s": 7261, "incarnation": 3, "sectors_written": 2621440,
             "version": "0.1.0", "lives": {"life": 1}, "heal": healing(), "peers": {"1": "sealed", "2": "sealed"}}
    return answer(rank, **{**usual, **report})


def learner(rank: int) -> NodeAnswer:
    report = learning(rank).report
    assert report is not None
    return node(rank, lives={"life": 2}, heal=report["heal"])


def shown(answers: list[NodeAnswer], *, width: int = 80, error: OperationTimeout | None = None) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    print_survey(console, config_of(answers), Survey(tuple(answers), error), wraps=True)
    return out.getvalue().splitlines()


def test_a_node_that_learns() -> None:
    lines = shown([node(1), node(2), learner(3)])
    assert lines[1] == "can lose 0 more nodes now (learning: node 3)"
    assert lines[2].split() == ["rank", "address", "state", "data", "lacks", "has", "rate", "left", "life"]
    assert lines[6].split() == ["3", "host3:7001", "answers", "learns", "6.0", "MiB", "25%", "3.0", "MiB/s", "1", "min",
                                "1", "s", "2"]
    assert lines[-3].rstrip() == "to do: stop no other node before node 3 is done: dsreg wait --healed", lines


def test_columns_stand_below_each_other() -> None:
    lines = shown([node(1), node(2, heal=healing(in_sync=False, behind=123 << 20, left_s=3.0)), learner(3)])
    ends = [line.index("MiB ") for line in lines[5:7]]
    assert ends[0] == ends[1], lines
    assert len({re.search(r"answers +", line).end() for line in lines[4:7]}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 160])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    answers = [node(1, peers={"2": "down", "3": "down"}), learner(2),
               answer(3, "connects, but: no status from node 3 within 2.0 s")]
    for error in (None, LATE):
        lines = shown(answers, width=width, error=error)
        assert all(len(line) <= width for line in lines), lines
        text = " ".join(" ".join(lines).split())
        assert "to do: start node 3, with its directory" in text


def test_a_majority_that_has_yet_to_learn_is_named() -> None:
    text = " ".join(" ".join(shown([node(1), learner(2), DOWN], error=LATE)).split())
    assert "no quorum: 2 of 3 nodes answer, 2 are needed; what node 2 has yet to learn cannot be read there" in text
    assert "has yet to learn" not in " ".join(shown([node(1), node(2), DOWN], error=LATE))


def test_what_to_do() -> None:
    def said(answers: list[NodeAnswer], error: OperationTimeout | None = None) -> list[str]:
        return to_do(Survey(tuple(answers), error).findings(config_of(answers)))

    assert said([node(1), node(2), node(3)]) == []
    assert said([node(1), node(2), DOWN]) == ["start node 3, with its directory; what is missed is fetched then"]
    lost = said([node(1), answer(2, "connection refused"), DOWN], LATE)
    assert len(lost) == 1 and lost[0].startswith("start nodes 2, 3, with their directories")
    assert "Nothing is lost by waiting" in lost[0]
    assert said([node(1), node(2), DOWN], LATE) == said([node(1), node(2), DOWN]), "a majority is there"
    assert said([healed(1), learning(2), learning(3)]) == [
        "stop no other node before nodes 2, 3 are done: dsreg wait --healed /etc/dsreg/cluster.toml"]
    five = [*(healed(rank) for rank in (1, 2, 3, 4)), learning(5)]
    assert said(five) == [], "one may be stopped"


def test_json_has_it_all() -> None:
    answers = [node(1), node(2), learner(3)]
    report = as_dict(config_of(answers), Survey(tuple(answers)))
    assert report["can_lose"] == 0
    assert report["nodes"][0]["copy"]["state"] == "in sync"
    assert report["nodes"][2]["copy"] == {
        "state": "learns", "lacks": 6 << 20, "share": 0.25, "rate": 3 << 20, "left_s": 61.0}
    assert report["nodes"][2]["lives"]["life"] == 2


def test_what_a_low_terminal_shows() -> None:
    lines = [str(number) for number in range(10)]
    assert fitting_lines(lines, 10) == lines
    assert fitting_lines(lines, 5) == ["0", "1", "2", "... 6 more lines ...", "9"]
    for height in range(1, 12):
        assert len(fitting_lines(lines, height)) <= height
