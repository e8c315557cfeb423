"""What `dsreg top` shows of a round: text that fits a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dsreg.cli.status_json import HEALTH
from dsreg.cli.top_round import Round
from dsreg.config import format_size
from dsreg.constants import OWNER_NAME_SIZE, SECTOR_SIZE
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import worst
from dsreg.health.findings import Severity
from dsreg.health.of_machines import number
from dsreg.health.traffic import User, queue
from dsreg.units import count_text, duration_text, latency_text, rate_text, share_text, size_text

_KINDS = {"well": "green", "worse": "yellow", "down": "red", "": ""}
_SEVERITIES = {Severity.NOTICE: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "red"}
# In the order in which a person wants them; the last ones are left out where they have no room.
_NODE_COLUMNS = ("node", "state", "copy", "reads/s", "writes/s", "p50", "p99", "waiting", "read", "written", "sync",
                 "address", "up")
_USER_COLUMNS = ("client", "requests/s", "data", "waiting", "use", "nodes", "conns", "encrypted")
# These are text; the others are figures, which stand flush right.
_TEXTS = frozenset({"node", "state", "copy", "address", "client", "use", "nodes", "encrypted"})
# No column is wider.
_WIDEST = {"client": OWNER_NAME_SIZE, "address": 48}
_WIDEST_ELSE = 30
_GAP = 2
# Of a table.
_HEAD_LINES = 2

Cell = tuple[str, str]  # and its style


def view(seen: Round, width: int, height: int, keys: str) -> RenderableType:
    """`width`, `height`: in characters. `keys`: what a person may press, and the like."""
    head = _head(seen, keys)
    parts: list[RenderableType] = [*head, _table(_NODE_COLUMNS, [*map(_node_cells(seen), seen.answers)], width)]
    rows = [_user_cells(user) for user in seen.users]
    # Heads of both tables, a line between them, and one for what is left out.
    room = max(0, height - len(head) - len(seen.answers) - 2 * _HEAD_LINES - 2)
    if rows:
        parts += [Text(), _table(_USER_COLUMNS, rows[:room], width)]
    left_out = sum(int(answer.report.get("clients_left_out", 0)) for answer in seen.answers if answer.report)
    more = [f"{len(rows) - room} more clients"] if len(rows) > room else []
    more += [f"{left_out} more connections, which ask for less"] if left_out else []
    if more:
        parts.append(Text(f"... {', '.join(more)}", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _head(seen: Round, keys: str) -> list[Text]:
    """A line each."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen.unix_s))
    sectors = seen.force.sectors or seen.config.sectors
    severity = worst(seen.findings)
    by = seen.attachment.by
    lines = [
        Text(f"{when}  {keys}"),
        Text.assemble((HEALTH[severity], f"bold {_SEVERITIES[severity]}"),
                      f": {seen.answering}; disk of {format_size(sectors * SECTOR_SIZE)}, ",
                      f"attached by {by}" if by else "attached by nobody"),
    ]
    if seen.fault:
        lines.append(Text(f"the configuration cannot be used any more, and is shown as it was: {seen.fault}", "red"))
    lines += [
        Text.assemble((finding.check.replace("_", " "), _SEVERITIES[finding.severity]), f": {finding.sentence}")
        for finding in seen.findings if finding.severity > Severity.NOTICE
    ]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _node_cells(seen: Round) -> Callable[[NodeAnswer], list[Cell]]:
    """For each node one cell for each of _NODE_COLUMNS."""

    def cells(answer: NodeAnswer) -> list[Cell]:
        rank, condition, copy = answer.node.rank, seen.conditions[answer.node.rank], seen.copies[answer.node.rank]
        rates, waiting = seen.rates.get(rank), queue(answer)
        progress = [copy.state, size_text(copy.lacks) if copy.lacks else "",
                    share_text(copy.share) if copy.is_moving and copy.share is not None else "",
                    duration_text(copy.left_s) if copy.lacks and copy.left_s is not None else ""]
        sync_s, up_s = number(answer.report, "syncs", "median_s"), number(answer.report, "uptime_s")
        figures = [
            "" if rates is None else count_text(rates.reads), "" if rates is None else count_text(rates.writes),
            "" if rates is None or rates.p50_s is None else latency_text(rates.p50_s),
            "" if rates is None or rates.p99_s is None else latency_text(rates.p99_s),
            "" if waiting is None else count_text(waiting),
            "" if rates is None else rate_text(rates.read_bytes),
            "" if rates is None else rate_text(rates.written_bytes),
            "" if sync_s is None else latency_text(sync_s),
            answer.node.address, "" if up_s is None else duration_text(up_s),
        ]
        return [
            (str(rank), "bold"), (condition.text, _KINDS[condition.kind]),
            (" ".join(filter(None, progress)), "yellow" if copy.is_moving else ""), *((text, "") for text in figures),
        ]

    return cells


def _user_cells(user: User) -> list[Cell]:
    """One for each of _USER_COLUMNS."""
    return [
        (user.who, "bold"),
        ("" if user.requests is None else count_text(user.requests), ""),
        ("" if user.bytes is None else rate_text(user.bytes), ""),
        (count_text(user.unfinished), ""),
        ("attached", "green") if user.has_attached else ("not attached", ""),
        (",".join(map(str, user.ranks)), ""), (str(user.connections), ""),
        ("yes", "") if user.is_sealed else ("no", "yellow"),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> Table:
    """As many columns as fit, the first two at least."""
    texts = [columns, *([text for text, _ in row] for row in rows)]
    widths = [min(max(map(len, column)), _WIDEST.get(column[0], _WIDEST_ELSE)) for column in zip(*texts, strict=True)]
    shown = len(columns)
    while shown > 2 and sum(widths[:shown]) + _GAP * (shown - 1) > width:
        shown -= 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for index, name in enumerate(columns[:shown]):
        table.add_column(name, justify="left" if name in _TEXTS else "right", no_wrap=True, overflow="ellipsis",
                         max_width=widths[index], min_width=min(widths[index], len(name)))
    for row in rows:
        table.add_row(*(Text(text, style) for text, style in row[:shown]))
    return table
