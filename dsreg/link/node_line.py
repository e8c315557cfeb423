"""NodeLine: the link of a node to another one: made, greeted, kept, and made again when it breaks.

A peer that has not been heard greeting gets a plain contract connection first, with not a byte on it that
the contract does not know; the greeting goes over a second one (second_line). If it is answered the extension takes
over and the first is closed. A peer that did greet before is greeted at once.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dsreg.link.dialing import GREETING_S, RECONNECT_FIRST_S, Pauses
from dsreg.link.effects import (
    TOLD,
    Close,
    Connect,
    Continue,
    Deliver,
    Effect,
    Introduce,
    Left,
    Level,
    LimitRecords,
    LinkDown,
    LinkUp,
    Log,
    TellLives,
    Told,
    ToldAddresses,
)
from dsreg.link.greeting_line import GreetingLine
from dsreg.link.node_greeting import Greeted, Greetings
from dsreg.link.second_line import SecondLine
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals, Verdict
from dsreg.protocol.messages import (
    Ack,
    AddressReport,
    Digests,
    Fenced,
    Hello,
    Message,
    Receipt,
    Sums,
    Value,
)

CONNECT_S: Final = 5.0
# For how long a peer that has sealed and is silent now is only greeted, again and again: it is starting, rather than
# another one that cannot.
AWAIT_SEAL_S: Final = 30.0
# How long a peer that may greet has time to do so before it gets contract messages, in clear text. A greeting takes
# some milliseconds; a peer that speaks only the contract is made to wait this long once.
CONTRACT_AFTER_S: Final = 0.05
# How often what is known of lives is said again.
LIVES_AGAIN_S: Final = 5.0

_FAULTS: Final = {
    "silent": "does not answer the greeting: it has other keys, hangs, or speaks only the contract",
    "unsealed": "does not seal its connections: it is of an older version",
}


class Lives(Protocol):
    """What is known of the directory behind a rank: see dsreg.register.lives.Lives."""

    def keeps_lives(self, rank: int) -> bool: ...

    def counts(self, rank: int) -> bool: ...

    def fault(self, rank: int) -> str: ...


class Phase(enum.Enum):
    CONNECTING = "the connection is being made"
    ABORTED = "it took too long, and is given up"
    GREETING = "the greeting has been sent"
    REFUSED = "the greeting was not good, and the connection is being closed"
    HELD = "for the contract; the peer may still answer the greeting on its second connection"
    SERVING = "in use"
    ENDING = "it was in use, and is being closed"
    PAUSED = "until the next attempt"


class NodeLine:
    """To the node `rank`. `hello`: this node's own. `new_decoder(extended)`: a decoder for what the peer sends.
    `heard_s`: when the peer has sent a message of the contract last; -inf: never. `jitter`: a factor for pauses."""

    def __init__(
        self,
        rank: int,
        hello: Hello,
        seals: Seals,
        new_decoder: Callable[[bool], UnsealingDecoder],
        lives: Lives,
        *,
        heard_s: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        # For STATUS: "down", "contract", "extension", "sealed"; "waiting" for one that has not started, or has not
        # shown its directory yet; "directory changed"; or, if only what is sealed is good enough, "silent"
        # for a peer that does not answer the greeting and "unsealed" for one that does not seal.
        self.state = "down"
        self.phase = Phase.PAUSED
        self._rank = rank
        self._lives = lives
        self._jitter = jitter
        self._greetings = Greetings(rank, hello, seals, new_decoder)
        self._pauses = Pauses()
        self._lines = itertools.count(1)
        self._second = SecondLine(
            self._greetings, self._pauses, lambda: next(self._lines), lambda: self._keeps_lives, heard_s, jitter,
            CONNECT_S,
        )
        self._line = 0
        self._due = self._tell_due = math.inf
        self._by_contract = False  # until the peer has answered a greeting on its second connection
        self._greets = False  # the peer has answered a greeting before
        self._awaited_until_s = -math.inf  # it has sealed, and is not spoken to in clear text before this
        self._greeting: GreetingLine
        # Of the connection in use:
        self._used: Greeted
        self._is_up = self._was_of_use = False
        self._began_s = 0.0
        self._rest: Sequence[Message] = ()  # behind a Told

    @property
    def next_due(self) -> float:
        return min(self._due, self._tell_due, self._second.next_due)

    @property
    def _keeps_lives(self) -> bool:
        return self._lives.keeps_lives(self._rank)

    # --- events -----------------------------------------------------------------------------------
    def start(self, now: float) -> list[Effect]:
        """Connect, and for ever."""
        self._line = next(self._lines)
        self.phase = Phase.CONNECTING
        self._due = now + CONNECT_S
        return [Connect(self._line)]

    def connect_failed(self, line: int, reason: str, now: float) -> list[Effect]:
        return self.closed(line, 0, now)

    def connected(self, line: int, now: float) -> list[Effect]:
        if line == self._second.line:
            return self._second.connected(now)
        if line != self._line or self.phase is not Phase.CONNECTING:
            return []
        if self._by_contract:
            self._second.relinked()
            return self._serve(self._of_contract(), now)
        if self._greetings.seals.required or self._greets or self._keeps_lives:
            self.phase = Phase.GREETING
            self._due = now + (self._greetings.patience.seconds if self._greets else GREETING_S)
            self._greeting, effects = self._greetings.begin(line)
            return effects
        self._by_contract = True
        if not self._second.is_hopeful:
            return [*self._second.start(now), *self._serve(self._of_contract(), now)]
        self.phase = Phase.HELD  # what goes over the contract's connection can be read by anybody
        self._due = now + CONTRACT_AFTER_S
        self._used = self._of_contract()
        return self._second.start(now)

    def received(self, line: int, data: bytes, now: float) -> list[Effect]:
        if line == self._line:
            if self.phase is Phase.SERVING:
                return self._take_bytes(data)
            if self.phase is Phase.GREETING:
                return self._hear(data, now)
            if self.phase is Phase.HELD:
                self._used.messages.extend(self._used.decoder.feed(data))
        elif line == self._second.line:
            effects = self._second.received(data)
            if self._second.greeted is None:
                return effects
            return [*effects, *self._leave(), *self._use(self._second.greeted, now)]
        return []

    def more(self, line: int) -> list[Effect]:
        """After a Continue."""
        if line != self._line or self.phase is not Phase.SERVING:
            return []
        rest, self._rest = self._rest, ()
        return self._take(rest)

    def closed(self, line: int, largest_record: int, now: float) -> list[Effect]:
        """`largest_record`: bytes of frames in the largest one that was sent over the connection."""
        if line == self._second.line:
            effects = self._second.closed(now)
            return [*effects, *self._serve(self._used, now)] if self.phase is Phase.HELD else effects
        if line != self._line:
            return []
        if self.phase is Phase.GREETING:
            return [*self._greetings.closed(self._greeting), *self._refused("silent"), *self._after_refusal(now)]
        if self.phase is Phase.REFUSED:
            return self._after_refusal(now)
        if self.phase is Phase.HELD:
            self._began_s, self._is_up, self._was_of_use = now, False, False
            return self._ended(largest_record, now)
        if self.phase in (Phase.SERVING, Phase.ENDING):
            return self._ended(largest_record, now)
        self.state = "down"
        self._pause(self._pauses.failed(), now)
        return []

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._tell_due:
            self._tell_due = now + LIVES_AGAIN_S
            effects.append(TellLives(self._line))
        if now >= self._due:
            effects += self._overdue(now)
        if now >= self._second.next_due:
            effects += self._second.tick(now)
        return effects

    def greet_soon(self) -> list[Effect]:
        """The peer has sealed a connection of its own to this node, or shown otherwise that it greets: if it is spoken
        to by the contract, greet it now."""
        self._second.greet_soon()
        return []

    def review(self) -> list[Effect]:
        """Use the link, or do not, by what is known of the directory behind the rank."""
        if self.phase is not Phase.SERVING:
            return []
        good = self._lives.counts(self._rank) if self._used.shows_lives else not self._keeps_lives
        if self._lives.fault(self._rank):
            return self._close()
        if self._is_up and not good:
            self._second.greet_soon()
            return self._close()
        if good and not self._is_up:
            self._is_up = True
            self.state = "contract" if self._by_contract else "sealed" if self._used.is_sealed else "extension"
            return [LinkUp(self._line, not self._by_contract)]
        return []

    def renew(self) -> list[Effect]:
        """The peer has rejoined with a later life: what may still come over a link of before does not count."""
        if self.phase is not Phase.SERVING or not self._is_up:
            return []
        self._second.greet_soon()
        return self._close()

    def redial(self, now: float) -> list[Effect]:
        """The peer is said to be at another address than the one of the last attempt."""
        self._pauses.was_of_use()
        if self.phase is Phase.SERVING:
            return self._close()
        if self.phase is Phase.PAUSED:
            return self.start(now)
        if self.phase not in (Phase.CONNECTING, Phase.GREETING):
            return []
        self.phase = Phase.ABORTED if self.phase is Phase.CONNECTING else Phase.REFUSED
        self._due = math.inf
        return [Close(self._line)]

    def _overdue(self, now: float) -> list[Effect]:
        if self.phase is Phase.PAUSED:
            return self.start(now)
        if self.phase is Phase.HELD:
            return self._serve(self._used, now)
        self._due = math.inf
        if self.phase is Phase.CONNECTING:
            self.phase = Phase.ABORTED
            return [Close(self._line)]
        assert self.phase is Phase.GREETING
        self.phase = Phase.REFUSED
        return [*self._greetings.overdue(self._greeting), *self._refused("silent"), Close(self._line)]

    # --- the greeting -----------------------------------------------------------------------------
    def _hear(self, data: bytes, now: float) -> list[Effect]:
        verdict = self._greeting.feed(data)
        if verdict is None:
            return []
        greeted, effects = self._greetings.judged(self._greeting, verdict)
        if greeted is not None:
            return [*effects, *self._use(greeted, now)]
        self.phase = Phase.REFUSED
        self._due = math.inf
        state = "unsealed" if verdict is Verdict.PLAIN else "silent"
        return [*effects, *self._refused(state), Close(self._line)]

    def _refused(self, state: str) -> list[Effect]:
        """Why a peer is not used, once until it changes."""
        if not self._greetings.seals.required or state == self.state:
            return []
        self.state = state
        return [Log(Level.WARNING, f"is not used: require_sealed is set, and it {_FAULTS[state]}")]

    def _after_refusal(self, now: float) -> list[Effect]:
        if self._greetings.seals.required:
            self._pause(self._pauses.failed(), now)  # nothing tells when the peer is set right
        elif now < self._awaited_until_s:
            self.phase, self._due = Phase.PAUSED, now + RECONNECT_FIRST_S  # nor when it has recovered
        elif self._keeps_lives:
            self._pause(self._pauses.failed(), now)  # it has to show its directory, so the contract will not do
        else:
            self._greets = False
            return self.start(now)
        return []

    # --- in use -----------------------------------------------------------------------------------
    def _of_contract(self) -> Greeted:
        return Greeted(self._line, self._greetings.new_decoder(False), [], False, 0)

    def _use(self, greeted: Greeted, now: float) -> list[Effect]:
        """The peer has answered a greeting on this connection."""
        self._greets = True
        self._by_contract = False
        self._line = greeted.line
        return self._serve(greeted, now)

    def _serve(self, greeted: Greeted, now: float) -> list[Effect]:
        self.phase = Phase.SERVING
        self.state = "waiting"
        self._due = math.inf
        self._used = greeted
        self._is_up, self._was_of_use = False, greeted.is_sealed
        self._began_s = now
        effects: list[Effect] = []
        if greeted.shows_lives:
            self._tell_due = now + LIVES_AGAIN_S
            effects.append(Introduce(self._line, greeted.features))
        return [*effects, *self._take(greeted.messages)]

    def _take_bytes(self, data: bytes) -> list[Effect]:
        messages = self._used.decoder.feed(data)
        effects: list[Effect] = []
        if messages:
            self._was_of_use = True
            records = self._greetings.records
            if records.heard():
                effects.append(LimitRecords(self._line, records.bound))
        return [*effects, *self._take(messages)]

    def _take(self, messages: Sequence[Message]) -> list[Effect]:
        """Only answers are for us here; a contract peer may also send them over its own connection."""
        answers: list[Message] = []
        effects: list[Effect] = []
        for index, message in enumerate(messages):
            if isinstance(message, TOLD):
                if message.rank == self._rank:
                    self._rest = messages[index + 1 :]
                    before: list[Effect] = [Deliver(self._line, answers)] if answers else []
                    return [*effects, *before, Told(message), Continue(self._line)]
            elif isinstance(message, AddressReport):
                effects.append(ToldAddresses(message))
            elif self._is_up and isinstance(message, (Value, Ack, Fenced, Digests, Sums, Receipt)):
                answers.append(message)
        effects += [Deliver(self._line, answers)] if answers else []
        effects += self.review()
        if self._used.decoder.broken and self.phase is Phase.SERVING:
            effects.append(Log(Level.INFO, "data corrupted in transit: the connection is made anew"))
            effects += self._close()
        return effects

    # --- the end ----------------------------------------------------------------------------------
    def _close(self) -> list[Effect]:
        """The connection in use; what follows is `closed`."""
        self.phase = Phase.ENDING
        self._tell_due = math.inf
        return [LinkDown(self._line), Close(self._line)]

    def _leave(self) -> list[Effect]:
        """The peer has answered a greeting on its second connection: this one is of no use any more."""
        self._due = self._tell_due = math.inf
        if self.phase is Phase.PAUSED:
            return []
        return [LinkDown(self._line), Left(self._line), Close(self._line)]

    def _ended(self, largest_record: int, now: float) -> list[Effect]:
        used = self._used
        self._tell_due = math.inf
        if used.is_sealed:
            self._greetings.records.broke(largest_record)
            self._awaited_until_s = now + AWAIT_SEAL_S
        is_good = not self._lives.fault(self._rank)
        self.state = "down" if is_good else "directory changed"
        lived_s = now - self._began_s
        effects: list[Effect] = [LinkDown(used.line), Left(used.line)]
        pause_s = self._pauses.ended(lived_s, was_of_use=self._was_of_use and is_good)
        if not pause_s:
            return [*effects, *self.start(now)]
        self._pause(pause_s, now)
        return effects

    def _pause(self, seconds: float, now: float) -> None:
        """A back-off, not a wait for something. With jitter: the peers of a node that restarts come back one by one."""
        self.phase = Phase.PAUSED
        self._due = now + seconds * self._jitter()
