"""The other side of a link machine in a play: answers greetings with the real codec and the real handshake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dsreg.link.effects import Effect, Put
from dsreg.protocol.codec import Encoder, Keys
from dsreg.protocol.greeting import Seals
from dsreg.protocol.life import STORE_SIZE, Life, Stage
from dsreg.protocol.messages import FEATURE_LIVES, FEATURE_SEALED, Hello, LivesReport, Message, Seal
from dsreg.protocol.sealed import Sealer

KEYS = Keys(bytes(range(32)), bytes(range(64)))
SECTORS = 4096
CLUSTER = bytes(16)
STORE = bytes(STORE_SIZE)
NODES = 3


def fresh() -> bytes:
    return bytes(range(1, 33))


def damaged(data: bytes) -> bytes:
    """A bit of the last byte is another one."""
    return data[:-1] + bytes([data[-1] ^ 1])


def report(rank: int, *, stage: Stage = Stage.STARTED) -> LivesReport:
    return LivesReport(rank, True, stage, Life(1, STORE), {})


def kinds(effects: Iterable[object]) -> list[type]:
    return [type(effect) for effect in effects]


class Party:
    """Accepts connections. `rank`: its own as it is named to the opener; 0: to a client."""

    def __init__(self, rank: int, *, seals: bool = True, lives: bool = False, sectors: int = SECTORS) -> None:
        features = NODES | FEATURE_SEALED * seals | FEATURE_LIVES * lives
        self.answer = Hello(rank, True, CLUSTER, 1, sectors, features)
        self._seals = Seals(KEYS, fresh)
        self._sealer: Sealer | None = None

    def reply(self, effects: Iterable[Effect]) -> bytes:
        """To the greeting among the effects."""
        [put] = [effect for effect in effects if isinstance(effect, Put)]
        hello = put.messages[0]
        assert isinstance(hello, Hello)
        replies: list[Message] = [self.answer]
        seal = put.messages[-1]
        if isinstance(seal, Seal) and self.answer.features & FEATURE_SEALED:
            sealed = self._seals.accept(hello, self.answer, seal)
            assert sealed is not None
            self._sealer = sealed.sealer
            replies.append(sealed.reply)
        return plain(replies)

    def say(self, *messages: Message) -> bytes:
        """In a record once the connection is sealed."""
        if self._sealer is None:
            return plain(messages)
        encoder = Encoder(None)
        return b"".join(self._sealer.seal([piece for message in messages for piece in encoder.encode(message)]))


def plain(messages: Sequence[Message]) -> bytes:
    encoder = Encoder(KEYS)
    return b"".join(bytes(piece) for message in messages for piece in encoder.encode(message))
