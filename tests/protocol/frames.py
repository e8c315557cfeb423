"""Frames put together by hand, from docs/protocol.md and not from the codec."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

from dsreg.protocol.codec import UNBOUNDED, Bounds, Decoder, Keys, Side
from dsreg.protocol.messages import CommandKind

READ, WRITE, TAG, STORE = CommandKind.READ, CommandKind.WRITE, CommandKind.TAG, CommandKind.STORE
GET, PUT, ATTACH = CommandKind.GET, CommandKind.PUT, CommandKind.ATTACH
KEYS = Keys(client=bytes(range(32)), system=bytes(range(100, 164)))
SECTORS = 1000
RANKS = frozenset({1, 2, 3})
UUID = bytes(range(200, 216))
DATA = bytes(range(256)) * 16
CLUSTER = b"0123456789abcdef"
OWNER = bytes(range(16)) + b"a name".ljust(48, b"\0")


def signed(key: bytes, body: bytes) -> bytes:
    return body + hmac.new(key, body, hashlib.sha256).digest()


def command(type_: int, request: int, sector: int, content: bytes = b"", pad: bytes = bytes(3)) -> bytes:
    return signed(KEYS.client, b"atdd" + pad + struct.pack(">BQQ", type_, request, sector) + content)


def response(status: int, type_: int, request: int, content: bytes = b"", pad: bytes = bytes(2)) -> bytes:
    return signed(KEYS.client, b"atdd" + pad + struct.pack(">BBQ", status, type_, request) + content)


def peer(rank: int, type_: int, rid: int, sector: int, content: bytes = b"", pad: bytes = bytes(2)) -> bytes:
    head = b"atdd" + pad + bytes([rank, type_]) + UUID + struct.pack(">QQ", rid, sector)
    return signed(KEYS.system, head + content)


def receipt(rank: int, type_: int, pad: bytes = bytes(2)) -> bytes:
    return signed(KEYS.system, b"atdd" + pad + bytes([rank, type_]) + UUID)


def tag(ts: int, wr: int, pad: bytes = bytes(7)) -> bytes:
    """As it stands in a contract frame."""
    return struct.pack(">Q", ts) + pad + bytes([wr])


def full(ts: int, wr: int, life: int = 0, epoch: int = 0) -> bytes:
    """As it stands in an extension frame, and in a message."""
    return epoch.to_bytes(3, "big") + ts.to_bytes(10, "big") + life.to_bytes(2, "big") + bytes([wr])


def extension(
    type_: int, id_: int, first: int = 0, count: int = 0, content: bytes = b"", *, status: int = 0, rank: int = 0,
    flags: int = 0, pad: int = 0, length: int | None = None, key: bytes | None = None, epoch: int = 0,
) -> bytes:
    head = b"atdd" + bytes([pad, status, rank, type_]) + struct.pack(
        ">QQHHII", id_, first, count, flags, len(content) if length is None else length, epoch
    )
    if key is None:
        key = KEYS.system if type_ in (0x90, 0x91, 0x92, 0xD0, 0xD1, 0xD2) else KEYS.client
    return signed(key, head + struct.pack(">I", zlib.crc32(head)) + content)


def greeting(version: int = 1, features: int = 0, incarnation: int = 0, zero: bytes = bytes(8)) -> bytes:
    return struct.pack(">HHI", version, 0, features) + CLUSTER + struct.pack(">Q", incarnation) + zero


def node(extended: bool = True) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=Side.NODE, extended=extended)


def client() -> Decoder:
    return Decoder(KEYS._replace(system=b""), bounds=UNBOUNDED, side=Side.CLIENT, extended=True)


EPOCH = 0x010203
ATTACHED_TS = EPOCH << 56 | 99  # of a write in EPOCH
def spoiled(frame: bytes, at: int = -1) -> bytes:
    changed = bytearray(frame)
    changed[at] ^= 1
    return bytes(changed)


T2 = full(7, 2) + full(0, 0)
GOOD_T2 = full(7, 2) + full(8, 3, 0xABCD, 5)
E2 = full(7, 2, 0, EPOCH) + full(0, 0, 0, EPOCH)  # of old, restamped to EPOCH
A1 = full(ATTACHED_TS, 255, 0, EPOCH)
TOP = 2**64 - 1
