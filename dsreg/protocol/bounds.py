"""Bounds: what a node takes from others at all, by which sectors there are and which nodes."""

from __future__ import annotations

import enum
from collections.abc import Set
from typing import Final


class Bounds:
    """Of what a node takes from others: `sectors` of the disk, and the `ranks` of its nodes. All its decoders look into
    the same object, which changes when the disk grows or nodes are added."""

    __slots__ = ("ranks", "sectors")

    def __init__(self, sectors: int, ranks: Set[int]) -> None:
        self.sectors = sectors
        self.ranks = ranks


# A client's end of a stream has none.
UNBOUNDED: Final = Bounds(0, frozenset())


class Side(enum.Enum):
    """Whose end of the stream this is: it settles which message types are known."""

    NODE = "node"  # commands, node messages and their answers, receipts, greetings of both kinds
    CLIENT = "client"  # responses, the answer to a client's greeting
