"""Tags and checksums of all sectors ever written, by group of 8: in memory and in the file `tags`, in the same form.

    slot = magic[4] | group u64 | crc32 of these and the slot's number u32 | unknown u16 | 0[6] |
           8 tags of 16 bytes | 8 x crc32 of the data u32 | 0[68] | crc32 of the slot and its number u32

A slot is 256 bytes and lies within 512, which a disk writes whole or not at all. Slots are given to groups in the order
of their first write. The slot's number and the node's salt (Identity.salt) are in the checksums, so that a slot that
lands in the wrong place, or comes from the file of another node, is no valid one. Bit i of `unknown` is set if the tag
of sector i of the group was lost. A slot whose magic is that of LOST once held a group, and nobody knows which: then
every group without a slot is suspect, as it cannot be told from one never written.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dsreg.constants import TAG_SIZE, ZERO_TAG
from dsreg.storage.checksum import crc32
from dsreg.storage.files import Buffer, File, pread_or_zeros
from dsreg.storage.journal import CRC_SIZE
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE

NO_CRCS = bytes(GROUP_SECTORS * CRC_SIZE)
NO_TAGS = bytes(GROUP_SECTORS * TAG_SIZE)

_MAGIC = b"dsTG"
_LOST_MAGIC = b"dsLS"
_HEAD = struct.Struct(">4sQ")
_HEAD_CRC_AT = _HEAD.size
_BODY_AT = 24
_CRCS_AT = _BODY_AT + GROUP_SECTORS * TAG_SIZE
_CRCS_END = _CRCS_AT + GROUP_SECTORS * CRC_SIZE
_CRC = struct.Struct(">I")
_CRC_AT = SLOT_SIZE - CRC_SIZE
_MASK = struct.Struct(">H")
_MASK_AT = _HEAD_CRC_AT + CRC_SIZE
# In memory the slots stand in pieces of so many, so that a table grows without being moved.
PAGE_SLOTS = 256
# Dirty slots with no more clean ones between them are written together: these are a page of the page cache, which would
# be written in any case, and a system call costs more than to copy them.
_GAP_SLOTS = 16


class Slot(NamedTuple):
    """What is in a valid slot."""

    group: int
    tags: bytes
    crcs: bytes
    mask: int


class Span(NamedTuple):
    """Neighbouring slots as they are to be written: a copy, so that the table may change meanwhile."""

    slot: int
    raw: bytes


def encode(slot: int, contents: Slot | None, salt: int = 0) -> bytes:
    """The slot of this number; None: LOST."""
    group, tags, crcs, mask = contents or (0, NO_TAGS, NO_CRCS, 0)
    seed = _seed(slot, salt)
    head = _HEAD.pack(_LOST_MAGIC if contents is None else _MAGIC, group)
    check = _CRC.pack(crc32(head, seed))
    raw = b"".join((head, check, _MASK.pack(mask), bytes(6), tags, crcs)).ljust(_CRC_AT, b"\0")
    return raw + _CRC.pack(crc32(raw, seed))


def _seed(slot: int, salt: int) -> int:
    return crc32(salt.to_bytes(8), slot & 0xFFFFFFFF)


def decode(raw: Buffer, slot: int, salt: int = 0) -> Slot | int | None:
    """The contents of a valid slot; or, of one that is not, the group that it belongs to; or None."""
    seed = _seed(slot, salt)
    magic, group = _HEAD.unpack_from(raw)
    if magic == _MAGIC and _CRC.unpack_from(raw, _HEAD_CRC_AT)[0] == crc32(raw[:_HEAD_CRC_AT], seed):
        if _CRC.unpack_from(raw, _CRC_AT)[0] != crc32(raw[:_CRC_AT], seed):
            return int(group)
        mask = _MASK.unpack_from(raw, _MASK_AT)[0]
        return Slot(group, bytes(raw[_BODY_AT:_CRCS_AT]), bytes(raw[_CRCS_AT:_CRCS_END]), mask)
    return None


class TagTable:
    """The durable tags. Knows no files but when it is loaded; not thread-safe.

    `groups`: the slot of each group. `missing`: sectors whose value is lost, tag known. `unknown`: sectors whose tag is
    lost too. `lost`: numbers of slots that are LOST; while there are any, groups without a slot are unknown.
    """

    def __init__(self, sectors: int, salt: int = 0) -> None:
        self.sectors = sectors  # size of the disk
        self.groups: dict[int, int] = {}
        self.slots = 0
        self.sectors_written = 0
        self.missing: set[int] = set()
        self.unknown: set[int] = set()
        self.lost: list[int] = []
        self.salt = salt
        # The slots as they are written, but that the mask and the last checksum of a dirty one are not up to date.
        self._pages: list[bytearray] = []
        self._dirty: set[int] = set()  # slots

    @property
    def damaged(self) -> bool:
        return bool(self.missing or self.unknown or self.lost)

    # --- reading ----------------------------------------------------------------------------------
    def tag(self, sector: int) -> bytes:
        return self._gathered(sector, 1, _BODY_AT, TAG_SIZE)

    def tags(self, first: int, count: int) -> bytes:
        """16 bytes per sector, zeros for those never written or unknown."""
        return self._gathered(first, count, _BODY_AT, TAG_SIZE)

    def crcs(self, first: int, count: int) -> bytes:
        """4 bytes per sector."""
        return self._gathered(first, count, _CRCS_AT, CRC_SIZE)

    def _gathered(self, first: int, count: int, field_at: int, size: int) -> bytes:
        if count == 1:  # the usual case by far
            slot = self.groups.get(first // GROUP_SECTORS)
            if slot is None:
                return bytes(size)
            at = slot % PAGE_SLOTS * SLOT_SIZE + field_at + first % GROUP_SECTORS * size
            return bytes(self._pages[slot // PAGE_SLOTS][at:at + size])
        parts: list[Buffer] = []
        for number, start, stop in _chunks(first, count):
            slot = self.groups.get(number)
            if slot is None:
                parts.append(bytes((stop - start) * size))
                continue
            at = slot % PAGE_SLOTS * SLOT_SIZE + field_at
            parts.append(self._pages[slot // PAGE_SLOTS][at + start * size:at + stop * size])
        return b"".join(parts)

    def is_unknown(self, sector: int) -> bool:
        return sector in self.unknown or bool(self.lost) and sector // GROUP_SECTORS not in self.groups

    def is_missing(self, sector: int) -> bool:
        return sector in self.missing or self.is_unknown(sector)

    # --- changing ---------------------------------------------------------------------------------
    def _ensure(self, number: int) -> int:
        """The slot of the group; a new one gets the next."""
        slot = self.groups.get(number)
        if slot is None:
            if self.lost:
                start = number * GROUP_SECTORS
                self.unknown.update(range(start, min(start + GROUP_SECTORS, self.sectors)))
            slot = self.append(encode(self.slots, Slot(number, NO_TAGS, NO_CRCS, 0), self.salt))
            self.groups[number] = slot
        return slot

    def add_lost(self) -> None:
        """One slot more, which is LOST. It will be written as such, lest what it held comes back some day."""
        self.lost.append(self.slots)
        self._dirty.add(self.append(encode(self.slots, None, self.salt)))

    def append(self, raw: Buffer) -> int:
        """One slot more, as it is at rest; its number."""
        if self.slots % PAGE_SLOTS == 0:
            self._pages.append(bytearray(PAGE_SLOTS * SLOT_SIZE))
        at = self.slots % PAGE_SLOTS * SLOT_SIZE
        self._pages[-1][at:at + SLOT_SIZE] = raw
        self.slots += 1
        return self.slots - 1

    def put(self, first: int, count: int, tags: bytes, crcs: bytes) -> None:
        """These sectors are durable with these tags, whatever they were before."""
        if count == 1:  # the usual case by far: half the time of the general one
            self._put_one(first, tags, crcs)
            return
        for number, start, stop in _chunks(first, count):
            slot = self._ensure(number)
            self._dirty.add(slot)
            page, base = self._pages[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE
            at = number * GROUP_SECTORS + start - first
            where = slice(base + _BODY_AT + start * TAG_SIZE, base + _BODY_AT + stop * TAG_SIZE)
            new = tags[at * TAG_SIZE:(at + stop - start) * TAG_SIZE]
            self.sectors_written += written(new) - written(page[where])
            page[where] = new
            where = slice(base + _CRCS_AT + start * CRC_SIZE, base + _CRCS_AT + stop * CRC_SIZE)
            page[where] = crcs[at * CRC_SIZE:(at + stop - start) * CRC_SIZE]
        if self.missing or self.unknown:
            run = range(first, first + count)
            self.missing.difference_update(run)
            self.unknown.difference_update(run)

    def _put_one(self, sector: int, tag: bytes, crc: bytes) -> None:
        number = sector // GROUP_SECTORS
        slot = self.groups.get(number)
        if slot is None:
            slot = self._ensure(number)
        self._dirty.add(slot)
        page, base, index = self._pages[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE, sector % GROUP_SECTORS
        at = base + _BODY_AT + index * TAG_SIZE
        self.sectors_written += (tag != ZERO_TAG) - (page[at:at + TAG_SIZE] != ZERO_TAG)
        page[at:at + TAG_SIZE] = tag
        at = base + _CRCS_AT + index * CRC_SIZE
        page[at:at + CRC_SIZE] = crc
        if self.missing or self.unknown:
            self.missing.discard(sector)
            self.unknown.discard(sector)

    # --- writing ----------------------------------------------------------------------------------
    def mark_unknown(self) -> None:
        """Have the groups of what is unknown written, with their marks."""
        groups = {sector // GROUP_SECTORS for sector in self.unknown}
        self._dirty.update(self.groups[number] for number in groups if number in self.groups)

    def take_dirty(self) -> list[Span]:
        """What has changed since the last call, in the order of the slots."""
        dirty, self._dirty = sorted(self._dirty), set()
        self._finish(dirty)
        spans: list[Span] = []
        start = last = dirty[0] if dirty else 0
        for slot in dirty:
            if slot - last > _GAP_SLOTS or slot // PAGE_SLOTS != start // PAGE_SLOTS:
                spans.append(self._span(start, last))
                start = slot
            last = slot
        if dirty:
            spans.append(self._span(start, last))
        return spans

    def _finish(self, dirty: Sequence[int]) -> None:
        """Bring masks and checksums of these slots up to date. A loop without calls: they may be thousands."""
        masks = self._masks() if self.unknown else {}
        pack_crc, salt = _CRC.pack_into, self.salt.to_bytes(8)
        stop = 0
        while stop < len(dirty):
            number = dirty[stop] // PAGE_SLOTS
            start, stop = stop, bisect_left(dirty, (number + 1) * PAGE_SLOTS, stop)
            page = self._pages[number]
            with memoryview(page) as view:
                for slot in dirty[start:stop]:
                    base = slot % PAGE_SLOTS * SLOT_SIZE
                    _MASK.pack_into(page, base + _MASK_AT, masks.get(slot, 0))
                    pack_crc(page, base + _CRC_AT, crc32(view[base:base + _CRC_AT], crc32(salt, slot & 0xFFFFFFFF)))

    def _masks(self) -> dict[int, int]:
        """By slot."""
        masks: dict[int, int] = {}
        for sector in self.unknown:
            slot = self.groups.get(sector // GROUP_SECTORS)
            if slot is not None:
                masks[slot] = masks.get(slot, 0) | 1 << sector % GROUP_SECTORS
        return masks

    def _span(self, start: int, last: int) -> Span:
        base = start % PAGE_SLOTS * SLOT_SIZE
        return Span(start, bytes(self._pages[start // PAGE_SLOTS][base:base + (last + 1 - start) * SLOT_SIZE]))


def _chunks(first: int, count: int) -> Iterable[tuple[int, int, int]]:
    """(group, start, stop) for each group that the run touches; start and stop count within the group."""
    end = first + count
    while first < end:
        number, start = divmod(first, GROUP_SECTORS)
        stop = min(GROUP_SECTORS, start + end - first)
        yield number, start, stop
        first += stop - start


def written(tags: Buffer) -> int:
    """How many of these tags are not (0, 0)."""
    if ZERO_TAG not in tags:
        return len(tags) // TAG_SIZE
    return sum(tags[at:at + TAG_SIZE] != ZERO_TAG for at in range(0, len(tags), TAG_SIZE))


# --- the file -------------------------------------------------------------------------------------
def load(file: File, slots: int, sectors: int, salt: int = 0) -> TagTable:
    """Read the first `slots` slots; what is beyond them is in the journal. `sectors`: size of the disk."""
    table = TagTable(sectors, salt)
    marked: list[tuple[int, int]] = []
    step = 4096
    for start in range(0, slots, step):
        number = min(step, slots - start)
        raw = memoryview(pread_or_zeros(file, number * SLOT_SIZE, start * SLOT_SIZE))
        for slot in range(start, start + number):
            at = (slot - start) * SLOT_SIZE
            _load_slot(table, raw[at:at + SLOT_SIZE], slot, marked)
    for group, mask in marked:
        start = group * GROUP_SECTORS
        stop = min(start + GROUP_SECTORS, sectors)
        table.unknown.update(sector for sector in range(start, stop) if mask >> (sector - start) & 1)
    return table


def _load_slot(table: TagTable, raw: memoryview, slot: int, marked: list[tuple[int, int]]) -> None:
    """`marked`: groups of which something is unknown, and what of them."""
    found = decode(raw, slot, table.salt)
    group = found.group if isinstance(found, Slot) else found
    if group is None or group in table.groups or group * GROUP_SECTORS >= table.sectors:
        table.add_lost()
        return
    table.groups[group] = slot
    if isinstance(found, Slot):
        table.append(raw)
        table.sectors_written += written(found.tags)
        if found.mask:
            marked.append((group, found.mask))
    else:
        table.append(encode(slot, Slot(group, NO_TAGS, NO_CRCS, 0), table.salt))
        marked.append((group, (1 << GROUP_SECTORS) - 1))


def write(file: File, spans: Sequence[Span]) -> None:
    """Not synced."""
    for slot, raw in spans:
        file.pwritev([raw], slot * SLOT_SIZE)
