"""Lives: which directory stands behind a rank.

A node's acknowledgements rest on its directory. Behind the same rank with another directory stands a node that has
forgotten them. So each directory has a random id, made with it, and every node keeps durably which one it knows
each rank by.
"""

from __future__ import annotations

from typing import Final, NamedTuple

STORE_SIZE: Final = 16


class Life(NamedTuple):
    """`number`: u64, from 1 on; always 1 as long as a node cannot come back with an empty directory. `store`: the
    random id of its directory, 16 bytes."""

    number: int
    store: bytes
