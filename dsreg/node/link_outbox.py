"""What waits to be sent on the link to another node."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.outbox import Outbox
from dsreg.protocol.messages import Buffer, DigestQuery, PeerMessage, ReadProc, Receipt, SumsQuery, WriteProc
from dsreg.transport import Transport

LinkMessage = PeerMessage | DigestQuery | SumsQuery | Receipt


class LinkOutbox(Outbox[LinkMessage]):
    """For the link to another node. `is_under_way(rid)`: whether the operation of a question has not finished."""

    def __init__(
        self, transport: Transport, encode: Callable[[LinkMessage], list[Buffer]], is_under_way: Callable[[int], bool]
    ) -> None:
        self._is_under_way = is_under_way
        self._spared = False
        super().__init__(transport, encode, _key, self._is_of_use)

    def _is_of_use(self, message: LinkMessage) -> bool:
        if not isinstance(message, (ReadProc, WriteProc)) or self._is_under_way(message.rid):
            return True
        self._spared |= isinstance(message, WriteProc)
        return False

    @property
    def has_spared(self) -> bool:
        """Whether a write that a majority has was not sent here, and all that was is on its way: the other node is
        behind, and does not know it."""
        return self._spared and not self.is_waiting


def _key(message: LinkMessage) -> tuple[type, int, int] | bytes:
    if isinstance(message, Receipt):
        return message.uuid
    return (type(message), message.rid, message.first)
