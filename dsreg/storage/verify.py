"""Verifying what is on the disk, for dsreg.register.scrub: the slots of the file `tags`, and the checksums of values.

Values: `StableStorage.load_job`, whose `run_from_disk` is called in a thread in place of `run`. Slots: a SlotJob.
"""

from __future__ import annotations

from collections.abc import Mapping

from dsreg.register.damage import Damage
from dsreg.storage.directory import Directory
from dsreg.storage.files import File, pread_or_zeros
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.pages import PAGE_SIZE, PAGE_SLOTS
from dsreg.storage.slots import CHUNK_KEYS, CHUNK_SECTORS, SLOT_CHUNKS, Slot, decode
from dsreg.storage.tags import TagTable


class SlotJob:
    """Call `run` once, in any thread, then hand it to `CopyCheck.finish`. `keys`: by slot, whose they are."""

    def __init__(self, file: File, salt: int, keys: Mapping[int, int], writes: int) -> None:
        self._file = file
        self._salt = salt
        self.keys = keys
        self.writes = writes
        self.bad: list[int] = []

    def run(self) -> None:
        """Read from the disk. What cannot be read is damaged."""
        slots = sorted(self.keys)
        numbers = sorted({slot // PAGE_SLOTS for slot in slots})
        for page in numbers:
            self._file.drop_cached(PAGE_SIZE, page * PAGE_SIZE)
        pages = {page: memoryview(pread_or_zeros(self._file, PAGE_SIZE, page * PAGE_SIZE)) for page in numbers}
        for slot in slots:
            at = slot % PAGE_SLOTS * SLOT_SIZE
            contents = decode(pages[slot // PAGE_SLOTS][at:at + SLOT_SIZE], slot, self._salt)
            if not isinstance(contents, Slot) or contents.key != self.keys[slot]:
                self.bad.append(slot)


class CopyCheck:
    """Of one storage; in its thread."""

    def __init__(self, directory: Directory, table: TagTable) -> None:
        self._file = directory.tags
        self.values_bytes = directory.home.allocated  # what the values take of the file system
        self._salt = directory.salt
        self._table = table
        self.found: list[Damage] = table.found  # what is damaged, as it was found; whoever takes it clears this

    def crcs(self, first: int, count: int) -> bytes:
        """The CRC-32 of the durable values, 4 bytes a sector; zeros where the tag is lost."""
        return self._table.crcs(first, count)

    def slot_job(self, first: int, count: int) -> SlotJob:
        """For the slots that say something of these sectors, but for those that are to be written anyway."""
        groups = range(first // GROUP_SECTORS, (first + count - 1) // GROUP_SECTORS + 1)
        chunks = range(first // CHUNK_SECTORS, (first + count - 1) // CHUNK_SECTORS + 1)
        pages = self._table.pages
        keys: dict[int, int] = {}
        for key in (*groups, *{base + chunk // SLOT_CHUNKS for chunk in chunks for base in CHUNK_KEYS}):
            slot = pages.index.get(key)
            if slot is not None and pages.is_at_rest(slot):
                keys[slot] = key
        return SlotJob(self._file, self._salt, keys, pages.writes)

    def finish(self, job: SlotJob) -> bool:
        """After `job.run` has returned. A slot that is damaged in the file alone is written anew with the next
        checkpoint; one that is not in memory is read, and found damaged, as whenever it is used. False: slots were
        written meanwhile, so that what looks damaged may be half of what was written; make a new job."""
        pages = self._table.pages
        if job.bad and job.writes != pages.writes:
            return False
        for slot in job.bad:
            key = job.keys[slot]
            self._table.find(key)
            if slot not in pages.dirty:
                self._table.note_damage(key)
                pages.dirty.add(slot)
        return True
