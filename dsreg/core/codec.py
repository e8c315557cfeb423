"""The codec: messages (dsreg.core.messages) to bytes and back, pure.

    Message -> Encoder.encode -> [header, contents..., HMAC]
    bytes of a stream -> Decoder.feed -> [Message, ...]

wire.py has the layouts, the type numbers and the MAC; encoder.py and decoder.py the two directions. How a connection
becomes sealed: greeting.py, over sealed.py (keys, records) and noise.py (the handshake); unsealing.py then decodes.
"""

from __future__ import annotations

from dsreg.core.decoder import Decoder, Side
from dsreg.core.encoder import EncodeOnce, Encoder
from dsreg.core.unsealing import UnsealingDecoder
from dsreg.core.wire import MAX_FRAME_SIZE, Keys, Mac

__all__ = ["MAX_FRAME_SIZE", "Decoder", "EncodeOnce", "Encoder", "Keys", "Mac", "Side", "UnsealingDecoder"]
