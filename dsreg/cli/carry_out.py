"""To carry out a change of the cluster that takes a while, and to say what became of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import click
import trio

from dsreg.cli.changing import Line, Refused
from dsreg.cli.faults import EXIT_FAILED, leaves
from dsreg.cli.options import Seconds

give_up_option = click.option("--timeout", "timeout_s", type=Seconds(), metavar="SECONDS",
                              help="Give up after so long; what has been chosen stays so.  [default: wait]")
force_option = click.option("--force", is_flag=True, help="Also while another node does not answer. No data is lost by "
                            "that; but if one more node fails before all is done, the disk may stop until that one is "
                            "back.")


def carry_out(
    warnings: list[str], what: Callable[[Line], Awaitable[None]], timeout_s: float | None, way_back: str = ""
) -> None:
    """Do it, and end the process with an exit code if it is not done. `way_back`: what else may be done then, the end
    of a sentence."""
    line = Line()

    async def in_time() -> bool:
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            await what(line)
            return True
        return False

    try:
        is_done = trio.run(in_time)
    except BaseException as error:
        found = leaves(error)
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
            click.echo(_how_to_go_on(line, way_back), err=True)
        refusals = [leaf for leaf in found if isinstance(leaf, Refused)]
        if len(refusals) < len(found):
            raise
        for reason in (reason for refusal in refusals for reason in refusal.lines):
            click.echo(f"dsreg: {reason}", err=True)
        warnings.clear()
        sys.exit(refusals[0].code)
    warnings.clear()  # of the client: what is wrong is in what is printed
    if not is_done:
        click.echo(f"dsreg: not done within {timeout_s:g} s. {_how_to_go_on(line, way_back)}", err=True)
        sys.exit(EXIT_FAILED)


def _how_to_go_on(line: Line, way_back: str) -> str:
    so_far = "Whatever has been chosen stays so" if line.is_proposing else f"Nothing is changed: {line.text}"
    return f"{so_far}. Give the same command again to go on{way_back}"
