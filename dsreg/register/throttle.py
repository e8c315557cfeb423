"""How fast a node heals: as fast as it can while no client needs it, and little at a time while one does."""

from __future__ import annotations

import math

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE

# For so long after the last command of a client, or store for one, its next one is expected.
BUSY_S = 0.1
# Sectors that are asked for and not stored yet: enough to keep a disk and a network busy; and, while clients are at it,
# what a commit takes along without their noticing.
IDLE_SECTORS = 8 * MAX_RUN_SECTORS
BUSY_SECTORS = 16
# Likewise chunks that are looked at, as of most only some sectors are lacking, and each waits for its commit; and
# seconds between two questions for digests.
IDLE_CHUNKS = 32
BUSY_CHUNKS = 2
BUSY_PAUSE_S = 0.02
# The rate that is told is that of the last seconds.
_WINDOW_S = 2.0


class Throttle:
    """`bytes_per_s`: no more than that are fetched; 0: as many as there are."""

    def __init__(self, bytes_per_s: int = 0) -> None:
        self._bytes_per_s = bytes_per_s
        self._client_s = -math.inf
        self._free_s = -math.inf  # when the next run may be asked for
        self._since_s = -math.inf  # the begin of the window in which bytes are counted
        self._bytes = 0
        self._rate = 0.0

    def client(self, now: float) -> None:
        """A client wants something of this node, or of others through it."""
        self._client_s = now

    def is_busy(self, now: float) -> bool:
        return now - self._client_s < BUSY_S

    def chunks(self, now: float) -> int:
        """How many are looked at at one time."""
        return BUSY_CHUNKS if self.is_busy(now) else IDLE_CHUNKS

    def pause_s(self, now: float) -> float:
        """Between two questions for digests."""
        return BUSY_PAUSE_S if self.is_busy(now) else 0.0

    def room(self, under_way: int, now: float) -> int:
        """How many sectors may be asked for while so many are under way; 0: none, until some are stored, or later."""
        if now < self._free_s:
            return 0
        if self.is_busy(now):
            return 0 if under_way else BUSY_SECTORS
        return 0 if under_way >= IDLE_SECTORS else MAX_RUN_SECTORS

    def asked(self, sectors: int, now: float) -> None:
        if self._bytes_per_s:
            self._free_s = max(now, self._free_s) + sectors * SECTOR_SIZE / self._bytes_per_s

    def next_due(self, under_way: int, now: float) -> float:
        """When there is `room` without anything being stored, which may be in the past; inf: not before."""
        return self._free_s if now < self._free_s or self.room(under_way, now) else math.inf

    # --- what is told -----------------------------------------------------------------------------
    def stored(self, sectors: int, now: float) -> None:
        self._roll(now)
        self._bytes += sectors * SECTOR_SIZE

    def rate(self, now: float) -> float:
        """Bytes a second, lately."""
        self._roll(now)
        return self._rate

    def _roll(self, now: float) -> None:
        if (passed_s := now - self._since_s) >= _WINDOW_S:
            self._rate = self._bytes / passed_s if passed_s < 2 * _WINDOW_S else 0.0
            self._since_s, self._bytes = now, 0
