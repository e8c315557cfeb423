"""The program that measures what metrics cost does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.metrics_cost import main


@pytest.mark.slow
def test_it_measures(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["2", "--directory", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output.splitlines()[-1])
    assert 0 < figures["counting_ratio"] < 0.01, "less than a hundredth of a request"
    assert 0 < figures["page_ms"] < 100
    assert 0.1 < figures["requests_ratio"] < 10 and 0.1 < figures["cpu_ratio"] < 10, "the machine may be busy"
