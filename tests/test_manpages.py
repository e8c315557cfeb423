"""Man pages are made of the commands themselves, and are what man(1) takes; the scripts of the package are shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from dsreg.cli import cli
from scripts.manpages import escaped, pages, summary
from tests.test_deploy import DEPLOY


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return dict(pages())


def test_each_command_has_a_page(made: dict[str, str]) -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        page = made[f"dsreg-{name}.1"]
        assert f"\ndsreg\\-{escaped(name)} \\- {escaped(summary(found))}\n" in page
        for parameter in found.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(escaped(option) in page for option in parameter.opts), (name, parameter.name)
    assert {"dsreg.1", "dsreg-fuse.1", "dsreg-nbd.1", "dsreg-members-add.1", "dsreg-debug-bundle.1"} <= made.keys()
    assert "supervisor" not in made["dsreg-node.1"], "it is hidden"


def test_what_is_said_first_is_short(made: dict[str, str]) -> None:
    for name, page in made.items():
        [line] = re.findall(r"^\.SH NAME\n(.*)$", page, re.MULTILINE)
        assert 20 < len(line) < 130, name


def test_groff_has_nothing_to_say(made: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for name, page in made.items():
        (tmp_path / name).write_text(page)
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-Tutf8", *map(str, tmp_path.iterdir())], capture_output=True,
                          text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_text_is_no_request() -> None:
    assert escaped(".so /etc/passwd") == "\\&.so /etc/passwd" and escaped("a-b\\c'd") == "a\\-b\\ec\\(aqd"


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_scripts_of_the_package_are_shell(name: str) -> None:
    script = DEPLOY / "debian" / name
    assert script.read_text().startswith("#!/bin/sh\n") and "\nset -e\n" in script.read_text()
    done = subprocess.run(["dash", "-n", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
