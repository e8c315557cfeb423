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
    CLAIMING = 1  # nobody has, as far as it was told: now others are to remember it
    STARTED = 2
