"""`dsreg upgrade --plan`: the order of the nodes, and when it is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dsreg.cli.upgrade import obstacles, steps
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.survey import Survey
from dsreg.version import VERSION
from tests.cli.test_health import answer
from tests.cli.test_in_sync import healing
from tests.node_processes import running_nodes

CONFIG = ClusterConfig(1024, bytes(32), b"", (), bytes(16), Path("/etc/dsreg/cluster.toml"))


def nodes(*versions: str, **report: Any) -> tuple[NodeAnswer, ...]:
    return tuple(answer(rank, version=version, heal=healing(), **report) for rank, version in enumerate(versions, 1))


def test_the_order_of_the_nodes() -> None:
    found = Survey(nodes("0.1.0", "0.2.0 compiled", "0.1.0 compiled"))
    assert obstacles(CONFIG, found, "0.2.0") == []
    assert steps(CONFIG, found, "0.2.0") == [
        "# node 1 is 0.1.0: install 0.2.0 on its host, host1, and there:",
        "systemctl restart dsreg-node@1",
        "dsreg wait --healed /etc/dsreg/cluster.toml",
        "# node 3 is 0.1.0: install 0.2.0 on its host, host3, and there:",
        "systemctl restart dsreg-node@3",
        "dsreg wait --healed /etc/dsreg/cluster.toml",
        "# then on all hosts with clients: detach the disk, install 0.2.0, and attach it again",
    ]
    assert steps(CONFIG, Survey(nodes("0.2.0", "0.2.0")), "0.2.0") == ["# all nodes are 0.2.0: there is nothing to do"]


@pytest.mark.parametrize(("bad", "reason"), [
    (answer(3, "connection refused"), "node 3 (host3:7001): connection refused"),
    (answer(3, damaged=4), "node 3 (host3:7001): 4 damaged sectors, to be repaired from the other nodes"),
    (answer(3, version=VERSION, heal=healing(in_sync=False, behind=3 << 20)),
     "node 3 (host3:7001): lacks 3.0 MiB, which it fetches from the other nodes"),
])
def test_it_is_refused_while_a_node_is_not_well(bad: NodeAnswer, reason: str) -> None:
    assert reason in obstacles(CONFIG, Survey((*nodes(VERSION, VERSION), bad)), VERSION)


def test_it_is_refused_where_no_node_may_be_missing() -> None:
    [reason] = obstacles(CONFIG, Survey(nodes(VERSION)), VERSION)
    assert reason.startswith("no node may be missing now")


def test_the_disk_may_stay_attached() -> None:
    found = Survey(nodes("0.1.0", "0.1.0", "0.1.0", epoch=7, attached_by="host a"))
    assert obstacles(CONFIG, found, "0.2.0") == []
    assert steps(CONFIG, found, "0.2.0")[0] == (
        "# host a has the disk attached, and may keep it, if its dsreg is 0.2.0 or of the minor version before")


@pytest.mark.parametrize(("version", "is_refused"), [
    ("0.1.7", False), ("0.2.0", False), ("0.3.0", True), ("0.10.0", True), ("1.0.0", False), ("the next one", False)])
def test_no_minor_version_is_left_out(version: str, is_refused: bool) -> None:
    reasons = obstacles(CONFIG, Survey(nodes("0.1.0", "0.2.0", "0.1.3 compiled")), version)
    assert len(reasons) == is_refused
    if version == "0.3.0":
        assert "these nodes are older: 1, 3: upgrade to the versions in between first" in reasons[0]


def test_of_a_real_cluster(tmp_path: Path, dsreg: list[str]) -> None:
    with running_nodes(tmp_path, 1 << 20) as nodes:
        file = str(nodes.config.path)
        subprocess.run([*dsreg, "wait", "--healed", file, "--timeout", "60"], check=True, timeout=90)
        plan = [*dsreg, "upgrade", "--plan", file, "--timeout", "10"]
        done = subprocess.run([*plan, "--to", "99.0"], capture_output=True, text=True, timeout=60, check=True)
        assert [line for line in done.stdout.splitlines() if line.startswith("systemctl")] == [
            f"systemctl restart dsreg-node@{rank}" for rank in (1, 2, 3)]
        nodes.kill(3)
        done = subprocess.run(plan, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and not done.stdout
    assert "dsreg: not now: node 3 " in done.stderr and "connection refused" in done.stderr
