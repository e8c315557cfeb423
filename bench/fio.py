"""Run a fio job on a device and read what it reports."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.jobs import Job, Target
from bench.processes import CpuMeter
from bench.shell import BenchFailed, call

# What a job may take beyond its time: requests in flight at the end are waited for.
GRACE_S = 60.0
FILL_S = 900.0
FILL_DEPTH = 4


def parse(output: str) -> dict[str, float]:
    """The figures of fio's JSON for one job: operations, per_s, MB_per_s (10^6), p50_ms, p99_ms, max_ms.

    Latencies are of all requests; of a mix, of the writes. BenchFailed when fio reports an error or did nothing.
    """
    start = output.find("{")  # before it there may be notes
    if start < 0:
        raise BenchFailed(f"fio printed no report: {output.strip()[-300:]}")
    try:
        job: dict[str, Any] = json.loads(output[start:])["jobs"][0]
    except (ValueError, LookupError):
        raise BenchFailed(f"fio printed no report: {output.strip()[-300:]}") from None
    if job["error"]:
        raise BenchFailed(f"fio: {job['jobname']}: {os.strerror(job['error'])}")
    sides = [job[side] for side in ("write", "read") if job[side]["total_ios"]]
    if not sides:
        raise BenchFailed(f"fio: {job['jobname']}: no request was completed")
    completion = sides[0]["clat_ns"]
    percentiles = completion.get("percentile", {})
    return {
        "operations": sum(side["total_ios"] for side in sides),
        "per_s": sum(side["iops"] for side in sides),
        "MB_per_s": sum(side["bw_bytes"] for side in sides) / 1e6,
        "p50_ms": percentiles.get("50.000000", 0) / 1e6,
        "p99_ms": percentiles.get("99.000000", 0) / 1e6,
        "max_ms": completion["max"] / 1e6,
    }


def run_job(job: Job, target: Target, size: int, seconds: float, roots: Sequence[int], directory: Path
            ) -> dict[str, float]:
    """`parse` of one run, with CPU microseconds per operation: of the processes below `roots`, if any, and of the
    machine."""
    os.sync()  # what the job before has left in caches is not written at the expense of this one
    meter = CpuMeter(roots)
    output = call(*job.arguments(target, size, seconds, directory), timeout_s=seconds + GRACE_S)
    processes_s, machine_s = meter.read()
    figures = parse(output)
    if roots:
        figures["cpu_us"] = 1e6 * processes_s / figures["operations"]
    figures["machine_cpu_us"] = 1e6 * machine_s / figures["operations"]
    return figures


def fill(target: Target, size: int) -> None:
    """Write every block once: sectors that were never written are cheap to read, and files grow when written."""
    call(*target.command("fill", "--direct=1", "--thread", "--rw=write", "--bs=1M", f"--iodepth={FILL_DEPTH}",
                         f"--size={size}", "--refill_buffers", "--end_fsync=1", "--output-format=json"),
         timeout_s=FILL_S)


def missing_engine(name: str) -> str | None:
    """Why fio cannot use the I/O engine `name`, None where it can."""
    if shutil.which("fio") is None or name in call("fio", "--enghelp").split():
        return None  # that fio itself is missing is said elsewhere
    return f"fio was built without its I/O engine {name}"


def completions_ms(log: str) -> list[float]:
    """The times of completion, in order, of a latency log of fio (`time ms, latency ns, ...` a line)."""
    return sorted(float(match[1]) for match in re.finditer(r"^(\d+),", log, re.MULTILINE))
