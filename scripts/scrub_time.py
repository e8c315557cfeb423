"""How long a scrub takes, and what clients notice of it: `python -m scripts.scrub_time [SIZE]`.

Three nodes on this host. In one run: the sequential read throughput of their disk, from the disk; `dsreg scrub` of SIZE
that is written at each, and the processor time of the nodes; then the latency of writes of 4 KiB while the nodes scrub
without a pause, beside that of the same writes before.
"""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path

import click
import trio

from dsreg.client import Client
from dsreg.constants import MAX_RUN_BYTES
from dsreg.storage import OsFiles
from scripts.demo.cluster import DSREG, NODES, Cluster
from scripts.heal_time import DEPTH, attached, load, scattered, status, write_all
from scripts.measuring import Figures, directory_option, json_option, run_measurement

ASK_S = 30.0


def disk_bytes_per_s(cluster: Cluster) -> float:
    """Of the values of node 1, 1 MiB at a time, past the page cache."""
    file = OsFiles(cluster.storage(1)).open("sectors")
    size = file.size() // MAX_RUN_BYTES * MAX_RUN_BYTES
    file.fdatasync()
    started = time.perf_counter()
    for offset in range(0, size, MAX_RUN_BYTES):
        file.drop_cached(MAX_RUN_BYTES, offset)
        file.pread(MAX_RUN_BYTES, offset)
    took_s = time.perf_counter() - started
    file.close()
    return size / took_s


async def cpu_s(client: Client) -> float:
    return sum([float((await status(client, rank))["cpu_s"]) for rank in range(1, NODES + 1)])


async def idle(cluster: Cluster, size: int, figures: Figures) -> None:
    async with attached(cluster) as client:
        await write_all(client, size)
        disk = await trio.to_thread.run_sync(disk_bytes_per_s, cluster)
        figures.tell("disk_bytes_per_s", disk, f"{disk / (1 << 20):.0f} MiB a second")
        before, memory = await cpu_s(client), (await status(client, 1))["rss_bytes"]
        started = time.perf_counter()
        await trio.run_process([*DSREG, "scrub", str(cluster.config)], stdout=subprocess.DEVNULL)
        took_s = time.perf_counter() - started
        used_s = await cpu_s(client) - before
        more = (await status(client, 1))["rss_bytes"] - memory
    figures.tell("scrub_s", took_s, f"{took_s:.1f} s for {size / (1 << 20):.0f} MiB at each of {NODES} nodes")
    figures.tell("scrub_cpu_s_per_gib", used_s / NODES / size * (1 << 30), f"{used_s:.2f} s of all nodes together")
    figures.tell("memory", more, f"{more / (1 << 20):.1f} MiB more at node 1")


async def beside_clients(cluster: Cluster, size: int, seconds: float, figures: Figures) -> None:
    async with attached(cluster) as client:
        alone = await load(client, scattered(size, seconds, DEPTH, 2))
        for rank in range(1, NODES + 1):
            await client.scrub(rank, ASK_S)
        beside = await load(client, scattered(size, seconds, DEPTH, 3))
        scrub = (await status(client, 1))["scrub"]
    for percent in (50.0, 99.0):
        one, other = alone.writes.percentile_s(percent), beside.writes.percentile_s(percent)
        figures.tell(f"p{percent:.0f}_ratio", other / one, f"{1000 * one:.2f} ms alone, {1000 * other:.2f} ms beside")
    ratio = beside.writes.count / alone.writes.count
    figures.tell("writes_ratio", ratio, f"{alone.writes.count} writes alone, {beside.writes.count} beside")
    rate = (scrub["verified_bytes"] if scrub["number"] > scrub["done"] else scrub["done_bytes"]) / beside.elapsed_s
    figures.tell("beside_bytes_per_s", rate, f"{rate / (1 << 20):.1f} MiB a second verified at node 1")


async def measure(cluster: Cluster, size: int, figures: Figures, *, seconds: float) -> None:
    await idle(cluster, size, figures)
    await beside_clients(cluster, size, seconds, figures)


@click.command()
@click.argument("size", default="1GiB")
@click.option("--seconds", type=float, default=15.0, show_default=True, help="Of writes, alone and beside.")
@directory_option
@json_option
def main(size: str, seconds: float, directory: Path | None, as_json: bool) -> None:
    """Measure with a disk of SIZE."""
    run_measurement(partial(measure, seconds=seconds), size, directory, as_json)


if __name__ == "__main__":
    main()
