"""Tags and checksums of all sectors ever written: in memory by group of 8, at rest in the file `tags`.

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
import zlib
from collections.abc import Iterable, Sequence

from dsreg.constants import TAG_SIZE, ZERO_TAG
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
_CRC = struct.Struct(">I")
_CRC_AT = SLOT_SIZE - CRC_SIZE
_MASK = struct.Struct(">H")
_MASK_AT = _HEAD_CRC_AT + CRC_SIZE
_PADDING = bytes(_CRC_AT - _CRCS_AT - GROUP_SECTORS * CRC_SIZE)


class Group:
    """Durable tags (8 x 16 bytes) and checksums (8 x 4 bytes) of 8 consecutive sectors."""

    __slots__ = ("crcs", "slot", "tags")

    def __init__(self, slot: int, tags: bytes = NO_TAGS, crcs: bytes = NO_CRCS) -> None:
        self.slot = slot
        self.tags = bytearray(tags)
        self.crcs = bytearray(crcs)


class Image:
    """What goes into one slot: a copy, so that the group may change while it is written."""

    __slots__ = ("crcs", "group", "mask", "slot", "tags")

    def __init__(self, slot: int, group: int | None, tags: bytes, crcs: bytes, mask: int) -> None:
        self.slot = slot
        self.group = group  # None: LOST
        self.tags = tags
        self.crcs = crcs
        self.mask = mask

    def encode(self, salt: int = 0) -> bytes:
        seed = _seed(self.slot, salt)
        head = _HEAD.pack(_LOST_MAGIC if self.group is None else _MAGIC, self.group or 0)
        check = _CRC.pack(zlib.crc32(head, seed))
        slot = b"".join((head, check, _MASK.pack(self.mask), bytes(6), self.tags, self.crcs, _PADDING))
        return slot + _CRC.pack(zlib.crc32(slot, seed))


def _seed(slot: int, salt: int) -> int:
    return zlib.crc32(salt.to_bytes(8), slot & 0xFFFFFFFF)


def decode(raw: Buffer, slot: int, salt: int = 0) -> Image | int | None:
    """The contents of a valid slot; or, of one that is not, the group that it belongs to; or None."""
    seed = _seed(slot, salt)
    magic, group = _HEAD.unpack_from(raw)
    if magic == _MAGIC and _CRC.unpack_from(raw, _HEAD_CRC_AT)[0] == zlib.crc32(raw[:_HEAD_CRC_AT], seed):
        if _CRC.unpack_from(raw, _CRC_AT)[0] != zlib.crc32(raw[:_CRC_AT], seed):
            return int(group)
        tags = bytes(raw[_BODY_AT:_CRCS_AT])
        crcs = bytes(raw[_CRCS_AT:_CRCS_AT + len(NO_CRCS)])
        return Image(slot, group, tags, crcs, _MASK.unpack_from(raw, _MASK_AT)[0])
    return None


class TagTable:
    """The durable tags. Knows no files but when it is loaded; not thread-safe.

    `missing`: sectors whose value is lost, tag known. `unknown`: sectors whose tag is lost too.
    `lost`: numbers of slots that are LOST; while there are any, groups without a slot are unknown.
    """

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors  # size of the disk
        self.groups: dict[int, Group] = {}
        self.slots = 0
        self.sectors_written = 0
        self.missing: set[int] = set()
        self.unknown: set[int] = set()
        self.lost: list[int] = []
        self.dirty: set[int] = set()

    @property
    def damaged(self) -> bool:
        return bool(self.missing or self.unknown or self.lost)

    # --- reading ----------------------------------------------------------------------------------
    def tag(self, sector: int) -> bytes:
        group = self.groups.get(sector // GROUP_SECTORS)
        if group is None:
            return ZERO_TAG
        at = sector % GROUP_SECTORS * TAG_SIZE
        return bytes(group.tags[at:at + TAG_SIZE])

    def tags(self, first: int, count: int) -> bytes:
        """16 bytes per sector, zeros for those never written or unknown."""
        parts: list[Buffer] = []
        for number, start, stop in _chunks(first, count):
            group = self.groups.get(number)
            tags: Buffer = NO_TAGS if group is None else group.tags
            parts.append(tags[start * TAG_SIZE:stop * TAG_SIZE])
        return b"".join(parts)

    def crcs(self, first: int, count: int) -> bytes:
        """4 bytes per sector."""
        parts: list[Buffer] = []
        for number, start, stop in _chunks(first, count):
            group = self.groups.get(number)
            crcs: Buffer = NO_CRCS if group is None else group.crcs
            parts.append(crcs[start * CRC_SIZE:stop * CRC_SIZE])
        return b"".join(parts)

    def is_unknown(self, sector: int) -> bool:
        return sector in self.unknown or bool(self.lost) and sector // GROUP_SECTORS not in self.groups

    def is_missing(self, sector: int) -> bool:
        return sector in self.missing or self.is_unknown(sector)

    # --- changing ---------------------------------------------------------------------------------
    def ensure(self, number: int) -> Group:
        """The group; a new one gets the next slot."""
        group = self.groups.get(number)
        if group is None:
            if self.lost:
                start = number * GROUP_SECTORS
                self.unknown.update(range(start, min(start + GROUP_SECTORS, self.sectors)))
            group = self.groups[number] = Group(self.slots)
            self.slots += 1
        return group

    def put(self, first: int, count: int, tags: bytes, crcs: bytes) -> None:
        """These sectors are durable with these tags, whatever they were before."""
        if count == 1:  # the usual case by far: half the time of the general one
            self._put_one(first, tags, crcs)
            return
        for number, start, stop in _chunks(first, count):
            group = self.ensure(number)
            self.dirty.add(number)
            at = number * GROUP_SECTORS + start - first
            old = group.tags[start * TAG_SIZE:stop * TAG_SIZE]
            new = tags[at * TAG_SIZE:(at + stop - start) * TAG_SIZE]
            group.tags[start * TAG_SIZE:stop * TAG_SIZE] = new
            group.crcs[start * CRC_SIZE:stop * CRC_SIZE] = crcs[at * CRC_SIZE:(at + stop - start) * CRC_SIZE]
            self.sectors_written += written(new) - written(old)
        if self.missing or self.unknown:
            run = range(first, first + count)
            self.missing.difference_update(run)
            self.unknown.difference_update(run)

    def _put_one(self, sector: int, tag: bytes, crc: bytes) -> None:
        number = sector // GROUP_SECTORS
        group = self.groups.get(number) or self.ensure(number)
        self.dirty.add(number)
        at = sector % GROUP_SECTORS
        where = slice(at * TAG_SIZE, (at + 1) * TAG_SIZE)
        self.sectors_written += (tag != ZERO_TAG) - (group.tags[where] != ZERO_TAG)
        group.tags[where] = tag
        group.crcs[at * CRC_SIZE:(at + 1) * CRC_SIZE] = crc
        if self.missing or self.unknown:
            self.missing.discard(sector)
            self.unknown.discard(sector)

    def take_dirty(self) -> list[Image]:
        """Copies of the groups changed since the last call."""
        images = [self.image(number) for number in self.dirty]
        self.dirty = set()
        return images

    def image(self, number: int) -> Image:
        group = self.groups[number]
        mask = 0
        if self.unknown:
            start = number * GROUP_SECTORS
            mask = sum(1 << i for i in range(GROUP_SECTORS) if start + i in self.unknown)
        return Image(group.slot, number, bytes(group.tags), bytes(group.crcs), mask)


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
    if len(tags) == TAG_SIZE:
        return int(tags != ZERO_TAG)
    return sum(tags[at:at + TAG_SIZE] != ZERO_TAG for at in range(0, len(tags), TAG_SIZE))


# --- the file -------------------------------------------------------------------------------------
def load(file: File, slots: int, sectors: int, salt: int = 0) -> TagTable:
    """Read the first `slots` slots; what is beyond them is in the journal. `sectors`: size of the disk."""
    table = TagTable(sectors)
    table.slots = slots
    marked: list[tuple[int, int]] = []
    step = 4096
    for start in range(0, slots, step):
        number = min(step, slots - start)
        raw = memoryview(pread_or_zeros(file, number * SLOT_SIZE, start * SLOT_SIZE))
        for slot in range(start, start + number):
            at = (slot - start) * SLOT_SIZE
            found = decode(raw[at:at + SLOT_SIZE], slot, salt)
            group = found.group if isinstance(found, Image) else found
            if group is None or group in table.groups or group * GROUP_SECTORS >= sectors:
                table.lost.append(slot)
            elif isinstance(found, Image):
                table.groups[group] = Group(slot, found.tags, found.crcs)
                table.sectors_written += written(found.tags)
                if found.mask:
                    marked.append((group, found.mask))
            else:
                table.groups[group] = Group(slot)
                table.dirty.add(group)
                marked.append((group, (1 << GROUP_SECTORS) - 1))
    for group, mask in marked:
        start = group * GROUP_SECTORS
        stop = min(start + GROUP_SECTORS, sectors)
        table.unknown.update(sector for sector in range(start, stop) if mask >> (sector - start) & 1)
    return table


def lost_images(table: TagTable) -> list[Image]:
    """What marks the LOST slots as such."""
    return [Image(slot, None, NO_TAGS, NO_CRCS, 0) for slot in table.lost]


def write_images(file: File, images: Sequence[Image], salt: int = 0) -> None:
    """Write the slots, neighbours together. Not synced."""
    ordered = sorted(images, key=lambda image: image.slot)
    start = 0
    for end in range(1, len(ordered) + 1):
        if end == len(ordered) or ordered[end].slot != ordered[end - 1].slot + 1:
            raw = b"".join(image.encode(salt) for image in ordered[start:end])
            file.pwritev([raw], ordered[start].slot * SLOT_SIZE)
            start = end
