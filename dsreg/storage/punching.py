"""Homes under long runs of zeros whose room is yet to be given back: docs/storage.md, "Room that is given back later".

To give the room of a GiB back takes the file system most of a second, to note durably that it is zeros some ms. So the
first is not waited for. It is done in pieces, by commits that store nothing, when nothing else is to be stored; at once
where a store finds no room.
"""

from __future__ import annotations

from dsreg.constants import SECTOR_SIZE
from dsreg.runs import Runs
from dsreg.storage.files import File

Range = tuple[int, int]  # sectors [first, stop)

# A store that comes meanwhile waits for one piece: 64 MiB, some 30 ms on a busy ext4. Many short ranges cost as much.
PIECE_SECTORS = 16_384
PIECE_RANGES = 256
# 1 MiB of memory. With more, nothing is stored until there are fewer; one command adds as many again at most.
MAX_RANGES = 65_536


class Punching:
    """Of one storage. None of its sectors has a value: what is going to have one is taken out before it is written, and
    a commit that writes is never under way beside one that punches."""

    def __init__(self, home: File) -> None:
        self._home = home
        self._left = Runs()

    @property
    def is_over(self) -> bool:
        return not self._left.starts

    @property
    def is_full(self) -> bool:
        return len(self._left.starts) >= MAX_RANGES

    def add(self, first: int, stop: int) -> None:
        """These are zeros for good: the record of them is durable, and none has a value."""
        self._left.add(first, stop)

    def keep(self, first: int, stop: int) -> None:
        """A value is about to be written there."""
        self._left.remove(first, stop)

    def piece(self) -> list[Range]:
        """What to punch next. It is left until `keep` is told of it."""
        piece, size = list[Range](), 0
        for first, stop in zip(self._left.starts[:PIECE_RANGES], self._left.stops, strict=False):
            piece.append((first, min(stop, first + PIECE_SECTORS - size)))
            size += piece[-1][1] - first
            if size == PIECE_SECTORS:
                break
        return piece

    def punch(self, ranges: list[Range]) -> None:
        """Give their room back. In any thread, in a commit."""
        for first, stop in ranges:
            self._home.punch(first * SECTOR_SIZE, (stop - first) * SECTOR_SIZE)

    def punch_all(self) -> None:
        """As `punch`, all that is left."""
        self.punch(list(zip(self._left.starts, self._left.stops, strict=True)))
        self._left = Runs()
