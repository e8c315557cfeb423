"""Receipts: whether a peer of the contract is sent them. They are optional, and some peers hang up on them."""

from __future__ import annotations

import math

# A peer that ends a connection so soon after the first receipt on it does so because of that receipt...
HANG_UP_S = 5.0
# ... if it happens so often in a row. Once may be a restart.
HANG_UPS = 2
# Then it gets none for so long. It may have been mended since; if not, trying costs it a connection.
PAUSE_S = 600.0


class Receipts:
    """Of one peer. Times in seconds on one clock that does not go backwards."""

    def __init__(self) -> None:
        self._is_up = False
        self._first_s: float | None = None  # when the first one went over the present link
        self._hang_ups = 0  # in a row
        self._not_before_s = -math.inf

    def link_up(self) -> None:
        self._is_up = True
        self._first_s = None

    def link_down(self, now: float) -> None:
        if self._first_s is not None:
            self._hang_ups = self._hang_ups + 1 if now - self._first_s <= HANG_UP_S else 0
            if self._hang_ups >= HANG_UPS:
                self._not_before_s = now + PAUSE_S
        self._is_up = False
        self._first_s = None

    def wanted(self, now: float) -> bool:
        """Whether to send one now; then it is taken for sent."""
        if not self._is_up or now < self._not_before_s:
            return False
        if self._first_s is None:
            self._first_s = now
        return True
