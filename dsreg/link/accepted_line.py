"""AcceptedLine: a connection that somebody else has made: greeted, perhaps sealed, and what over it has an effect."""

from __future__ import annotations

import math
from typing import Final

from dsreg.link.effects import (
    AnswerUnder,
    Close,
    Complain,
    Effect,
    Features,
    Fresh,
    GreetedBy,
    Introduce,
    LimitRecords,
    Put,
    SealedBy,
    SealWith,
    Take,
)
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    FEATURE_LIVES,
    FEATURE_SEALED,
    Ack,
    Command,
    Hello,
    Message,
    ReadProc,
    Receipt,
    RefusedCommand,
    Response,
    Seal,
    Status,
    Value,
    WriteProc,
)
from dsreg.protocol.record_bound import RecordBound

# What a handshake may take, from the HELLO to the first record: far more than two round trips of a slow line.
HANDSHAKE_S: Final = 10.0
# The one connection that there is.
LINE: Final = 0

# What may come over a connection that is not sealed where they have to be: greetings, and what has no effect anyway.
_UNSEALED: Final = (Hello, Seal, RefusedCommand)
# What nodes say by the contract, without a greeting.
_OF_NODES: Final = (ReadProc, Value, WriteProc, Ack, Receipt)
# By counter of a decoder.
_COMPLAINTS: Final = {
    "bad_mac": "sends frames with a wrong HMAC: its keys differ, or data is corrupted in transit",
    "bad_record": "is disconnected: data on its sealed connection was corrupted or reordered in transit",
    "bad_seal": "is disconnected: its handshake message does not fit this connection",
    "unsealed": "does not seal its connection, which require_sealed demands: its requests are refused",
}
# Counters of bytes that are none of a good frame.
_DAMAGED: Final = ("bad_mac", "bad_header", "skipped_bytes")


class AcceptedLine:
    """`answer`: to a HELLO, as from a node to a node. `decoder`: for what comes; its counters have two keys more:
    "unsealed", messages without effect as the connection is not sealed; "bad_seal", handshakes that failed.

    Where `seals.required` is set, only greetings have an effect on a connection that is not sealed.
    """

    def __init__(self, answer: Hello, seals: Seals, decoder: UnsealingDecoder) -> None:
        self.decoder = decoder
        self.next_due = math.inf  # when a connection that is being sealed is given up
        self.rank = 0  # of the node that has greeted, as it says; 0: a client, or nobody yet
        self.is_known = False  # something with a good HMAC has come, perhaps not for the first time
        self.is_fresh = False  # it is sealed, and a record has come that opened: the other side is there now
        self.is_sealed = False
        self._answer = answer
        self._seals = seals
        self._keys = decoder.keys
        self._heard: type[Message] = Hello  # what came last, on a connection that is not sealed
        # The HELLO and its answer, where the connection is to be sealed and is not yet.
        self._greeting: tuple[Hello, Hello] | None = None
        self._records = RecordBound()

    @property
    def is_node(self) -> bool:
        """The other side is one, as it says in its greeting, or as it speaks the contract."""
        return self.rank != 0 or self._heard in _OF_NODES

    def received(self, data: bytes, now: float) -> list[Effect]:
        """In this order, so that what waits between two messages may wait long."""
        messages = self.decoder.feed(data)
        effects = self._proof()
        if self.is_sealed:  # records hold no greetings
            if messages and self._records.heard():
                effects.append(LimitRecords(LINE, self._records.bound))
            effects += [Take(LINE, message) for message in messages]
        else:
            for message in messages:
                self._judge(message, now, effects)
            effects += self._proof()
        if self.decoder.counters:
            if self.decoder.keys is not self._keys:
                self._keys = self.decoder.keys
                effects.insert(0, AnswerUnder(LINE, self._keys))
            self._complain(effects)
        return effects

    def tick(self, now: float) -> list[Effect]:
        if now < self.next_due:
            return []
        self.next_due = math.inf
        return [Close(LINE)]

    def _proof(self) -> list[Effect]:
        if self.is_fresh or not self.decoder.proven:
            return []
        self.is_fresh = True
        self.next_due = math.inf
        return [Fresh(LINE)]

    def _judge(self, message: Message, now: float, effects: list[Effect]) -> None:
        if self._seals.required and not self.is_sealed and not isinstance(message, _UNSEALED):
            self.decoder.counters["unsealed"] += 1
            if isinstance(message, Command):
                refusal = Response(Status.AUTH_FAILURE, message.kind, message.request, extended=message.extended)
                effects.append(Put(LINE, (refusal,)))
            return
        self.is_known |= not isinstance(message, RefusedCommand)
        if isinstance(message, Hello):
            if not message.answer:
                self._greet(message, now, effects)
        elif isinstance(message, Seal):
            if not message.answer:
                self._seal(message, now, effects)
        else:
            self._heard = type(message)
            effects.append(Take(LINE, message))

    def _greet(self, hello: Hello, now: float, effects: list[Effect]) -> None:
        self.decoder.extended = True
        self.rank = hello.rank
        answer = self._answer._replace(answer=True, rank=self._answer.rank if hello.rank else 0)
        if hello.features & answer.features & FEATURE_SEALED:
            self._greeting = (hello, answer)
            self.next_due = now + HANDSHAKE_S
        effects += [Put(LINE, (answer,)), Features(LINE, hello.features)]
        if hello.rank:
            effects.append(GreetedBy(hello.rank, hello.incarnation))
        if self._greeting is None:
            self._introduce(hello, effects)

    def _seal(self, seal: Seal, now: float, effects: list[Effect]) -> None:
        greeting, self._greeting = self._greeting, None
        sealed = self._seals.accept(*greeting, seal, self.decoder.keys) if greeting is not None else None
        if greeting is None or sealed is None:
            self.decoder.counters["bad_seal"] += 1
            self.decoder.broken = True
            return
        hello, _ = greeting
        self.is_sealed = True
        effects += [Put(LINE, (sealed.reply,)), SealWith(LINE, sealed.sealer), LimitRecords(LINE, self._records.bound)]
        self._introduce(hello, effects)
        if hello.rank:
            effects.append(SealedBy(hello.rank))
        for message in self.decoder.unseal(sealed.opener, between_nodes=hello.rank != 0):
            self._judge(message, now, effects)

    def _introduce(self, hello: Hello, effects: list[Effect]) -> None:
        """The first message after the greeting, to those that want it."""
        if hello.features & FEATURE_LIVES:
            effects.append(Introduce(LINE, hello.features))

    def _complain(self, effects: list[Effect]) -> None:
        """Close a connection that is of no use any more, and say what somebody must mend."""
        counters = self.decoder.counters
        # After a HELLO comes a SEAL or nothing. Who has sent it waits for the answer as long as this stays open.
        is_seal_lost = self._greeting is not None and any(counters[name] for name in _DAMAGED)
        if self.decoder.broken or is_seal_lost:
            effects.append(Close(LINE))
        found = next((what for counter, what in _COMPLAINTS.items() if counters[counter]), None)
        if found is not None:
            effects.append(Complain(found))
