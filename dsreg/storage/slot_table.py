"""Tags, checksums and marks of all sectors ever written: the slots of `tags`, as far as they are in memory.

Slots are read when they are first used, so a damaged one may be found at any time; what it told is unknown then, as if
it had been found at the start. While a slot is LOST every group without a slot is suspect, as it cannot be told from
one never written.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsreg.constants import CRC_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.protocol.tags import ATTACHED, is_uniform, iter_tags, writers
from dsreg.register.damage import Damage, Kind
from dsreg.storage.chunks import Chunks, chunks_of, is_chunk, run_of
from dsreg.storage.files import Buffer, File
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.pages import PAGE_SLOTS, SlotPages, Span
from dsreg.storage.slots import (
    CHUNK_GROUPS,
    CHUNK_KEYS,
    CHUNK_SECTORS,
    CRCS_AT,
    NO_CRCS,
    NO_TAGS,
    SLOT_CHUNKS,
    TAGS_AT,
    ZERO_CRC,
    ZEROS_AT,
    Slot,
    encode,
    groups_of,
    held_in,
)

_ALL_MARKED = (1 << GROUP_SECTORS) - 1


class SlotTable:
    """The durable tags, as slots have them (dsreg.storage.tags lays runs of zeros over them). Not thread-safe.

    `missing`: sectors whose value is lost, tag known. `unknown`: sectors whose tag is lost too. `lost`: numbers of
    slots that are LOST; while there are any, groups without a slot are unknown. Of the first two what has been found.
    """

    def __init__(self, sectors: int, salt: int = 0, file: File | None = None) -> None:
        self.sectors = sectors  # size of the disk
        self.counted = 0  # sectors with a value in their home; after a start by the index it may be off
        self.missing: set[int] = set()
        self.unknown: set[int] = set()
        self.lost: list[int] = []
        self.found: list[Damage] = []  # what is damaged, as it was found; whoever takes it clears this
        self.highest = ZERO_TAG  # of all writes of attachments
        self.newest = ZERO_TAG  # of all, or above it
        self.salt = salt
        self.pages = SlotPages(file, salt, self.found_slot)
        self.chunks = Chunks(self.pages, salt)
        self._resident = self.pages.resident
        self.hot = self.pages.hot  # groups in use, by number
        self.find = self.pages.find

    @property
    def slots(self) -> int:
        return self.pages.slots

    @property
    def sectors_written(self) -> int:
        """How many sectors have a value in their home: were written, and are not zeros without data. After a
        start by the index it may be too low: the slots that a checkpoint had written when the process ended are newer
        than what was counted last."""
        return max(0, self.counted)

    @sectors_written.setter
    def sectors_written(self, count: int) -> None:
        self.counted = count

    @property
    def damaged(self) -> bool:
        return bool(self.missing or self.unknown or self.lost or self.chunks.suspect)

    # --- reading ----------------------------------------------------------------------------------
    def touch(self, first: int, count: int) -> None:
        """Bring what is known of these sectors into memory: damage to it is found then."""
        if count == 1 and first // GROUP_SECTORS in self.hot:  # the usual case by far
            return
        if self._common_tag(first, count) is not None:
            return
        for number in range(first // GROUP_SECTORS, (first + count - 1) // GROUP_SECTORS + 1):
            if number not in self.hot and self.find(number) is None:
                self.chunks.touch(number // CHUNK_GROUPS)

    def tag(self, sector: int) -> bytes:
        return self._gathered(sector, 1, TAGS_AT, TAG_SIZE)

    def tags(self, first: int, count: int) -> bytes:
        """16 bytes per sector, zeros for those never written or unknown."""
        return self._gathered(first, count, TAGS_AT, TAG_SIZE)

    def held(self, first: int, count: int) -> bytes:
        """A byte per sector: other than 0 if home has its value (which may be lost), that of the tag is not zeros
        without data, nor that of what was never written."""
        if count == 1:
            return b"\1" if self.holds(first) else b"\0"
        if self._common_tag(first, count) is not None:
            return bytes(count)
        parts: list[Buffer] = []
        for number, start, stop in groups_of(first, count):
            slot = self.hot.get(number)
            if slot is None and (slot := self.find(number)) is None:
                parts.append(bytes(stop - start))  # what is said of a chunk is without data
                continue
            page, base = self._resident[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE
            at = base + TAGS_AT + TAG_SIZE - 1
            some = page[at + start * TAG_SIZE:at + stop * TAG_SIZE:TAG_SIZE]
            if marks := page[base + ZEROS_AT] >> start:
                for index in range(stop - start):
                    if marks >> index & 1:
                        some[index] = 0
            parts.append(some)
        return b"".join(parts)

    def holds(self, sector: int) -> bool:
        """As `held`, of one."""
        number, index = divmod(sector, GROUP_SECTORS)
        slot = self.hot.get(number)
        if slot is None and (slot := self.find(number)) is None:
            return False
        page, base = self._resident[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE
        return page[base + TAGS_AT + index * TAG_SIZE + TAG_SIZE - 1] != 0 and not page[base + ZEROS_AT] >> index & 1

    def crcs(self, first: int, count: int) -> bytes:
        """4 bytes per sector; without a meaning where there was no write."""
        return self._gathered(first, count, CRCS_AT, CRC_SIZE)

    def _gathered(self, first: int, count: int, field_at: int, size: int) -> bytes:
        if count == 1:  # the usual case by far
            number = first // GROUP_SECTORS
            slot = self.hot.get(number)
            if slot is None and (slot := self.find(number)) is None:
                return self._without_slot(number, size)
            at = slot % PAGE_SLOTS * SLOT_SIZE + field_at + first % GROUP_SECTORS * size
            return bytes(self._resident[slot // PAGE_SLOTS][at:at + size])
        if (tag := self._common_tag(first, count)) is not None:
            return _of_chunk(tag, size) * count
        parts: list[Buffer] = []
        for number, start, stop in groups_of(first, count):
            slot = self.hot.get(number)
            if slot is None and (slot := self.find(number)) is None:
                parts.append(self._without_slot(number, size) * (stop - start))
                continue
            at = slot % PAGE_SLOTS * SLOT_SIZE + field_at
            parts.append(self._resident[slot // PAGE_SLOTS][at + start * size:at + stop * size])
        return b"".join(parts)

    def _without_slot(self, group: int, size: int) -> bytes:
        return _of_chunk(self.chunks.tag_of(group), size)

    def _has_slots(self, chunk: int) -> bool:
        found = self.pages.index.following(chunk * CHUNK_GROUPS)
        return found is not None and found < (chunk + 1) * CHUNK_GROUPS

    def _common_tag(self, first: int, count: int) -> bytes | None:
        """That of all sectors of the run, if it lies in a chunk that says it of all of them; None: it is to be looked
        at group by group, which takes 10 times as long for a whole chunk."""
        chunk, last = first // CHUNK_SECTORS, first + count - 1
        if last // CHUNK_SECTORS != chunk or self._has_slots(chunk):
            return None
        begin, end = first // GROUP_SECTORS % CHUNK_GROUPS, last // GROUP_SECTORS % CHUNK_GROUPS + 1
        return self.chunks.common_tag(chunk, (1 << end) - (1 << begin))

    def is_unknown(self, sector: int) -> bool:
        if sector in self.unknown:
            return True
        suspect = self.lost or sector // CHUNK_SECTORS in self.chunks.suspect
        return bool(suspect) and self.find(sector // GROUP_SECTORS) is None

    def is_missing(self, sector: int) -> bool:
        return sector in self.missing or self.is_unknown(sector)

    def unknown_of(self, first: int, count: int) -> list[int]:
        return [sector for sector in range(first, first + count) if self.is_unknown(sector)]

    def missing_of(self, first: int, count: int) -> list[int]:
        return [sector for sector in range(first, first + count) if self.is_missing(sector)]

    def next_chunk(self, chunk: int) -> int | None:
        """The first chunk of the disk from `chunk` on that has a slot, or shares one that says something of chunks."""
        found = self.pages.index.following(chunk * CHUNK_GROUPS)
        chunks = [found // CHUNK_GROUPS] if found is not None and not is_chunk(found) else []
        if self.chunks.any:
            for base in CHUNK_KEYS:
                key = self.pages.index.following(base + chunk // SLOT_CHUNKS)
                if key is not None and key < 2 * base:
                    chunks.append(max(chunk, chunks_of(key).start))
        following = min(chunks, default=None)
        return following if following is not None and following * CHUNK_SECTORS < self.sectors else None

    def blank(self, chunk: int, stop: int) -> tuple[int, int] | None:
        """The first chunks [start, end) within [chunk, stop) of which a LOST slot may have told: they have none."""
        while self.lost and chunk < stop:
            found = self.next_chunk(chunk)
            if found is None or found > chunk:
                return chunk, stop if found is None else min(found, stop)
            chunk += 1
        return None

    # --- changing ---------------------------------------------------------------------------------
    def _ensure(self, number: int) -> int:
        """The slot of the group; a new one gets the next, and what was known of the group."""
        slot = self.find(number)
        if slot is None:
            if self.lost or number // CHUNK_GROUPS in self.chunks.suspect:
                self._mark(number, _ALL_MARKED)
            known = self.chunks.tag_of(number)
            contents = Slot(number, known * GROUP_SECTORS, NO_CRCS, 0)
            if known[-1]:
                contents = contents._replace(crcs=ZERO_CRC * GROUP_SECTORS, zeros=_ALL_MARKED)
            slot = self.pages.append(number, encode(self.slots, contents, self.salt))
        return slot

    def _mark(self, group: int, mask: int) -> None:
        """The tags of these sectors of the group are lost."""
        start = group * GROUP_SECTORS
        stop = min(start + GROUP_SECTORS, self.sectors)
        self.unknown.update(sector for sector in range(start, stop) if mask >> (sector - start) & 1)

    def found_slot(self, slot: int, key: int, contents: Slot | None) -> None:
        """A slot with marks; or (None) a damaged one, which begins anew with marks on all."""
        mask = _ALL_MARKED if contents is None else contents.mask
        if contents is None:
            self.note_damage(key)
            self.pages.replace(slot, encode(slot, Slot(key, NO_TAGS, NO_CRCS, 0), self.salt))
        if is_chunk(key):
            self.chunks.suspect.update(chunk for index, chunk in enumerate(chunks_of(key)) if mask >> index & 1)
        else:
            self._mark(key, mask)

    def note_damage(self, key: int) -> None:
        """The slot of the key is damaged in the file."""
        self.found.append(Damage(Kind.TAG, *run_of(key, self.sectors)))

    def lose(self, sectors: Iterable[int]) -> None:
        """The values of these are not what their checksums say."""
        self.found += [Damage(Kind.VALUE, sector, 1) for sector in sectors if sector not in self.missing]
        self.missing.update(sectors)

    def add_lost(self) -> None:
        """One slot more, which is LOST. It will be written as such, lest what it held comes back some day."""
        self.lost.append(self.slots)
        self.pages.dirty.add(self.pages.append(None, encode(self.slots, None, self.salt)))

    def put(self, first: int, count: int, tags: bytes, crcs: bytes) -> None:
        """These sectors are durable with these tags, and values in their homes, whatever they were before."""
        if count == 1:  # the usual case by far: half the time of the general one
            self._put_one(first, tags, crcs)
            return
        self._put_in_slots(first, count, tags, crcs, zeros=False)

    def _put_in_slots(self, first: int, count: int, tags: bytes, crcs: bytes, *, zeros: bool) -> None:
        self.note(tags)
        for number, start, stop in groups_of(first, count):
            slot = self._ensure(number)
            self.pages.dirty.add(slot)
            page, base = self._resident[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE
            at = number * GROUP_SECTORS + start - first
            where = slice(base + TAGS_AT + start * TAG_SIZE, base + TAGS_AT + stop * TAG_SIZE)
            new = tags[at * TAG_SIZE:(at + stop - start) * TAG_SIZE]
            marks, some = page[base + ZEROS_AT], (1 << stop) - (1 << start)
            self.counted -= held_in(page[where], marks & some)
            marks = marks | some if zeros else marks & ~some
            self.counted += held_in(new, marks & some)
            page[base + ZEROS_AT] = marks
            page[where] = new
            where = slice(base + CRCS_AT + start * CRC_SIZE, base + CRCS_AT + stop * CRC_SIZE)
            page[where] = crcs[at * CRC_SIZE:(at + stop - start) * CRC_SIZE]
        if self.missing or self.unknown:
            run = range(first, first + count)
            self.missing.difference_update(run)
            self.unknown.difference_update(run)

    def _put_one(self, sector: int, tag: bytes, crc: bytes) -> None:
        number = sector // GROUP_SECTORS
        slot = self.hot.get(number)
        if slot is None:
            slot = self._ensure(number)
        if tag > self.newest:
            self.newest = tag
        if tag[-1] == ATTACHED and tag > self.highest:
            self.highest = tag
        self.pages.dirty.add(slot)
        page, base, index = self._resident[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE, sector % GROUP_SECTORS
        at = base + TAGS_AT + index * TAG_SIZE
        self.counted += (tag[-1] != 0) - (page[at + TAG_SIZE - 1] != 0)
        if marks := page[base + ZEROS_AT]:
            self.counted += marks >> index & 1
            page[base + ZEROS_AT] = marks & ~(1 << index)
        page[at:at + TAG_SIZE] = tag
        at = base + CRCS_AT + index * CRC_SIZE
        page[at:at + CRC_SIZE] = crc
        if self.missing or self.unknown:
            self.missing.discard(sector)
            self.unknown.discard(sector)

    def note(self, tags: bytes) -> None:
        """Take these into account."""
        some = (tags[:TAG_SIZE],) if is_uniform(tags) else iter_tags(tags)
        self.newest = max(self.newest, *some)
        if ATTACHED not in writers(tags):
            return
        self.highest = max(self.highest, *(tag for tag in some if tag[-1] == ATTACHED))

    def put_dataless(self, first: int, count: int, tag: bytes) -> None:
        """These sectors are durable with this tag, which is not below those that they had, and without data: as never
        written, or, if the tag is of a write, as zeros."""
        self.note(tag)
        whole = self._whole_groups(first, count, tag)
        for number, start, stop in groups_of(first, count):
            chunk, bit = divmod(number, CHUNK_GROUPS)
            if not whole.get(chunk, 0) >> bit & 1:
                self._put_dataless_in_slots(number, start, stop, tag)
        for chunk, cover in whole.items():
            if not self.chunks.cover(chunk, tag, cover):
                for bit in range(CHUNK_GROUPS):
                    if cover >> bit & 1:
                        self._put_dataless_in_slots(chunk * CHUNK_GROUPS + bit, 0, GROUP_SECTORS, tag)

    def _put_dataless_in_slots(self, group: int, start: int, stop: int, tag: bytes) -> None:
        first, count, zeros = group * GROUP_SECTORS + start, stop - start, tag[-1] != 0
        crcs = ZERO_CRC * count if zeros else bytes(CRC_SIZE * count)
        self._put_in_slots(first, count, tag * count, crcs, zeros=zeros)

    def _whole_groups(self, first: int, count: int, tag: bytes) -> dict[int, int]:
        """Of each chunk the groups of the run that can be said of the chunk: they are in it as a whole, and have no
        slot; as bits. None of what is unknown: there every group has to say that it is known again."""
        whole: dict[int, int] = {}
        if self.lost or tag == ZERO_TAG:
            return whole
        chunks = range(first // CHUNK_SECTORS, (first + count - 1) // CHUNK_SECTORS + 1)
        looked_at = {chunk for chunk in chunks if self._has_slots(chunk)}
        for number, start, stop in groups_of(first, count):
            chunk, bit = divmod(number, CHUNK_GROUPS)
            if stop - start < GROUP_SECTORS or chunk in self.chunks.suspect:
                continue
            if chunk not in looked_at or self.find(number) is None:
                whole[chunk] = whole.get(chunk, 0) | 1 << bit
        return whole

    def new_keys(self, first: int, count: int, dataless: bytes = b"") -> set[int]:
        """The keys that get a slot when this is put. `dataless`: the tag of a put_dataless. More than one put of the
        same chunks is another matter: see `commit.place`."""
        groups = range(first // GROUP_SECTORS, (first + count - 1) // GROUP_SECTORS + 1)
        keys = {number for number in groups if self.find(number) is None}
        if not dataless or not keys:
            return keys
        for chunk, cover in self._whole_groups(first, count, dataless).items():
            which = self.chunks.place(chunk, dataless, cover)
            if which is None:
                continue
            keys -= {chunk * CHUNK_GROUPS + bit for bit in range(CHUNK_GROUPS) if cover >> bit & 1}
            key = CHUNK_KEYS[which] + chunk // SLOT_CHUNKS
            if self.find(key) is None:
                keys.add(key)
        return keys

    # --- writing ----------------------------------------------------------------------------------
    def mark_unknown(self) -> None:
        """Have the slots of what is unknown written, with their marks."""
        groups = {sector // GROUP_SECTORS for sector in self.unknown}
        slots = [self.find(number) for number in groups]
        self.pages.dirty.update(slot for slot in slots if slot is not None)

    def take_dirty(self) -> list[Span]:
        """What has changed since the last call, in the order of the slots. `pages.written` is to be called later."""
        return self.pages.take_dirty(self._masks() if self.unknown or self.chunks.suspect else {})

    def _masks(self) -> dict[int, int]:
        """By slot."""
        masks: dict[int, int] = {}
        for sector in list(self.unknown):
            slot = self.find(sector // GROUP_SECTORS)
            if slot is not None:
                masks[slot] = masks.get(slot, 0) | 1 << sector % GROUP_SECTORS
        for chunk in list(self.chunks.suspect):
            for base in CHUNK_KEYS:
                slot = self.find(base + chunk // SLOT_CHUNKS)
                if slot is not None:
                    masks[slot] = masks.get(slot, 0) | 1 << chunk % SLOT_CHUNKS
        return masks


def _of_chunk(tag: bytes, size: int) -> bytes:
    """The field of this size of a sector of which a chunk says this tag."""
    if size == TAG_SIZE:
        return tag
    return ZERO_CRC if tag[-1] else bytes(size)
