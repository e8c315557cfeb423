"""`dsreg status` for people: a table that fits the terminal, and lines on what it means and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from dsreg.config import ClusterConfig, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.health.answers import NodeAnswer
from dsreg.health.attached import Attachment
from dsreg.health.checks import to_do
from dsreg.health.condition import condition
from dsreg.health.findings import Severity
from dsreg.health.in_force import in_force, of_members
from dsreg.health.in_sync import Copy, can_lose, can_lose_line, copies, why_not_more
from dsreg.health.serving import changed_directories, serves, why_no_space
from dsreg.register.quorum import counted, mask
from dsreg.survey import Survey
from dsreg.units import duration_text, rate_text, share_text, size_text

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS = (
    "rank", "address", "state", "data", "lacks", "has", "rate", "left", "life", "peers", "ms", "up", "starts",
    "written", "version",
)
# Those that are left out where no node has anything to say in them; numbers, so that they are set flush right.
_PROGRESS = range(4, 8)
# A fault may be long: it is folded within its column once that is as wide as this.
_STATE_WIDTH = 24
# Between two columns, with that of the box.
_GAP = 2
_COLOURS = {"in sync": "green", "": ""}
_KINDS = {"well": "green", "worse": "yellow", "down": "red", "": ""}
_SEVERITY_COLOURS = {Severity.NOTICE: "cyan", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}
# What these checks find the first and the last line say, and the table.
_SAID_ELSEWHERE = ("quorum_lost", "no_space", "no_spare", "node_full")


def print_survey(console: Console, config: ClusterConfig, survey: Survey, *, wraps: bool = False) -> None:
    """`wraps`: lines of text are cut between words; else they are left to the terminal to wrap, so that they can be
    copied, and searched for where there is none."""
    answers, changed = survey.answers, changed_directories(survey.answers)

    def say(*parts: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=not wraps)

    force = in_force(answers)
    sectors = force.sectors or config.sectors
    other = "" if sectors == config.sectors else f"; the file has {format_size(config.sectors * SECTOR_SIZE)}"
    say(f"{config.path}: {format_size(sectors * SECTOR_SIZE)}, {sectors} sectors{other}")
    if force.number > 1:
        say(force.described())
    why = why_not_more(answers)
    say((can_lose_line(answers), "green" if can_lose(answers) else "yellow"), f" ({why})" if why else "")
    console.print(_table(answers, changed, console.width))
    answering = [answer.node.rank for answer in of_members(answers) if serves(answer, changed)]
    if answering:
        say(_attachment_line(survey.attachment))
    found = survey.findings(config)
    for finding in found:
        if finding.check not in _SAID_ELSEWHERE:
            say((finding.check.replace("_", " "), _SEVERITY_COLOURS[finding.severity]), f": {finding.sentence}")
    for line in to_do(found):
        say(("to do", "yellow"), f": {line}")
    say(*_quorum_line(survey, answering))


def _quorum_line(survey: Survey, answering: Sequence[int]) -> tuple[tuple[str, str], str]:
    quorum = in_force(survey.answers).quorum
    counts = counted(quorum, mask(answering), "answer")
    if survey.fault:
        learning = [rank for rank, copy in copies(survey.answers).items()
                    if rank in answering and copy.state == "learns"]
        nodes = " and ".join(map(str, learning))
        why = f"; what node {nodes} has yet to learn cannot be read there" if learning else ""
        return ("no quorum", "red"), f": {counts}{why}; {survey.fault}"
    if no_space := why_no_space(survey.answers):
        return ("quorum, but no space", "red"), f": {counts}; {no_space}"
    if not quorum.decided(mask(answering)):
        return ("quorum", "yellow"), (
            f": this host reaches only {len(answering)} of {quorum.size} nodes. They reach a majority, so reads "
            "and writes work through them, but this host cannot attach the disk")
    return ("quorum", "green"), f": {counts}"


def _table(answers: Sequence[NodeAnswer], changed: Mapping[int, str], width: int) -> Table:
    progress, members = copies(answers), in_force(answers).members
    rows = [
        _row(answer, progress[answer.node.rank], changed, members) for answer in answers
    ]
    shown = fitting([[cell.plain for cell in row] for row in rows], width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for index in shown:
        table.add_column(_COLUMNS[index], overflow="fold", min_width=len(_COLUMNS[index]),
                         justify="right" if index in _PROGRESS else "left")
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Which of _COLUMNS, by index, fit into `width` characters: the last ones are left out first, and such as say
    something only of progress where there is none."""
    widths = [max(map(len, (name, *(row[index] for row in rows)))) for index, name in enumerate(_COLUMNS)]
    widths[2] = min(widths[2], _STATE_WIDTH)
    shown = [
        index for index in range(len(_COLUMNS)) if index not in _PROGRESS or any(row[index] for row in rows)
    ]
    while len(shown) > 3 and sum(widths[index] for index in shown) + _GAP * (len(shown) - 1) > width:
        shown.pop()
    return shown


def _row(answer: NodeAnswer, copy: Copy, changed: Mapping[int, str], members: int) -> list[Text]:
    """One cell for each of _COLUMNS."""
    node, report = answer.node, answer.report
    state = condition(answer, changed, members)
    if report is None or not state.kind:
        cells: list[str | tuple[str, str]] = [str(node.rank), node.address, (state.text, _KINDS[state.kind])]
        return [Text.assemble(cell) for cell in cells + [""] * (len(_COLUMNS) - 3)]
    lives = report.get("lives", {})
    cells = [
        str(node.rank), node.address, (state.text, _KINDS[state.kind]),
        (copy.state, _COLOURS.get(copy.state, "yellow")),
        size_text(copy.lacks) if copy.lacks else "",
        share_text(copy.share) if copy.is_moving and copy.share is not None else "",
        rate_text(copy.rate) if copy.lacks and copy.rate else "",
        duration_text(copy.left_s) if copy.lacks and copy.left_s is not None else "",
        str(lives.get("life", "")), _peers(report.get("peers", {})),
        f"{1000 * report['round_trip_s']:.1f}", duration_text(float(report.get("uptime_s", 0))),
        str(report.get("incarnation")), str(report.get("sectors_written")), str(report.get("version")),
    ]
    return [Text.assemble(cell) for cell in cells]


def _attachment_line(attachment: Attachment) -> str:
    if attachment.by:
        return f"attached by {attachment.by} (epoch {attachment.epoch})"
    return f"not attached (epoch {attachment.epoch})" if attachment.epoch else "not attached, and never was"


def _peers(peers: Mapping[str, str]) -> str:
    """How many peers are linked; what is not a sealed link is said."""
    up = sum(link != "down" for link in peers.values())
    others = [f"{rank} {link}" for rank, link in sorted(peers.items()) if link != "sealed"]
    return f"{up} of {len(peers)}" + (f": {', '.join(others)}" if others else "")
