"""One slot of the file `tags`: the tags and checksums of a group of 8 sectors, or the states of 8 chunks without data.

    slot = magic[4] | key u64 | crc32 of these and the slot's number u32 | unknown u16 | zeros u8 | 0[5] |
           8 tags of 16 bytes | 8 x u32 | 0[68] | crc32 of the slot and its number u32

A slot is 256 bytes and lies within 512, which a disk writes whole or not at all. Slots are given to keys in the order
of their first use. The slot's number and the node's salt (Identity.salt) are in the checksums, so that a slot that
lands in the wrong place, or comes from the file of another node, is no valid one. A slot whose magic is that of LOST
once held a key, and nobody knows which.

    key < 2^56        the group of this number: 8 tags, 8 x crc32 of the data. Bit i of `unknown` is set if the tag
                      of sector i of the group was lost. Bit i of `zeros` is set if the tag of sector i is that of a
                      write of zeros, without data: its home is not read, and its crc32 is that of zeros
    2^56, 2^57 + n    chunks 8 n .. 8 n + 7, of 256 sectors: a tag, and a bit for each group of the chunk (bit g for
                      group g) that has no slot of its own and of which all sectors have this tag, and no data: they
                      were never written, or (a tag of a write) are zeros. Two
                      kinds of key, as a chunk may have two such states (dsreg.storage.chunks). Bit i of `unknown` is
                      set if the state of chunk i was lost
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from dsreg.constants import CRC_SIZE, TAG_SIZE, ZERO_SECTOR
from dsreg.storage.checksum import crc32
from dsreg.storage.files import Buffer
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE

# Keys from here on are of chunks: the first and the second state.
CHUNK_KEYS = (1 << 56, 1 << 57)
# Chunks in a slot, sectors and groups in a chunk.
SLOT_CHUNKS = 8
CHUNK_SECTORS = 256
CHUNK_GROUPS = CHUNK_SECTORS // GROUP_SECTORS

NO_CRCS = bytes(GROUP_SECTORS * CRC_SIZE)
NO_TAGS = bytes(GROUP_SECTORS * TAG_SIZE)
# The checksum that a sector of zeros has, also where it has no data.
ZERO_CRC = crc32(ZERO_SECTOR).to_bytes(CRC_SIZE)

_MAGIC = b"dsTG"
_LOST_MAGIC = b"dsLS"
_HEAD = struct.Struct(">4sQ")
_HEAD_CRC_AT = _HEAD.size
TAGS_AT = 24
CRCS_AT = TAGS_AT + GROUP_SECTORS * TAG_SIZE
_CRCS_END = CRCS_AT + GROUP_SECTORS * CRC_SIZE
_CRC = struct.Struct(">I")
_CRC_AT = SLOT_SIZE - CRC_SIZE
_MASK = struct.Struct(">H")
_MASK_AT = _HEAD_CRC_AT + CRC_SIZE
ZEROS_AT = _MASK_AT + _MASK.size


class Slot(NamedTuple):
    """What is in a valid slot."""

    key: int
    tags: bytes
    crcs: bytes
    mask: int  # of the sectors, or chunks, that are unknown
    zeros: int = 0  # of the sectors that are zeros, without data


def encode(slot: int, contents: Slot | None, salt: int = 0) -> bytes:
    """The slot of this number; None: LOST."""
    key, tags, crcs, mask, zeros = contents or (0, NO_TAGS, NO_CRCS, 0, 0)
    seed = _seed(slot, salt)
    head = _HEAD.pack(_LOST_MAGIC if contents is None else _MAGIC, key)
    check = _CRC.pack(crc32(head, seed))
    raw = b"".join((head, check, _MASK.pack(mask), bytes((zeros,)), bytes(5), tags, crcs)).ljust(_CRC_AT, b"\0")
    return raw + _CRC.pack(crc32(raw, seed))


def _seed(slot: int, salt: int) -> int:
    return crc32(salt.to_bytes(8), slot & 0xFFFFFFFF)


def decode(raw: Buffer, slot: int, salt: int = 0) -> Slot | int | None:
    """The contents of a valid slot; or, of one that is not, the key that it belongs to; or None."""
    seed = _seed(slot, salt)
    magic, key = _HEAD.unpack_from(raw)
    if magic == _MAGIC and _CRC.unpack_from(raw, _HEAD_CRC_AT)[0] == crc32(raw[:_HEAD_CRC_AT], seed):
        if _CRC.unpack_from(raw, _CRC_AT)[0] != crc32(raw[:_CRC_AT], seed):
            return int(key)
        mask = _MASK.unpack_from(raw, _MASK_AT)[0]
        return Slot(key, bytes(raw[TAGS_AT:CRCS_AT]), bytes(raw[CRCS_AT:_CRCS_END]), mask, raw[ZEROS_AT])
    return None


def whose(raw: Buffer, at: int, slot: int, salt: int) -> int | None:
    """The key of the slot at this byte, whatever else is in it; None if that cannot be told."""
    magic, key = _HEAD.unpack_from(raw, at)
    head = raw[at:at + _HEAD_CRC_AT]
    if magic != _MAGIC or _CRC.unpack_from(raw, at + _HEAD_CRC_AT)[0] != crc32(head, _seed(slot, salt)):
        return None
    return int(key)


def key_at(page: Buffer, at: int) -> int:
    """The key of the slot at this byte, which is a valid one."""
    return int(_HEAD.unpack_from(page, at)[1])


def finish(page: bytearray, at: int, slot: int, salt: bytes, mask: int) -> None:
    """Bring the mask and the last checksum of the slot at this byte up to date. `salt`: 8 bytes."""
    _MASK.pack_into(page, at + _MASK_AT, mask)
    with memoryview(page) as view:
        _CRC.pack_into(page, at + _CRC_AT, crc32(view[at:at + _CRC_AT], crc32(salt, slot & 0xFFFFFFFF)))


def held_in(tags: Buffer, zeros: int) -> int:
    """How many of these tags are of a write whose value is in the home. `zeros`: a bit for each that has no data."""
    who = bytes(tags[TAG_SIZE - 1::TAG_SIZE])
    return len(who) - who.count(0) - zeros.bit_count()


def groups_of(first: int, count: int) -> Iterable[tuple[int, int, int]]:
    """(group, start, stop) for each group that the run touches; start and stop count within the group."""
    end = first + count
    while first < end:
        number, start = divmod(first, GROUP_SECTORS)
        stop = min(GROUP_SECTORS, start + end - first)
        yield number, start, stop
        first += stop - start
