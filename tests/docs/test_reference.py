"""The pages on commands and on the configuration say what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsreg.config import load_config, nodes, recovered
from dsreg.config.create import create_cluster
from dsreg.config.load import _CLUSTER_KEYS
from dsreg.config.metrics import LEAST_TOKEN
from dsreg.config.nodes import _NODE_KEYS
from dsreg.constants import MAX_EPOCH, MAX_HOST_BYTES, MAX_RANK, MAX_SCRUB_DAYS, MAX_SECTORS
from dsreg.errors import ConfigError
from scripts import cli_reference
from tests.docs.tables import DOCS, ROOT, rows

PAGE = DOCS / "reference-configuration.md"


def test_the_page_of_commands_is_current() -> None:
    """In a process of its own: click keeps an option's first words, and other tests ask commands without a parent."""
    code = "from scripts import cli_reference; print(cli_reference.document(), end='')"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert cli_reference.PAGE.read_text() == made.stdout, "run: python -m scripts.cli_reference"


@pytest.mark.parametrize(("section", "keys"), [
    ("`[cluster]`", _CLUSTER_KEYS), ("`[[node]]`", _NODE_KEYS), ("`[recovered]`", (*recovered.KEYS, recovered._NODES)),
], ids=["cluster", "node", "recovered"])
def test_all_keys_are_there(section: str, keys: tuple[str, ...]) -> None:
    assert {*rows(PAGE, section)} == {*keys}


def test_defaults_are_what_is_taken(tmp_path: Path) -> None:
    path = create_cluster(tmp_path, 1 << 20, ["127.0.0.1:7001"])
    config = load_config(path)
    table = rows(PAGE, "`[cluster]`")
    for key in ("require_sealed", "learn_addresses", "scrub_days", "slow_ms"):
        value = getattr(config, key)
        assert table[key][1] == f"`{str(value).lower()}`", key
    assert table["strict_start"][1].startswith("`false`;") and not config.strict_start
    assert table["metrics"][1] == "`false`" and config.metrics == ""
    assert table["heal_rate"][1] == "none" and config.heal_rate == 0
    assert rows(PAGE, "`[[node]]`")["storage"][1] == "`node-RANK`" and config.nodes[0].storage == tmp_path / "node-1"


def test_ranges_are_those_of_the_code() -> None:
    cluster, node, section = (rows(PAGE, name) for name in ("`[cluster]`", "`[[node]]`", "`[recovered]`"))
    assert cluster["sectors"][2] == f"1 to {MAX_SECTORS}"
    assert cluster["first_sectors"][2].startswith(f"1 to {MAX_SECTORS},")
    assert cluster["first_nodes"][2] == f"1 to {MAX_RANK}" and f"1 to {MAX_RANK}" in node["rank"][2]
    assert cluster["scrub_days"][2].startswith(f"0 to {MAX_SCRUB_DAYS};")
    assert cluster["metrics_token_file"][2].startswith(f"{LEAST_TOKEN} or more")
    assert section["epoch"][2] == f"1 to {MAX_EPOCH}"
    assert f"at most {MAX_HOST_BYTES} bytes" in PAGE.read_text()


@pytest.mark.parametrize("line", [
    "scrub_days = 3651", "scrub_days = -1", "slow_ms = -1", "heal_rate = 5", "require_sealed = 1", "first_nodes = 255",
    'id = "00"', "metrics = 9601", "unheard_of = 1",
])
def test_what_is_outside_is_an_error(tmp_path: Path, line: str) -> None:
    path = create_cluster(tmp_path, 1 << 20, ["127.0.0.1:7001"])
    path.write_text(re.sub(r"^\[cluster\]$", f"[cluster]\n{line}", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(ConfigError, match=line.split()[0]):
        load_config(path)


def test_there_are_as_many_nodes_as_a_rank_can_name() -> None:
    faults: list[str] = []
    tables = [{"rank": rank, "address": f"10.0.0.1:{rank}"} for rank in range(1, MAX_RANK + 2)]
    nodes.nodes_of(tables, Path("/d"), False, faults.append)
    assert any(f"at most {MAX_RANK}" in fault for fault in faults)
