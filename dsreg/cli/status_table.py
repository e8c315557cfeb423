"""`dsreg status` for people: a table that fits the terminal, and a line on the quorum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from dsreg.cli.attached import Attachment
from dsreg.cli.console import new_console
from dsreg.cli.health import NodeAnswer, changed_directories, serves, why_no_space
from dsreg.cli.in_sync import can_lose_line, described
from dsreg.config import ClusterConfig, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.register.quorum import majority_of, mask

_COLUMNS = ("rank", "address", "state", "data", "peers", "ms", "up", "starts", "written", "version")
# A fault may be long: it is folded within its column once that is as wide as this.
_STATE_WIDTH = 24
# Between two columns, with that of the box.
_GAP = 2


def print_table(
    config: ClusterConfig, answers: Sequence[NodeAnswer], attachment: Attachment, no_quorum: str
) -> None:
    """`no_quorum`: why a read through a majority failed, "" if it did not."""
    console = new_console()
    # Lines of text are left to the terminal to wrap, so that they can be copied, and searched for where there is none.
    console.print(f"{config.path}: {format_size(config.sectors * SECTOR_SIZE)}, {config.sectors} sectors",
                  markup=False, soft_wrap=True)
    console.print(can_lose_line(answers), markup=False, soft_wrap=True)
    changed = changed_directories(answers)
    rows = [_row(answer, answer.node.rank in changed) for answer in answers]
    shown = fitting([[cell.plain for cell in row] for row in rows], console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for index in shown:
        table.add_column(_COLUMNS[index], overflow="fold", min_width=len(_COLUMNS[index]))
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    console.print(table)
    answering = [answer.node.rank for answer in answers if serves(answer, changed)]
    if answering:
        console.print(_attachment_line(attachment), markup=False, soft_wrap=True)
    for rank, fault in sorted(changed.items()):
        text = (f": node {rank} is not counted, {fault}; put its old directory back, or see the runbook, "
                "\"A node's directory is lost\"")
        console.print(Text.assemble(("directory changed", "red"), text), soft_wrap=True)
    quorum = majority_of(answer.node.rank for answer in answers)
    counts = f"{len(answering)} of {quorum.size} nodes answer, {quorum.needed} are needed"
    if no_quorum:
        console.print(Text.assemble(("no quorum", "red"), f": {counts}; {no_quorum}"), soft_wrap=True)
    elif no_space := why_no_space(answers):
        console.print(Text.assemble(("quorum, but no space", "red"), f": {counts}; {no_space}"), soft_wrap=True)
    elif not quorum.decided(mask(answering)):
        text = (f": this host reaches only {len(answering)} of {quorum.size} nodes. They reach a majority, so reads "
                "and writes work through them, but this host cannot attach the disk")
        console.print(Text.assemble(("quorum", "yellow"), text), soft_wrap=True)
    else:
        console.print(Text.assemble(("quorum", "green"), f": {counts}"), soft_wrap=True)


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Which of _COLUMNS, by index, fit into `width` characters: the last ones are left out first."""
    widths = [max(map(len, (name, *(row[index] for row in rows)))) for index, name in enumerate(_COLUMNS)]
    widths[2] = min(widths[2], _STATE_WIDTH)
    shown = len(_COLUMNS)
    while shown > 3 and sum(widths[:shown]) + _GAP * (shown - 1) > width:
        shown -= 1
    return list(range(shown))


def _row(answer: NodeAnswer, is_changed: bool) -> list[Text]:
    """One cell for each of _COLUMNS. `is_changed`: others know the node by another directory."""
    node, report = answer.node, answer.report
    if report is None:
        fault = f"directory changed; {answer.fault}" if is_changed else answer.fault
        cells = [str(node.rank), node.address, (fault, "red"), *[""] * 7]
    else:
        faults = [f"{damaged} damaged"] if (damaged := report.get("damaged")) else []
        faults += ["no space"] if report.get("no_space") is True else []
        if is_changed:
            faults.insert(0, "directory changed")
        elif report.get("lives", {}).get("waits_for"):
            faults.insert(0, "empty directory, waits for others")
        state = (f"answers, {', '.join(faults)}", "yellow") if faults else ("answers", "green")
        cells = [
            str(node.rank), node.address, state, described(answer), _peers(report.get("peers", {})),
            f"{1000 * report['round_trip_s']:.1f}", _duration(float(report.get("uptime_s", 0))),
            str(report.get("incarnation")), str(report.get("sectors_written")), str(report.get("version")),
        ]
    return [Text(cell) if isinstance(cell, str) else Text(*cell) for cell in cells]


def _attachment_line(attachment: Attachment) -> str:
    if attachment.by:
        return f"attached by {attachment.by} (epoch {attachment.epoch})"
    return f"not attached (epoch {attachment.epoch})" if attachment.epoch else "not attached, and never was"


def _peers(peers: Mapping[str, str]) -> str:
    """How many peers are linked; what is not a sealed link is said."""
    up = sum(link != "down" for link in peers.values())
    others = [f"{rank} {link}" for rank, link in sorted(peers.items()) if link != "sealed"]
    return f"{up} of {len(peers)}" + (f": {', '.join(others)}" if others else "")


def _duration(seconds: float) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 1:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min {seconds % 60:.0f} s" if minutes >= 1 else f"{seconds:.0f} s"
