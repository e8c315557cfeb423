"""Memory and start of a node with much written, by the program that measures them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.many_tags import main

WRITTEN = 2 << 30


@pytest.mark.parametrize(("options", "most_bytes"), [((), 25), (("--one-in-8",), 60)], ids=["dense", "one in 8"])
def test_memory_of_a_sector(tmp_path: Path, options: tuple[str, ...], most_bytes: int) -> None:
    done = CliRunner().invoke(main, ["2GiB", *options, "--directory", str(tmp_path)])
    assert done.exit_code == 0, done.output
    figures = {name.strip(): float(value.replace(",", "")) for name, _, value in
               (line.rpartition(" ") for line in done.output.splitlines())}
    assert figures["sectors written"] == WRITTEN // 4096
    assert figures["memory, bytes a sector"] <= most_bytes
