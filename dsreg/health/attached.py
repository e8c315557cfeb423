"""Who has the disk attached, as the nodes tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dsreg.units import printable


@dataclass(frozen=True, slots=True)
class Attachment:
    """`epoch`: how often the disk has been attached. `by`: who has it now and is alive, "" if nobody."""

    epoch: int
    by: str


def attachment_of(reports: Iterable[dict[str, Any]]) -> Attachment:
    """What the nodes' reports come to. A node that was down may still tell of an older epoch."""
    told = [(int(report.get("epoch", 0)), printable(str(report.get("attached_by", "")))) for report in reports]
    epoch = max((epoch for epoch, _ in told), default=0)
    return Attachment(epoch, next((by for of, by in told if of == epoch and by), ""))
