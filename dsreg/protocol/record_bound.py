"""RecordBound: how many bytes of frames go into one sealed record. A record is accepted
as a whole or not at all, and a corrupted one ends its connection: on a line that corrupts only short ones arrive."""

from __future__ import annotations

from typing import Final

from dsreg.protocol.sealed import MAX_RECORD_BYTES

# A connection begins with it. A frame that is longer goes alone into its record.
FIRST_BOUND: Final = 4096
# Times that something authentic has come over a connection before the bound is doubled: while it is below half of what
# broke the last connection, and from then on. What has come tells that what was sent before has arrived.
HEARD_AT_FIRST: Final = 4
HEARD_LATER: Final = 32


class RecordBound:
    """For the connections to one other party, one after the other."""

    def __init__(self) -> None:
        self.bound = FIRST_BOUND
        self._goal = MAX_RECORD_BYTES  # to grow to this fast
        self._heard = 0

    def opened(self) -> None:
        """A new connection has been sealed."""
        self.bound = FIRST_BOUND
        self._heard = 0

    def heard(self) -> bool:
        """Something authentic has come. Whether the bound is another one now."""
        if self.bound == MAX_RECORD_BYTES:
            return False
        self._heard += 1
        if self._heard < (HEARD_AT_FIRST if 2 * self.bound <= self._goal else HEARD_LATER):
            return False
        self._heard = 0
        self.bound = min(2 * self.bound, MAX_RECORD_BYTES)
        self._goal = max(self._goal, self.bound)
        return True

    def broke(self, largest: int) -> None:
        """The connection has ended. `largest`: bytes of frames in the largest record that was sent over it."""
        self._goal = max(FIRST_BOUND, min(self._goal, max(largest, FIRST_BOUND)) // 2)
