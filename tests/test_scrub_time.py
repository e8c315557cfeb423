"""The program that measures scrubbing scrubs, and says how long it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.scrub_time import main


@pytest.mark.slow
def test_it_measures(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["8MiB", "--seconds", "1", "--directory", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output.splitlines()[-1])
    assert 0 < figures["scrub_s"] < 30 and figures["scrub_cpu_s_per_gib"] > 0
    assert figures["beside_bytes_per_s"] > 0 and figures["p99_ratio"] > 0
