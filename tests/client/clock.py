"""The clock of a client, stopped."""

from __future__ import annotations

from dsreg.client import Client


class StoppedClock:
    """Of the engine of this client. It goes on only when it is moved, so that no attempt, and no time limit, is over
    because the machine has other things to do."""

    def __init__(self, client: Client) -> None:
        self._now_s = client._engine._clock()
        client._engine._clock = self

    def __call__(self) -> float:
        return self._now_s

    def move(self, seconds: float) -> None:
        self._now_s += seconds
