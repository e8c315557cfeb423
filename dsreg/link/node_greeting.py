"""What a node concludes from the greetings that it sends to another node: over its link, or beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dsreg.link.dialing import Patience
from dsreg.link.effects import Effect, Features, Greeting, Greets, Level, Log, Unanswered
from dsreg.link.greeting_line import GreetingLine
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Ack, Hello, Message
from dsreg.protocol.record_bound import RecordBound


class Greeted(NamedTuple):
    """A connection that may be used. `messages`: came right behind the greeting. `features`: see Hello."""

    line: int
    decoder: UnsealingDecoder
    messages: list[Message]
    is_sealed: bool
    features: int

    @property
    def shows_lives(self) -> bool:
        """The peer tells which directory it has, and does not count before."""
        return bool(self.features & FEATURE_LIVES)


class Greetings:
    """To the node `rank`, one connection after the other. `hello`: this node's own. `new_decoder(extended)`: a decoder
    for what the peer sends."""

    def __init__(
        self, rank: int, hello: Hello, seals: Seals, new_decoder: Callable[[bool], UnsealingDecoder]
    ) -> None:
        self.seals = seals
        self.new_decoder = new_decoder
        self.patience = Patience()
        self.records = RecordBound()
        self._rank = rank
        self._hello = hello

    def begin(self, line: int) -> tuple[GreetingLine, list[Effect]]:
        greeting = GreetingLine(line, self._hello, self._rank, self.seals, self.new_decoder(True))
        return greeting, [*greeting.begin(), Greeting()]

    def judged(self, greeting: GreetingLine, verdict: Verdict) -> tuple[Greeted | None, list[Effect]]:
        """None: the connection is not to be used."""
        effects = self._answered(greeting, hung_up=True)
        if verdict is Verdict.BROKEN:
            effects.append(Log(Level.INFO, "handshake failed: data corrupted in transit"))
        if verdict is Verdict.BROKEN or verdict is Verdict.PLAIN and self.seals.required:
            return None, effects
        if verdict is Verdict.SEALED:
            # An answer to nothing proves to a peer that is not told of lives that this node is here now.
            proof = () if greeting.shows_lives else (Ack(self._hello.rank, 0, 0, 1),)
            effects += greeting.seal(self.records, *proof)
            self.patience.answered()
        assert greeting.answer is not None
        is_sealed, features = verdict is Verdict.SEALED, greeting.answer.features
        effects.append(Features(greeting.line, features))
        return Greeted(greeting.line, greeting.decoder, greeting.behind, is_sealed, features), effects

    def overdue(self, greeting: GreetingLine) -> list[Effect]:
        """There was no verdict in time."""
        self.patience.silent()
        return self._answered(greeting, hung_up=False)

    def closed(self, greeting: GreetingLine) -> list[Effect]:
        """The connection has ended first."""
        return self._answered(greeting, hung_up=True)

    def _answered(self, greeting: GreetingLine, *, hung_up: bool) -> list[Effect]:
        answer = greeting.answer
        return [Unanswered(hung_up) if answer is None else Greets(answer.features, answer.incarnation)]
