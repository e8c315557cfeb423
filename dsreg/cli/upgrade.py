"""`dsreg upgrade --plan`: in which order the nodes are upgraded, or why not now. It changes nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import trio

from dsreg.cli.faults import EXIT_FAILED
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.survey import survey_once
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.health.findings import Severity
from dsreg.health.in_force import of_members
from dsreg.health.in_sync import can_lose, why_not_more
from dsreg.survey import Survey
from dsreg.version import VERSION

_MINOR = re.compile(r"(\d+)\.(\d+)\b")


@click.command()
@config_argument
@config_option
@click.option("--plan", is_flag=True, required=True, help="Print the steps; nothing is changed.")
@click.option("--to", "version", default=VERSION, show_default="that of this dsreg", metavar="VERSION",
              help="The version that all nodes are to have.")
@click.option("--timeout", "timeout_s", type=Seconds(), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.pass_obj
def upgrade(
    warnings: list[str], file: Path | None, config_path: Path | None, plan: bool, version: str, timeout_s: float
) -> None:
    """Print in which order the nodes are upgraded, and what to wait for in between, by what they say now.

    Nodes that have the version already are left out: given again after each step, it prints what is left.
    Exits with 1, and says why, where it is not safe to begin: one node after the other is down for a moment, and the
    others have to be enough meanwhile.
    """
    config = chosen_config(config_path, file)
    found = trio.run(survey_once, config, timeout_s)
    warnings.clear()  # of the client; they are in what is printed
    if reasons := obstacles(config, found, version):
        for reason in reasons:
            click.echo(f"dsreg: not now: {reason}", err=True)
        sys.exit(EXIT_FAILED)
    for line in steps(config, found, version):
        click.echo(line)


def obstacles(config: ClusterConfig, found: Survey, version: str) -> list[str]:
    """Why no node may be taken down now, one line each, or be of `version` beside the others."""
    reasons = [finding.sentence for finding in found.findings(config) if finding.severity > Severity.NOTICE]
    if not reasons and can_lose(found.answers) < 1:
        reasons.append(f"no node may be missing now: {why_not_more(found.answers) or 'there are too few'}")
    far = [answer.node.rank for answer in of_members(found.answers) if _is_far(_version_of(answer), version)]
    if far:
        reasons.append(f"{version} works with the minor version before it (docs/releasing.md), and these nodes are "
                       f"older: {', '.join(map(str, far))}: upgrade to the versions in between first")
    return reasons


def _version_of(answer: NodeAnswer) -> str:
    """Without the kind of build; "unknown" where it does not say."""
    return "unknown" if answer.report is None else str(answer.report.get("version", "unknown")).split()[0]


def _is_far(has: str, version: str) -> bool:
    """Whether there is a minor version between them. Of what is no MAJOR.MINOR nothing is known, so not."""
    found, wanted = _MINOR.match(has), _MINOR.match(version)
    return (found is not None and wanted is not None and found[1] == wanted[1]
            and int(wanted[2]) - int(found[2]) > 1)


def steps(config: ClusterConfig, found: Survey, version: str) -> list[str]:
    """For people: comments, and the commands between them."""
    lines: list[str] = []
    for answer in of_members(found.answers):
        has = _version_of(answer)
        if has != version:
            rank = answer.node.rank
            lines += [
                f"# node {rank} is {has}: install {version} on its host, {answer.node.host}, and there:",
                f"systemctl restart dsreg-node@{rank}",
                f"dsreg wait --healed {config.path}",
            ]
    if not lines:
        return [f"# all nodes are {version}: there is nothing to do"]
    clients = f"# then on all hosts with clients: detach the disk, install {version}, and attach it again"
    if not found.attachment.by:
        return [*lines, clients]
    stays = (f"# {found.attachment.by} has the disk attached, and may keep it, if its dsreg is {version} or of the "
             "minor version before")
    return [stays, *lines, clients]
