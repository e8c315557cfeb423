"""A tiny real run: fio on a plain file and on three nodes, the register over TCP; nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import record
from bench.cli import EXIT_INTERRUPTED, TOOLS
from bench.jobs import CPU_JOB, JOBS
from bench.run import FILES_JOB, KILLED, QUIET
from bench.summary import Summary
from bench.systems import make_ours
from bench.systems.ours import Ours, OursNbd
from tests.fuse.tools import ROOT, leftovers, wait_until, why_no_loop
from tests.test_demo import processes_naming

RUN_S = 1200.0
QUICK = ("--quick", "--size", "64")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the run keeps its data, with a short name, as sockets need it. Nothing of it may be left, mounted, attached
    or running."""
    path = Path(tempfile.mkdtemp(prefix="dsreg-bench-")).resolve()
    yield path
    assert not list(path.iterdir())
    assert not leftovers(path)
    assert not processes_naming(f"{path}/")
    path.rmdir()


def start(directory: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *QUICK, *arguments, "--directory", str(directory),
               "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed. It must end in time."""
    try:
        return process.communicate(timeout=RUN_S)[0]
    finally:
        process.kill()


@pytest.fixture
def devices() -> None:
    if (reason := why_no_loop()) is not None:
        pytest.skip(reason)
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(lacking)}")


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.usefixtures("devices")
def test_a_tiny_run_measures_everything(directory: Path, tmp_path: Path) -> None:
    process = start(directory, tmp_path / "out", "--only", "devices", "--peers", "plain", "--seconds", "0.5")
    output = finish(process)
    assert process.returncode == 0, output
    run = record.load(tmp_path / "out" / "benchmarks.json")
    summary = Summary(run)
    assert not [setup.fault for setup in run.setups if setup.fault]
    for key in ("ours", "ours-nbd", "ours-pyfuse3", "ours-cache", "plain"):
        assert summary.jobs("fio", key) == [job.key for job in JOBS]
        assert summary.jobs("files", key) == ([] if key == "ours-nbd" else [FILES_JOB])
        assert all(sample.figures["operations"] > 0 for sample in run.samples if sample.part == "fio")
    cpu = summary.figure("fio", "ours", CPU_JOB.key, "cpu_us")
    assert cpu is not None and cpu.median > 10  # no node does with less
    assert summary.figure("fio", "plain", CPU_JOB.key, "cpu_us") is None  # it has no processes
    assert summary.jobs("stall", "ours") == [QUIET, KILLED]
    memory = summary.figure("memory", "ours", "through the device", "mean_MB")
    assert memory is not None and memory.median > 5
    page = (tmp_path / "out" / "benchmarks.md").read_text()
    assert all(job.title in page for job in JOBS)


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.usefixtures("devices")
def test_an_interrupted_run_leaves_nothing(directory: Path, tmp_path: Path) -> None:
    process = start(directory, tmp_path / "out", "--only", "devices", "--peers", "plain")
    try:
        # Ours has its device, so that nodes, mount, frontend and loop device are all up.
        wait_until(lambda: any("/ours/mnt/" in name for name in leftovers(directory)) or process.poll() is not None,
                   "the disk is attached", 120.0)
        process.send_signal(signal.SIGINT)
    finally:
        output = finish(process)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert not (tmp_path / "out" / "benchmarks.json").exists()


@pytest.mark.slow
def test_the_register_over_tcp(directory: Path, tmp_path: Path) -> None:
    process = start(directory, tmp_path / "out", "--only", "tcp", "--seconds", "0.2")
    output = finish(process)
    assert process.returncode == 0, output
    run = record.load(tmp_path / "out" / "benchmarks.json")
    summary = Summary(run)
    assert sorted(summary.systems("tcp")) == ["tcp-n1", "tcp-n3", "tcp-n5"]
    assert summary.jobs("tcp-stall", "tcp-n3") == [QUIET, KILLED]
    assert all(sample.figures["per_s"] > 0 for sample in run.samples if sample.part == "tcp")
    assert "By number of nodes" in (tmp_path / "out" / "benchmarks.md").read_text()


def test_dsreg_fuse_knows_the_options_of_every_setup() -> None:
    from fuse_frontend.cli import main

    setups = make_ours()
    assert setups[0].key == "ours"
    by_fuse = [setup for setup in setups if not isinstance(setup, OursNbd)]
    assert len(by_fuse) == len(setups) - 1
    for setup in by_fuse:
        assert isinstance(setup, Ours)
        main.make_context("dsreg-fuse", [*setup.options, "--attach", "mnt"])


def test_without_pyfuse3_the_rest_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reasons = {setup.key: setup.missing() for setup in make_ours()}
    assert "pip install" in str(reasons.pop("ours-pyfuse3"))
    assert not [reason for reason in reasons.values() if reason and "pyfuse3" in reason]


def test_a_peer_that_is_not_known_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root no peer is measured")
    process = start(tmp_path, tmp_path / "out", "--peers", "plain,floppy")
    output = finish(process)
    assert process.returncode == 2
    assert "floppy" in output
