"""The longest stall: the largest gap between two completions under load, with or without a replica killed."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.fio import GRACE_S, completions_ms, parse
from bench.jobs import Job, Target
from bench.shell import BenchFailed

KILL_AT = 1 / 3  # of the run


def longest_gap(times: Sequence[float]) -> float:
    """The largest difference between neighbours of a sorted sequence, 0 for fewer than two."""
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def run_stall(job: Job, target: Target, size: int, seconds: float, kill: Callable[[], None] | None, directory: Path
              ) -> dict[str, float]:
    """Run `job` and, if `kill` is given, call it after a third of the time.

    gap_ms is to 1 ms, since fio logs times so; the last request in flight ends the last gap, however late it is.
    """
    prefix = directory / "stall"
    for old in directory.glob("stall_*.log"):
        old.unlink()
    os.sync()
    command = [*job.arguments(target, size, seconds, directory), f"--write_lat_log={prefix}", "--log_avg_msec=0"]
    output = _run(command, seconds, kill)
    figures = parse(output)
    times = completions_ms((directory / "stall_clat.1.log").read_text())
    return {"gap_ms": longest_gap(times), "max_ms": figures["max_ms"], "per_s": figures["per_s"]}


def _run(command: list[str], seconds: float, kill: Callable[[], None] | None) -> str:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if kill is not None:
                time.sleep(seconds * KILL_AT)
                kill()
            output, errors = process.communicate(timeout=seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"fio: not done after {seconds + GRACE_S:.0f} s") from None
        finally:
            process.kill()
    if process.returncode:
        raise BenchFailed(f"fio: exit code {process.returncode}: {errors.strip()}")
    return output
