"""Byte streams for a decoder: garbage, and valid streams with damage that knows where the fields are."""

from __future__ import annotations

import random
import struct
import zlib

from dsreg.constants import DIGEST_SIZE, HMAC_SIZE, MAGIC, MAX_RUN_SECTORS, OWNER_SIZE, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.codec import Bounds, Decoder, Side
from dsreg.protocol.messages import (
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    Hello,
    Message,
    Response,
    ScrubBegun,
    ScrubRequest,
    Status,
    StatusReport,
    StatusRequest,
    Sums,
    SumsQuery,
)
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from tests.fuzz.hostile import ENCODER, KEYS, Hostile

RANKS = (1, 2, 3)
SECTORS = 600
# Where the header fields of an extension frame stand: what a mutation aims at.
_FIELDS = (4, 5, 6, 7, 8, 16, 24, 26, 28, 32, 36)
_HEADER_BYTES = 40
_TYPES = (1, 2, 3, 4, 5, 6, 0x41, 0x83, 0x86, 0x87, 0x8C, 0x92, 0x98, 0x99, 0x9B, 0x9D, 0xC1, 0xC5, 0xCC, 0xD8, 0xDD)


def decoder(side: Side, extended: bool = True) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, frozenset(RANKS)), side=side, extended=extended)


def valid(rng: random.Random, side: Side) -> Message:
    """Any message that comes to this side, short ones mostly."""
    count = rng.choice((1, 1, 1, 2, rng.randint(1, 12), MAX_RUN_SECTORS if rng.random() < 0.05 else 3))
    data, tags = rng.randbytes(8) * (count * SECTOR_SIZE // 8), pack_tag(5, 1) * count
    request = rng.getrandbits(64)
    if side is Side.CLIENT:
        return rng.choice((
            Response(Status.OK, CommandKind.READ, request, b"", data[:SECTOR_SIZE]),
            Response(Status.AUTH_FAILURE, CommandKind.READ, request),
            Response(Status.OK, CommandKind.WRITE, request),
            Response(Status.OK, CommandKind.READ, request, b"", data, True),
            Response(Status.OK, CommandKind.TAG, request, tags, b"", True),
            Response(Status.STOPPING, CommandKind.STORE, request, b"", b"", True),
            Response(Status.OK, CommandKind.GET, request, tags, rng.choice((b"", data)), True, 7),
            Response(Status.FENCED, CommandKind.PUT, request, b"", b"", True, 7),
            Response(Status.OK, CommandKind.ATTACH, request, b"", b"", True, 7, True, owner=rng.randbytes(OWNER_SIZE)),
            StatusReport(request, b"{}" * rng.randrange(100)),
            ScrubBegun(request, rng.randrange(100)),
            Hello(0, True, bytes(16), 1, SECTORS),
        ))
    first = rng.randrange(SECTORS)
    return rng.choice((
        Command(CommandKind.READ, request, first, 1),
        Command(CommandKind.WRITE, request, first, 1, b"", data[:SECTOR_SIZE]),
        Command(CommandKind.READ, request, first, count, extended=True),
        Command.tag(request, first, count, alone=rng.random() < 0.5),
        Command(CommandKind.STORE, request, first, count, tags, data, True),
        Command(CommandKind.GET, request, first, count, b"", b"", True, 7, rng.random() < 0.5),
        Command(CommandKind.PUT, request, first, count, pack_tag(ts_of(7, 5), ATTACHED, 0, 7) * count, data, True, 7),
        Command.attach(request, rng.choice((0, 7)), rng.randbytes(OWNER_SIZE)),
        Hello(rng.choice((0, *RANKS)), False, bytes(16), 1, SECTORS),
        StatusRequest(request),
        DigestQuery(rng.choice(RANKS), request, 0, rng.randint(1, 3)),
        SumsQuery(rng.choice(RANKS), request, first, count),
        Sums(rng.choice(RANKS), request, first, count, tags, rng.randbytes(4 * count)),
        ScrubRequest(request),
        _digests(rng, request),
        Hostile(rng, RANKS, SECTORS).message(),
    ))


def _digests(rng: random.Random, rid: int) -> Digests:
    count = rng.randint(1, 3)
    listed = {chunk: rng.randbytes(DIGEST_SIZE) for chunk in range(count) if rng.random() < 0.5}
    return Digests(rng.choice(RANKS), rid, 0, count, rng.randint(count, 3), listed)


def frame(message: Message) -> bytes:
    return b"".join(ENCODER.encode(message))


def stream(rng: random.Random, side: Side, frames: int = 8) -> bytes:
    """Valid frames, damaged ones, and garbage between them."""
    parts = []
    for _ in range(frames):
        raw = frame(valid(rng, side))
        choice = rng.random()
        if choice < 0.55:
            raw = mutated(rng, raw)
        elif choice < 0.65:
            raw = garbage(rng)
        parts.append(raw)
    return b"".join(parts)


def garbage(rng: random.Random) -> bytes:
    """Random bytes, or bytes that look like the beginning of a frame again and again."""
    length = rng.choice((1, 7, 8, 40, 500, 5000))
    return rng.choice((
        rng.randbytes(length),
        (MAGIC + rng.randbytes(4)) * (length // 8 + 1),
        (MAGIC[:3] + MAGIC) * (length // 7 + 1),
        (MAGIC + bytes(3) + bytes([rng.choice(_TYPES)])) * (length // 8 + 1),
    ))


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """One kind of damage. With the check of the header (and so the length) made right again, or not."""
    out = bytearray(raw)
    kind = rng.randrange(5)
    if kind == 0:
        at = rng.randrange(len(out))
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        return bytes(out[:rng.randrange(len(out))])
    elif kind == 2:
        at = rng.randrange(len(out))
        return bytes(out[:at] + rng.randbytes(rng.randrange(1, 40)) + out[at:])
    elif kind == 3:
        at = min(rng.choice(_FIELDS), len(out) - 8)
        width = rng.choice((1, 2, 4, 8))
        out[at:at + width] = rng.choice((bytes(width), b"\xff" * width, rng.randbytes(width)))
        fix_check(out)
    else:
        struct.pack_into(">I", out, min(28, len(out) - 4), rng.choice((0, 1, TAG_SIZE, 1 << 20, (1 << 32) - 1)))
        fix_check(out)
    return bytes(out)


def fix_check(out: bytearray) -> None:
    """So that the header is believed."""
    if len(out) >= _HEADER_BYTES + HMAC_SIZE and out[7] >= 0x80:
        struct.pack_into(">I", out, _HEADER_BYTES - 4, zlib.crc32(out[:_HEADER_BYTES - 4]))


def split(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in pieces: whole, a few, or many small ones."""
    if rng.random() < 0.3:
        return [data]
    longest = rng.choice((1, 9, 100, 5000, 100_000))
    if len(data) > 20_000:
        longest = max(longest, 100)
    pieces, at = [], 0
    while at < len(data):
        length = rng.randint(1, longest)
        pieces.append(data[at:at + length])
        at += length
    return pieces
