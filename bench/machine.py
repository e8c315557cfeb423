"""The machine of a run: hardware, kernel, versions, and how fast it was at the time."""

from __future__ import annotations

import hmac
import os
import platform
import re
import shutil
import statistics
import time
from pathlib import Path

from bench.files import file_system_of
from bench.shell import call

_BLOCK = b"\x5a" * 4096
_KEY = b"k" * 32
_HMAC_ROUNDS, _HMAC_TIMES = 7, 1000
_SYNCS = 200
_SYNC_LIMIT_S = 3.0


def describe(directory: Path) -> dict[str, str]:
    """The machine in words, by name; `directory` is where all systems keep their data."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "CPU": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 1e6:.1f} GB" if memory else "unknown",
        "kernel": platform.release(),
        "file system below all": file_system_of(directory),
        "Python": platform.python_version(),
        "fio": call("fio", "--version").strip() if shutil.which("fio") else "not installed",
        "load before the run": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def calibrate(directory: Path) -> dict[str, float]:
    """CPU us of one HMAC-SHA256 of 4 KiB, and us on the clock of one fdatasync after 4 KiB (no replica, no network):
    the two currencies that an acknowledged write is paid in."""
    return {"hmac_us": _hmac_us(), "fdatasync_us": _fdatasync_us(directory)}


def _hmac_us() -> float:
    rounds = []
    for _ in range(_HMAC_ROUNDS):
        start_s = time.process_time()
        for _ in range(_HMAC_TIMES):
            hmac.digest(_KEY, _BLOCK, "sha256")
        rounds.append((time.process_time() - start_s) / _HMAC_TIMES * 1e6)
    return statistics.median(rounds)


def _fdatasync_us(directory: Path) -> float:
    path = directory / "calibration"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _SYNCS * len(_BLOCK))
        os.fsync(descriptor)
        took = []
        deadline = time.perf_counter() + _SYNC_LIMIT_S
        for number in range(_SYNCS):
            start_s = time.perf_counter()
            os.pwrite(descriptor, _BLOCK, number * len(_BLOCK))
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - start_s)
            if time.perf_counter() > deadline:
                break
    finally:
        os.close(descriptor)
        path.unlink()
    return 1e6 * statistics.median(took)
