"""`dsreg status`: which nodes answer, how fast, how complete their copies are, and whether there is a quorum."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import trio

from dsreg.cli.faults import EXIT_CONFIG, EXIT_NO_QUORUM
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.status_json import as_dict
from dsreg.cli.survey import survey_once
from dsreg.errors import is_config_fault


@click.command()
@config_argument
@config_option
@click.option("--timeout", "timeout_s", type=Seconds(), default=2.0, show_default=True,
              metavar="SECONDS", help="How long to wait for the nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one in each line.")
@click.option("--watch", is_flag=True, help="Stay, and show it anew every second, until Ctrl-C.")
@click.pass_obj
def status(warnings: list[str], file: Path | None, config_path: Path | None, timeout_s: float, as_json: bool,
           watch: bool) -> None:
    """Show the nodes of a cluster, whether they have a quorum, and who has attached the disk.

    A quorum is there when a read through a majority succeeds: that is tried, not guessed. Exits with 3 when it
    is not there, and with 2 when the configuration or the key is wrong; --watch stays all the same, and exits with 0
    when Ctrl-C ends it, 143 on SIGTERM. For monitoring: dsreg health.
    """
    config = chosen_config(config_path, file)
    if watch:
        from dsreg.cli.status_watch import run_watch

        sys.exit(run_watch(config, timeout_s, as_json=as_json, warnings=warnings))
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
