"""`dsreg status`: which nodes answer, how fast, how complete their copies are, and whether there is a quorum."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click
import trio

from dsreg.cli.answers import NodeAnswer
from dsreg.cli.faults import EXIT_CONFIG, EXIT_NO_QUORUM, is_config_fault
from dsreg.cli.health import assess_one
from dsreg.cli.in_force import in_force
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.status_json import as_dict
from dsreg.cli.survey import ask_one, survey_once
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.constants import MAX_RANK


@click.command()
@config_argument
@config_option
@click.option("--timeout", "timeout_s", type=Seconds(), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one in each line.")
@click.option("--watch", is_flag=True, help="Stay, and show it anew every second, until Ctrl-C.")
@click.option("--check", is_flag=True,
              help="For monitoring: one line, and exit with 0 (well), 1 (degraded) or 2 (critical).")
@click.option("--rank", type=click.IntRange(1, MAX_RANK), help="With --check: look at this node alone.")
@click.pass_obj
def status(warnings: list[str], file: Path | None, config_path: Path | None, timeout_s: float, as_json: bool,
           watch: bool, check: bool, rank: int | None) -> None:
    """Show the nodes of a cluster, whether they have a quorum, and who has attached the disk.

    A quorum is there when a read through a majority succeeds: that is tried, not guessed. Exits with 3 when it
    is not there, and with 2 when the configuration or the key is wrong; --watch stays all the same, and exits with 0
    when Ctrl-C ends it, 143 on SIGTERM.

    \b
    With --check the exit code is another one:
      0  well: all nodes answer, are linked to each other and undamaged
      1  degraded: the disk works, and somebody should look
      2  critical: no quorum, no space for new data, a wrong configuration or key; with --rank: it does not answer
    """
    if rank is not None and not check:
        raise click.UsageError("--rank is for --check")
    if watch and check:
        raise click.UsageError("--check asks once: leave out --watch")
    config = chosen_config(config_path, file)
    if watch:
        from dsreg.cli.status_watch import run_watch

        sys.exit(run_watch(config, timeout_s, as_json=as_json, warnings=warnings))
    if check:
        _check(config, timeout_s, as_json, rank, warnings)
    found = trio.run(survey_once, config, timeout_s)
    warnings.clear()  # of the client; they are in what is printed
    if as_json:
        click.echo(json.dumps(as_dict(config, found), indent=2))
    elif found.error is not None and is_config_fault(found.error):
        raise found.error  # no node is to be asked like that: there is one thing to say, and no table
    else:
        from dsreg.cli.console import new_console
        from dsreg.cli.status_table import print_survey

        print_survey(new_console(), config, found)
    if found.error is not None:
        sys.exit(EXIT_CONFIG if is_config_fault(found.error) else EXIT_NO_QUORUM)


def _check(config: ClusterConfig, timeout_s: float, as_json: bool, rank: int | None, warnings: list[str]) -> NoReturn:
    """`--check`: the line and the exit code of the worst that is found."""
    if rank is None:
        seen = trio.run(survey_once, config, timeout_s)
        found = seen.assessment
        what = f"{seen.answering} of {in_force(seen.answers).quorum.size} nodes answer"
    else:
        found = assess_one(trio.run(_ask_alone, config, config.node(rank), timeout_s))
        what = f"node {rank}"
    warnings.clear()
    if as_json:
        report = {"health": found.health.name.lower(), "reasons": found.reasons}
        click.echo(json.dumps(report if rank is not None else {**as_dict(config, seen), **report}, indent=2))
    else:
        click.echo(f"{found.health.name.lower()}: {'; '.join((what, *found.reasons))}")
    sys.exit(found.health)


async def _ask_alone(config: ClusterConfig, node: NodeAddress, timeout_s: float) -> NodeAnswer:
    async with Client(config) as client:
        return await ask_one(client, node, timeout_s)
