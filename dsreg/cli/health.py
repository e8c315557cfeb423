"""`dsreg health`: what the checks of dsreg.health find, with an exit code for a monitoring system."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.status_json import HEALTH, findings_as_dict
from dsreg.cli.survey import survey_once
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.constants import MAX_RANK
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import CHECKS, examine, to_do, worst
from dsreg.health.findings import Finding, Severity, State
from dsreg.health.in_force import in_force
from dsreg.survey import ask_one


@click.command(epilog="\b\nThe checks:\n" + "\n".join(f"  {check.name:18} {check.about}" for check in CHECKS))
@config_argument
@config_option
@click.option("--timeout", "timeout_s", type=Seconds(), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.option("--rank", type=click.IntRange(1, MAX_RANK), help="Ask this node alone, about itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: all findings, and each check by name.")
@click.pass_obj
def health(
    warnings: list[str], file: Path | None, config_path: Path | None, timeout_s: float, rank: int | None, as_json: bool
) -> None:
    """Say whether a cluster is well, what is not, and what to do.

    The first line says it all, and is followed by a line for each thing that somebody should do.

    \b
    Exit codes, as Nagios has them:
      0  well: perhaps with notices
      1  degraded: the disk works, and somebody should look
      2  critical: no quorum, no space for new data, a wrong configuration or key; with --rank: it does not answer
    """
    config = chosen_config(config_path, file)
    if rank is None:
        seen = trio.run(survey_once, config, timeout_s)
        found, answering, size = seen.findings(config), seen.answering, in_force(seen.answers).quorum.size
        what = f"{answering} of {size} nodes answer"
    else:
        answer = trio.run(_ask_alone, config, config.node(rank), timeout_s)
        found = examine(State((answer,), file=str(config.path), alone=True))
        answering, size = int(answer.report is not None), 1
        what = "" if answer.report is None else f"node {rank} answers"
    warnings.clear()  # of the client: what is wrong is in what is printed
    if as_json:
        report = {**findings_as_dict(found), "answering": answering, "nodes": size}
        click.echo(json.dumps(report, indent=2))
    else:
        for line in lines_of(what, found):
            click.echo(line)
    sys.exit(worst(found))


def lines_of(what: str, found: Sequence[Finding]) -> list[str]:
    """For people, and for a monitoring system that shows them the first line. `what`: who answers, "" if nobody."""
    loud = [finding.sentence for finding in found if finding.severity > Severity.NOTICE]
    quiet = [finding.sentence for finding in found if finding.severity is Severity.NOTICE]
    return [
        f"{HEALTH[worst(found)]}: {'; '.join(filter(None, (what, *loud)))}",
        *(f"notice: {sentence}" for sentence in quiet),
        *(f"to do: {line}" for line in to_do(found)),
    ]


async def _ask_alone(config: ClusterConfig, node: NodeAddress, timeout_s: float) -> NodeAnswer:
    async with Client(config) as client:
        return await ask_one(client, node, timeout_s)
