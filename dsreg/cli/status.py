"""`dsreg status`: which nodes answer, how fast, and whether there is a quorum."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from dsreg.cli.attached import Attachment, attachment_of
from dsreg.cli.faults import EXIT_NO_QUORUM
from dsreg.cli.options import chosen_config, config_argument, config_option
from dsreg.cli.progress import progress_bar
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.core.quorum import majority
from dsreg.errors import ClientError

# Without a terminal there is no width to ask for; this holds the table without wrapping.
_PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node's STATUS, or why there is none."""

    node: NodeAddress
    report: dict[str, Any] | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What all nodes answered, by rank. `quorum`: a read of sector 0 went through; if not, `fault` says why."""

    answers: tuple[NodeAnswer, ...]
    quorum: bool
    fault: str = ""

    @property
    def answering(self) -> int:
        return sum(answer.report is not None for answer in self.answers)

    @property
    def attachment(self) -> Attachment:
        return attachment_of(answer.report for answer in self.answers if answer.report is not None)


@click.command()
@config_argument
@config_option
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(file: Path | None, config_path: Path | None, timeout_s: float, as_json: bool) -> None:
    """Show the nodes of a cluster, whether they have a quorum, and who has attached the disk.

    A quorum is there when a read through a majority succeeds: that is tried, not guessed. Exits with 3 when it
    is not there.
    """
    config = chosen_config(config_path, file)
    survey = trio.run(_survey, config, timeout_s)
    if as_json:
        click.echo(json.dumps(_as_dict(config, survey), indent=2))
    else:
        _print_table(config, survey)
    if not survey.quorum:
        sys.exit(EXIT_NO_QUORUM)


async def _survey(config: ClusterConfig, timeout_s: float) -> Survey:
    answers: dict[int, NodeAnswer] = {}
    quorum, fault = False, f"no majority answered a read within {timeout_s:g} s"

    async def ask(node: NodeAddress) -> None:
        try:
            answers[node.rank] = NodeAnswer(node, await client.status(node.rank, timeout_s=timeout_s))
        except ClientError as error:
            fault = client.complaint(node.rank) or await _why_silent(node, error, timeout_s)
            answers[node.rank] = NodeAnswer(node, None, fault)

    async def try_read() -> None:
        nonlocal quorum, fault
        with trio.move_on_after(timeout_s):
            try:
                await client.read(0, 1)
                quorum = True
            except ClientError as error:
                fault = error.reason

    async with progress_bar("asking the nodes", None, show_bytes=False), Client(config) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_read)
            for node in config.nodes:
                nursery.start_soon(ask, node)
    return Survey(tuple(answers[rank] for rank in sorted(answers)), quorum, "" if quorum else fault)


async def _why_silent(node: NodeAddress, error: ClientError, timeout_s: float) -> str:
    """What a plain connection to the node says about its silence."""
    try:
        with trio.fail_after(timeout_s):
            await (await trio.open_tcp_stream(node.host, node.port)).aclose()
    except trio.TooSlowError:
        return "no connection in time"
    except (OSError, ExceptionGroup) as refusal:
        return _reason(refusal)
    return f"connects, but: {error.reason}"


def _reason(error: OSError | ExceptionGroup[Exception]) -> str:
    """trio names only the address in its message; what the kernel said is below it."""
    cause = error.__cause__
    if isinstance(cause, OSError | ExceptionGroup):
        return _reason(cause)
    if isinstance(error, ExceptionGroup):
        inner = error.exceptions[0]
        return _reason(inner) if isinstance(inner, OSError | ExceptionGroup) else str(inner)
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()


def _as_dict(config: ClusterConfig, survey: Survey) -> dict[str, Any]:
    nodes = [
        {"address": answer.node.address, "answers": answer.report is not None, "fault": answer.fault,
         **(answer.report or {}), "rank": answer.node.rank}
        for answer in survey.answers
    ]
    return {"sectors": config.sectors, "nodes": nodes, "answering": survey.answering,
            "needed": majority(len(nodes)), "quorum": survey.quorum, "fault": survey.fault,
            "epoch": survey.attachment.epoch, "attached_by": survey.attachment.by}


def _print_table(config: ClusterConfig, survey: Survey) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    table = Table("rank", "address", "state", "ms", "version", "starts", "up", "written", "peers",
                  title=f"{config.path}: {format_size(config.sectors * SECTOR_SIZE)}, {config.sectors} sectors")
    for answer in survey.answers:
        node, report = answer.node, answer.report
        if report is None:
            table.add_row(str(node.rank), node.address, f"[red]{answer.fault}[/red]")
            continue
        damaged = report.get("damaged")
        state = f"[yellow]answers, {damaged} damaged[/yellow]" if damaged else "[green]answers[/green]"
        table.add_row(
            str(node.rank), node.address, state, f"{1000 * report['round_trip_s']:.1f}", str(report.get("version")),
            str(report.get("incarnation")), _duration(float(report.get("uptime_s", 0))),
            str(report.get("sectors_written")), _peers(report.get("peers", {})))
    console.print(table)
    if survey.answering:
        console.print(_attachment_line(survey.attachment), markup=False)
    counts = f"{survey.answering} of {len(survey.answers)} nodes answer, {majority(len(survey.answers))} are needed"
    if survey.quorum:
        console.print(f"[green]quorum[/green]: {counts}")
    else:
        console.print(f"[red]no quorum[/red]: {counts}; {survey.fault}")


def _attachment_line(attachment: Attachment) -> str:
    if attachment.by:
        return f"attached by {attachment.by} (epoch {attachment.epoch})"
    return f"not attached (epoch {attachment.epoch})" if attachment.epoch else "not attached, and never was"


def _peers(peers: dict[str, str]) -> str:
    """Connected peers by rank; what is not a sealed link is said."""
    up = [rank if link == "sealed" else f"{rank} ({link})" for rank, link in sorted(peers.items()) if link != "down"]
    return f"{len(up)} of {len(peers)}: {', '.join(up)}" if up else f"0 of {len(peers)}"


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 1:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min {seconds % 60:.0f} s" if minutes >= 1 else f"{seconds:.0f} s"
