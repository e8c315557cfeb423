"""`dsreg status` for people: a table that fits the terminal, and lines on what it means and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from dsreg.cli.answers import NodeAnswer
from dsreg.cli.attached import Attachment
from dsreg.cli.damage import damage_lines
from dsreg.cli.health import changed_directories, serves, why_no_space
from dsreg.cli.in_force import in_force, of_members
from dsreg.cli.in_sync import Copy, can_lose, can_lose_line, copies, why_not_more
from dsreg.cli.survey import Survey
from dsreg.cli.units import duration_text, nodes_text, rate_text, share_text, size_text
from dsreg.config import ClusterConfig, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.register.quorum import bit, mask

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


def print_survey(console: Console, config: ClusterConfig, survey: Survey, *, wraps: bool = False) -> None:
    """`wraps`: lines of text are cut between words; else they are left to the terminal to wrap, so that they can be
    copied, and searched for where there is none."""
    answers, changed = survey.answers, changed_directories(survey.answers)

    def say(*parts: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), soft_wrap=not wraps)

    say(f"{config.path}: {format_size(config.sectors * SECTOR_SIZE)}, {config.sectors} sectors")
    if (force := in_force(answers)).number > 1:
        say(force.described())
    why = why_not_more(answers)
    say((can_lose_line(answers), "green" if can_lose(answers) else "yellow"), f" ({why})" if why else "")
    console.print(_table(answers, changed, console.width))
    answering = [answer.node.rank for answer in of_members(answers) if serves(answer, changed)]
    if answering:
        say(_attachment_line(survey.attachment))
    for line in damage_lines(answers):
        say(("damage", "yellow"), f": {line}")
    for rank, fault in sorted(changed.items()):
        say(("directory changed", "red"), f": node {rank} is not counted, {fault}; put its old directory back. If that "
            "is lost for good: dsreg node --rejoin, see the runbook, \"A node's directory is lost\"")
    for line in what_to_do(config, survey):
        say(("to do", "yellow"), f": {line}")
    say(*_quorum_line(survey, answering))


def _quorum_line(survey: Survey, answering: Sequence[int]) -> tuple[tuple[str, str], str]:
    quorum = in_force(survey.answers).quorum
    counts = f"{len(answering)} of {quorum.size} nodes answer, {quorum.needed} are needed"
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


def what_to_do(config: ClusterConfig, survey: Survey) -> list[str]:
    """A sentence for each thing that somebody should do now, or should not."""
    answers = survey.answers
    silent = [answer.node.rank for answer in of_members(answers) if answer.report is None]
    force = in_force(answers)
    quorum = force.quorum
    lines = []
    if silent:
        lines.append(f"start {nodes_text(silent)}, with {'their directories' if len(silent) > 1 else 'its directory'}; "
                     "what is missed is fetched then")
    if survey.fault and quorum.blocks(mask(silent)):
        lines.append("nothing is lost by waiting. Only if the directories of so many nodes are lost for good that no "
                     "majority is left, see the runbook, \"A majority of the directories is lost\"")
    if force.joining:
        lines.append("if nobody is changing the members at this moment: give the command again that began it, or take "
                     f"it back: dsreg members cancel {config.path}")
    moving = [rank for rank, copy in copies(of_members(answers)).items() if copy.is_moving]
    if moving and not survey.fault and not can_lose(answers):
        lines.append(f"stop no other node before {nodes_text(moving)} {'are' if len(moving) > 1 else 'is'} done: "
                     f"dsreg wait --healed {config.path}")
    return lines


def _table(answers: Sequence[NodeAnswer], changed: Mapping[int, str], width: int) -> Table:
    progress, members = copies(answers), in_force(answers).members
    rows = [
        _row(answer, progress[answer.node.rank], answer.node.rank in changed, bool(members & bit(answer.node.rank)))
        for answer in answers
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


def _row(answer: NodeAnswer, copy: Copy, is_changed: bool, is_member: bool) -> list[Text]:
    """One cell for each of _COLUMNS. `is_changed`: others know the node by another directory."""
    node, report = answer.node, answer.report
    if not is_member:
        state = "no member, not running" if report is None else "no member, runs"
        return [Text(cell) for cell in [str(node.rank), node.address, state] + [""] * (len(_COLUMNS) - 3)]
    if report is None:
        fault = f"directory changed; {answer.fault}" if is_changed else answer.fault
        cells: list[str | tuple[str, str]] = [str(node.rank), node.address, (fault, "red")]
        return [Text.assemble(cell) for cell in cells + [""] * (len(_COLUMNS) - 3)]
    faults = [f"{damaged} damaged"] if (damaged := report.get("damaged")) else []
    faults += ["no space"] if report.get("no_space") is True else []
    lives = report.get("lives", {})
    if is_changed:
        faults.insert(0, "directory changed")
    elif lives.get("waits_for"):
        faults.insert(0, "empty directory, waits for others")
    cells = [
        str(node.rank), node.address,
        (f"answers, {', '.join(faults)}", "yellow") if faults else ("answers", "green"),
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
