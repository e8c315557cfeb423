"""Pieces: a zeroing of many chunks that one command did not do, as writes of zeros to one chunk each.

Nodes of older versions, and clients that have not attached the disk, know no such command; and where no majority has
answered to it, a node has to see to it that one stores, which it does for 256 sectors at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.errors import ClientError, DsregError, Outcome
from dsreg.store import Buffer, Done, outcome_of

# As many as one call has under way of other writes.
MAX_PIECES: Final = 15


class Writer(Protocol):
    """What writes them, under the lock that the zeroing holds."""

    def write_zeros(self, first: int, count: int, done: Done, over: Callable[[], None]) -> None:
        """`done` is told what becomes of it, at the latest when its time is over; `over` when nothing of it is under
        way any more, which after a time-out may be much later. Each is called once, in any order."""


class Pieces:
    """`ended` is told the first error, or None: when each piece that was begun has been told of. `over`: nothing of
    them is under way any more. `is_exposed`: something of the zeroing may have happened before."""

    def __init__(
        self, writer: Writer, first: int, count: int, ended: Callable[[ClientError | None], None],
        over: Callable[[], None], *, is_exposed: bool,
    ) -> None:
        self._writer = writer
        self._next, self._stop = first, first + count
        self._ended = ended
        self._over = over
        self._error: ClientError | None = None
        self._is_exposed = is_exposed
        self._untold = 0
        self._under_way = 0
        self._is_going = False
        self._has_ended = self._is_over = False

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stop = self._next

    def go_on(self) -> None:
        """A loop, as each may end at once, and there may be thousands."""
        if self._is_going:
            return
        self._is_going = True
        while self._under_way < MAX_PIECES and self._next < self._stop:
            first, self._next = self._next, self._next + MAX_RUN_SECTORS
            self._untold += 1
            self._under_way += 1
            self._writer.write_zeros(first, MAX_RUN_SECTORS, self._piece_told, self._piece_over)
        self._is_going = False
        if self._next < self._stop:
            return
        if not self._untold and not self._has_ended:
            self._has_ended = True
            error = self._error
            self._ended(_of_the_whole(error) if error is not None and self._is_exposed else error)
        if not self._under_way and not self._is_over:
            self._is_over = True
            self._over()

    def _piece_told(self, nothing: Buffer, error: DsregError | None) -> None:
        self._untold -= 1
        if error is None or outcome_of(error) is Outcome.MAY_HAVE_HAPPENED:
            self._is_exposed = True
        if error is not None:
            assert isinstance(error, ClientError)
            self._error = self._error or error
            self.stop()
        self.go_on()

    def _piece_over(self) -> None:
        self._under_way -= 1
        self.go_on()


def _of_the_whole(error: ClientError) -> ClientError:
    """The rest may have happened, whatever became of this piece."""
    if outcome_of(error) is Outcome.MAY_HAVE_HAPPENED:
        return error
    return type(error)(f"a part of the zeroing failed: {error.reason}", Outcome.MAY_HAVE_HAPPENED)
