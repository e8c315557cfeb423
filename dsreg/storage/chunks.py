"""States of whole chunks, without data: the tag of those of their groups that have no slot of their own.

Such a tag is that of what was never written, restamped (docs/attachments.md), or of a write of zeros
(docs/storage.md). A group that has a slot is never looked up here: what its chunk said is copied into the slot when
that is made, and what is stored later goes there. A chunk has room for two states, of which the higher tag counts where
both cover a group: while one epoch is being restamped to the next, piece by piece, the chunk has both.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dsreg.constants import TAG_SIZE, ZERO_TAG
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.pages import PAGE_SLOTS, SlotPages
from dsreg.storage.slots import (
    CHUNK_GROUPS,
    CHUNK_KEYS,
    CHUNK_SECTORS,
    CRCS_AT,
    NO_CRCS,
    NO_TAGS,
    SLOT_CHUNKS,
    TAGS_AT,
    Slot,
    encode,
)

_COVER = struct.Struct(">I")


class State(NamedTuple):
    """`cover`: bit g for group g of the chunk; 0: there is no state."""

    tag: bytes = ZERO_TAG
    cover: int = 0


class Chunks:
    """`suspect`: chunks of which a state was lost: their groups without a slot are unknown."""

    def __init__(self, pages: SlotPages, salt: int) -> None:
        self._pages = pages
        self._salt = salt
        self.any = False  # whether any chunk ever had a state
        self.suspect: set[int] = set()

    def tag_of(self, group: int) -> bytes:
        """That of the sectors of a group without a slot."""
        if not self.any:
            return ZERO_TAG
        chunk, bit = divmod(group, CHUNK_GROUPS)
        return max((state.tag for state in self.states(chunk) if state.cover >> bit & 1), default=ZERO_TAG)

    def common_tag(self, chunk: int, groups: int) -> bytes | None:
        """That of these groups (as bits), none of which has a slot, if they have the same one."""
        if not self.any:
            return ZERO_TAG
        saying = [state for state in self.states(chunk) if state.cover & groups]
        if not saying:
            return ZERO_TAG
        highest = max(saying)
        return highest.tag if not groups & ~highest.cover else None

    def states(self, chunk: int) -> list[State]:
        """Both, whether there are any or not."""
        states = []
        for base in CHUNK_KEYS:
            slot = self._pages.find(base + chunk // SLOT_CHUNKS)
            states.append(State() if slot is None else self._state(slot, chunk % SLOT_CHUNKS))
        return states

    def _state(self, slot: int, index: int) -> State:
        page, at = self._pages.page(slot), slot % PAGE_SLOTS * SLOT_SIZE
        tag_at = at + TAGS_AT + index * TAG_SIZE
        cover = _COVER.unpack_from(page, at + CRCS_AT + index * _COVER.size)[0]
        return State(bytes(page[tag_at:tag_at + TAG_SIZE]), cover)

    def touch(self, chunk: int) -> None:
        """Bring what is said of the chunk into memory: damage to it is found then."""
        if self.any:
            for base in CHUNK_KEYS:
                self._pages.find(base + chunk // SLOT_CHUNKS)

    def place(self, chunk: int, tag: bytes, cover: int) -> int | None:
        """Which of the two states takes this one; None if neither can, as each says what would be forgotten."""
        states = self.states(chunk)
        for which, state in enumerate(states):
            if state.cover and state.tag == tag:
                return which
        for which, (tag_here, cover_here) in enumerate(states):
            other = states[1 - which]
            counts = cover_here & ~other.cover if other.tag > tag_here else cover_here
            if not counts & ~cover:
                return which
        return None

    def cover(self, chunk: int, tag: bytes, cover: int) -> bool:
        """These groups, which have no slot, have this tag from now on, which is above those that they had. False: it
        cannot be said here."""
        which = self.place(chunk, tag, cover)
        if which is None:
            return False
        key = CHUNK_KEYS[which] + chunk // SLOT_CHUNKS
        slot = self._pages.find(key)
        if slot is None:
            slot = self._pages.append(key, encode(self._pages.slots, Slot(key, NO_TAGS, NO_CRCS, 0), self._salt))
            self.any = True
        index = chunk % SLOT_CHUNKS
        before = self._state(slot, index)
        page, at = self._pages.page(slot), slot % PAGE_SLOTS * SLOT_SIZE
        tag_at = at + TAGS_AT + index * TAG_SIZE
        page[tag_at:tag_at + TAG_SIZE] = tag
        both = cover | before.cover if before.tag == tag else cover
        _COVER.pack_into(page, at + CRCS_AT + index * _COVER.size, both)
        self._pages.dirty.add(slot)
        return True


def is_chunk(key: int) -> bool:
    return key >= CHUNK_KEYS[0]


def run_of(key: int, sectors: int) -> tuple[int, int]:
    """First and number of the sectors, of so many, of which the slot of the key says something."""
    first, count = key * GROUP_SECTORS, GROUP_SECTORS
    if is_chunk(key):
        first, count = chunks_of(key).start * CHUNK_SECTORS, len(chunks_of(key)) * CHUNK_SECTORS
    return first, min(count, sectors - first)


def chunks_of(key: int) -> range:
    """The chunks of which the slot of this key tells."""
    first = (key & CHUNK_KEYS[0] - 1) * SLOT_CHUNKS
    return range(first, first + SLOT_CHUNKS)
