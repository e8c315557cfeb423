"""Which directory stands behind a rank, and how far its node is, as nodes tell each other: see dsreg.register.lives."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

STORE_SIZE: Final = 16


class Life(NamedTuple):
    """`number`: u64, from 1 on; of two lives of one rank the one with the higher number is the later one. `store`: the
    random id of its directory, 16 bytes."""

    number: int
    store: bytes

    def __str__(self) -> str:
        return self.store.hex()[:8] + (f" (life {self.number})" if self.number > 1 else "")


class Stage(enum.IntEnum):
    """How far a node is: only one that has started stores, answers and counts."""

    ASKING = 0  # its directory is empty, and it asks whether anybody has heard of its rank
    CLAIMING = 1  # others are to remember its life: the first of its rank, of which nobody had heard, or a later one
    STARTED = 2


def claims_later(stage: Stage, own: Life) -> bool:
    """Whether a node that says this takes a later life of its rank, as its directory was lost."""
    return stage is Stage.CLAIMING and own.number > 1
