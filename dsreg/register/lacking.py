"""What a node lacks of a chunk: its own tags beside those that others have told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dsreg.protocol.tags import iter_tags

# Of sectors that lie so close together all are fetched in one run, with what is between them: to fetch a sector that is
# not needed costs less than another question.
GAP = 8
# In place of a rank: the sectors were never written there, so their value is known.
NOBODY = 0


class Lack(NamedTuple):
    """A run that is to be taken, by offsets within the chunk. `sectors`: how many of it are lacking. `tags`: the
    highest that were told, of the whole run."""

    start: int
    stop: int
    rank: int
    sectors: int
    tags: bytes


def lacking(
    own: bytes, told: Mapping[int, bytes], lost: Collection[int] = (), unknown: Collection[int] = ()
) -> list[Lack]:
    """`own`: the tags here. `told`: those of others, by rank, of the same sectors. `lost`: offsets whose value is lost
    here: it is taken under the tag that they have, too. `unknown`: offsets of which nothing is taken."""
    lacks: list[Lack] = []
    if not lost and all(tags == own for tags in told.values()):
        return lacks
    columns = {rank: iter_tags(tags) for rank, tags in told.items()}
    start, stop, rank, sectors = 0, 0, -1, 0
    best: list[bytes] = []

    def close() -> None:
        if rank >= 0:
            lacks.append(Lack(start, stop, rank, sectors, b"".join(best[start:stop])))

    for index, tag in enumerate(iter_tags(own)):
        highest = max(column[index] for column in columns.values())
        best.append(highest)
        if index in unknown or not (highest > tag or index in lost and highest >= tag):
            continue
        source = _source(columns, index, highest, rank)
        between = range(stop, index)
        if source == rank and len(between) <= GAP * (rank != NOBODY) and not any(each in unknown for each in between):
            stop, sectors = index + 1, sectors + 1
            continue
        close()
        start, stop, rank, sectors = index, index + 1, source, 1
    close()
    return lacks


def _source(columns: Mapping[int, list[bytes]], index: int, tag: bytes, preferred: int) -> int:
    """Whom to take the sector from: the one that the run so far is from, if that has it."""
    if not tag[-1]:
        return NOBODY
    if preferred > NOBODY and columns[preferred][index] == tag:
        return preferred
    return next(rank for rank, column in columns.items() if column[index] == tag)
