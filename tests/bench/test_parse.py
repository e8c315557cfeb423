"""What is read from the output of other programs: fio, /proc, GlusterFS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fio, processes
from bench.jobs import JOBS
from bench.shell import BenchFailed
from bench.stall import longest_gap
from bench.systems.gluster import to_heal

RECORDED = (Path(__file__).parent / "recorded" / "fio-mix.json").read_text()


# --- fio ------------------------------------------------------------------------------------------
def test_both_sides_of_a_mix_are_added() -> None:
    job = json.loads(RECORDED)["jobs"][0]
    figures = fio.parse(RECORDED)
    assert figures["operations"] == job["read"]["total_ios"] + job["write"]["total_ios"]
    assert figures["per_s"] == pytest.approx(job["read"]["iops"] + job["write"]["iops"])
    assert figures["MB_per_s"] == pytest.approx(figures["per_s"] * 4096 / 1e6, rel=0.01)


def test_latencies_of_a_mix_are_those_of_writes() -> None:
    writes = json.loads(RECORDED)["jobs"][0]["write"]["clat_ns"]
    figures = fio.parse(RECORDED)
    assert figures["p99_ms"] == writes["percentile"]["99.000000"] / 1e6
    assert figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"] == writes["max"] / 1e6


def test_notes_before_the_report_are_skipped() -> None:
    assert fio.parse(f"fio: a note\n{RECORDED}") == fio.parse(RECORDED)


@pytest.mark.parametrize("output", ["", "fio: no such file", "{", '{"jobs": []}'])
def test_no_report_is_a_failure(output: str) -> None:
    with pytest.raises(BenchFailed, match="no report"):
        fio.parse(output)


def test_an_error_of_a_job_is_a_failure() -> None:
    report = json.loads(RECORDED)
    report["jobs"][0]["error"] = 5
    with pytest.raises(BenchFailed, match="Input/output error"):
        fio.parse(json.dumps(report))


def test_a_job_without_a_request_is_a_failure() -> None:
    report = json.loads(RECORDED)
    for side in ("read", "write"):
        report["jobs"][0][side]["total_ios"] = 0
    with pytest.raises(BenchFailed, match="no request"):
        fio.parse(json.dumps(report))


def test_jobs_are_told_apart() -> None:
    assert len({job.key for job in JOBS}) == len({job.title for job in JOBS}) == len(JOBS)


def test_completions_come_in_order() -> None:
    # fio writes them as threads get to it, and ends lines with fields that differ between versions.
    assert fio.completions_ms("12, 900, 1, 4096, 0\n10, 800, 1, 4096, 0, 0\n15, 1, 0, 4096, 0\n") == [10, 12, 15]


@pytest.mark.parametrize(("times", "gap"), [([], 0), ([5], 0), ([1, 2, 2, 7, 9], 5)])
def test_longest_gap(times: list[float], gap: float) -> None:
    assert longest_gap(times) == gap


# --- processes ------------------------------------------------------------------------------------
def test_a_name_with_blanks_and_parentheses_is_one_field() -> None:
    assert processes.stat_fields("12 (a) b (c)) S 7 12")[:2] == ["S", "7"]


def test_busy_is_all_but_idle_waiting_and_stolen() -> None:
    text = "cpu  100 20 30 4000 500 6 7 800 90 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert processes.busy_s(text) == (100 + 20 + 30 + 6 + 7) / os.sysconf("SC_CLK_TCK")


def test_cpu_of_a_tree_includes_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        meter = processes.CpuMeter([parent.pid])
        assert parent.stdout.readline() == b"burnt\n"
        pids = processes.tree([parent.pid])
        spent_s, machine_s = meter.read()
        assert len(pids) == 2 and parent.pid in pids
        assert all(processes.resident_bytes(pid) > 1 << 20 for pid in pids)
        parent.stdin.write(b"\n")
    assert 0.25 <= spent_s < 5
    assert machine_s >= 0.25
    assert processes.tree([parent.pid]) == set()
    assert processes.resident_bytes(parent.pid) == 0


# --- GlusterFS --------------------------------------------------------------------------------------
def test_what_is_to_heal_is_every_entry_but_the_one_that_all_link_to(tmp_path: Path) -> None:
    for name in ("xattrop", "dirty"):
        (tmp_path / ".glusterfs/indices" / name).mkdir(parents=True)
        (tmp_path / ".glusterfs/indices" / name / f"{name}-687b771f-ae99-4684-8cae-22d90d5ad0e2").touch()
    assert to_heal(tmp_path) == []
    (tmp_path / ".glusterfs/indices/dirty/c36078e0").touch()
    assert to_heal(tmp_path) == ["c36078e0"]
    (tmp_path / ".glusterfs/indices/xattrop/41bca8f3").touch()
    assert to_heal(tmp_path) == ["41bca8f3", "c36078e0"]
