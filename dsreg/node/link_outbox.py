"""What waits to be sent on the link to another node."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.outbox import Outbox
from dsreg.protocol.messages import Buffer, DigestQuery, PeerMessage, ReadProc, Receipt, SumsQuery, WriteProc
from dsreg.transport import Transport

LinkMessage = PeerMessage | DigestQuery | SumsQuery | Receipt


def link_outbox(
    transport: Transport, encode: Callable[[LinkMessage], list[Buffer]], is_under_way: Callable[[int], bool]
) -> Outbox[LinkMessage]:
    """For the link to another node. `is_under_way(rid)`: whether the operation of a question has not finished."""

    def is_wanted(message: LinkMessage) -> bool:
        return not isinstance(message, (ReadProc, WriteProc)) or is_under_way(message.rid)

    return Outbox(transport, encode, _key, is_wanted)


def _key(message: LinkMessage) -> tuple[type, int, int] | bytes:
    if isinstance(message, Receipt):
        return message.uuid
    return (type(message), message.rid, message.first)
