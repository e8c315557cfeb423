"""ClientLine: a client's connection to one node: made, greeted, kept, and made again when it breaks."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

from dsreg.link.dialing import Pauses
from dsreg.link.effects import Close, Connect, Deliver, Down, Effect, Features, Level, LimitRecords, Log, Up
from dsreg.link.greeting_line import GreetingLine
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals, Verdict
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    Command,
    CommandKind,
    Hello,
    LivesReport,
    Message,
    Response,
)
from dsreg.protocol.record_bound import RecordBound

# Connecting, and then the HELLO answer, may take this long each. A node answers a HELLO without waiting for others. On
# a machine that has too much to do it needs longer: after a silence it gets twice as long, up to the last figure.
CONNECT_S: Final = 2.0
HELLO_S: Final = 2.0
HELLO_MAX_S: Final = 16.0
# How long the HELLO answer may come after the answer to the question that was asked behind it.
FOREIGN_S: Final = 0.5

# A node with another client key drops our HELLO in silence. A command of the contract it must answer, with
# AUTH_FAILURE under its own key, which we see as a bad HMAC; with our key it must answer that there is no such
# sector. Neither has any effect, and a node that speaks the contract only is told from one that is stuck.
KEY_QUESTION: Final = Command(CommandKind.READ, 0, (1 << 64) - 1, 1)


class Ending(enum.Enum):
    """How an attempt to be greeted ended; the value is what to log."""

    GOOD = "usable"
    LOST = "closes the connection instead of answering the HELLO"
    SILENT = "does not answer the HELLO"
    FOREIGN = "does not speak the extension of the protocol: not used"
    KEY_REFUSED = "has another client key"
    OTHER_DISK = "has a disk of another size"
    UNSEALED = "does not seal its connections, which require_sealed demands: not used"
    CHANGED = "handshake failed: data corrupted in transit"


# What a byte that was changed on its way, or a slow node, can look like, too: believed when it is seen twice in a row.
DOUBTFUL: Final = (Ending.FOREIGN, Ending.KEY_REFUSED, Ending.CHANGED, Ending.SILENT)


class Phase(enum.Enum):
    PAUSED = "until the next attempt"
    CONNECTING = "the connection is being made"
    GREETING = "the greeting has been sent"
    AWAITING_LIVES = "the greeting was good; the node has yet to tell of lives"
    UP = "in use"
    CLOSING = "the attempt has failed"


class ClientLine:
    """`hello`: the client's own. `new_decoder`: a decoder for what a node sends. `jitter`: a factor for each pause."""

    def __init__(
        self, hello: Hello, seals: Seals, new_decoder: Callable[[], UnsealingDecoder], jitter: Callable[[], float]
    ) -> None:
        self.next_due = math.inf
        self.phase = Phase.PAUSED
        self.ending = Ending.LOST  # of the last connection, or of the attempt to make one
        self.node_sectors = hello.sectors  # as the node has said last
        self._hello = hello
        self._seals = seals
        self._new_decoder = new_decoder
        self._jitter = jitter
        self._line = 0
        self._greeting: GreetingLine
        self._decoder: UnsealingDecoder
        self._behind: list[Message] = []  # came before the connection was up
        self._records = RecordBound()
        self._pauses = Pauses()
        self._hello_s = HELLO_S
        self._suspected: Ending | None = None  # how the last attempt to be greeted ended
        self._told: tuple[Ending, int] | None = None
        self._cluster_size = 0  # as the node has said last

    @property
    def complaint(self) -> str:
        """Why the node was not used when it was greeted last; "" if it was, or has not been reached yet."""
        if self._told is None or self._told[0] is Ending.GOOD:
            return ""
        return self._describe(self._told[0])

    # --- events -----------------------------------------------------------------------------------
    def start(self, now: float) -> list[Effect]:
        """Connect, and for ever."""
        self._line += 1
        self.phase = Phase.CONNECTING
        self.next_due = now + CONNECT_S
        return [Connect(self._line)]

    def connect_failed(self, line: int, reason: str, now: float) -> list[Effect]:
        if line != self._line:
            return []
        return [Log(Level.DEBUG, f"cannot connect: {reason}"), *self._over(Ending.LOST, now)]

    def connected(self, line: int, now: float) -> list[Effect]:
        if line != self._line or self.phase is not Phase.CONNECTING:
            return []
        self.phase = Phase.GREETING
        self.next_due = now + self._hello_s
        self._decoder = self._new_decoder()
        self._greeting = GreetingLine(line, self._hello, 0, self._seals, self._decoder)
        return self._greeting.begin(KEY_QUESTION)

    def received(self, line: int, data: bytes, now: float) -> list[Effect]:
        if line != self._line:
            return []
        if self.phase is Phase.UP:
            return self._take(data)
        if self.phase is Phase.GREETING:
            return self._hear(data, now)
        if self.phase is Phase.AWAITING_LIVES:
            self._behind += self._decoder.feed(data)
            return self._use_if_told()
        return []

    def closed(self, line: int, largest_record: int, now: float) -> list[Effect]:
        """`largest_record`: bytes of frames in the largest one that was sent over the connection."""
        if line != self._line:
            return []
        if self.phase is Phase.GREETING:
            effects = self._believed(Ending.LOST)
            return [*effects, *self._over(Ending.LOST, now)]
        if self.phase is Phase.UP:
            self._records.broke(largest_record)
            self._told = None  # whoever reads that wants to read as well that it is usable again
            return [Log(Level.INFO, "the connection has ended"), *self._over(Ending.LOST, now)]
        return self._over(self.ending if self.phase is Phase.CLOSING else Ending.LOST, now)

    def tick(self, now: float) -> list[Effect]:
        if now < self.next_due:
            return []
        if self.phase is Phase.PAUSED:
            return self.start(now)
        if self.phase is Phase.GREETING:
            return self._end_greeting(self._overdue())
        reason = "it takes too long" if self.phase is Phase.CONNECTING else "does not tell of lives"
        return [Log(Level.DEBUG, f"given up: {reason}"), *self._close(Ending.LOST)]

    def redial(self, now: float) -> list[Effect]:
        """The node is said to be at another address than the one of the last attempt."""
        self._pauses.was_of_use()
        if self.phase is Phase.PAUSED:
            return self.start(now)
        if self.phase is Phase.UP:
            return [Close(self._line)]
        return self._close(Ending.LOST) if self.phase is not Phase.CLOSING else []

    # --- the greeting -----------------------------------------------------------------------------
    def _hear(self, data: bytes, now: float) -> list[Effect]:
        greeting = self._greeting
        verdict = greeting.feed(data)
        if verdict is Verdict.BROKEN:
            is_key = self._decoder.counters["bad_mac"] and greeting.answer is None and not greeting.others
            return self._end_greeting(Ending.KEY_REFUSED if is_key else Ending.CHANGED)
        if verdict is None:
            if self._is_foreign:
                # A node answers what it knows in the order of its coming, and the HELLO came first.
                self.next_due = min(self.next_due, now + FOREIGN_S)
            return []
        assert greeting.answer is not None
        self.node_sectors, self._cluster_size = greeting.answer.sectors, greeting.answer.cluster_size
        tells_size = greeting.answer.features & FEATURE_CONFIGURATIONS  # with its configuration, which comes next
        if self.node_sectors != self._hello.sectors and not tells_size:
            return self._end_greeting(Ending.OTHER_DISK)
        if verdict is Verdict.PLAIN and self._seals.required:
            return self._end_greeting(Ending.UNSEALED)
        effects: list[Effect] = [Features(greeting.line, greeting.answer.features)]
        effects += greeting.seal(self._records, KEY_QUESTION) if verdict is Verdict.SEALED else []
        self._behind = greeting.behind
        self.phase = Phase.AWAITING_LIVES
        self.next_due = now + HELLO_S
        return [*effects, *self._believed(Ending.GOOD), *self._use_if_told()]

    @property
    def _is_foreign(self) -> bool:
        """The question behind the HELLO has been answered, and the HELLO has not."""
        greeting = self._greeting
        return greeting.answer is None and any(
            isinstance(message, Response) and not message.extended for message in greeting.others
        )

    def _overdue(self) -> Ending:
        if self._greeting.answer is not None:
            return Ending.CHANGED  # it was to be sealed, and somebody has kept that from us
        return Ending.FOREIGN if self._is_foreign else Ending.SILENT

    def _end_greeting(self, ending: Ending) -> list[Effect]:
        """It was not good, and the connection is of no use."""
        if ending in DOUBTFUL and ending is not self._suspected:
            self._note(ending)
            return [Log(Level.INFO, f"{ending.value}, apparently: asking again"), *self._close(Ending.LOST)]
        return [*self._believed(ending), *self._close(ending)]

    def _believed(self, ending: Ending) -> list[Effect]:
        """How it went is said once, until it changes."""
        self._note(ending)
        if (ending, self.node_sectors) == self._told:
            return []
        self._told = ending, self.node_sectors
        level = Level.INFO if ending in (Ending.GOOD, Ending.LOST) else Level.WARNING
        return [Log(level, self._describe(ending))]

    def _note(self, ending: Ending) -> None:
        self._suspected = ending
        self._hello_s = min(2 * self._hello_s, HELLO_MAX_S) if ending is Ending.SILENT else HELLO_S

    def _describe(self, ending: Ending) -> str:
        sizes = f" ({self.node_sectors} sectors, not {self._hello.sectors})" if ending is Ending.OTHER_DISK else ""
        return ending.value + sizes

    # --- in use -----------------------------------------------------------------------------------
    def _use_if_told(self) -> list[Effect]:
        """What the node tells of lives comes first, and is not to be missed."""
        told = any(isinstance(message, LivesReport) for message in self._behind)
        if self._decoder.broken:
            return self._close(Ending.LOST)
        if self._greeting.shows_lives and not told:
            return []
        self.phase = Phase.UP
        self.next_due = math.inf
        behind, self._behind = self._behind, []
        return [Up(self._line, self._cluster_size), Deliver(self._line, behind)]

    def _take(self, data: bytes) -> list[Effect]:
        messages = self._decoder.feed(data)
        effects: list[Effect] = [Deliver(self._line, messages)]
        if messages:
            self._pauses.was_of_use()
            if self._records.heard():
                effects.insert(0, LimitRecords(self._line, self._records.bound))
        if self._decoder.broken:
            effects += [Log(Level.INFO, "data corrupted in transit"), Close(self._line)]
        return effects

    # --- the end ----------------------------------------------------------------------------------
    def _close(self, ending: Ending) -> list[Effect]:
        self.phase = Phase.CLOSING
        self.ending = ending
        self.next_due = math.inf
        return [Close(self._line)]

    def _over(self, ending: Ending, now: float) -> list[Effect]:
        self.phase = Phase.PAUSED
        self.ending = ending
        # Jitter: the clients of a node that restarts must not all come back at the same moment.
        self.next_due = now + self._pauses.failed() * self._jitter()
        return [Down(self._line)]
