"""Messages that go to several nodes."""

from __future__ import annotations

from dsreg.protocol.encoder import Encoder
from dsreg.protocol.messages import Buffer, Message


class EncodeOnce:
    """Encodes. The same object goes to several nodes one after the other: it is encoded, and signed, once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: object = None
        self._frame: list[Buffer] = []

    def __call__(self, message: Message) -> list[Buffer]:
        if self._last is not message:
            self._last, self._frame = message, self._encoder.encode(message)
        return self._frame
