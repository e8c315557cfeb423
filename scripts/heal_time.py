"""How long a node takes to catch up, and what clients notice of it: `python -m scripts.heal_time [SIZE]`.

Three nodes on this host. In one run: the sequential write throughput of their disk, before and after; a node that
missed SIZE, written in one go, and what that took of CPU and disk at the nodes; one that missed some seconds of writes
of 4 KiB at random places; and the latency of such writes while a node heals, beside the latency of the same writes
before.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import trio

from dsreg.cli.workload import Load, Measured, run_load
from dsreg.client import Attach, Client
from dsreg.config import load_config
from dsreg.config.sizes import format_size
from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE
from scripts.demo.cluster import NODES, Cluster
from scripts.measuring import Figures, directory_option, json_option, run_measurement

AWAY = NODES  # the rank of the node that is away
POLL_S = 0.05
# Writes of clients beside the heal: so many in flight.
DEPTH = 4


def disk_bytes_per_s(directory: Path, size: int) -> float:
    """Sequential writes of 1 MiB to a new file, synced at the end."""
    block = os.urandom(MAX_RUN_BYTES)
    path = directory / "plain"
    started = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MAX_RUN_BYTES):
            file.write(block)
        os.fdatasync(file.fileno())
    took_s = time.perf_counter() - started
    path.unlink()
    return size / took_s


class Used(NamedTuple):
    """By one process so far. `cpu_s`: of CPU; `written`: bytes that it had the disk write, or will."""

    cpu_s: float
    written: int

    @classmethod
    def by(cls, pid: int) -> Used:
        times = os.sysconf("SC_CLK_TCK")
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return cls((int(user) + int(system)) / times, int(io["write_bytes"]))

    def since(self, before: Used) -> Used:
        return Used(self.cpu_s - before.cpu_s, self.written - before.written)


async def status(client: Client, rank: int) -> dict[str, Any]:
    return await client.status(rank, timeout_s=30.0)


async def until_in_sync(client: Client, watch: Callable[[dict[str, Any]], None] = lambda report: None) -> None:
    """Until the node that was away says that it has everything."""
    while True:
        report = await status(client, AWAY)
        watch(report)
        heal = report["heal"]
        if heal["in_sync"] and len(heal["peers"]) == NODES - 1:
            return
        await trio.sleep(POLL_S)


async def write_all(client: Client, size: int) -> None:
    """Sequentially, 1 MiB at a time."""
    blocks = [os.urandom(MAX_RUN_BYTES) for _ in range(4)]
    limit = trio.CapacityLimiter(DEPTH)

    async def write(number: int) -> None:
        async with limit:
            await client.write(number * MAX_RUN_SECTORS, blocks[number % len(blocks)])

    async with trio.open_nursery() as nursery:
        for number in range(size // MAX_RUN_BYTES):
            nursery.start_soon(write, number)


def scattered(size: int, seconds: float, depth: int, seed: int) -> Load:
    return Load(depth=depth, block_sectors=1, read_percent=0, sequential=False, seconds=seconds,
                span_sectors=size // SECTOR_SIZE, seed=seed)


async def load(client: Client, work: Load) -> Measured:
    return await run_load(client, work, lambda seconds: None)


@asynccontextmanager
async def attached(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(load_config(cluster.config), attach=Attach(name="heal_time")) as client:
        await client.attached()
        yield client


async def missed_all(cluster: Cluster, size: int, figures: Figures) -> None:
    """The node was away while the whole disk was written."""
    disk = disk_bytes_per_s(cluster.directory, size)
    figures.tell("disk_bytes_per_s", disk, f"{disk / (1 << 20):.0f} MiB a second")
    memory: list[int] = []
    async with attached(cluster) as client:
        await until_in_sync(client)
        empty = (await status(client, 1))["rss_bytes"]
        cluster.terminate(AWAY)
        await write_all(client, size)
        await trio.to_thread.run_sync(cluster.start, AWAY)
        begin = {rank: Used.by(process.pid) for rank, process in cluster.processes.items()}
        started_s = trio.current_time()
        await until_in_sync(client, lambda report: memory.append(report["rss_bytes"]))
        took_s = trio.current_time() - started_s
        used = {rank: Used.by(process.pid).since(begin[rank]) for rank, process in cluster.processes.items()}
        full = (await status(client, 1))["rss_bytes"]
    again = disk_bytes_per_s(cluster.directory, size)
    figures.tell("disk_bytes_per_s_after", again, f"{again / (1 << 20):.0f} MiB a second")
    disk = (disk + again) / 2
    for rank, of in used.items():
        name = "of_the_node_that_heals" if rank == AWAY else f"of_node_{rank}"
        figures.tell(f"cpu_s_{name}", of.cpu_s, f"{of.cpu_s:.1f} s")
    written = used[AWAY].written / size
    figures.tell("written_by_the_node_that_heals", written, f"{written:.2f} bytes for each byte that it lacked")
    figures.tell("whole_s", took_s, f"{took_s:.1f} s for {format_size(size)}")
    figures.tell("whole_share", size / took_s / disk, f"{size / took_s / disk:.0%} of the disk's own throughput")
    for name, of in (("empty", empty), ("that_has_stored_it", full)):
        more = max(memory) - of
        figures.tell(f"memory_above_a_node_{name}", more, f"{more / (1 << 20):.1f} MiB at most")


async def missed_scattered(cluster: Cluster, size: int, seconds: float, figures: Figures) -> None:
    """The node was away while clients wrote here and there."""
    async with attached(cluster) as client:
        await until_in_sync(client)
        cluster.terminate(AWAY)
        measured = await load(client, scattered(size, seconds, 8, 1))
        started_s = trio.current_time()
        await trio.to_thread.run_sync(cluster.start, AWAY)
        await until_in_sync(client)
        took_s = trio.current_time() - started_s
        up_s = (await status(client, AWAY))["uptime_s"]
    figures.tell("scattered_writes", measured.writes.count, f"{measured.writes.count} in {seconds:g} s")
    figures.tell("scattered_s", took_s, f"{took_s:.2f} s from start to in sync, {up_s:.2f} s of it serving")


async def beside_clients(cluster: Cluster, size: int, seconds: float, figures: Figures) -> None:
    """Clients write while the node heals, and as long before."""
    async with attached(cluster) as client:
        await until_in_sync(client)
        alone = await load(client, scattered(size, seconds, DEPTH, 2))
        cluster.terminate(AWAY)
        await write_all(client, size)
        await trio.to_thread.run_sync(cluster.start, AWAY)
        before = await status(client, AWAY)
        beside = await load(client, scattered(size, seconds, DEPTH, 3))
        after = await status(client, AWAY)
    healed = after["counters"].get("healed", 0) - before["counters"].get("healed", 0)
    for percent in (50.0, 99.0):
        one, other = alone.writes.percentile_s(percent), beside.writes.percentile_s(percent)
        figures.tell(f"p{percent:.0f}_ratio", other / one, f"{1000 * one:.2f} ms alone, {1000 * other:.2f} ms beside")
    rate = healed * SECTOR_SIZE / beside.elapsed_s
    figures.tell("beside_bytes_per_s", rate, f"{rate / (1 << 20):.1f} MiB a second; "
                 f"{'it went on to the end' if not after['heal']['in_sync'] else 'it was done before the end'}")


async def measure(cluster: Cluster, size: int, figures: Figures, *, seconds: float, whole_only: bool) -> None:
    await missed_all(cluster, size, figures)
    if whole_only:
        return
    await missed_scattered(cluster, size, seconds, figures)
    await beside_clients(cluster, size, seconds, figures)


@click.command()
@click.argument("size", default="1GiB")
@click.option("--seconds", type=float, default=15.0, show_default=True, help="Of writes that the node misses.")
@click.option("--whole-only", is_flag=True, help="Only the node that missed SIZE.")
@directory_option
@json_option
def main(size: str, seconds: float, whole_only: bool, directory: Path | None, as_json: bool) -> None:
    """Measure with a disk of SIZE."""
    run_measurement(partial(measure, seconds=seconds, whole_only=whole_only), size, directory, as_json)


if __name__ == "__main__":
    main()
