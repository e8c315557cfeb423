"""Recovery: from whatever a crash left, reads the tags, replays the journal, and opens a new segment.

What is known after it is the newest that was ever durable. A journal record may make a sector known
again whose slot of `tags` is lost: the live segments are the unbroken end of this node's history, so
the last record of a sector in them is newer than anything a slot can have held without it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dsreg.constants import CRC_SIZE, SECTOR_SIZE, TAG_SIZE
from dsreg.errors import DamagedStorage, NoSpace
from dsreg.protocol.tags import is_bare
from dsreg.storage import index_file, journal, tags
from dsreg.storage import state as state_file
from dsreg.storage.checkpoint import settle, write_index
from dsreg.storage.commit import ahead_of, grow_tags
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.journal import UNSAID, Entry, SegmentHeader
from dsreg.storage.layout import SLOT_SIZE, TAGS_STEP_BYTES
from dsreg.storage.state import State
from dsreg.storage.tags import TagTable

log = logging.getLogger("dsreg.storage")

# Batches are numbered from here at every start, and on through the segments until the next one.
FIRST_BATCH = 1


@dataclass(frozen=True, slots=True)
class Recovered:
    """`state` is on disk and has the new incarnation. The active segment is empty, of `state.generation`."""

    table: TagTable
    state: State
    tags_bytes: int
    indexed: int  # slots that the file `index` has


def recover(directory: Directory, sectors: int) -> Recovered:
    """`sectors`: the size of the disk from now on. May be interrupted anywhere and run again.

    Raises DamagedStorage; NoSpace if what was acknowledged before a crash has no room any more (nothing is
    lost: it stays in the journal); SyncFailed.
    """
    failure = Failure()
    try:
        return _recover(directory, sectors)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpace(f"no space to replay the journal; free some and start again: {error}") from error
        raise failure.fail("recovery", error) from error


def _recover(directory: Directory, sectors: int) -> Recovered:
    # A process that was killed has written what it did not sync. It can be read now, and a power loss would take it
    # back: after something that rests on it has been made durable, that must not be possible.
    for file in (directory.home, directory.tags, directory.state, *directory.journals):
        file.fdatasync()
    directory.files.sync_dir()
    state = state_file.read(directory.state, directory.salt)
    salt, size = directory.salt, directory.recorded.journal_bytes
    headers = [journal.read_header(file, salt) for file in directory.journals]
    live = journal.live(headers, state.generation)
    slots = max(state.slots, *(header.slots for header in headers if header is not None), 0)
    known = [header for header in headers if header is not None]
    told = max(known, key=lambda header: (header.freed, header.generation), default=None)  # written last
    table, indexed = _table(directory, slots, told)
    table.sectors = sectors
    # Before anything is changed: damage found now must leave the directory as it was found.
    for entry in journal.replay(directory.journals, live, salt, size):
        _replay(directory, table, entry)
    tags_bytes = _settle(directory, table)
    for header in live:  # the older one first: with the newer one free, the older one does not count
        freed = header._replace(
            freed=True, slots=table.slots, written=table.sectors_written, highest=table.highest
        )
        journal.write_header(directory.journals[header.generation % 2], salt, freed)
    generation = max((header.generation for header in headers if header is not None), default=0) + 1
    header = SegmentHeader(generation, False, FIRST_BATCH, table.slots, table.sectors_written, table.highest)
    journal.write_header(directory.journals[generation % 2], salt, header)
    state = state._replace(
        seq=state.seq + 1, incarnation=state.incarnation + 1, generation=generation, slots=table.slots,
        mark=state.own_mark,
    )
    state_file.write(directory.state, state, salt)
    if not indexed and index_file.is_due(table.slots, 0) and write_index(directory, table, table.slots):
        indexed = table.slots
    return Recovered(table, state, tags_bytes, indexed)


def _table(directory: Directory, slots: int, told: SegmentHeader | None) -> tuple[TagTable, int]:
    """The table, without what is in the journal, and how many slots the index has: 0 if there is none that can be used,
    so that all of `tags` had to be read."""
    sectors, salt = directory.recorded.identity.sectors, directory.salt
    found = None
    if told is not None and told.written != UNSAID:
        found = index_file.read(directory.files, directory.tags, slots, salt)
    if found is None or told is None:
        if slots >= index_file.MIN_TAIL_SLOTS:
            log.info("there is no usable index: reading all of the file tags (%d MiB) and writing a new index before "
                     "the node answers", slots * SLOT_SIZE >> 20)
        return tags.load(directory.tags, slots, sectors, salt), 0
    table = tags.resume(found, directory.tags, sectors, salt)
    tags.load_rest(table, directory.tags, slots, keys_only=True)
    table.sectors_written, table.highest = told.written, max(told.highest, table.highest)
    return table, found.slots


def _replay(directory: Directory, table: TagTable, entry: Entry) -> None:
    """Store what is newer than, or the same as, what is known: of the same tag, home may be torn."""
    if entry.first + entry.count > table.sectors:
        raise DamagedStorage(f"the journal has sector {entry.first + entry.count - 1} of a disk of {table.sectors}")
    start = 0
    for stop in range(entry.count + 1):
        if stop < entry.count and _applies(table, entry, stop):
            continue
        if start < stop:
            _store(directory, table, entry, start, stop)
        start = stop + 1


def _applies(table: TagTable, entry: Entry, index: int) -> bool:
    # An unknown sector has tag zero here, so anything applies: see the module.
    return entry.tags[index * TAG_SIZE:(index + 1) * TAG_SIZE] >= table.tag(entry.first + index)


def _store(directory: Directory, table: TagTable, entry: Entry, start: int, stop: int) -> None:
    some = entry.tags[start * TAG_SIZE:stop * TAG_SIZE]
    if entry.is_bare:
        table.put_bare(entry.first + start, stop - start, some[:TAG_SIZE])
        return
    if not is_bare(some):
        data = entry.data[start * SECTOR_SIZE:stop * SECTOR_SIZE]
        directory.home.pwritev([data], (entry.first + start) * SECTOR_SIZE)
    table.put(entry.first + start, stop - start, some, entry.crcs[start * CRC_SIZE:stop * CRC_SIZE])


def _settle(directory: Directory, table: TagTable) -> int:
    """Everything known so far goes to home and tags, with a mark on what is lost. Returns the size of tags."""
    allocated = directory.tags.size()
    wanted = -(-table.slots * SLOT_SIZE // TAGS_STEP_BYTES) * TAGS_STEP_BYTES
    if wanted > allocated:
        directory.tags.allocate(allocated, wanted - allocated)
        allocated = wanted
    allocated = grow_tags(directory.tags, allocated, wanted + ahead_of(table.sectors))
    table.mark_unknown()
    settle(directory, table.take_dirty())
    table.pages.written()
    return allocated
