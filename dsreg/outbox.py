"""Outbox: the messages for one connection, in order. What the transport has no room for waits as messages, not as
bytes, so that what is of no use any more need not be sent, nor kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dsreg.constants import MAX_RUN_BYTES
from dsreg.protocol.messages import Buffer
from dsreg.transport import Transport

# Encoded bytes that wait in the process for one party: enough to keep a fast link busy over a wake-up, and little
# enough that what has become useless can be withdrawn from what remains.
HIGH_WATER_BYTES = 2 * MAX_RUN_BYTES
# Messages beyond which those that are not wanted are weeded out; then again at twice what is left.
PRUNE_FIRST = 64

M = TypeVar("M")


class Outbox(Generic[M]):
    """`key(message)`: what it is; one that is sent again does not wait twice. `is_wanted(message)`: whether it is still
    of use, for those that nobody withdraws.

    Bounded by what is wanted: the operations under way, and what the other party has asked.
    """

    def __init__(
        self,
        transport: Transport,
        encode: Callable[[M], list[Buffer]],
        key: Callable[[M], Hashable],
        is_wanted: Callable[[M], bool] = lambda message: True,
    ) -> None:
        self.transport = transport
        self._encode = encode
        self._key = key
        self._is_wanted = is_wanted
        self._waiting: dict[Hashable, M] = {}
        self._prune_at = PRUNE_FIRST
        transport.on_room = self._pump

    def send(self, message: M) -> None:
        """Put it on the transport, or keep it until there is room. Flushing is the caller's."""
        if not self._waiting and self.transport.outgoing_bytes < HIGH_WATER_BYTES:
            self.transport.put(self._encode(message))
            return
        self._waiting[self._key(message)] = message
        if len(self._waiting) >= self._prune_at:
            self._waiting = {key: kept for key, kept in self._waiting.items() if self._is_wanted(kept)}
            self._prune_at = max(PRUNE_FIRST, 2 * len(self._waiting))

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for room."""
        return bool(self._waiting)

    def withdraw(self, key: Hashable) -> None:
        """Do not send the message, if it still waits."""
        self._waiting.pop(key, None)

    def _pump(self) -> None:
        while self._waiting and self.transport.outgoing_bytes < HIGH_WATER_BYTES:
            message = self._waiting.pop(next(iter(self._waiting)))
            if self._is_wanted(message):
                self.transport.put(self._encode(message))
