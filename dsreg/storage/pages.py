"""The slots of the file `tags` in memory, as far as they are there: those in use lately, and all that have changed
since they were written last.

A page is 16 slots, 4096 bytes. A slot that comes into memory is checked before it is used, like one that is read at a
start. A page with a slot that is dirty, or that a checkpoint is writing, stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dsreg.storage.files import Buffer, File, pread_or_zeros
from dsreg.storage.index import SlotIndex
from dsreg.storage.layout import SLOT_SIZE
from dsreg.storage.slots import Slot, decode, finish, key_at

PAGE_SLOTS = 16
PAGE_SIZE = PAGE_SLOTS * SLOT_SIZE
# Pages that are kept though they are clean: at least so many, and a tenth of all; and so many more before some go.
MIN_CLEAN_PAGES = 1024
CLEAN_SHARE = 10
_SLACK = 256
# Dirty slots with no more clean ones between them are written together: these are a page of the page cache, which would
# be written in any case, and a system call costs more than to copy them.
_GAP_SLOTS = 16


class Span(NamedTuple):
    """Neighbouring slots as they are to be written: a copy, so that the table may change meanwhile."""

    slot: int
    raw: bytes


class SlotPages:
    """`found(slot, key, contents)` is called when a slot with marks (contents.mask) or a damaged one (None) comes into
    memory; it may change it. `file`: None if nothing is ever written."""

    def __init__(self, file: File | None, salt: int, found: Callable[[int, int, Slot | None], None]) -> None:
        self.slots = 0
        self.index = SlotIndex()
        # The slots of keys in use: their page is in memory, and they have been checked.
        self.hot: dict[int, int] = {}
        self.resident: dict[int, bytearray] = {}
        self.dirty: set[int] = set()
        self._writing: set[int] = set()  # pages
        self.writes = 0  # how often dirty slots were taken to be written
        self._file = file
        self._salt = salt
        self._found = found
        self._limit = MIN_CLEAN_PAGES + _SLACK  # of resident pages, until it is looked at what may go

    def find(self, key: int) -> int | None:
        """The slot of the key, which is in memory then; None if it has none."""
        slot = self.hot.get(key)
        if slot is None and (slot := self.index.get(key)) is not None:
            self._admit(key, slot)
        return slot

    def _admit(self, key: int, slot: int) -> None:
        page, at = self.page(slot), slot % PAGE_SLOTS * SLOT_SIZE
        self.hot[key] = slot
        if slot in self.dirty:
            return  # its checksum is not up to date
        with memoryview(page) as view:
            contents = decode(view[at:at + SLOT_SIZE], slot, self._salt)
        if not isinstance(contents, Slot) or contents.key != key:
            self._found(slot, key, None)
        elif contents.mask:
            self._found(slot, key, contents)

    def page(self, slot: int) -> bytearray:
        """The page of this slot, read if need be."""
        number = slot // PAGE_SLOTS
        page = self.resident.get(number)
        if page is None:
            self._make_room()
            assert self._file is not None
            page = self.resident[number] = bytearray(pread_or_zeros(self._file, PAGE_SIZE, number * PAGE_SIZE))
        return page

    def append(self, key: int | None, raw: Buffer) -> int:
        """One slot more, as it is at rest; its number. None: a LOST one."""
        slot = self.slots
        if slot % PAGE_SLOTS == 0:
            self._make_room()
            self.resident[slot // PAGE_SLOTS] = bytearray(PAGE_SIZE)
        at = slot % PAGE_SLOTS * SLOT_SIZE
        self.page(slot)[at:at + SLOT_SIZE] = raw
        self.slots += 1
        if key is not None:
            self.index.add(key, slot)
            self.hot[key] = slot
        return slot

    def replace(self, slot: int, raw: Buffer) -> None:
        """Make this of the slot, and have it written."""
        at = slot % PAGE_SLOTS * SLOT_SIZE
        self.page(slot)[at:at + SLOT_SIZE] = raw
        self.dirty.add(slot)

    def _make_room(self) -> None:
        """Let the pages go that came first, if there are many and they are clean."""
        if len(self.resident) <= self._limit:
            return
        clean = max(MIN_CLEAN_PAGES, self.slots // PAGE_SLOTS // CLEAN_SHARE)
        busy = {slot // PAGE_SLOTS for slot in self.dirty} | self._writing
        busy.add(self.slots // PAGE_SLOTS)
        excess = len(self.resident) - len(busy) - clean
        for number in [number for number in self.resident if number not in busy][:max(0, excess)]:
            self._drop(number)
        self._limit = max(clean, len(self.resident)) + _SLACK

    def _drop(self, number: int) -> None:
        page = self.resident.pop(number)
        for at in range(0, PAGE_SIZE, SLOT_SIZE):
            key = key_at(page, at)
            if self.hot.get(key, -1) // PAGE_SLOTS == number:
                del self.hot[key]

    # --- writing ----------------------------------------------------------------------------------
    def take_dirty(self, masks: dict[int, int]) -> list[Span]:
        """What has changed since the last call, in the order of the slots. `masks`: marks by slot; those of the others
        are 0. The pages stay in memory until `written`."""
        dirty, self.dirty = sorted(self.dirty), set()
        self.writes += 1
        salt = self._salt.to_bytes(8)
        for slot in dirty:
            page = self.resident[slot // PAGE_SLOTS]
            finish(page, slot % PAGE_SLOTS * SLOT_SIZE, slot, salt, masks.get(slot, 0))
        self._writing = {slot // PAGE_SLOTS for slot in dirty}
        spans: list[Span] = []
        start = last = dirty[0] if dirty else 0
        for slot in dirty:
            if slot // PAGE_SLOTS != last // PAGE_SLOTS and slot - last > 1 or slot - last > _GAP_SLOTS:
                spans.append(self._span(start, last))
                start = slot
            last = slot
        if dirty:
            spans.append(self._span(start, last))
        return spans

    def written(self) -> None:
        """What was taken is in the file."""
        self._writing = set()

    def is_at_rest(self, slot: int) -> bool:
        """Whether the file has the slot as it is now."""
        return slot not in self.dirty and slot // PAGE_SLOTS not in self._writing

    def _span(self, start: int, last: int) -> Span:
        """Whole pages: of one that is not in the page cache the kernel would have to read the rest before it could
        write a part, and the disk may not be able to."""
        first, stop = start // PAGE_SLOTS, last // PAGE_SLOTS + 1
        return Span(first * PAGE_SLOTS, b"".join(self.resident[number] for number in range(first, stop)))
