"""`dsreg top`: what a cluster is doing at this moment, and for whom, every second."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import click
import trio

from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.cli.staying import until_signal
from dsreg.cli.top_round import Round, rounds

# Of what is printed, and not drawn on a screen.
_NO_HEIGHT = 1 << 20


@click.command()
@config_argument
@config_option
@click.option("--interval", "interval_s", type=Seconds(), default=1.0, show_default=True, metavar="SECONDS",
              help="How often to ask. Rates are of the time between two answers.")
@click.option("--timeout", "timeout_s", type=Seconds(), default=1.0, show_default=True, metavar="SECONDS",
              help="How long to wait for a node.")
@click.option("--once", is_flag=True, help="Print it once, after one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in each line.")
@click.pass_obj
def top(warnings: list[str], file: Path | None, config_path: Path | None, interval_s: float, timeout_s: float,
        once: bool, as_json: bool) -> None:
    """Show what the nodes of a cluster are doing now: requests a second, how long they take, what waits, who asks.

    On a terminal it is drawn anew every second; keys: q quits, p or space pauses. Elsewhere it is printed again each
    time. Requests are counted at each node: a write of whoever has attached the disk is one at every node. Exits with 0
    when q or Ctrl-C ends it, 143 on SIGTERM. Whether the cluster is well: dsreg health.
    """
    config = chosen_config(config_path, file)
    look = partial(rounds, config, timeout_s, interval_s, clock=time.time)
    if once or as_json or not _is_screen():
        show = _Printed(_json_line if as_json else _lines, once=once).show
        code = trio.run(until_signal, partial(look, show, number=2 if once else math.inf))
    else:
        code = trio.run(_on_screen, look, interval_s)
    warnings.clear()  # of the client; they are in what is shown
    sys.exit(code)


class _Printed:
    """Each round, one after the other; the first has no rates, and is left out if it is to be one alone (`once`)."""

    def __init__(self, text: Callable[[Round], str], *, once: bool) -> None:
        self._text = text
        self._is_next = not once

    def show(self, seen: Round) -> None:
        if self._is_next:
            click.echo(self._text(seen))
        self._is_next = True


def _json_line(seen: Round) -> str:
    return json.dumps(seen.as_dict())


def _lines(seen: Round) -> str:
    from dsreg.cli.console import new_console
    from dsreg.cli.top_view import view  # rich takes longer to import than most commands run

    console = new_console()
    with console.capture() as capture:
        console.print(view(seen, console.width, _NO_HEIGHT, ""))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


async def _on_screen(look: Callable[[Callable[[Round], None]], Awaitable[None]], interval_s: float) -> int:
    from dsreg.cli.top_screen import Screen

    async def until_quit() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.resizes)
            nursery.start_soon(screen.keys, nursery.cancel_scope.cancel)
            await look(screen.show)

    with Screen(interval_s) as screen:
        return await until_signal(until_quit)
