"""`dsreg status`: which nodes answer, how fast, and whether there is a quorum."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import trio

from dsreg.cli.attached import Attachment, attachment_of
from dsreg.cli.faults import EXIT_CONFIG, EXIT_NO_QUORUM, is_config_fault
from dsreg.cli.health import Assessment, NodeAnswer, assess, assess_one, changed_directories, serves, why_no_space
from dsreg.cli.in_sync import can_lose
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.progress import progress_bar
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.constants import MAX_RANK
from dsreg.errors import ClientError, ConfigError, OperationTimeout, Outcome
from dsreg.register.quorum import majority_of


@dataclass(frozen=True, slots=True)
class Survey:
    """What the nodes answered, by rank. `error`: why a read of sector 0 did not go through; None if it did."""

    answers: tuple[NodeAnswer, ...]
    error: ClientError | None = None

    @property
    def quorum(self) -> bool:
        return self.error is None

    @property
    def fault(self) -> str:
        return "" if self.error is None else self.error.reason

    @property
    def answering(self) -> int:
        changed = changed_directories(self.answers)
        return sum(serves(answer, changed) for answer in self.answers)

    @property
    def assessment(self) -> Assessment:
        # What is wrong here all nodes say alike.
        return assess(() if is_config_fault(self.error) else self.answers, self.fault)

    @property
    def attachment(self) -> Attachment:
        return attachment_of(answer.report for answer in self.answers if answer.report is not None)


@click.command()
@config_argument
@config_option
@click.option("--timeout", "timeout_s", type=Seconds(), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True,
              help="For monitoring: one line, and exit with 0 (well), 1 (degraded) or 2 (critical).")
@click.option("--rank", type=click.IntRange(1, MAX_RANK), help="With --check: look at this node alone.")
@click.pass_obj
def status(warnings: list[str], file: Path | None, config_path: Path | None, timeout_s: float, as_json: bool,
           check: bool, rank: int | None) -> None:
    """Show the nodes of a cluster, whether they have a quorum, and who has attached the disk.

    A quorum is there when a read through a majority succeeds: that is tried, not guessed. Exits with 3 when it
    is not there, and with 2 when the configuration or the key is wrong.

    \b
    With --check the exit code is another one:
      0  well: all nodes answer, are linked to each other and undamaged
      1  degraded: the disk works, and somebody should look
      2  critical: no quorum, no space for new data, a wrong configuration or key; with --rank: it does not answer
    """
    if rank is not None and not check:
        raise click.UsageError("--rank is for --check")
    config = chosen_config(config_path, file)
    if check:
        _check(config, timeout_s, as_json, rank, warnings)
    survey = trio.run(_survey, config, timeout_s)
    warnings.clear()  # of the client; they are in what is printed
    if as_json:
        click.echo(json.dumps(_as_dict(config, survey), indent=2))
    elif survey.error is not None and is_config_fault(survey.error):
        raise survey.error  # no node is to be asked like that: there is one thing to say, and no table
    else:
        from dsreg.cli.status_table import print_table

        print_table(config, survey.answers, survey.attachment, survey.fault)
    if survey.error is not None:
        sys.exit(EXIT_CONFIG if is_config_fault(survey.error) else EXIT_NO_QUORUM)


def _check(config: ClusterConfig, timeout_s: float, as_json: bool, rank: int | None, warnings: list[str]) -> NoReturn:
    """`--check`: the line and the exit code of the worst that is found."""
    if rank is None:
        survey = trio.run(_survey, config, timeout_s)
        found = survey.assessment
        what = f"{survey.answering} of {len(survey.answers)} nodes answer"
    else:
        found = assess_one(trio.run(_ask_one, config, _node_of(config, rank), timeout_s))
        what = f"node {rank}"
    warnings.clear()
    if as_json:
        report = {"health": found.health.name.lower(), "reasons": found.reasons}
        click.echo(json.dumps(report if rank is not None else {**_as_dict(config, survey), **report}, indent=2))
    else:
        click.echo(f"{found.health.name.lower()}: {'; '.join((what, *found.reasons))}")
    sys.exit(found.health)


def _node_of(config: ClusterConfig, rank: int) -> NodeAddress:
    if rank > len(config.nodes):
        raise ConfigError([f"rank {rank}: not in {config.path}; give one of 1..{len(config.nodes)}"])
    return config.nodes[rank - 1]


async def _ask_one(config: ClusterConfig, node: NodeAddress, timeout_s: float) -> NodeAnswer:
    async with Client(config) as client:
        return await _ask(client, node, timeout_s)


async def _ask(client: Client, node: NodeAddress, timeout_s: float) -> NodeAnswer:
    try:
        return NodeAnswer(node, await client.status(node.rank, timeout_s=timeout_s))
    except ClientError as error:
        return NodeAnswer(node, None, client.complaint(node.rank) or await _why_silent(node, error, timeout_s))


async def _survey(config: ClusterConfig, timeout_s: float) -> Survey:
    answers: tuple[NodeAnswer, ...] = ()
    late = f"no majority answered a read within {timeout_s:g} s"
    error: ClientError | None = OperationTimeout(late, Outcome.DID_NOT_HAPPEN)

    async def ask() -> None:
        nonlocal answers
        answers = await ask_all(client, config.nodes, timeout_s)

    async def try_read() -> None:
        nonlocal error
        with trio.move_on_after(timeout_s):
            try:
                await client.read(0, 1)
                error = None
            except ClientError as raised:
                error = raised

    async with progress_bar("asking the nodes", None, show_bytes=False), Client(config) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_read)
            nursery.start_soon(ask)
    return Survey(answers, error)


async def ask_all(client: Client, nodes: Sequence[NodeAddress], timeout_s: float) -> tuple[NodeAnswer, ...]:
    """What these nodes answer, all asked at once."""
    answers: dict[int, NodeAnswer] = {}

    async def ask(node: NodeAddress) -> None:
        answers[node.rank] = await _ask(client, node, timeout_s)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return tuple(answers[rank] for rank in sorted(answers))


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
    changed = changed_directories(survey.answers)
    nodes = [
        {"address": answer.node.address, "answers": answer.report is not None, "fault": answer.fault,
         **(answer.report or {}), "rank": answer.node.rank, "directory_fault": changed.get(answer.node.rank, "")}
        for answer in survey.answers
    ]
    return {"sectors": config.sectors, "nodes": nodes, "answering": survey.answering,
            "can_lose": can_lose(survey.answers),
            "needed": majority_of(node.rank for node in config.nodes).needed, "quorum": survey.quorum,
            "fault": survey.fault,
            "no_space": survey.quorum and bool(why_no_space(survey.answers)),
            "epoch": survey.attachment.epoch, "attached_by": survey.attachment.by}

