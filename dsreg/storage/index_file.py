"""The file `index`: which slot of `tags` each key has, up to some slot, so that a start need not read all of `tags`.

    index  = magic[8] | salt u64 | slots u64 | head[16] | regions u32 | lost u32 | bytes u64 | crc32 u32 | 0[4] |
             region, region, ... | numbers of LOST slots, u64 each
    region = number u64 | count u32 | low bits of its keys, u16 each, ascending | their slots, u32 each

All little-endian, as the arrays in memory are nearly everywhere; `crc32` is of all behind the header, `bytes` long.
`head` is the beginning of the last slot that is in it, as it is in `tags`.

It says nothing that `tags` does not: slots are given in order, and never to another key, so that what it says of the
first `slots` stays true; those that came later are read at the start. Where it is not there, or does not hold, or does
not fit `tags`, all of `tags` is read instead. It is written anew, by a checkpoint, when there is enough to add.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from dsreg.storage.checksum import crc32
from dsreg.storage.files import File, Files
from dsreg.storage.index import SlotIndex
from dsreg.storage.layout import INDEX, INDEX_TMP, SLOT_SIZE
from dsreg.storage.numbers import from_bytes, to_bytes

_MAGIC = b"dsregIDX"
_HEADER = struct.Struct("<8sQQ16sIIQI4x")
_REGION = struct.Struct("<QI")
_HEAD_BYTES = 16
_LOST = struct.Struct("<Q")
_PIECE_BYTES = 1 << 20
# A start reads so many slots that the file does not have, in some tenths of a second; for large tables a 64th.
MIN_TAIL_SLOTS = 65536
TAIL_SHARE = 64


class Found(NamedTuple):
    keys: SlotIndex
    slots: int
    lost: list[int]


def is_due(slots: int, has: int) -> bool:
    """Whether to write it anew, with `slots` slots; it `has` so many now."""
    return slots - has >= max(MIN_TAIL_SLOTS, slots // TAIL_SHARE)


def write(files: Files, tags: File, index: SlotIndex, slots: int, lost: Sequence[int], salt: int) -> None:
    """The first `slots` slots, which are written for good. `index` may grow meanwhile, in another thread."""
    file = files.open(INDEX_TMP, create=True)
    try:
        file.truncate(0)
        crc, at, regions = 0, _HEADER.size, 0
        piece = bytearray()
        for number in sorted(index.regions):
            raw = _region(index, number, slots)
            regions += bool(raw)
            piece += raw
            if len(piece) >= _PIECE_BYTES:
                file.pwritev([piece], at)
                crc, at, piece = crc32(piece, crc), at + len(piece), bytearray()
        numbers = [number for number in lost if number < slots]
        piece += b"".join(map(_LOST.pack, numbers))
        file.pwritev([piece], at)
        crc, at = crc32(piece, crc), at + len(piece)
        head = tags.pread(_HEAD_BYTES, (slots - 1) * SLOT_SIZE)
        header = _HEADER.pack(_MAGIC, salt, slots, head, regions, len(numbers), at - _HEADER.size, crc)
        file.pwritev([header], 0)
        file.fdatasync()
    finally:
        file.close()
    files.rename(INDEX_TMP, INDEX)
    files.sync_dir()


def _region(index: SlotIndex, number: int, stop: int) -> bytes:
    """b"" if none of its slots is below `stop`."""
    lows, slots = index.regions[number]
    while True:
        some_slots, some_lows = array("I", slots), array("H", lows)
        if len(some_slots) == len(some_lows):  # else a key was added in between
            break
    if max(some_slots) >= stop:
        kept = [at for at, slot in enumerate(some_slots) if slot < stop]
        some_slots = array("I", [some_slots[at] for at in kept])
        some_lows = array("H", [some_lows[at] for at in kept])
    if not some_slots:
        return b""
    return _REGION.pack(number, len(some_slots)) + to_bytes(some_lows, "little") + to_bytes(some_slots, "little")


def read(files: Files, tags: File, certain: int, salt: int) -> Found | None:
    """None if there is none that can be trusted. `certain`: slots of `tags` that are certainly written."""
    try:
        file = files.open(INDEX)
    except FileNotFoundError:
        return None
    try:
        return _read(file, tags, certain, salt)
    except OSError:  # it cannot be read; `tags` tells the same
        return None
    finally:
        file.close()


def _read(file: File, tags: File, certain: int, salt: int) -> Found | None:
    raw = file.pread(_HEADER.size, 0)
    if len(raw) < _HEADER.size:
        return None
    magic, its_salt, slots, head, regions, lost, size, crc = _HEADER.unpack(raw)
    if (magic, its_salt) != (_MAGIC, salt) or not 0 < slots <= certain or size > file.size():
        return None
    if tags.pread(_HEAD_BYTES, (slots - 1) * SLOT_SIZE) != head:
        return None
    body = file.pread(size, _HEADER.size)
    if len(body) != size or crc32(body) != crc:
        return None
    view, at, index = memoryview(body), 0, SlotIndex()
    for _ in range(regions):
        number, count = _REGION.unpack_from(view, at)
        middle = at + _REGION.size + 2 * count
        end = middle + 4 * count
        lows = from_bytes("H", view[at + _REGION.size:middle], "little")
        some_slots = from_bytes("I", view[middle:end], "little")
        index.put_region(number, lows, some_slots)
        at = end
    return Found(index, slots, [_LOST.unpack_from(view, at + _LOST.size * each)[0] for each in range(lost)])
