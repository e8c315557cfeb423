"""The page on JSON names each key that a real cluster of three prints, and no other one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dsreg.client import BlockingClient
from dsreg.config import load_config
from scripts.demo.cluster import Cluster
from tests.docs.tables import DOCS, ROOT, rows

PAGE = DOCS / "reference-json.md"
# Their keys are names, which have pages of their own.
BY_NAME = {"checks", "counters"}
NAMED = {"operations": "OPERATION"}
# Its first keys are in `dsreg status --json` too.
SHARED = {"health", "checks"}


def paths(value: Any, path: str = "") -> Iterator[str]:
    """As the page writes keys."""
    name = path.rpartition(".")[2]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        yield path
        for one in value:
            yield from (f"{path}[].{inner}" for inner in paths(one))
    elif isinstance(value, dict) and name not in BY_NAME and value:
        is_by_rank = all(key.isdigit() for key in value)
        if is_by_rank and not all(isinstance(inner, dict) for inner in value.values()):
            yield path
            return
        for key, inner in value.items():
            word = "RANK" if is_by_rank else NAMED.get(name, key)
            yield from paths(inner, f"{path}.{word}" if path else word)
    else:
        yield path


def asked(cluster: Cluster, command: str) -> dict[str, Any]:
    # On a busy machine a node may take seconds to answer.
    command_line = [sys.executable, "-m", "dsreg", command, "--json", "--timeout", "20", str(cluster.config)]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr + cluster.log_tails()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What both commands say: of a cluster that is used, and of one of which a node is down."""
    cluster = Cluster(tmp_path_factory.mktemp("json") / "disk")
    cluster.init()
    try:
        cluster.start_missing()
        with BlockingClient(load_config(cluster.config)) as disk:
            disk.write(0, bytes(4096))
            disk.read(0, 1)
            well = {command: asked(cluster, command) for command in ("status", "health")}
        cluster.kill(3)
        yield {command: [well[command], asked(cluster, command)] for command in well}
    finally:
        cluster.stop()


def test_health(reports: dict[str, list[dict[str, Any]]]) -> None:
    found = {path for report in reports["health"] for path in paths(report)}
    assert found == {*rows(PAGE, "Health")}


def test_status(reports: dict[str, list[dict[str, Any]]]) -> None:
    found = {path for report in reports["status"] for path in paths(report) if not path.startswith("nodes[]")}
    shared = {key for key in rows(PAGE, "Health") if key in SHARED or key.startswith("findings")}
    assert found == {*rows(PAGE, "Status")} | shared


def test_each_node(reports: dict[str, list[dict[str, Any]]]) -> None:
    of_each, said = {*rows(PAGE, "Each node")}, {*rows(PAGE, "What a node says")}
    assert not of_each & said
    nodes = [node for report in reports["status"] for node in report["nodes"]]
    [silent] = [node for node in nodes if not node["answers"]]
    assert {*paths(silent)} == of_each
    found = {path for node in nodes for path in paths(node)}
    # A node that has answered no client yet has an empty object where others have keys.
    found = {path for path in found if not any(other.startswith(f"{path}.") for other in found)}
    assert found == of_each | said
