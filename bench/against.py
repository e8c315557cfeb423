"""Another revision of this project beside this tree, in one run: each job goes from one to the other.

Only ratios within a round are compared, where the hour does the same to both. A figure is better or worse only if it is
so in every round; else the difference is within the spread.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.jobs import JOBS
from bench.record import Run
from bench.run import FILES_JOB, KILLED, QUIET
from bench.shell import COMMAND_S, ROOT, BenchFailed, call
from bench.summary import Figure, Summary
from bench.systems.ours import NODES, Ours
from bench.tables import about, cell, table
from bench.tcp import system_key

OURS, OTHER = "ours", "against"
PREFIX = f"{OTHER}-"  # of what is measured over TCP
# Fewer rounds have no spread that a difference could be beyond.
FEWEST_ROUNDS = 3


def described(revision: str) -> str:
    """The commit, short, with the name that it was given. Raises BenchFailed where git knows none."""
    commit = call("git", "rev-parse", "--short", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
    return commit if revision.startswith(commit) else f"{revision} ({commit})"


def unpack(revision: str, directory: Path) -> None:
    """The tree of a revision, into `directory`, which is made. Raises BenchFailed."""
    directory.mkdir()
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as archive:
        unpacked = subprocess.run(["tar", "-x", "-C", str(directory)], stdin=archive.stdout, timeout=COMMAND_S,
                                  stderr=subprocess.DEVNULL, check=False)
    if archive.returncode or unpacked.returncode:
        raise BenchFailed(f"{revision} cannot be unpacked: git archive ended with {archive.returncode}, "
                          f"tar with {unpacked.returncode}")


def both(revision: str, tree: Path) -> list[Ours]:
    """The two systems: this tree, and `revision`, unpacked at `tree`."""
    return [Ours(OURS, "this tree"), Ours(OTHER, described(revision), tree=tree)]


def page(run: Run) -> str:
    """What was measured, as Markdown."""
    summary = Summary(run)
    rows = _device_rows(summary) + _tcp_rows(summary)
    faults = "".join(f"- {setup.label} failed with: {setup.fault}\n" for setup in run.setups if setup.fault)
    few = "" if run.settings["rounds"] >= FEWEST_ROUNDS else (
        f"\nFewer than {FEWEST_ROUNDS} rounds: nothing is called better or worse.\n")
    head = f"# This tree beside {run.against}\n\n{about(run, summary)}{faults}\n## Figures\n\n"
    if not rows:
        return f"{head}Nothing was measured of both.\n"
    return (f"{head}The ratio is that of this tree to the other within a round: median, lowest and highest. \"better\" "
            f"and \"worse\": so in every round.\n{few}\n"
            + table(("figure", run.against, "this tree", "ratio", ""), rows))


def _device_rows(summary: Summary) -> list[list[str]]:
    rows = []
    for job in JOBS:
        name, unit = ("MB_per_s", "MB/s") if job.by_bytes else ("per_s", "IOPS")
        rows += _row(summary, f"{job.title}, {unit}", "fio", "", job.key, name)
    for job in JOBS:
        rows += _row(summary, f"{job.title}, CPU us", "fio", "", job.key, "cpu_us")
    rows += _row(summary, "mkfs + copy a tree + sync, s", "files", "", FILES_JOB, "seconds")
    for name in (QUIET, KILLED):
        rows += _row(summary, f"longest stall, ms, {name}", "stall", "", name, "gap_ms")
    return rows + _row(summary, "memory of a node, MB", "memory", "", "through the device", "mean_MB")


def _tcp_rows(summary: Summary) -> list[list[str]]:
    rows, system = [], system_key(NODES)
    jobs = summary.jobs("tcp", system)
    for name, unit in (("per_s", "a second"), ("cpu_us", "CPU us, nodes"), ("client_cpu_us", "CPU us, client")):
        for job in jobs:
            rows += _row(summary, f"over TCP, {job}, {unit}", "tcp", system, job, name)
    for name in (QUIET, KILLED):
        rows += _row(summary, f"over TCP, longest stall, ms, {name}", "tcp-stall", system, name, "gap_ms")
    return rows + _row(summary, "over TCP, memory of a node, MB", "memory", system, "over TCP", "mean_MB")


def _row(summary: Summary, title: str, part: str, system: str, job: str, name: str) -> list[list[str]]:
    """The row, or none where one of the two has no such figure. `system`: of this tree, "" for that of its device."""
    systems = (PREFIX + system, system) if system else (OTHER, OURS)
    ratio = summary.ratio(part, systems, job, name)
    if ratio is None:
        return []
    other, this = (cell(summary.figure(part, key, job, name)) for key in systems)
    is_enough = summary.rounds(part, systems[1], job, name) >= FEWEST_ROUNDS
    return [[title, other, this, cell(ratio), verdict(ratio, name.endswith("per_s")) if is_enough else ""]]


def verdict(ratio: Figure, more_is_better: bool) -> str:
    """ "better", "worse", or "" where the rounds disagree. """
    if ratio.low <= 1 <= ratio.high:
        return ""
    return "better" if (ratio.low > 1) == more_is_better else "worse"
