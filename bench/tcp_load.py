"""A load generator over TCP, without FUSE, in a process of its own: `python -m bench.tcp_load CONFIG LOAD`.

LOAD is a JSON object: kind ("fill", "read" or "write"), block (bytes), depth, seconds, span (bytes), seed. It prints
"running" when it is connected and the figures, one JSON object, at the end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import trio

from bench.stall import longest_gap
from dsreg.cli.workload import Disk, Load, run_load
from dsreg.client import Client
from dsreg.config import load_config
from dsreg.constants import SECTOR_SIZE

TIMEOUT_S = 60.0
FILL_BLOCK = 1 << 20
FILL_DEPTH = 4


class Watched:
    """A disk that notes when each request of it was completed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.times_s: list[float] = []

    async def read(self, sector: int, count: int = 1) -> bytes:
        data = await self._disk.read(sector, count)
        self.times_s.append(trio.current_time())
        return data

    async def write(self, sector: int, data: bytes) -> None:
        await self._disk.write(sector, data)
        self.times_s.append(trio.current_time())


async def fill(disk: Disk, span: int) -> None:
    """Write every sector of the first `span` bytes."""
    data = bytes(range(256)) * (FILL_BLOCK // 256)
    starts = iter(range(0, span, FILL_BLOCK))

    async def worker() -> None:
        for start in starts:
            await disk.write(start // SECTOR_SIZE, data[: span - start])

    async with trio.open_nursery() as nursery:
        for _ in range(FILL_DEPTH):
            nursery.start_soon(worker)


async def measure(disk: Disk, request: dict[str, Any]) -> dict[str, float]:
    """The figures of one load: per second, latencies and the longest gap between completions in ms."""
    load = Load(request["depth"], request["block"] // SECTOR_SIZE, 100 if request["kind"] == "read" else 0, False,
                request["seconds"], request["span"] // SECTOR_SIZE, request["seed"])
    watched = Watched(disk)
    start_s = time.process_time()
    measured = await run_load(watched, load, lambda amount: None)
    cpu_s = time.process_time() - start_s
    latencies = measured.reads if request["kind"] == "read" else measured.writes
    rate = measured.operations / measured.elapsed_s
    return {
        "operations": measured.operations, "per_s": rate, "MB_per_s": rate * request["block"] / 1e6,
        "p50_ms": 1e3 * latencies.percentile_s(50), "p99_ms": 1e3 * latencies.percentile_s(99),
        "max_ms": 1e3 * latencies.max_s, "gap_ms": 1e3 * longest_gap(watched.times_s),
        "client_cpu_us": 1e6 * cpu_s / max(1, measured.operations),
    }


async def main(config: Path, request: dict[str, Any]) -> None:
    async with Client(load_config(config, need_system_key=False), timeout_s=TIMEOUT_S) as client:
        await client.read(0, 1)  # connecting is no part of what is measured
        print("running", flush=True)
        if request["kind"] == "fill":
            await fill(client, request["span"])
            print("{}")
        else:
            print(json.dumps(await measure(client, request)))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), json.loads(sys.argv[2]))
