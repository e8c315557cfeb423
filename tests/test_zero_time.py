"""The program that measures zeros does, and they give their room back at each node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.zero_time import main


@pytest.mark.slow
def test_it_measures(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["8MiB", "--directory", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output.splitlines()[-1])
    assert 0 < figures["discard_empty_s"] < 300 and 0 < figures["trim_s"] < 300
    assert 0 < figures["zeros_s"] < 300 and 0 < figures["data_s"] < 300
    assert figures["room_left"] < 0.1
