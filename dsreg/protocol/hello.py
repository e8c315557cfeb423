"""The bytes of a greeting."""

from __future__ import annotations

from dsreg.constants import MAX_RANK
from dsreg.protocol.messages import Hello
from dsreg.protocol.wire import ANSWER, CLUSTER_SIZE, GREETING, Type, extension_header


def hello_bytes(message: Hello) -> bytes:
    """The frame of a greeting without its HMAC: what the handshake that seals the connection vouches for."""
    assert 0 <= message.rank <= MAX_RANK
    assert len(message.cluster) == CLUSTER_SIZE
    greeting = GREETING.pack(message.version, message.features, message.cluster, message.incarnation)
    header = extension_header(
        (Type.HELLO_NODE if message.rank else Type.HELLO_CLIENT) + (ANSWER if message.answer else 0),
        0,
        rank=message.rank,
        first=message.sectors,
        length=len(greeting),
    )
    return header + greeting
