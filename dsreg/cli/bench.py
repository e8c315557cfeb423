"""`dsreg bench`: put a load on the disk and say what it took, of time and of CPU."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import click
import trio

from dsreg.cli.console import new_console
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option, timeout_option, to_size
from dsreg.cli.progress import progress_bar
from dsreg.cli.workload import Latencies, Load, Measured, run_load
from dsreg.client import Attach, Client
from dsreg.config import ClusterConfig, format_size
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE
from dsreg.errors import ClientError

# Beyond what a client keeps in flight, requests would only queue in the bench itself.
_MAX_DEPTH = 256
_STATUS_TIMEOUT_S = 2.0


@click.command()
@config_argument
@config_option
@timeout_option
@click.option("--depth", type=click.IntRange(1, _MAX_DEPTH), default=64, show_default=True, help="Requests in flight.")
@click.option("--block-size", callback=to_size, metavar="SIZE", default="4KiB", show_default=True,
              help="Size of a request, 4KiB to 1MiB.")
@click.option("--mix", "read_percent", type=click.IntRange(0, 100), default=0, show_default=True, metavar="PERCENT",
              help="Share of reads; the others are writes.")
@click.option("--pattern", type=click.Choice(["random", "sequential"]), default="random", show_default=True)
@click.option("--seconds", type=Seconds(), default=10.0, show_default=True)
@click.option("--span", callback=to_size, metavar="SIZE", help="Use this much from the start of the disk. "
              "[default: all of it]")
@click.option("--seed", type=int, help="Seed of positions and data.  [default: random, printed]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--yes", is_flag=True, help="Overwrite what is on the disk.")
@click.option("--attach", is_flag=True, help="Attach the disk, as a mount does: writes take one round instead of two. "
              "Refused while another client that is alive has it attached.")
@click.option("--force", is_flag=True, help="Write even while another client has the disk attached.")
def bench(file: Path | None, config_path: Path | None, timeout_s: float, depth: int, block_size: int,
          read_percent: int, pattern: str, seconds: float, span: int | None, seed: int | None, as_json: bool,
          yes: bool, attach: bool, force: bool) -> None:
    """Measure requests a second, throughput, latency and CPU time per request.

    WRITES DESTROY WHAT IS ON THE DISK, so anything but --mix 100 needs --yes. Sectors that were never
    written are cheap to read: write a span first, then read the same one.
    """
    config = chosen_config(config_path, file)
    size = config.sectors * SECTOR_SIZE
    span = size if span is None else span
    if block_size % SECTOR_SIZE or not SECTOR_SIZE <= block_size <= MAX_RUN_BYTES:
        raise click.BadParameter("give a multiple of 4KiB from 4KiB to 1MiB", param_hint="--block-size")
    if not block_size <= span <= size:
        raise click.BadParameter(f"give at least one block and at most the disk ({format_size(size)})",
                                 param_hint="--span")
    if read_percent < 100 and not yes:
        raise click.UsageError(f"this overwrites the first {format_size(span)} of the disk of {config.path}; "
                               "confirm with --yes, or measure reads alone with --mix 100")
    if attach and force:
        raise click.UsageError("--attach and --force exclude each other: --force writes while another client has the "
                               "disk attached")
    load = Load(depth, block_size // SECTOR_SIZE, read_percent, pattern == "sequential", seconds,
                span // SECTOR_SIZE, secrets.randbits(32) if seed is None else seed)
    hold = Attach(name=f"dsreg bench on {socket.gethostname()}, process {os.getpid()}") if attach else None
    report = trio.run(_run, config, load, timeout_s, hold, force)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_report(report)


async def _run(
    config: ClusterConfig, load: Load, timeout_s: float, hold: Attach | None, force: bool
) -> dict[str, Any]:
    async with (
        progress_bar("measuring", load.seconds, show_bytes=False) as advance,
        Client(config, timeout_s, hold, force) as client,
    ):
        if hold is not None:
            await client.attached()
        await client.read(0, 1)  # connecting is no part of what is measured
        before = await _nodes_cpu_s(config, client)
        client_before_s = time.process_time()
        measured = await run_load(client, load, advance)
        client_cpu_s = time.process_time() - client_before_s
        after = await _nodes_cpu_s(config, client)
    # A node that was started anew in between has begun its count again.
    known = [key for key in after if key in before]
    nodes_cpu_s = sum(after[key] - before[key] for key in known)
    report = _report(load, measured, client_cpu_s, nodes_cpu_s, [rank for rank, _ in known])
    return {"attached": hold is not None, **report}


async def _nodes_cpu_s(config: ClusterConfig, client: Client) -> dict[tuple[int, int], float]:
    """CPU seconds by (rank, incarnation) of the nodes that answer."""
    seconds: dict[tuple[int, int], float] = {}

    async def ask(rank: int) -> None:
        try:
            report = await client.status(rank, timeout_s=_STATUS_TIMEOUT_S)
        except ClientError:
            return  # the report names the nodes that were counted
        seconds[rank, int(report["incarnation"])] = float(report["cpu_s"])

    async with trio.open_nursery() as nursery:
        for node in config.nodes:
            nursery.start_soon(ask, node.rank)
    return dict(sorted(seconds.items()))


def _report(
    load: Load, measured: Measured, client_cpu_s: float, nodes_cpu_s: float, ranks: list[int]
) -> dict[str, Any]:
    """Everything in one object: rates per second, MB = 10^6 bytes, latencies in ms, CPU in microseconds."""
    block_size = load.block_sectors * SECTOR_SIZE

    def kind(latencies: Latencies) -> dict[str, float]:
        rate = latencies.count / measured.elapsed_s
        return {
            "count": latencies.count, "per_s": round(rate, 1), "MB_per_s": round(rate * block_size / 1e6, 3),
            "p50_ms": round(1000 * latencies.percentile_s(50), 3),
            "p99_ms": round(1000 * latencies.percentile_s(99), 3), "max_ms": round(1000 * latencies.max_s, 3),
        }

    operations = max(1, measured.operations)
    return {
        "depth": load.depth, "block_size": block_size, "read_percent": load.read_percent,
        "pattern": "sequential" if load.sequential else "random", "span": load.span_sectors * SECTOR_SIZE,
        "seed": load.seed, "elapsed_s": round(measured.elapsed_s, 3),
        "reads": kind(measured.reads), "writes": kind(measured.writes),
        "client_cpu_us_per_op": round(1e6 * client_cpu_s / operations, 1),
        "nodes_cpu_us_per_op": round(1e6 * nodes_cpu_s / operations, 1), "nodes_counted": ranks,
    }


def _print_report(report: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    console = new_console()
    table = Table("", "ops/s", "MB/s", "p50 ms", "p99 ms", "max ms", box=box.SIMPLE_HEAD, pad_edge=False,
                  padding=(0, 1, 0, 0), show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("reads", "writes"):
        kind = report[name]
        if kind["count"]:
            table.add_row(name, f"{kind['per_s']:,.0f}", f"{kind['MB_per_s']:,.1f}", f"{kind['p50_ms']:.2f}",
                          f"{kind['p99_ms']:.2f}", f"{kind['max_ms']:.2f}")
    console.print(f"{report['pattern']} requests of {format_size(report['block_size'])}, {report['depth']} in flight, "
                  f"{report['read_percent']} % reads, over {format_size(report['span'])}, "
                  f"{report['elapsed_s']:.1f} s, seed {report['seed']}" + (", attached" if report["attached"] else ""))
    console.print(table)
    ranks = ", ".join(map(str, report["nodes_counted"])) or "none answered"
    console.print(f"CPU per operation: client {report['client_cpu_us_per_op']:.0f} us, "
                  f"nodes together {report['nodes_cpu_us_per_op']:.0f} us (nodes {ranks})")
