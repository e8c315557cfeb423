"""Byte layouts, message type numbers and the MAC: what the encoder and the decoder share.

The layouts are those of docs/protocol.md; every size here is in bytes and is computed once.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
import zlib
from typing import Final, NamedTuple

from dsreg.constants import (
    CLIENT_KEY_SIZE,
    CRC_SIZE,
    DIGEST_SIZE,
    HMAC_SIZE,
    MAGIC,
    MAX_DIGESTS,
    MAX_RUN_BYTES,
    MAX_RUN_SECTORS,
    OWNER_SIZE,
    SECTOR_SIZE,
    SYSTEM_KEY_SIZE,
    TAG_SIZE,
    UUID_SIZE,
)
from dsreg.protocol.address import MAX_ADDRESSES_BYTES
from dsreg.protocol.choosing import MAX_ANSWER_BYTES, QUESTION_SIZE
from dsreg.protocol.configuration import CONFIGURATION, RECORD_SIZE
from dsreg.protocol.extents import EXTENT_SIZE
from dsreg.protocol.life import STORE_SIZE
from dsreg.protocol.messages import Buffer, Status
from dsreg.protocol.zeros import zeros


class Type(enum.IntEnum):
    """The type byte: the eighth of every frame. An answer's is its question's plus ANSWER."""

    READ = 0x01
    WRITE = 0x02
    READ_PROC = 0x03
    VALUE = 0x04
    WRITE_PROC = 0x05
    ACK = 0x06
    READ_ANSWER = 0x41
    WRITE_ANSWER = 0x42
    HELLO_CLIENT = 0x80
    READ_RUN = 0x81
    TAG_RUN = 0x82
    STORE_RUN = 0x83
    STATUS = 0x84
    GET_RUN = 0x85
    PUT_RUN = 0x86
    ATTACH = 0x87
    SCRUB = 0x89
    CONFIGURATION_CLIENT = 0x8B
    PROPOSE = 0x8C
    ZERO_CHUNKS = 0x8D
    MAP_CHUNKS = 0x8E
    SEAL_CLIENT = 0x8F
    HELLO_NODE = 0x90
    READ_PROC_RUN = 0x91
    WRITE_PROC_RUN = 0x92
    LIVES_NODE = 0x93
    DIGESTS = 0x98
    ACCEPTED = 0x99
    ADDRESSES_NODE = 0x9A
    CONFIGURATION_NODE = 0x9B
    SUMS = 0x9D
    SEAL_NODE = 0x9F
    HELLO_CLIENT_ANSWER = 0xC0
    READ_RUN_ANSWER = 0xC1
    TAG_RUN_ANSWER = 0xC2
    STORE_RUN_ANSWER = 0xC3
    STATUS_ANSWER = 0xC4
    GET_RUN_ANSWER = 0xC5
    PUT_RUN_ANSWER = 0xC6
    ATTACH_ANSWER = 0xC7
    LIVES_CLIENT = 0xC8
    SCRUB_ANSWER = 0xC9
    ADDRESSES_CLIENT = 0xCA
    CONFIGURATION_CLIENT_ANSWER = 0xCB
    PROPOSE_ANSWER = 0xCC
    ZERO_CHUNKS_ANSWER = 0xCD
    MAP_CHUNKS_ANSWER = 0xCE
    SEAL_CLIENT_ANSWER = 0xCF
    HELLO_NODE_ANSWER = 0xD0
    VALUE_RUN = 0xD1
    ACK_RUN = 0xD2
    LIVES_NODE_ANSWER = 0xD3
    DIGESTS_ANSWER = 0xD8
    ADDRESSES_NODE_ANSWER = 0xDA
    CONFIGURATION_NODE_ANSWER = 0xDB
    SUMS_ANSWER = 0xDD
    SEAL_NODE_ANSWER = 0xDF


ANSWER: Final = 0x40
# Receipts for READ_PROC, VALUE, WRITE_PROC, ACK have types 0x43..0x46.
RECEIPTED: Final = (Type.READ_PROC, Type.VALUE, Type.WRITE_PROC, Type.ACK)
FLAG_VALUES: Final = 0x0001
FLAG_TAGS: Final = 0x0001  # in C1
FLAG_ALONE: Final = 0x0001  # in 82
FLAG_ZEROS: Final = 0x0002  # where there is data of sectors: all of it is zeros, and not there
ATTACHED_FLAGS: Final = (0x0001, 0x0002, 0x0004)  # in C7: alive, unsure, mixed

# --- the contract -----------------------------------------------------------------------------
# The part that every frame has in common: magic, three bytes that differ, type.
PREFIX: Final = struct.Struct(">4s3xB")  # magic, type
PREFIX_SIZE: Final = PREFIX.size
TYPE_OFFSET: Final = 7
STATUS_OFFSET: Final = 6  # in a contract response

COMMAND: Final = struct.Struct(">4s3xBQQ")  # magic, type, request, sector
RESPONSE: Final = struct.Struct(">4s2xBBQ")  # magic, status, type, request
PEER: Final = struct.Struct(f">4s2xBB{UUID_SIZE}sQQ")  # magic, rank, type, uuid, rid, sector
RECEIPT: Final = struct.Struct(f">4s2xBB{UUID_SIZE}s")  # magic, rank, type, uuid
TAG: Final = struct.Struct(">Q7xB")  # ts, wr, as the contract has them; packing writes the pad as zeros

READ_SIZE: Final = COMMAND.size + HMAC_SIZE
WRITE_SIZE: Final = READ_SIZE + SECTOR_SIZE
BARE_RESPONSE_SIZE: Final = RESPONSE.size + HMAC_SIZE
READ_RESPONSE_SIZE: Final = BARE_RESPONSE_SIZE + SECTOR_SIZE
BARE_PEER_SIZE: Final = PEER.size + HMAC_SIZE
VALUE_SIZE: Final = BARE_PEER_SIZE + TAG_SIZE + SECTOR_SIZE
RECEIPT_SIZE: Final = RECEIPT.size + HMAC_SIZE

# --- the extension ----------------------------------------------------------------------------
_CHECKED: Final = struct.Struct(">4sxBBBQQHHII")  # magic, status, rank, type, id, first, count, flags, length, epoch
EXTENSION: Final = struct.Struct(_CHECKED.format + "I")  # and the CRC-32 of that
CLUSTER_SIZE: Final = 16
GREETING: Final = struct.Struct(f">H2xI{CLUSTER_SIZE}sQ8x")  # version, features, cluster, incarnation
LIFE: Final = struct.Struct(f">B7xQ{STORE_SIZE}s")  # rank (of the first one: the stage), life, store id
MARKED_LIFE: Final = struct.Struct(f">QQ{STORE_SIZE}s")  # the same with a mark of 56 bits in place of the pad
MARK_BITS: Final = 56
MAX_MARK: Final = (1 << MARK_BITS) - 1
PROMISED: Final = struct.Struct(f">{OWNER_SIZE}sQ")  # in 99, behind two lives: owner, incarnation
FOLLOWING: Final = struct.Struct(">Q")  # in D8, before the bitmap: a chunk
SCRUB_PASS: Final = struct.Struct(">Q")  # in C9: a number
ATTACHED_STATE: Final = struct.Struct(f">{OWNER_SIZE}sQI4x")  # owner, counter, believed epoch
BARE_EXTENSION_SIZE: Final = EXTENSION.size + HMAC_SIZE
# From this size on data is not copied out of the memory that it was decrypted into, all of which it then keeps: that of
# a record, of which it has to be half or more.
SHARED_BYTES: Final = 64 * 1024
# A status report is some numbers per peer; 64 KiB is ample for 254 peers.
MAX_STATUS_BYTES: Final = 65_536
# The longest frame there is, and so the bound of a decoder's buffer: a STORE_RUN of 256 sectors.
MAX_FRAME_SIZE: Final = BARE_EXTENSION_SIZE + MAX_RUN_SECTORS * TAG_SIZE + MAX_RUN_BYTES

GREETING_TYPES: Final = frozenset(
    (Type.HELLO_CLIENT, Type.HELLO_NODE, Type.HELLO_CLIENT_ANSWER, Type.HELLO_NODE_ANSWER)
)
CONFIGURATION_TYPES: Final = (
    Type.CONFIGURATION_NODE, Type.CONFIGURATION_NODE_ANSWER, Type.CONFIGURATION_CLIENT,
    Type.CONFIGURATION_CLIENT_ANSWER,
)
_ADDRESSES_TYPES: Final = frozenset((Type.ADDRESSES_NODE, Type.ADDRESSES_NODE_ANSWER, Type.ADDRESSES_CLIENT))
# Content of the messages of the handshake, which dsreg.protocol.sealed makes and reads.
SEAL_CONTENT: Final = {
    Type.SEAL_CLIENT: 48,
    Type.SEAL_NODE: 48,
    Type.SEAL_CLIENT_ANSWER: 80,
    Type.SEAL_NODE_ANSWER: 80,
}


class _Content(NamedTuple):
    """How many bytes: `fixed`, and for each sector, or whatever else `count` counts, `each`, and `more` if `flag` is
    set."""

    fixed: int = 0
    each: int = 0
    flag: int = 0
    more: int = 0


# Of the extension types, but for those whose contents have other rules.
_CONTENTS: Final = {
    **dict.fromkeys(
        frozenset(Type) - {Type.STATUS_ANSWER, Type.DIGESTS_ANSWER, Type.PROPOSE_ANSWER, *_ADDRESSES_TYPES}, _Content()
    ),
    **dict.fromkeys(CONFIGURATION_TYPES, _Content(CONFIGURATION.size)),
    Type.CONFIGURATION_NODE: _Content(CONFIGURATION.size + OWNER_SIZE),
    Type.CONFIGURATION_NODE_ANSWER: _Content(CONFIGURATION.size + OWNER_SIZE),
    Type.PROPOSE: _Content(QUESTION_SIZE, CONFIGURATION.size),
    **{type_: _Content(GREETING.size) for type_ in GREETING_TYPES},
    **{type_: _Content(size) for type_, size in SEAL_CONTENT.items()},
    Type.PUT_RUN: _Content(TAG_SIZE, SECTOR_SIZE),
    Type.ZERO_CHUNKS: _Content(TAG_SIZE),
    Type.MAP_CHUNKS_ANSWER: _Content(0, EXTENT_SIZE),
    Type.STORE_RUN: _Content(0, TAG_SIZE + SECTOR_SIZE),
    Type.WRITE_PROC_RUN: _Content(0, TAG_SIZE + SECTOR_SIZE),
    Type.READ_RUN_ANSWER: _Content(0, SECTOR_SIZE, FLAG_TAGS, TAG_SIZE),
    Type.TAG_RUN_ANSWER: _Content(0, TAG_SIZE),
    Type.VALUE_RUN: _Content(0, TAG_SIZE, FLAG_VALUES, SECTOR_SIZE),
    Type.GET_RUN_ANSWER: _Content(0, TAG_SIZE, FLAG_VALUES, SECTOR_SIZE),
    Type.ATTACH: _Content(OWNER_SIZE),
    Type.ATTACH_ANSWER: _Content(ATTACHED_STATE.size),
    Type.ACCEPTED: _Content(2 * LIFE.size + PROMISED.size, RECORD_SIZE),
    Type.LIVES_NODE: _Content(LIFE.size, LIFE.size),
    Type.LIVES_NODE_ANSWER: _Content(LIFE.size, LIFE.size),
    Type.LIVES_CLIENT: _Content(LIFE.size, LIFE.size),
    Type.SUMS_ANSWER: _Content(0, TAG_SIZE + CRC_SIZE),
    Type.SCRUB_ANSWER: _Content(SCRUB_PASS.size),
}

# Extension types that are known before a greeting: they are what makes one.
ALWAYS_KNOWN: Final = frozenset((*GREETING_TYPES, *SEAL_CONTENT))
FIRST_EXTENSION: Final = Type.HELLO_CLIENT
# Types from here on are extension answers, and only those have a status.
_FIRST_ANSWER: Final = Type.HELLO_CLIENT_ANSWER

_BLOCK_SIZE: Final = 64  # of SHA-256, and so the longest HMAC key that is used as it is
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Keys(NamedTuple):
    """The two keys of a cluster. A client process has `system` = b""."""

    client: bytes  # 32 bytes
    system: bytes  # 64 bytes


class Mac:
    """HMAC-SHA256 (RFC 2104) under one key of 1..64 bytes.

    The two hash states that depend on the key alone are prepared once and copied for each frame:
    a short frame then costs a third of what `hmac.digest` takes.
    """

    def __init__(self, key: bytes) -> None:
        # An empty key would make a MAC that anyone can forge.
        assert 1 <= len(key) <= _BLOCK_SIZE
        block = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def sign(self, *parts: Buffer) -> bytes:
        """The 32-byte MAC of the concatenation of `parts`."""
        inner = self._inner.copy()
        for part in parts:
            inner.update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def become(self, other: Mac) -> None:
        """Of the same key from now on."""
        self._inner, self._outer = other._inner, other._outer

    def verify(self, mac: Buffer, *parts: Buffer) -> bool:
        """Whether `mac` is the MAC of the concatenation of `parts`; in time that tells nothing of it."""
        return hmac.compare_digest(self.sign(*parts), mac)


class NoMac(Mac):
    """Stands where the MAC of frames would, that have none: they are sealed together."""

    def __init__(self) -> None:
        pass


def macs(keys: Keys) -> tuple[Mac, Mac | None]:
    """The MACs of client frames and of node frames; the latter None without a system key."""
    assert len(keys.client) == CLIENT_KEY_SIZE
    assert len(keys.system) in (0, SYSTEM_KEY_SIZE)
    return Mac(keys.client), Mac(keys.system) if keys.system else None


def extension_header(
    type_: int, id_: int, *, status: int = 0, rank: int = 0, first: int = 0, count: int = 0, flags: int = 0,
    length: int = 0, epoch: int = 0,
) -> bytes:
    """The 40-byte header of an extension frame with `length` bytes of content."""
    header = _CHECKED.pack(MAGIC, status, rank, type_, id_, first, count, flags, length, epoch)
    return header + zlib.crc32(header).to_bytes(CRC_SIZE)


def tags_and_data(frame: memoryview, count: int, sectors: int = 0) -> tuple[bytes, Buffer]:
    """The content of an extension frame, without its HMAC, that begins with `count` tags. `sectors`: how many are zeros
    whose data is not there."""
    middle = EXTENSION.size + count * TAG_SIZE
    return bytes(frame[EXTENSION.size : middle]), zeros(sectors) if sectors else content_from(frame, middle)


def content_from(frame: memoryview, start: int) -> Buffer:
    """What stands in the frame from `start` on; a copy, unless it is large and the frame in memory that stays."""
    size = len(frame) - start
    if size >= SHARED_BYTES and frame.readonly and 2 * size >= memoryview(frame.obj).nbytes:
        return frame[start:]
    return bytes(frame[start:])


def digests_at(count: int) -> int:
    """Where in the content of a D8 about `count` chunks the digests begin."""
    return FOLLOWING.size + (count + 7) // 8


def read_response_size(view: memoryview, start: int) -> int:
    return READ_RESPONSE_SIZE if view[start + STATUS_OFFSET] == Status.OK else BARE_RESPONSE_SIZE


def extension_size(view: memoryview, start: int) -> int:
    """Bytes of the extension frame at `start`, at most MAX_FRAME_SIZE; 0 if its header cannot be trusted."""
    _, status, _, type_, _, _, count, flags, length, _, check = EXTENSION.unpack_from(view, start)
    if zlib.crc32(view[start : start + _CHECKED.size]) != check:
        return 0
    if status and type_ >= _FIRST_ANSWER:  # it is not Status.OK
        good = length == 0
    elif (content := _CONTENTS.get(type_)) is not None:
        fixed, each, flag, more = content
        if flags & flag:
            each += more
        # Without the bound on count a signed frame could make the decoder keep 269 MB.
        bounded = each == 0 or count <= MAX_RUN_SECTORS
        if flags & FLAG_ZEROS and each >= SECTOR_SIZE:
            each -= SECTOR_SIZE
        good = length == fixed + each * count and bounded
    elif type_ == Type.STATUS_ANSWER:
        good = length <= MAX_STATUS_BYTES
    elif type_ in _ADDRESSES_TYPES:
        good = length <= MAX_ADDRESSES_BYTES
    elif type_ == Type.PROPOSE_ANSWER:
        good = length <= MAX_ANSWER_BYTES
    else:
        assert type_ == Type.DIGESTS_ANSWER
        listed = length - digests_at(count)
        good = count <= MAX_DIGESTS and listed % DIGEST_SIZE == 0 and 0 <= listed <= count * DIGEST_SIZE
    return BARE_EXTENSION_SIZE + length if good else 0
