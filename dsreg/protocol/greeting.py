"""Two parties greet each other and, where both can, seal the connection. Pure; both sides of it:

    Greeter    who connected: says HELLO and begins the handshake in one go, so that it costs no round trip of its own
    Seals      who was connected to: takes the handshake up after it has answered the HELLO
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from dsreg.protocol.hello import hello_bytes
from dsreg.protocol.messages import FEATURE_SEALED, Hello, Message, Seal
from dsreg.protocol.sealed import Opener, Opening, Sealer, SealKey, accept, client_seal, node_seal
from dsreg.protocol.wire import Keys


class Verdict(enum.Enum):
    """How a greeting ended."""

    PLAIN = "answered by a party that does not seal"
    SEALED = "answered and sealed"
    BROKEN = "what came back was not authentic"


class Seals:
    """What one party needs to seal its connections. `fresh`: gives 32 fresh random bytes. `required`: whether it is to
    talk over sealed connections only."""

    def __init__(self, keys: Keys, fresh: Callable[[], bytes], *, required: bool = False) -> None:
        self.required = required
        self.fresh = fresh
        self.change(keys)

    def change(self, keys: Keys) -> None:
        """The connections that are made from now on are of these."""
        self.keys = keys
        self._client = client_seal(keys.client)
        self._node = node_seal(keys.system) if keys.system else None

    def key(self, rank: int) -> SealKey:
        """For a greeting from the node `rank`; from a client if that is 0."""
        if rank == 0:
            return self._client
        assert self._node is not None
        return self._node

    def accept(self, hello: Hello, answer: Hello, seal: Seal, keys: Keys | None = None) -> Sealed | None:
        """Take up the handshake that came after `hello`, answered with `answer`, both good under `keys`; None: under
        those of this party. Gives None if it is not authentic."""
        if (seal.rank != 0) != (hello.rank != 0):
            return None
        if keys is None or keys == self.keys:
            key = self.key(hello.rank)
        else:
            key = node_seal(keys.system) if hello.rank else client_seal(keys.client)
        accepted = accept(
            key, hello_bytes(hello), hello_bytes(answer), seal.content, self.fresh()
        )
        if accepted is None:
            return None
        reply, sealer, opener = accepted
        return Sealed(Seal(answer.rank, True, reply), sealer, opener)


class Sealed(NamedTuple):
    """`reply` is to be sent as it is; what is put after it goes through `sealer`, what comes goes through `opener`."""

    reply: Seal
    sealer: Sealer
    opener: Opener


class Greeter:
    """`rank`: that of the party that is to answer, 0 if this one is a client."""

    sealer: Sealer  # once the verdict is SEALED
    opener: Opener

    def __init__(self, hello: Hello, rank: int, seals: Seals) -> None:
        self._hello = hello
        self._rank = rank
        self._opening: Opening | None = None
        if hello.features & FEATURE_SEALED:
            self._opening = Opening(seals.key(hello.rank), hello_bytes(hello), seals.fresh())
        self.answer: Hello | None = None
        self.verdict: Verdict | None = None

    @property
    def messages(self) -> list[Hello | Seal]:
        """What to send. A party that cannot seal takes the second for an unknown type."""
        handshake = [] if self._opening is None else [Seal(self._hello.rank, False, self._opening.message)]
        return [self._hello, *handshake]

    def take(self, message: Message) -> Verdict | None:
        """What came back; None: there must be more to come, or the verdict has been given."""
        if self.verdict is None:
            self.verdict = self._judge(message)
            return self.verdict
        return None

    def damaged(self) -> Verdict:
        """Bytes have come that nobody has sent: what is still missing of the answer was among them. It need not be
        waited for."""
        self.verdict = Verdict.BROKEN
        return self.verdict

    def _judge(self, message: Message) -> Verdict | None:
        if isinstance(message, Hello) and message.answer and message.rank == self._rank and self.answer is None:
            self.answer = message
            return None if self._opening is not None and message.features & FEATURE_SEALED else Verdict.PLAIN
        if isinstance(message, Seal) and message.answer and self._opening is not None and self.answer is not None:
            ends = self._opening.finish(message.content, hello_bytes(self.answer))
            if ends is None:
                return Verdict.BROKEN
            self.sealer, self.opener = ends
            return Verdict.SEALED
        return None
