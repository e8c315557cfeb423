"""Run: what was submitted to an engine, until it is over. Pure."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Protocol

from dsreg.client.admission import Entry
from dsreg.client.pieces import Pieces
from dsreg.client.range_lock import Held
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import Outcome
from dsreg.store import Done


class Runner(Protocol):
    """The engine, as far as a run needs it."""

    ready: collections.deque[Run]

    def ask_for_room(self, run: Run) -> None: ...

    def abandon(self, run: Run) -> Outcome: ...


def _nothing() -> None:
    """Nobody waits for that."""


class Run:
    """A run that was submitted: it waits for its sectors, then for room, then it is an operation of the core."""

    __slots__ = (
        "count", "data", "deadline_s", "done", "engine", "entry", "first", "force", "held", "operation", "over",
        "maps", "pieces", "size", "zero",
    )

    def __init__(
        self, engine: Runner, first: int, count: int, data: bytes | None, done: Done, deadline_s: float, force: bool,
        zero: bool = False, maps: bool = False,
    ) -> None:
        self.engine = engine
        self.first = first
        self.count = count
        self.size = SECTOR_SIZE if zero or maps else count * SECTOR_SIZE  # in bytes
        self.zero = zero
        self.maps = maps
        self.held: Held | None = None  # a piece has none, nor what stores nothing and reads no values
        self.over: Callable[[], None] = _nothing  # nothing of it is under way any more, told or not
        self.pieces: Pieces | None = None  # of a zeroing that is done so
        self.data = data
        self.done: Done | None = done  # None: nobody waits any more
        self.deadline_s = deadline_s
        self.force = force
        self.entry: Entry | None = None  # while it waits for room
        self.operation = 0  # of the core; 0: not yet

    @property
    def is_read(self) -> bool:
        return self.data is None and not self.zero

    def locked(self) -> None:
        self.engine.ask_for_room(self)

    def admitted(self) -> None:
        self.entry = None
        self.engine.ready.append(self)

    def abandon(self) -> Outcome:
        """See dsreg.store.Submitted."""
        return self.engine.abandon(self)
