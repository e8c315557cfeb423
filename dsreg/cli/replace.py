"""`dsreg replace`: a node goes to another machine, or address, while everything else runs. docs/addresses.md."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from dsreg.cli.faults import EXIT_CONFIG, EXIT_FAILED, EXIT_NO_QUORUM
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option, to_address
from dsreg.cli.progress import progress_bar
from dsreg.cli.survey import survey_once
from dsreg.client import Client
from dsreg.config import ClusterConfig, format_address
from dsreg.config.address import canonical_host, is_local_only, why_not_reachable
from dsreg.config.edit import replace_file, with_address
from dsreg.constants import MAX_RANK
from dsreg.errors import ConfigError, is_config_fault
from dsreg.health.answers import NodeAnswer
from dsreg.health.in_force import of_members
from dsreg.health.in_sync import copies, is_in_sync
from dsreg.health.serving import changed_directories, serves
from dsreg.register.quorum import mask
from dsreg.survey import Survey, ask_cluster

# Of the link that a node has to another one: it reaches it.
_LINKED = ("contract", "extension", "sealed")
POLL_S = 0.2
ASK_S = 2.0


@click.command()
@config_argument
@config_option
@click.option("--rank", type=click.IntRange(1, MAX_RANK), required=True, help="The node that is to be elsewhere.")
@click.option("--address", callback=to_address, metavar="HOST:PORT", required=True,
              help="Where it is to be: as the other nodes and all clients reach it.")
@click.option("--force", is_flag=True, help="Also while another node lacks something. No data is lost by that; but if "
              "one more node fails before all is healed, the disk may stop until that one is back.")
@click.option("--timeout", "timeout_s", type=Seconds(), default=5.0, show_default=True, metavar="SECONDS",
              help="How long to wait for the nodes, and then for all but this one to have all data.")
@click.pass_obj
def replace(
    warnings: list[str], file: Path | None, config_path: Path | None, rank: int, address: tuple[str, int],
    force: bool, timeout_s: float,
) -> None:
    """Let a node go on at another address, on a new machine or the old one, under load.

    Checks that the old node is stopped and the others have all data, writes the address into the configuration
    file, and prints what to do on the new machine. Only that node is started; the other nodes and all clients learn the
    address from it, whatever their own files say.
    """
    config = chosen_config(config_path, file)
    _check_address(config, rank, address)
    found = trio.run(_asked, config, rank, force, timeout_s)
    warnings.clear()  # of the client: what is wrong is in what is printed
    if found.error is not None:
        click.echo(f"dsreg: nothing is changed: {found.error.reason}", err=True)
        sys.exit(EXIT_CONFIG if is_config_fault(found.error) else EXIT_NO_QUORUM)
    if runs := why_it_still_runs(found.answers, rank):
        click.echo(f"dsreg: nothing is changed: {runs}", err=True)
        sys.exit(EXIT_FAILED)
    behind = why_not_now(found.answers, rank)
    for line in behind:
        click.echo(f"dsreg: {'warning' if force else 'nothing is changed'}: {line}", err=True)
    if behind and not force:
        click.echo(f"dsreg: wait for that (dsreg wait {_quoted(config.path)} --healed), or give --force", err=True)
        sys.exit(EXIT_FAILED)
    _write(config, rank, format_address(*address))
    click.echo(_what_to_do(config, rank, address))


async def _asked(config: ClusterConfig, rank: int, force: bool, timeout_s: float) -> Survey:
    """What the nodes answer. While others than `rank` lack something these are asked again, for `timeout_s` more: a
    node that was slow compares its copy for a moment."""
    found = await survey_once(config, timeout_s)
    if force or not found.quorum or why_it_still_runs(found.answers, rank):
        return found
    end_s = trio.current_time() + timeout_s
    others = mask(answer.node.rank for answer in found.answers if answer.node.rank != rank)
    async with progress_bar("waiting until the others have all data", None, show_bytes=False), Client(config) as client:
        while why_not_now(found.answers, rank) and trio.current_time() < end_s:
            await trio.sleep(POLL_S)
            answers = await ask_cluster(client, config, ASK_S, others)
            if mask(answer.node.rank for answer in answers) == others:  # also those that the file does not list
                found = Survey(answers)
    return found


def _check_address(config: ClusterConfig, rank: int, address: tuple[str, int]) -> None:
    host, port = address
    faults = []
    if rank not in config.ranks:
        faults.append(config.no_such(rank))
    if len(config.nodes) == 1:
        faults.append("a cluster of one node has no other that could tell where it is: stop it, move its directory, "
                      f"and change the address in all copies of {config.path}")
    if fault := why_not_reachable(host):
        faults.append(f"--address: {fault}")
    others = [node for node in config.nodes if node.rank != rank]
    if is_local_only(host) and any(not is_local_only(node.host) for node in others):
        faults.append(f"--address: {host} is for one host alone, and the other nodes are on others")
    for node in others:
        if (canonical_host(node.host), node.port) == (canonical_host(host), port):
            faults.append(f"--address: {node.address} is that of node {node.rank}")
    if faults:
        raise ConfigError(faults)


def why_it_still_runs(answers: Sequence[NodeAnswer], rank: int) -> str:
    """Why the node `rank` cannot be exchanged: it has not been stopped. "" if it is, as far as anybody can see."""
    advice = (f"stop it first (systemctl disable --now dsreg-node@{rank}, or SIGTERM to `dsreg node`), and see that "
              f"nothing starts it again: two processes must not run as node {rank}")
    for answer in answers:
        if answer.node.rank == rank and answer.report is not None:
            return f"node {rank} runs, at {answer.node.address}: {advice}"
        if answer.report is not None and answer.report.get("peers", {}).get(str(rank)) in _LINKED:
            return f"node {rank} runs: node {answer.node.rank} is linked to it; {advice}"
    return ""


def why_not_now(answers: Sequence[NodeAnswer], rank: int) -> list[str]:
    """What the other nodes lack while `rank` is down, a line for each."""
    changed, found, lines = changed_directories(answers), copies(answers), []
    for answer in of_members(answers):
        other = answer.node.rank
        if other == rank:
            continue
        if answer.report is None:
            lines.append(f"node {other} does not answer: {answer.fault}")
        elif not serves(answer, changed):
            lines.append(f"node {other} does not count: {changed.get(other) or answer.report['lives']['waits_for']}")
        elif not is_in_sync(answer):
            lines.append(f"node {other} does not have all data yet ({found[other].state})")
    return lines


def _write(config: ClusterConfig, rank: int, address: str) -> None:
    if config.node(rank).address == address:
        return  # it was written before
    try:
        text = config.path.read_bytes().decode("utf-8")  # with the ends of lines that it has
        edited = with_address(text, rank, address)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{config.path}: {error}"]) from None
    replace_file(config.path, edited)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _what_to_do(config: ClusterConfig, rank: int, address: tuple[str, int]) -> str:
    host, path = address[0], _quoted(config.path)
    node = config.node(rank)
    lines = [
        f"{config.path}: node {rank} is at {format_address(*address)} from now on. On {host}:",
        f"  1. copy this file and the keys that it names, with their modes (scp -p), to {path}",
        "  2. move the old machine's directory there (a copy made since its node was stopped), and start the node:",
        f"       dsreg node --config {path} --rank {rank} --storage DIR",
        "     If that directory is lost: the same with an empty one and --rejoin; it learns what the others have",
        "Then, anywhere:",
        f"       dsreg wait {path} --healed",
        "Nothing else is restarted: the other nodes and all clients learn the address. The file on other hosts may be",
        "replaced whenever it is convenient; never start the old machine's node again.",
    ]
    if node.listen is not None:
        where = format_address(*node.listen)
        lines.insert(1, f"  0. the file says listen = {where} for this node: change that if it is not so there")
    return "\n".join(lines)
