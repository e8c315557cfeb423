"""`dsreg wait`: until the nodes are as a script needs them."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from dsreg.cli.faults import EXIT_FAILED
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.progress import Advance, progress_bar
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.health.in_sync import all_in_sync, behind_bytes, what_is_missing
from dsreg.survey import ask_cluster

# Between two questions to the nodes, and how long one waits for the answers.
POLL_S = 0.2
ASK_S = 2.0


@click.command()
@config_argument
@config_option
@click.option("--healed", is_flag=True, required=True,
              help="Until every node answers, and has all that every other one has.")
@click.option("--timeout", "timeout_s", type=Seconds(), metavar="SECONDS", help="Give up after so long.")
@click.pass_obj
def wait(
    warnings: list[str], file: Path | None, config_path: Path | None, healed: bool, timeout_s: float | None
) -> None:
    """Wait until no node lacks anything, for example before the next one is restarted.

    Exits with 0 then, and with 1 if that takes longer than --timeout.
    """
    config = chosen_config(config_path, file)
    missing = trio.run(_until_healed, config, timeout_s)
    warnings.clear()  # of the client: what is wrong is in what is printed
    for line in missing:
        click.echo(line, err=True)
    if missing:
        sys.exit(EXIT_FAILED)


async def _until_healed(config: ClusterConfig, timeout_s: float | None) -> list[str]:
    """What is missing when the time is over; [] if all is well before that."""
    answers: tuple[NodeAnswer, ...] = ()
    most = done = 0
    ask_s = ASK_S if timeout_s is None else min(ASK_S, timeout_s / 2)

    def advanced(advance: Advance) -> None:
        """What is lacking may grow while a comparison goes on: the bar does not go back."""
        nonlocal most, done
        behind = behind_bytes(answers)
        most = max(most, done + behind)
        if most:
            advance.total(most)
        advance(max(0, most - behind - done))
        done = max(done, most - behind)

    with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
        async with progress_bar("healing", None) as advance, Client(config) as client:
            while True:
                answers = await ask_cluster(client, config, ask_s)
                if all_in_sync(answers):
                    return []
                advanced(advance)
                await trio.sleep(POLL_S)
    return what_is_missing(answers) or ["not one node has answered in time"]
