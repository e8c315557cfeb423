"""What is durable of each sector: what the slots of `tags` say, and over it the runs of chunks that one command zeroed.

The higher tag counts. A sector whose tag was lost by damage is unknown, whatever a run says.
"""

from __future__ import annotations

from collections.abc import Iterator

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.storage.files import File
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.pages import PAGE_SLOTS
from dsreg.storage.slot_table import SlotTable
from dsreg.storage.slots import CHUNK_SECTORS, CRCS_AT, TAGS_AT, ZERO_CRC, ZEROS_AT
from dsreg.storage.zero_runs import ZeroRuns

_NOT_HELD = b"\0"


class TagTable(SlotTable):
    """See the module."""

    def __init__(self, sectors: int, salt: int = 0, file: File | None = None) -> None:
        super().__init__(sectors, salt, file)
        self.runs = ZeroRuns()

    def put_zeros(self, first: int, count: int, tag: bytes) -> None:
        """These whole chunks are durable as zeros with this tag, where they have no higher one."""
        self.note(tag)
        self.runs.add(first // CHUNK_SECTORS, (first + count) // CHUNK_SECTORS, tag)

    def tag(self, sector: int) -> bytes:
        tag = super().tag(sector)
        return self._laid_over(sector, tag, tag, b"") if self.runs.starts else tag

    def tags(self, first: int, count: int) -> bytes:
        tags = super().tags(first, count)
        return self._laid_over(first, tags, tags, b"") if self.runs.starts else tags

    def crcs(self, first: int, count: int) -> bytes:
        crcs = super().crcs(first, count)
        return self._laid_over(first, super().tags(first, count), crcs, ZERO_CRC) if self.runs.starts else crcs

    def held(self, first: int, count: int) -> bytes:
        held = super().held(first, count)
        if not self.runs.starts or not any(held):
            return held
        return self._laid_over(first, super().tags(first, count), held, _NOT_HELD)

    def holds(self, sector: int) -> bool:
        if not super().holds(sector):
            return False
        return not self.runs.starts or self.runs.tag_of(sector // CHUNK_SECTORS) < super().tag(sector)

    def values(self, home: File) -> int:
        """Of how many sectors the home has the value. Those under runs are not counted one by one: where there are any,
        it is at most what the file system says, which may be a little more."""
        written = self.sectors_written
        return min(written, home.allocated() // SECTOR_SIZE) if self.runs.starts else written

    def _laid_over(self, first: int, tags: bytes, field: bytes, value: bytes) -> bytes:
        over = self.runs.laid_over(first, tags, field, value)
        if over is field or not self.damaged:
            return over
        size = len(value) or TAG_SIZE
        return b"".join(
            (field if self.is_unknown(first + index) else over)[index * size:(index + 1) * size]
            for index in range(len(tags) // TAG_SIZE)
        )

    def next_chunk(self, chunk: int) -> int | None:
        """The first chunk of the disk from `chunk` on of which something may be said."""
        found = super().next_chunk(chunk)
        if not self.runs.starts:
            return found
        following = self.runs.following(chunk)
        if following is None or following * CHUNK_SECTORS >= self.sectors:
            return found
        return following if found is None else min(found, following)

    def is_damaged_in(self, first: int, stop: int) -> bool:
        """Whether something of the sectors [first, stop), whole chunks, is lost, as far as that was found."""
        if self.lost:
            return True
        chunks = range(first // CHUNK_SECTORS, stop // CHUNK_SECTORS)
        if any(chunk in chunks for chunk in self.chunks.suspect):
            return True
        return any(first <= sector < stop for lost in (self.missing, self.unknown) for sector in lost)

    def kept_from(self, first: int, stop: int, tag: bytes) -> Iterator[tuple[int, int]]:
        """The runs [start, stop) of sectors, of [first, stop), whose home has their value when zeros of this tag come
        over them. Takes some us for each slot that there is."""
        key = self.pages.index.following(first // GROUP_SECTORS)
        while key is not None and key * GROUP_SECTORS < stop:
            start = key * GROUP_SECTORS
            over = max(tag, self.runs.tag_of(start // CHUNK_SECTORS))
            for index in self._values_above(key, over):
                if first <= start + index < stop:
                    yield start + index, start + index + 1
            key = self.pages.index.following(key + 1)

    def _values_above(self, group: int, tag: bytes) -> list[int]:
        """Which of the sectors of a group that has a slot have a value under a higher tag than this."""
        slot = self.find(group)
        assert slot is not None
        page, base = self._resident[slot // PAGE_SLOTS], slot % PAGE_SLOTS * SLOT_SIZE
        tags, marks = bytes(page[base + TAGS_AT:base + CRCS_AT]), page[base + ZEROS_AT]
        if tags == tags[:TAG_SIZE] * GROUP_SECTORS and tags[:TAG_SIZE] <= tag:  # as nearly always
            return []
        return [
            index for index in range(GROUP_SECTORS)
            if tags[(index + 1) * TAG_SIZE - 1] and tags[index * TAG_SIZE:(index + 1) * TAG_SIZE] > tag
            and not marks >> index & 1
        ]
