"""What the README and the runbook tell people to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dsreg.cli import cli
from dsreg.client import Attach, BlockingClient
from dsreg.config import load_config
from scripts.demo.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "deploy" / "runbook.md"]
MARKDOWN = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")]


def block(marker: str) -> str:
    """The one Python block of the README that contains `marker`."""
    found = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if marker in code]
    assert len(found) == 1, f"{len(found)} blocks with {marker!r}"
    return found[0]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three real nodes, of a disk that has the place of the one that the examples use."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "try")
    cluster.init()
    try:
        cluster.start_missing()
        yield cluster
    finally:
        cluster.stop()


def run_script(cluster: Cluster, code: str, *arguments: str) -> str:
    """Runs `code` beside the cluster's directory; what it printed."""
    done = try_script(cluster, code, *arguments)
    assert done.returncode == 0, done.stderr + cluster.log_tails()
    return done.stdout


def try_script(cluster: Cluster, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    place = cluster.directory.parent
    script = place / "script.py"
    script.write_text(code)
    return subprocess.run([sys.executable, str(script), *arguments], cwd=place, capture_output=True, text=True,
                          timeout=60, check=False, env={"PYTHONPATH": str(ROOT)})


def test_blocking_client(cluster: Cluster) -> None:
    assert run_script(cluster, block("BlockingClient")) == "b'hello'\n"


def test_trio_client(cluster: Cluster) -> None:
    assert run_script(cluster, block("import trio")) == f"{bytes([63]) * 4096}\n"


def test_raw_bytes(cluster: Cluster) -> None:
    code = block("import socket")
    for rank in (1, 2, 3):
        arguments = ("127.0.0.1", str(cluster.ports[rank - 1]), "try/client.key", "99", f"through {rank}")
        assert run_script(cluster, code, *arguments) == f"through {rank}\n"


def test_raw_bytes_and_the_client_see_one_disk(cluster: Cluster) -> None:
    run_script(cluster, block("import socket"), "127.0.0.1", str(cluster.ports[0]), "try/client.key", "7", "other")
    reading = "\n".join(line for line in block("BlockingClient").splitlines() if "disk.write" not in line)
    assert run_script(cluster, reading) == "b'other'\n"


def test_the_examples_do_not_touch_a_disk_that_is_in_use(cluster: Cluster) -> None:
    """They are for a disk of their own; and where one is attached all the same, what is on it stays."""
    attach = Attach(name="the mount")
    with BlockingClient(load_config(cluster.config, need_system_key=False), attach=attach) as mount:
        before = bytes([7]) * 64 * 4096
        mount.write(0, before)
        for marker in ("BlockingClient", "import trio"):
            done = try_script(cluster, block(marker))
            assert done.returncode and "attached by the mount, which is alive" in done.stderr
        assert mount.read(0, 64) == before


def test_the_examples_use_the_disk_that_is_made_for_them() -> None:
    making = README.index("    dsreg init try ")
    uses = [match.start() for match in re.finditer("cluster.toml\", need|try/client.key", README)]
    assert len(uses) == 3 and min(uses) > making
    assert README.count("try/cluster.toml") == 3


# --- commands -------------------------------------------------------------------------------------
def commands(program: str) -> list[tuple[str, str]]:
    """(page, command line) of everything that is told to be typed and begins with `program`."""
    found = []
    for page in PAGES:
        for line in re.findall(rf"^ {{4,}}(?:/opt/dsreg/bin/)?({program} .*)$", page.read_text(), re.MULTILINE):
            for command in re.split(r" && | > | {6,}#", line):
                if command.startswith(f"{program} "):
                    found.append((page.name, command))
    return found


@pytest.mark.parametrize(("page", "line"), commands("dsreg"))
def test_commands_parse(page: str, line: str) -> None:
    line = line.replace("SECTORS", "1").replace("--rank R", "--rank 1").replace("--from R", "--from 1")
    words = shlex.split(line)[1:]
    context = click.Context(cli, info_name="dsreg")
    command = cli.get_command(context, words[0])
    assert command is not None, f"{page}: no command {words[0]}"
    command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize(("page", "line"), commands("dsreg-fuse"))
def test_fuse_commands_parse(page: str, line: str) -> None:
    from fuse_frontend.cli import main

    main.make_context("dsreg-fuse", shlex.split(line)[1:])


@pytest.mark.parametrize(("page", "line"), commands("dsreg-nbd"))
def test_nbd_commands_parse(page: str, line: str) -> None:
    from nbd_frontend.cli import main

    main.make_context("dsreg-nbd", shlex.split(line)[1:])


def test_there_are_commands() -> None:
    assert len(commands("dsreg-nbd")) >= 1
    assert len(commands("dsreg")) >= 6
    assert len(commands("dsreg-fuse")) >= 2


# --- links ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), f"{target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """Of its headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
