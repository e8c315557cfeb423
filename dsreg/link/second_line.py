"""SecondLine: the greeting of a peer that is spoken to by the contract, over connections of its own."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from dsreg.link.dialing import GREETING_S, GreetingTimes, Pauses
from dsreg.link.effects import Close, Connect, Effect
from dsreg.link.greeting_line import GreetingLine
from dsreg.link.node_greeting import Greeted, Greetings


class Phase(enum.Enum):
    OFF = "the peer is not spoken to by the contract"
    CONNECTING = "the connection is being made"
    GREETING = "the greeting has been sent"
    CLOSING = "it was of no use"
    WAITING = "until the next greeting"


class SecondLine:
    """`new_line`: numbers for connections. `heard_s`: when the peer has sent a message of the contract last; -inf:
    never. `keeps_lives`: whether the peer is known to. `pauses`: shared with the peer's first connection."""

    def __init__(
        self,
        greetings: Greetings,
        pauses: Pauses,
        new_line: Callable[[], int],
        keeps_lives: Callable[[], bool],
        heard_s: Callable[[], float],
        jitter: Callable[[], float],
        connect_s: float,
    ) -> None:
        self.phase = Phase.OFF
        self.line = 0
        self.greeted: Greeted | None = None  # once the peer has answered
        self.is_hopeful = True  # the peer may greet, as far as is known: the last greeting was answered
        self._due = math.inf
        self._greetings = greetings
        self._pauses = pauses
        self._new_line = new_line
        self._keeps_lives = keeps_lives
        self._heard_s = heard_s
        self._jitter = jitter
        self._connect_s = connect_s
        self._times = GreetingTimes()
        self._relinked = False  # since the last greeting began the peer may have come to know greetings
        self._paused = False  # the time of the next greeting is `_due`, whatever the peer's connections do
        self._greeting: GreetingLine
        self._greeted_s = 0.0
        self._is_late = False  # the last greeting had no answer in time

    @property
    def next_due(self) -> float:
        if self.phase is not Phase.WAITING or self._paused:
            return self._due
        again_s = self._times.next_s(relinked=False)
        return min(again_s, self._times.next_s(relinked=True)) if self._relinked else again_s

    # --- events -----------------------------------------------------------------------------------
    def start(self, now: float) -> list[Effect]:
        """Greet now, and again until the peer has answered."""
        self.greeted = None
        self._relinked = False
        self.phase = Phase.CONNECTING
        self.line = self._new_line()
        self._due = now + self._connect_s
        return [Connect(self.line)]

    def relinked(self) -> None:
        """The peer's first connection has been made anew: the peer may be another one by now."""
        self._relinked = True

    def greet_soon(self) -> None:
        """The peer is known to answer greetings."""
        self._times = GreetingTimes()
        self._relinked = True

    def connected(self, now: float) -> list[Effect]:
        if self.phase is not Phase.CONNECTING:
            return []
        self.phase = Phase.GREETING
        self._greeted_s = now
        self._is_late = False
        self._due = now + GREETING_S
        self._greeting, effects = self._greetings.begin(self.line)
        return effects

    def received(self, data: bytes) -> list[Effect]:
        """Sets `greeted`, perhaps."""
        if self.phase is not Phase.GREETING:
            return []
        verdict = self._greeting.feed(data)
        if verdict is None:
            return []
        self.greeted, effects = self._greetings.judged(self._greeting, verdict)
        if self.greeted is None:
            return [*effects, *self._close()]
        self.phase = Phase.OFF
        self.line = 0
        self._due = math.inf
        self._times = GreetingTimes()
        self.is_hopeful = True
        return effects

    def closed(self, now: float) -> list[Effect]:
        """Or it could not be made."""
        effects = self._greetings.closed(self._greeting) if self.phase is Phase.GREETING else []
        if self._is_late:
            self._times.unanswered(now, speaks_contract=self._heard_s() > self._greeted_s)
        else:
            self._times.failed(now)
        self._is_late = False
        self.is_hopeful = False
        self.phase = Phase.WAITING
        self.line = 0
        # Nothing tells when a peer is upgraded, or has been restarted and still has the old connection.
        self._paused = self._keeps_lives()
        self._due = now + self._pauses.failed() * self._jitter() if self._paused else math.inf
        return effects

    def tick(self, now: float) -> list[Effect]:
        if now < self.next_due:
            return []
        if self.phase is Phase.WAITING:
            return self.start(now)
        if self.phase is Phase.CONNECTING:
            return self._close()
        self._is_late = True
        return [*self._greetings.overdue(self._greeting), *self._close()]

    def _close(self) -> list[Effect]:
        self.phase = Phase.CLOSING
        self._due = math.inf
        return [Close(self.line)]
