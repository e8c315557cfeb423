"""Two revisions in one run: what is called better, and a real one over TCP with the code of the other."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import against
from bench.jobs import CPU_JOB
from bench.record import Run, Setup
from bench.settings import QUICK
from bench.shell import ROOT, BenchFailed, call
from bench.summary import Figure
from bench.systems.ours import DSREG
from bench.tcp import TcpClusters, TcpLoad, system_key
from dsreg.constants import SECTOR_SIZE
from tests.bench.test_report import rows
from tests.bench.test_run import finish, start

TCP = system_key(3)
LOAD = f"write-{SECTOR_SIZE // 1024}k-d1"


def made_up(rounds: int) -> Run:
    """This tree writes 1.1, 1.2, 1.3 times as much; its CPU is 0.9, 1.0, 1.1 times that of the other; over TCP it is
    half as fast."""
    run = Run("python -m bench", "2026-01-02", {"CPU": "one"}, {**asdict(QUICK), "rounds": rounds}, against="old (abc)",
              setups=[Setup("ours", "this tree", "always"), Setup("against", "old (abc)", "always", fault="it broke")])
    for number in range(rounds):
        noise = 1000.0 * (number + 1)  # of the hour: the same for both
        for key, speed, cpu in (("against", 1.0, 100.0), ("ours", 1.1 + number / 10, 90.0 + 10 * number)):
            run.add("fio", key, CPU_JOB.key, number, {"per_s": speed * noise, "cpu_us": cpu})
        run.add("tcp", TCP, LOAD, number, {"per_s": noise / 2, "cpu_us": 10.0})
        run.add("tcp", against.PREFIX + TCP, LOAD, number, {"per_s": noise, "cpu_us": 20.0})
        run.add("calibration", "machine", "calibration", number, {"hmac_us": 3.0, "fdatasync_us": 250.0})
    run.add("memory", TCP, "over TCP", 0, {"mean_MB": 40.0})
    return run


def test_only_what_is_so_in_every_round_is_better_or_worse() -> None:
    page = against.page(made_up(3))
    found = rows(page[page.index("## Figures"):])
    assert found[f"{CPU_JOB.title}, IOPS"] == ["2,000 (1,000 - 3,000)", "2,400 (1,100 - 3,900)", "1.20 (1.10 - 1.30)",
                                               "better"]
    assert found[f"{CPU_JOB.title}, CPU us"] == ["100", "100 (90.0 - 110)", "1.00 (0.90 - 1.10)", ""]
    assert found[f"over TCP, {LOAD}, a second"][2:] == ["0.50", "worse"]
    assert found[f"over TCP, {LOAD}, CPU us, nodes"][2:] == ["0.50", "better"]
    assert not [title for title in found if "memory" in title]  # the other one has no such figure
    assert "- old (abc) failed with: it broke" in page
    assert "Fewer than" not in page


def test_two_rounds_have_no_spread() -> None:
    page = against.page(made_up(2))
    found = rows(page[page.index("## Figures"):])
    assert found[f"over TCP, {LOAD}, a second"][3] == "" and "Fewer than 3 rounds" in page


def test_without_the_other_one_there_is_nothing_to_compare() -> None:
    run = made_up(3)
    run.samples = [sample for sample in run.samples if not sample.system.startswith("against")]
    assert "Nothing was measured of both." in against.page(run)


@pytest.mark.parametrize(("ratio", "more_is_better", "expected"), [
    ((1.0, 1.0, 1.0), True, ""), ((1.2, 1.0, 1.4), True, ""), ((1.2, 1.01, 1.4), True, "better"),
    ((1.2, 1.01, 1.4), False, "worse"), ((0.9, 0.8, 0.99), False, "better"), ((0.9, 0.8, 0.99), True, "worse"),
])
def test_verdict(ratio: tuple[float, float, float], more_is_better: bool, expected: str) -> None:
    assert against.verdict(Figure(*ratio), more_is_better) == expected


def test_a_revision_that_is_none(tmp_path: Path) -> None:
    process = start(tmp_path, tmp_path, "--against", "no-such-revision")
    output = finish(process)
    assert process.returncode == 1 and "no-such-revision" in output and "Traceback" not in output
    with pytest.raises(BenchFailed, match="no-such"):
        against.unpack("no-such-revision", tmp_path / "tree")


def test_nodes_and_load_run_the_code_of_the_other_tree(tmp_path: Path) -> None:
    if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("this is no clone")
    tree = tmp_path / "tree"
    against.unpack("HEAD", tree)
    version = tree / "dsreg" / "version.py"
    version.write_text(re.sub('^VERSION = ".*"', 'VERSION = "9.8.7"', version.read_text(), flags=re.MULTILINE))
    load = tree / "bench" / "tcp_load.py"
    load.write_text(load.read_text().replace('"operations": ', '"of_the_other_tree": 1.0, "operations": '))
    settings = replace(QUICK, tcp_nodes=(3,), tcp_seconds=0.2, tcp_span=1 << 20)
    clusters = TcpClusters(settings, tree, against.PREFIX)
    with ExitStack() as stack:
        clusters.start(3, tmp_path, stack)
        assert clusters.measure(TcpLoad("write", SECTOR_SIZE, 1))["of_the_other_tree"] == 1.0
        status = json.loads(call(*DSREG, "status", tmp_path / clusters.key(3) / "cluster.toml", "--json"))
        assert [node["version"] for node in status["nodes"]] == ["9.8.7"] * 3
