"""What `dsreg top` makes of the nodes' answers, on terminals of any size."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from dsreg.cli.top_round import Round
from dsreg.cli.top_view import view
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.page.view import View
from tests.page.scenes import DOWN, FILE, HEALING, NO_QUORUM, SCENES, SECTORS, WELL, clients, up
from tests.page.scenes import view as scene

KEYS = "every 1 s; q: quit  p: pause"


def round_of(seen: View, answers: Sequence[NodeAnswer] = (), fault: str = "") -> Round:
    nodes = tuple(answer.node for answer in seen.answers)
    config = ClusterConfig(SECTORS, bytes(32), b"", nodes, bytes(16), Path(FILE))
    return Round(answers or seen.answers, seen.before, config, fault, 1_800_000_000.0)


def shown(seen: Round, width: int = 160, height: int = 50) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, height=height, color_system=None).print(view(seen, width, height, KEYS))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_node_a_line_and_a_client_a_line() -> None:
    lines = shown(round_of(WELL))
    assert lines[0].endswith(KEYS) and lines[1] == (
        "well: 3 of 3 nodes answer, 2 are needed; disk of 10GiB, attached by web-1, process 4711")
    words = [line.split() for line in lines]
    assert ["node", "state", "copy", "reads/s", "writes/s", "p50", "p99", "waiting"] == words[2][:8]
    assert ["2", "answers", "in", "sync", "1,800", "3,000", "1.4", "ms", "4.9", "ms", "2"] == words[5][:11]
    (owner,) = [line for line in lines if line.startswith("web-1, process 4711")]
    assert owner.split()[3:] == ["12,600", "48.6", "MiB/s", "9", "attached", "1,2,3", "3", "yes"]
    (other,) = [line for line in lines if line.startswith("10.0.0.40")]
    assert "not attached" in other and other.endswith("no")


def test_what_is_not_well_is_said() -> None:
    down = "\n".join(shown(round_of(DOWN)))
    assert "degraded: 2 of 3 nodes answer" in down and "node down: node 3 (10.0.0.3:7001): connection refused" in down
    lost = "\n".join(shown(round_of(NO_QUORUM)))
    assert "critical: 1 of 3 nodes answer, 2 are needed" in lost and "quorum lost: no quorum: 1 of 3" in lost
    assert "behind 700 MiB 79% 29 s" in "\n".join(shown(round_of(HEALING)))
    assert "cannot be used any more" in "\n".join(shown(round_of(WELL, fault="line 3 is no TOML")))


@pytest.mark.parametrize("width", [20, 40, 80, 100, 132, 200])
@pytest.mark.parametrize("name", SCENES)
def test_it_fits(name: str, width: int) -> None:
    lines = shown(round_of(SCENES[name]), width)
    assert max(map(len, lines)) <= width
    nodes = [line for line in lines if line.split()[:1] in (["1"], ["2"], ["3"])]
    assert len(nodes) == 3, "a node is one line"


def test_of_many_clients_the_first_are_shown() -> None:
    many = [dict(clients(1, 50.0)[1], peer=f"10.0.1.{number}:40000") for number in range(16)]
    answers = [up(1, clients=many, clients_left_out=7), up(2, clients=[]), up(3, clients=[])]
    lines = shown(round_of(scene(answers)), height=16)
    assert len(lines) == 16 and lines[-1] == "... 11 more clients, 7 more connections, which ask for less"
    lines = shown(round_of(scene(answers)), height=60)
    assert len(lines) == 27 and lines[-1] == "... 7 more connections, which ask for less"


def test_nobody_gives_orders_to_the_terminal() -> None:
    evil = [dataclasses.replace(answer, report={
        **(answer.report or {}), "attached_by": "\x1b[2J\x07evil", "clients": clients(1, 9.0, owner="\x1b]0;evil\x07")})
        for answer in WELL.answers]
    text = "\n".join(shown(round_of(WELL, evil)))
    assert "evil" in text and "\x1b" not in text and "\x07" not in text


def test_json_has_numbers() -> None:
    found = json.loads(json.dumps(round_of(HEALING).as_dict()))
    assert found["health"] == "degraded" and found["attached_by"] == "web-1, process 4711" and found["epoch"] == 12
    one, _, three = found["nodes"]
    assert one["rates"]["reads"] == 1500 and one["rates"]["p99_s"] < 0.01 and one["waiting"] == 1
    assert three["copy"]["state"] == "behind" and three["copy"]["lacks"] == 700 << 20
    assert [client["who"] for client in found["clients"]] == ["web-1, process 4711", "10.0.0.40"]
    first = round_of(dataclasses.replace(WELL, before=())).as_dict()
    assert [node["rates"] for node in first["nodes"]] == [None] * 3
