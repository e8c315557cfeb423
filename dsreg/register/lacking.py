"""What a node lacks of a chunk: its own tags beside those that others have told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dsreg.constants import TAG_SIZE
from dsreg.protocol.tags import is_uniform, iter_tags

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
    if not lost and not unknown and is_uniform(own) and all(map(is_uniform, told.values())):
        return _whole(own, told)
    columns = {rank: iter_tags(tags) for rank, tags in told.items()}
    start, stop, rank, sectors = 0, 0, -1, 0
    best: list[bytes] = []

    def close() -> None:
        if rank >= 0:
            lacks.append(Lack(start, stop, rank, sectors, b"".join(best[start:stop])))

    for index, tag in enumerate(iter_tags(own)):
        newest = max(column[index] for column in columns.values())
        best.append(newest)
        if index in unknown or not (newest > tag or index in lost and newest >= tag):
            continue
        source = _source(columns, index, newest, rank)
        between = range(stop, index)
        if source == rank and len(between) <= GAP * (rank != NOBODY) and not any(each in unknown for each in between):
            stop, sectors = index + 1, sectors + 1
            continue
        close()
        start, stop, rank, sectors = index, index + 1, source, 1
    close()
    return lacks


def _whole(own: bytes, told: Mapping[int, bytes]) -> list[Lack]:
    """Where every node has one tag for all of the run, as where it was written in one piece or never: a tenth of the
    work."""
    best = max(told.values())
    count = len(own) // TAG_SIZE
    rank = next(rank for rank, tags in told.items() if tags == best) if best[-1] else NOBODY
    return [Lack(0, count, rank, count, best)] if best > own else []


def _source(columns: Mapping[int, list[bytes]], index: int, tag: bytes, preferred: int) -> int:
    """Whom to take the sector from: the one that the run so far is from, if that has it."""
    if not tag[-1]:
        return NOBODY
    if preferred > NOBODY and columns[preferred][index] == tag:
        return preferred
    return next(rank for rank, column in columns.items() if column[index] == tag)
