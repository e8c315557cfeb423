"""The schedule of a soak, its counting and its reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import report
from tests.soak.parts import PARTS, Part, simulate
from tests.soak.schedule import ROOT, Soak
from tests.soak.tally import MAX_FAILURES, Failure, Tally


def test_tallies_add_up_and_survive_json() -> None:
    one, two = Tally(), Tally()
    one.counts.update({"seeds": 3})
    two.counts.update({"seeds": 4, "operations": 5})
    two.faults.update({"kill": 2})
    two.fail(Failure("simulation", "not linearizable", "python -m tests.simulation --seed 9 --verbose"))
    one.add(Tally.from_json(json.loads(json.dumps(two.to_json()))))
    assert one.counts == {"seeds": 7, "operations": 5} and one.faults == {"kill": 2}
    assert one.failures == two.failures and one.failed == 1


def test_failures_beyond_the_limit_are_counted() -> None:
    tally = Tally()
    for number in range(MAX_FAILURES + 3):
        tally.fail(Failure("simulation", str(number), ""))
    total = Tally()
    total.add(tally)
    assert total.failed == MAX_FAILURES + 3 and len(total.failures) == MAX_FAILURES


@pytest.mark.allow_logs()  # what simulated nodes say, whichever seeds there is time for
def test_a_job_counts_what_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    tally = simulate(1000, 0.0, tmp_path, said.append)
    assert not said and not tally.counts  # no time, no seed
    tally = simulate(1000, 0.2, tmp_path, said.append)
    assert said[0] == "python -m tests.simulation --seed 1000 --verbose"
    assert tally.counts["seeds"] == len(said) and tally.counts["operations"] > 0 and not tally.failed


def test_a_soak_stops_in_time_and_reports(tmp_path: Path) -> None:
    chosen = [part for part in PARTS if part.name in ("simulation", "crash states")]
    soak = Soak(chosen, 2, 5 / 60, 4711, tmp_path / "logs")
    soak.run(lambda soak: None)
    assert soak.elapsed_s < 30 and not soak.tally.failed, report.text(soak)
    assert soak.tally.counts["seeds"] and soak.tally.counts["crash states"]
    assert not any((tmp_path / "logs").iterdir())  # nothing was found
    report.write(soak, tmp_path / "summary")
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["seed"] == 4711 and document["total"]["counts"] == soak.tally.counts
    text = (tmp_path / "summary.md").read_text()
    assert f"| simulator seeds | {soak.tally.counts['seeds']:,} |" in text and "| failures | 0 |" in text


def test_a_job_that_dies_is_a_failure_with_the_command_it_was_at(tmp_path: Path) -> None:
    # Of a name that tests.soak.job does not know: it ends at once, and cannot say what it was at.
    soak = Soak([Part("unheard of", 1, 2.5, 1, simulate)], 1, 3 / 60, 5, tmp_path)
    soak.run(lambda soak: None)
    assert soak.tally.failed >= 1
    failure = soak.tally.failures[0]
    assert failure.what == "ended with 1" and failure.replay.startswith("python -m tests.soak.job 'unheard of' 5 ")
    assert "ValueError" in Path(failure.log).read_text()


def test_shares_are_kept_and_what_has_none_runs_beside(tmp_path: Path) -> None:
    parts = [Part("much", 2, 50, 1, simulate), Part("little", 1, 50, 1, simulate), Part("beside", 0, 50, 1, simulate)]
    soak = Soak(parts, 3, 1.0, 1, tmp_path)
    soak._fill_slots()
    try:
        assert sorted(job.part.name for job in soak.running) == ["beside", "little", "much", "much"]
        seeds = {job.seed for job in soak.running if job.part.name == "much"}
        assert seeds == {1, 2}
    finally:
        for job in soak.running:
            soak._kill(job)


def test_what_runs_beside_is_not_begun_when_it_cannot_end_in_time(tmp_path: Path) -> None:
    soak = Soak([Part("beside", 0, 50, 1, simulate)], 2, 0.5, 1, tmp_path)
    soak.run(lambda soak: None)
    assert soak.elapsed_s < 5 and not any(tmp_path.iterdir())


def test_an_interrupted_soak_tells_what_it_did(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "5", "--seed", "3", "--only", "simulation",
               "--report", str(tmp_path / "summary"), "--logs", str(tmp_path / "logs")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().startswith("seed 3")
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stdout.read()
    assert process.wait(60) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["interrupted"] is True
