"""GreetingLine: one connection from its first byte to the verdict on the greeting."""

from __future__ import annotations

from dsreg.link.effects import Effect, LimitRecords, Put, SealWith
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Hello, Message
from dsreg.protocol.record_bound import RecordBound


class GreetingLine:
    """`hello`: what to say. `rank`: of the party that is to answer; 0: this one is a client. `decoder`: for what it
    sends. After a verdict of SEALED, `seal` takes the connection over; `behind` has what came after the greeting."""

    def __init__(self, line: int, hello: Hello, rank: int, seals: Seals, decoder: UnsealingDecoder) -> None:
        self.line = line
        self.decoder = decoder
        self.behind: list[Message] = []
        self.others: list[Message] = []  # came before the verdict, and are no part of the greeting
        self._greeter = Greeter(hello, rank, seals)
        self._between_nodes = hello.rank != 0

    @property
    def answer(self) -> Hello | None:
        return self._greeter.answer

    @property
    def shows_lives(self) -> bool:
        """The other party tells of lives, first of all."""
        return self.answer is not None and bool(self.answer.features & FEATURE_LIVES)

    def begin(self, *questions: Message) -> list[Effect]:
        """Greet, ask the questions behind the HELLO, and begin the handshake."""
        hello, *handshake = self._greeter.messages
        return [Put(self.line, [hello, *questions, *handshake])]

    def feed(self, data: bytes) -> Verdict | None:
        """None: more must come. BROKEN as well if bytes have come that nobody sent: what is missing was among them."""
        messages = self.decoder.feed(data)
        for index, message in enumerate(messages):
            verdict = self._greeter.take(message)
            if verdict is not None:
                self.behind = messages[index + 1 :]
                return verdict
            if message is not self.answer:
                self.others.append(message)
        return self._greeter.damaged() if self.decoder.counters else None

    def seal(self, records: RecordBound, *proof: Message) -> list[Effect]:
        """`proof`: sent at once. What the other party has had so far may have been recorded, and a record cannot."""
        sealer, opener = self._greeter.sealer, self._greeter.opener
        self.behind = self.decoder.unseal(opener, between_nodes=self._between_nodes)
        records.opened()
        sealed: list[Effect] = [SealWith(self.line, sealer), LimitRecords(self.line, records.bound)]
        return [*sealed, Put(self.line, proof)] if proof else sealed
