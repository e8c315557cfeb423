"""When to connect to another node again, and when to greet one that has not answered a greeting. Pure; times in
seconds on one clock that does not go backwards."""

from __future__ import annotations

import math
from typing import Final

# Between attempts to connect: short, as a restarted node should be in use at once, with an upper end that costs nothing
# while a machine is away.
RECONNECT_FIRST_S: Final = 0.05
RECONNECT_MAX_S: Final = 1.0
# How often a peer that speaks only the contract is greeted again: it may have been upgraded.
GREET_AGAIN_S: Final = 30.0
# A greeting without an answer proves nothing if the peer said nothing else meanwhile: it may have been killed. The next
# connection is greeted again then, but not sooner than this after the last one; it doubles with each, to GREET_AGAIN_S.
GREET_GAP_S: Final = 0.5
# How long the answer to a greeting is waited for, and how long at first by a peer that has answered before: on a line
# that loses bytes it may never come. It doubles each time, up to the longest.
GREETING_S: Final = 2.0
GREETING_FIRST_S: Final = 0.25


class Patience:
    """How long to wait for the answer to a greeting, by a peer that has answered one before."""

    def __init__(self) -> None:
        self.seconds = GREETING_FIRST_S

    def silent(self) -> None:
        """No answer came in time."""
        self.seconds = min(2 * self.seconds, GREETING_S)

    def answered(self) -> None:
        self.seconds = GREETING_FIRST_S


class Pauses:
    """How long to wait before the next attempt to connect."""

    def __init__(self) -> None:
        self._pause_s = RECONNECT_FIRST_S

    def failed(self) -> float:
        """An attempt has failed."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, RECONNECT_MAX_S)
        return pause_s

    def was_of_use(self) -> None:
        """A connection has brought something."""
        self._pause_s = RECONNECT_FIRST_S

    def ended(self, lived_s: float, *, was_of_use: bool) -> float:
        """A connection has ended. One that lasted no time and brought nothing is no better than none: whoever accepts
        and closes at once must not be connected to a thousand times a second."""
        if was_of_use or lived_s >= RECONNECT_MAX_S:
            self.was_of_use()
        return 0.0 if lived_s >= RECONNECT_MAX_S else self.failed()


class GreetingTimes:
    """When a peer that is spoken to by the contract is greeted next."""

    def __init__(self) -> None:
        self._due_s = self._at_relink_s = -math.inf
        self._gap_s = GREET_GAP_S

    def unanswered(self, now: float, *, speaks_contract: bool) -> None:
        """A greeting had no answer in time. `speaks_contract`: the peer has sent messages of the contract since it was
        greeted, so it is up, and does not know greetings."""
        self._due_s = self._at_relink_s = now + GREET_AGAIN_S
        if not speaks_contract:
            self._at_relink_s = self._after_gap(now)

    def failed(self, now: float) -> None:
        """The connection ended, or could not be made, or what came was changed on its way: nothing is known."""
        self._due_s = self._at_relink_s = self._after_gap(now)

    def _after_gap(self, now: float) -> float:
        gap_s, self._gap_s = self._gap_s, min(2 * self._gap_s, GREET_AGAIN_S)
        return now + gap_s

    def next_s(self, *, relinked: bool) -> float:
        """When to greet. `relinked`: the peer's connection has been made anew since; it may have been restarted."""
        return self._at_relink_s if relinked else self._due_s
