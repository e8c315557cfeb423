"""Who has the disk attached, as the nodes tell: for commands that would write beside somebody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio

from dsreg.client import Client
from dsreg.core.quorum import majority
from dsreg.errors import AlreadyAttached, ClientError, Outcome

# Nodes answer a status without asking others; where no majority does, there is no writing either.
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Attachment:
    """`epoch`: how often the disk has been attached. `by`: who has it now and is alive, "" if nobody."""

    epoch: int
    by: str


def attachment_of(reports: Iterable[dict[str, Any]]) -> Attachment:
    """What the nodes' reports come to. A node that was down may still tell of an older epoch."""
    told = [(int(report.get("epoch", 0)), str(report.get("attached_by", ""))) for report in reports]
    epoch = max((epoch for epoch, _ in told), default=0)
    return Attachment(epoch, next((by for of, by in told if of == epoch and by), ""))


async def refuse_if_attached(client: Client) -> None:
    """Raises AlreadyAttached if a majority of the nodes answers and knows of somebody who has the disk and is alive.
    It keeps out accidents, not races: who must keep others out attaches the disk."""
    reports: list[dict[str, Any]] = []

    async def ask(rank: int) -> None:
        try:
            reports.append(await client.status(rank, timeout_s=_TIMEOUT_S))
        except ClientError:
            return  # the majority is made of those that answer
        if len(reports) >= majority(len(client.nodes)):
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for node in client.nodes:
            nursery.start_soon(ask, node.rank)
    if by := attachment_of(reports).by:
        raise AlreadyAttached(f"the disk is attached by {by}, which is alive: writing beside it would damage what it "
                              "keeps there; detach it there first, or write all the same with --force",
                              Outcome.DID_NOT_HAPPEN)
