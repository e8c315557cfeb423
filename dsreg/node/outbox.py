"""Outbox: the messages for one link. What the socket has no room for waits as messages, not as bytes, so that
what belongs to an operation that has finished meanwhile need not be sent, nor kept."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import MAX_RUN_BYTES
from dsreg.protocol.messages import Buffer, PeerMessage, ReadProc, Receipt, WriteProc
from dsreg.transport import Transport

# Encoded bytes that wait in the process for one peer: enough to keep a fast link busy over a wake-up.
HIGH_WATER_BYTES = 2 * MAX_RUN_BYTES
# Messages beyond which finished operations are weeded out; then again at twice what is left.
PRUNE_FIRST = 64


class Outbox:
    """`is_under_way(rid)`: whether the operation of a question has not finished.

    Bounded: questions by the operations under way, answers and receipts by what the peer has asked of us.
    """

    def __init__(
        self,
        port: Transport,
        encode: Callable[[PeerMessage | Receipt], list[Buffer]],
        is_under_way: Callable[[int], bool],
    ) -> None:
        self.port = port
        self._encode = encode
        self._is_under_way = is_under_way
        # By what the message is, so that one that is sent again does not wait twice.
        self._waiting: dict[tuple[type, int, int] | bytes, PeerMessage | Receipt] = {}
        self._prune_at = PRUNE_FIRST
        port.on_room = self._pump

    def send(self, message: PeerMessage | Receipt) -> None:
        """Put it on the port, or keep it until the port has room. Flushing is the caller's."""
        if not self._waiting and self.port.outgoing_bytes < HIGH_WATER_BYTES:
            self.port.put(self._encode(message))
            return
        self._waiting[_key(message)] = message
        if len(self._waiting) >= self._prune_at:
            self._waiting = {key: kept for key, kept in self._waiting.items() if self._is_wanted(kept)}
            self._prune_at = max(PRUNE_FIRST, 2 * len(self._waiting))

    def _pump(self) -> None:
        while self._waiting and self.port.outgoing_bytes < HIGH_WATER_BYTES:
            message = self._waiting.pop(next(iter(self._waiting)))
            if self._is_wanted(message):
                self.port.put(self._encode(message))

    def _is_wanted(self, message: PeerMessage | Receipt) -> bool:
        return not isinstance(message, (ReadProc, WriteProc)) or self._is_under_way(message.rid)


def _key(message: PeerMessage | Receipt) -> tuple[type, int, int] | bytes:
    if isinstance(message, Receipt):
        return message.uuid
    return (type(message), message.rid, message.first)
