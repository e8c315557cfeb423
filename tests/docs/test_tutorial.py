"""The tutorial, typed from its beginning to its end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.demo.cluster import node_ports
from tests.docs.tables import DOCS, ROOT
from tests.shell_blocks import shell_blocks

PAGE = DOCS / "tutorial.md"
TIMEOUT_S = 120


def printed(section: str) -> list[str]:
    """What the section says that is printed."""
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None
    return re.findall(r"```text\n(.*?)```", text[1], re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with our program in `bin`."""
    program = tmp_path / "bin" / "dsreg"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m dsreg "$@"\n')
    program.chmod(0o755)
    return tmp_path


def test_it_goes_as_it_says(place: Path) -> None:
    """All but what needs root, which tests/test_readme_shell.py and the runbook's tests type."""
    init, start, status = shell_blocks(PAGE, "Make a cluster")
    [write] = shell_blocks(PAGE, "Write and read")
    kill, go_on = shell_blocks(PAGE, "Lose a node")
    heal, well = shell_blocks(PAGE, "See it heal")
    [down] = shell_blocks(PAGE, "Take it down")
    ports = node_ports()
    others = "; ".join(f"s/:{7000 + rank}\"/:{port}\"/" for rank, port in enumerate(ports, 1))
    script = f"""
set -e
export PATH=$PWD/bin:$PATH
unset XDG_CONFIG_HOME
await() {{ for _ in $(seq 60); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; echo "no: $*"; exit 1; }}
trap 'kill -9 $node1 $node2 $node3 2>/dev/null' EXIT
{init}
sed -i '{others}' first/cluster.toml
{start}
await dsreg health
echo == status; {status}
set +e
echo == write; {write}
echo == kill; {kill}
echo == $?; {go_on}
echo == heal; {heal}
echo == $?; {well}
echo == $?; {down}
wait $node1 $node2 $node3
ls first
"""
    done = subprocess.run(["bash", "-c", script], cwd=place, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=TIMEOUT_S, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for rank, port in enumerate(ports, 1):
        said = said.replace(f":{port}", f":{7000 + rank}")
    after = re.split(r"^== .*\n", said, flags=re.MULTILINE)
    codes = re.findall(r"^== ([0-9])$", said, re.MULTILINE)
    assert codes == ["1", "0", "0"], said
    _, of_status, of_write, of_kill, of_going_on, _, of_well, of_down = after
    assert printed("Make a cluster")[0] in of_status
    assert [of_write] == printed("Write and read")
    degraded, still_here = printed("Lose a node")
    assert of_kill == degraded and of_going_on == still_here
    assert [of_well] == printed("See it heal")
    assert "node-3" in of_down and "Traceback" not in said
