"""What zeros cost: `python -m scripts.zero_time [--empty] [SIZE]`.

Three nodes on this host, and one attached client. In one run: discarding a disk of SIZE that is empty, and what a
node's memory grows by; writing it with data, and with zeros; trimming it when it is full of data, and the room that
comes back. With --empty, for a large one: discarding it alone, and a start of nodes that were killed then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from dsreg.block_device import BlockDevice
from dsreg.client import Client
from dsreg.config.sizes import format_size
from dsreg.constants import MAX_RUN_BYTES
from dsreg.store import Request, Trim, Write
from dsreg.waiting import Waiter
from scripts.demo.cluster import NODES, Cluster
from scripts.heal_time import attached, status
from scripts.measuring import Figures, directory_option, json_option, run_measurement

# Writes in flight.
DEPTH = 8


async def done(device: BlockDevice, request: Request) -> None:
    waiter = Waiter()
    device.submit(request, waiter.done)
    device.end_turn()
    await waiter.wait()


async def write(device: BlockDevice, size: int, blocks: Sequence[bytes]) -> float:
    """All of it, 1 MiB at a time; in seconds."""
    limit = trio.CapacityLimiter(DEPTH)

    async def write_one(number: int) -> None:
        async with limit:
            await done(device, Write(number * MAX_RUN_BYTES, blocks[number % len(blocks)]))

    started_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(size // MAX_RUN_BYTES):
            nursery.start_soon(write_one, number)
    return trio.current_time() - started_s


async def trim(device: BlockDevice, size: int) -> float:
    started_s = trio.current_time()
    await done(device, Trim(0, size))
    return trio.current_time() - started_s


async def memory(client: Client) -> int:
    """Of the node that has most, in bytes."""
    return max([int((await status(client, rank))["rss_bytes"]) for rank in range(1, NODES + 1)])


async def all_have(client: Client, sectors: int) -> None:
    """Until each node says that it has so many sectors with a value: two of three make a write."""
    for rank in range(1, NODES + 1):
        while (await status(client, rank))["sectors_written"] != sectors:  # noqa: ASYNC110
            await trio.sleep(0.05)


def room_taken(cluster: Cluster) -> int:
    """By the values at all nodes, in bytes."""
    os.sync()
    return sum(path.stat().st_blocks * 512 for path in cluster.directory.rglob("sectors"))


async def measure_start(cluster: Cluster, figures: Figures) -> None:
    """Of nodes that were killed behind a discard, until one answers for the whole disk again."""
    for rank in range(1, NODES + 1):
        cluster.kill(rank)
    started_s = trio.current_time()
    cluster.start_missing()
    async with attached(cluster) as client:
        await client.read(client.sectors - 1)
        took_s = trio.current_time() - started_s
        figures.tell("start_s", took_s, f"{took_s:.2f} s until the killed nodes answer again")
        used = await memory(client)
        figures.tell("start_memory", used, f"{used / (1 << 20):.1f} MiB taken by a node then")


async def measure(cluster: Cluster, size: int, figures: Figures, is_empty: bool = False) -> None:
    zeros, blocks = [bytes(MAX_RUN_BYTES)], [os.urandom(MAX_RUN_BYTES) for _ in range(4)]
    async with attached(cluster) as client:
        device = BlockDevice(client)
        before = await memory(client)
        took_s = await trim(device, size)
        figures.tell("discard_empty_s", took_s, f"{took_s:.2f} s for {format_size(size)}")
        more = await memory(client) - before
        figures.tell("discard_memory", more, f"{more / (1 << 20):.1f} MiB more at a node")
        if is_empty:
            return
        data_s = await write(device, size, blocks)
        figures.tell("data_s", data_s, f"{data_s:.2f} s for {format_size(size)}")
        await all_have(client, size // 4096)
        full = room_taken(cluster)
        trimmed_s = await trim(device, size)
        figures.tell("trim_s", trimmed_s, f"{trimmed_s:.2f} s for {format_size(size)} of data")
        await all_have(client, 0)
        left = room_taken(cluster)
        figures.tell("room_left", left / full, f"{left / (1 << 20):.1f} MiB of {full / (1 << 20):.1f} MiB taken")
        zeros_s = await write(device, size, zeros)
        ratio = f"{data_s / zeros_s:.1f} times as fast as data"
        figures.tell("zeros_s", zeros_s, f"{zeros_s:.2f} s for {format_size(size)}, {ratio}")


@click.command()
@click.argument("size", default="1GiB")
@click.option("--empty", "is_empty", is_flag=True, help="Only discard it: of a disk of any size.")
@directory_option
@json_option
def main(size: str, is_empty: bool, directory: Path | None, as_json: bool) -> None:
    """Measure with a disk of SIZE."""

    async def run(cluster: Cluster, size: int, figures: Figures) -> None:
        await measure(cluster, size, figures, is_empty)
        if is_empty:
            await measure_start(cluster, figures)

    run_measurement(run, size, directory, as_json)


if __name__ == "__main__":
    main()
