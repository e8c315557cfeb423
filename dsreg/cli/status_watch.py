"""`dsreg status --watch`: the same, asked anew every second until a signal ends it.

On a terminal that can, it is drawn over what was there; elsewhere it is printed again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import trio

from dsreg.cli.console import new_console
from dsreg.cli.status_json import as_dict
from dsreg.cli.status_table import print_survey
from dsreg.cli.staying import Followed, until_signal
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.survey import Survey, survey

INTERVAL_S = 1.0
# Where the answers take longer than the interval nodes and terminal have this pause all the same.
_LEAST_PAUSE_S = 0.2

_HOME, _CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@dataclass(frozen=True, slots=True)
class Seen:
    """One round. `fault`: why the configuration that changed meanwhile cannot be used; "" otherwise. `unix_s`: when."""

    config: ClusterConfig
    survey: Survey
    fault: str
    unix_s: float


def run_watch(config: ClusterConfig, timeout_s: float, *, as_json: bool, warnings: list[str]) -> int:
    """Until SIGINT or SIGTERM; gives the exit code. `warnings`: of the client; what they say is in what is shown."""
    if as_json:
        return trio.run(_watch, config, timeout_s, _show_json, warnings)
    with _Screen() as screen:
        return trio.run(_watch, config, timeout_s, screen.show, warnings)


async def _watch(
    config: ClusterConfig, timeout_s: float, show: Callable[[Seen], None], warnings: list[str]
) -> int:
    code = await until_signal(lambda: _rounds(Followed(config), timeout_s, show, warnings))
    warnings.clear()
    return code


async def _rounds(
    followed: Followed, timeout_s: float, show: Callable[[Seen], None], warnings: list[str]
) -> None:
    while True:
        async with Client(followed.config) as client:
            while True:
                began_s = trio.current_time()
                found = await survey(client, followed.config, timeout_s)
                warnings.clear()
                show(Seen(followed.config, found, followed.fault, time.time()))
                await trio.sleep(max(_LEAST_PAUSE_S, began_s + INTERVAL_S - trio.current_time()))
                if followed.changed():
                    break


def _show_json(seen: Seen) -> None:
    report = {"time": round(seen.unix_s, 3), "config_fault": seen.fault, **as_dict(seen.config, seen.survey)}
    click.echo(json.dumps(report))


class _Screen:
    """What a person looks at: redrawn in place on a terminal, printed anew where there is none or it cannot."""

    def __init__(self) -> None:
        console = new_console()
        self._redraws = console.is_terminal and not console.is_dumb_terminal
        self._is_first = True

    def __enter__(self) -> _Screen:
        if self._redraws:
            self._write(_HIDE_CURSOR + _CLEAR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._redraws:
            self._write(_SHOW_CURSOR + "\n")  # what a shell says next stands below

    def show(self, seen: Seen) -> None:
        console = new_console()  # with the size that the terminal has now
        with console.capture() as capture:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen.unix_s))
            console.print(f"{when}, every {INTERVAL_S:.0f} s until Ctrl-C", markup=False)
            if seen.fault:
                console.print(f"the configuration cannot be used any more, and is shown as it was: {seen.fault}",
                              style="red", markup=False)
            print_survey(console, seen.config, seen.survey, wraps=console.is_terminal)
        lines = capture.get().splitlines()
        if self._redraws:
            lines = fitting_lines(lines, console.height)
            self._write(_HOME + "\n".join(line + _CLEAR_LINE for line in lines) + _CLEAR_BELOW)
        else:
            self._write(("" if self._is_first else "\n") + "\n".join(lines) + "\n")
        self._is_first = False

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def fitting_lines(lines: list[str], height: int) -> list[str]:
    """So many lines as a terminal of this height shows without scrolling: of those that do not fit the last is kept, as
    it says whether there is a quorum."""
    if len(lines) <= height or height < 3:
        return lines[:max(1, height)]
    left_out = len(lines) - height + 1
    return [*lines[:height - 2], f"... {left_out} more lines ...", lines[-1]]
