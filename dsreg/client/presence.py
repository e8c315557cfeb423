"""Presence: whether the client that nodes report as alive is there, or has just left.

A client that closes its connections is alive for a node until that has read their ends. So whoever finds the disk
attached right after that asks again for a while before it believes it.
"""

from __future__ import annotations

from dsreg.client.limits import LEAVES_S


class Presence:
    """Of the client that has the disk attached, as the answers of a majority tell it."""

    def __init__(self) -> None:
        self._since_s: float | None = None  # when it was first reported as alive

    def is_sure(self, now_s: float) -> bool:
        """The nodes report it as alive. Whether they have done so for LEAVES_S."""
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s >= LEAVES_S

    def left(self) -> None:
        """Nobody alive has the disk."""
        self._since_s = None
