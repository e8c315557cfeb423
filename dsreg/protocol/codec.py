"""The codec: messages (dsreg.protocol.messages) to bytes and back, pure.

    Message -> Encoder.encode -> [header, contents..., HMAC]
    bytes of a stream -> Decoder.feed -> [Message, ...]

wire.py has the layouts, the type numbers and the MAC; encoder.py and decoder.py the two directions. How a connection
becomes sealed: greeting.py, over sealed.py (keys, records) and noise.py (the handshake); unsealing.py then decodes.
"""

from __future__ import annotations

from dsreg.protocol.bounds import UNBOUNDED, Bounds, Side
from dsreg.protocol.decoder import Decoder
from dsreg.protocol.encode_once import EncodeOnce, Encodings
from dsreg.protocol.encoder import Encoder
from dsreg.protocol.unsealing import UnsealingDecoder
from dsreg.protocol.wire import MAX_FRAME_SIZE, Keys, Mac

__all__ = [
    "MAX_FRAME_SIZE", "UNBOUNDED", "Bounds", "Decoder", "EncodeOnce", "Encoder", "Encodings", "Keys", "Mac", "Side",
    "UnsealingDecoder",
]
