"""The file `tags`: reading its slots into a table, all or those that an index does not have, and writing them."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.storage.chunks import chunks_of, is_chunk
from dsreg.storage.files import File, pread_or_zeros
from dsreg.storage.index import REGION_BITS
from dsreg.storage.index_file import Found
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.pages import Span
from dsreg.storage.slots import CHUNK_KEYS, CHUNK_SECTORS, Slot, decode, held_in, whose
from dsreg.storage.tags import TagTable


def load(file: File, slots: int, sectors: int, salt: int = 0) -> TagTable:
    """Read the first `slots` slots; what is beyond them is in the journal. `sectors`: size of the disk."""
    table = TagTable(sectors, salt, file)
    load_rest(table, file, slots)
    return table


def load_rest(table: TagTable, file: File, slots: int, keys_only: bool = False) -> None:
    """Read the slots up to `slots` that the table does not have yet. `keys_only`: not what is in them, as far as whose
    they are can be read."""
    step = 4096
    for start in range(table.slots, slots, step):
        number = min(step, slots - start)
        raw = memoryview(pread_or_zeros(file, number * SLOT_SIZE, start * SLOT_SIZE))
        for slot in range(start, start + number):
            at = (slot - start) * SLOT_SIZE
            if keys_only and _load_key(table, raw, at, slot):
                continue
            _load_slot(table, raw[at:at + SLOT_SIZE], slot)


def resume(found: Found, file: File, sectors: int, salt: int) -> TagTable:
    """A table with the slots that the index tells of, none of which is read yet. What it counts is not known."""
    table = TagTable(sectors, salt, file)
    table.pages.index, table.pages.slots = found.keys, found.slots
    table.lost = found.lost
    table.chunks.any = any(number << REGION_BITS >= CHUNK_KEYS[0] for number in found.keys.regions)
    return table


def _load_slot(table: TagTable, raw: memoryview, slot: int) -> None:
    found = decode(raw, slot, table.salt)
    key = found.key if isinstance(found, Slot) else found
    if key is None or table.pages.index.get(key) is not None or not _is_of_disk(key, table.sectors):
        table.add_lost()
        return
    table.pages.append(key, raw)
    if is_chunk(key):
        table.chunks.any = True
    if not isinstance(found, Slot):
        table.found_slot(slot, key, None)
        return
    table.note(found.tags)
    if not is_chunk(key):
        table.counted += held_in(found.tags, found.zeros)
    if found.mask:
        table.found_slot(slot, key, found)


def _load_key(table: TagTable, raw: memoryview, at: int, slot: int) -> bool:
    key = whose(raw, at, slot, table.salt)
    if key is None or table.pages.index.get(key) is not None or not _is_of_disk(key, table.sectors):
        return False
    table.pages.index.add(key, slot)
    table.pages.slots = slot + 1
    table.chunks.any = table.chunks.any or is_chunk(key)
    return True


def _is_of_disk(key: int, sectors: int) -> bool:
    return (chunks_of(key).start * CHUNK_SECTORS if is_chunk(key) else key * GROUP_SECTORS) < sectors


def write(file: File, spans: Sequence[Span]) -> None:
    """Not synced."""
    for slot, raw in spans:
        file.pwritev([raw], slot * SLOT_SIZE)
