"""The scene of the plays of a node's link: one machine, the time, and what is known of the peer."""

from __future__ import annotations

import math

from dsreg.link.effects import (
    Connect,
    Effect,
    LinkUp,
)
from dsreg.link.node_line import NodeLine, Phase
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Ack
from dsreg.register.assembly import node_hello
from tests.link.parties import CLUSTER, KEYS, NODES, SECTORS, Party, fresh

OWN, RANK = 1, 2
NOW = 100.0
ANSWER = Ack(RANK, 5, 0, 1)  # an answer of the extension
CONTRACT_ANSWER = Ack(RANK, 5, 0, 1, bytes(range(16)))


class KnownLives:
    """What the node knows of the peer's directory."""

    def __init__(self) -> None:
        self.keeps = self.good = False
        self.wrong = ""

    def keeps_lives(self, rank: int) -> bool:
        return self.keeps

    def counts(self, rank: int) -> bool:
        return self.good

    def fault(self, rank: int) -> str:
        return self.wrong


class Play:
    """One link, and the time."""

    def __init__(self, *, required: bool = False, seals: bool = True, keeps: bool = False) -> None:
        self.lives = KnownLives()
        self.lives.keeps = keeps
        self.heard_s = -math.inf
        self.now = NOW
        hello = node_hello(OWN, NODES, CLUSTER, 1, SECTORS, seals=seals)

        def new_decoder(extended: bool) -> UnsealingDecoder:
            return UnsealingDecoder(
                KEYS, bounds=Bounds(SECTORS, frozenset((1, 2, 3))), side=Side.NODE, extended=extended
            )

        self.line = NodeLine(
            RANK, hello, Seals(KEYS, fresh, required=required), new_decoder, self.lives,
            heard_s=lambda: self.heard_s, jitter=lambda: 1.0,
        )

    def start(self) -> None:
        assert self.line.start(self.now) == [Connect(1)]

    def connected(self, number: int) -> list[Effect]:
        return self.line.connected(number, self.now)

    def received(self, number: int, data: bytes) -> list[Effect]:
        return self.line.received(number, data, self.now)

    def closed(self, number: int, largest: int = 0) -> list[Effect]:
        return self.line.closed(number, largest, self.now)

    def wait(self) -> list[Effect]:
        """Until something is due, and not a moment less."""
        due = self.line.next_due
        assert due < math.inf
        assert self.line.tick(due - 1e-6) == []
        self.now = due
        return self.line.tick(due)

    def by_contract(self) -> None:
        """It has been greeted in vain, and is spoken to by the contract over connection 1."""
        self.start()
        assert self.connected(1) == [Connect(2)] and self.line.phase is Phase.HELD
        assert self.line.connect_failed(2, "refused", self.now) == USED_BY_CONTRACT

    def met(self, party: Party, number: int = 2) -> list[Effect]:
        """The peer answers the greeting on its second connection, before the contract is used."""
        self.start()
        self.connected(1)
        return self.received(number, party.reply(self.connected(number)))


USED_BY_CONTRACT: list[Effect] = [LinkUp(1, False)]


def again(play: Play, number: int) -> list[Effect]:
    """The link has ended; the next connection."""
    assert play.wait() == [Connect(number)]
    return play.connected(number)
