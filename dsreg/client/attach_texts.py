"""What an attachment says of nodes and owners, for people."""

from __future__ import annotations

from collections.abc import Collection

from dsreg.constants import NO_OWNER
from dsreg.protocol.messages import Response, name_of_owner
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH, S_PER_EPOCH


def named(answers: Collection[Response]) -> str:
    owner = next((told.owner for told in answers if told.owner != NO_OWNER), NO_OWNER)
    return name_of_owner(owner) if owner != NO_OWNER else "another client"


def nodes_named(ranks: Collection[int]) -> str:
    *others, last = map(str, sorted(ranks))
    return f"nodes {', '.join(others)} and {last}" if others else f"node {last}"


def of_bound(epoch: int, believed: dict[int, int]) -> str:
    """`believed`: the highest epoch that each of the nodes takes that do not take this one."""
    bound = max(believed.values())
    text = (f"the disk has been attached {epoch - 1} times, and {nodes_named(believed)} accept at most {bound} by "
            f"their clocks, one more every {S_PER_EPOCH} s")
    if bound <= ALWAYS_PLAUSIBLE_EPOCH:
        return f"{text}. These clocks are years behind: set them"
    return f"{text}. If the clocks are right, this takes about {(epoch - bound) * S_PER_EPOCH} s"
