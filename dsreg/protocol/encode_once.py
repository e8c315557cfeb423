"""Messages that go to several nodes, and connections that differ in what may go over them."""

from __future__ import annotations

from typing import Final

from dsreg.protocol.encoder import Encoder
from dsreg.protocol.messages import FEATURE_ZEROS, Buffer, Message
from dsreg.protocol.wire import Keys


class EncodeOnce:
    """Encodes. The same object goes to several nodes one after the other: it is encoded, and signed, once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder: Final = encoder
        self._last: object = None
        self._frame: list[Buffer] = []

    def __call__(self, message: Message) -> list[Buffer]:
        if self._last is not message:
            self._last, self._frame = message, self.encoder.encode(message)
        return self._frame


class Encodings:
    """Of one party, for all its connections. `sealed`: the connection is; its frames have no HMAC. `features`: of the
    greeting of the other side (see Hello); 0 before that."""

    def __init__(self, keys: Keys) -> None:
        self.change(keys)

    def change(self, keys: Keys) -> None:
        """What is signed from now on is signed with these. What `once` has given before stays as it is: connections
        that are not sealed are made anew."""
        self._all = {
            (sealed, zeros): EncodeOnce(Encoder(None if sealed else keys, zeros=zeros))
            for sealed in (False, True) for zeros in (False, True)
        }

    def once(self, sealed: bool, features: int) -> EncodeOnce:
        """For messages that go to several, over connections that are alike."""
        return self._all[sealed, features & FEATURE_ZEROS != 0]

    def encode(self, message: Message, sealed: bool, features: int = 0) -> list[Buffer]:
        return self._all[sealed, features & FEATURE_ZEROS != 0].encoder.encode(message)
