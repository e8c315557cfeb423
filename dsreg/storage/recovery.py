"""Recovery: from whatever a crash left, reads the tags, replays the journal, and opens a new segment.

What is known after it is the newest that was ever durable. A journal record may make a sector known
again whose slot of `tags` is lost: the live segments are the unbroken end of this node's history, so
the last record of a sector in them is newer than anything a slot can have held without it.

Homes are written only once all records have been looked at, with what is the newest: what was trimmed since may have no
room any more, and of an ordered record the home has the only copy.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dsreg.chunks import number_of_chunks
from dsreg.constants import CRC_SIZE, MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import DamagedStorage, NoSpace
from dsreg.protocol.tags import is_uniform
from dsreg.runs import Runs
from dsreg.storage import index_file, journal, tags_file, zeros_file
from dsreg.storage import state as state_file
from dsreg.storage.checkpoint import settle, write_index
from dsreg.storage.commit import ahead_of, grow_tags, spans_of
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
    zeros_seq: int  # of the last write of the file `zeros`
    tags_bytes: int
    indexed: int  # slots that the file `index` has


def recover(directory: Directory, sectors: int) -> Recovered:
    """`sectors`: the size of the disk. May be interrupted anywhere and run again.

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
    table, indexed = _table(directory, sectors, slots, told)
    zeros_seq, table.runs = zeros_file.read(directory.zeros, salt)
    if len(table.runs):
        table.note(bytes(table.runs.tags))  # a counter may be that of a run alone
    runs_before = zeros_file.encode(0, table.runs, salt)
    # Before anything is changed: damage found now must leave the directory as it was found.
    zeros = Runs()
    entries = journal.replay(directory.journals, live, salt, size)
    for entry in entries:
        _apply(table, entry, zeros)
    _punch(directory, table, zeros)  # first, as values may need the room
    for entry in entries:
        _write_home(directory, table, entry)
    tags_bytes = _settle(directory, table)
    if runs_before != zeros_file.encode(0, table.runs, salt):
        zeros_seq += 1
        zeros_file.write(directory.zeros, zeros_file.encode(zeros_seq, table.runs, salt), salt)
    zeros_file.allocate_ahead(directory.zeros, number_of_chunks(table.sectors))
    for header in live:  # the older one first: with the newer one free, the older one does not count
        freed = header._replace(
            freed=True, slots=table.slots, written=table.sectors_written, highest=table.highest, newest=table.newest
        )
        journal.write_header(directory.journals[header.generation % 2], salt, freed)
    generation = max((header.generation for header in headers if header is not None), default=0) + 1
    settled = (table.slots, table.sectors_written, table.highest, table.newest)
    header = SegmentHeader(generation, False, FIRST_BATCH, *settled)
    journal.write_header(directory.journals[generation % 2], salt, header)
    state = state._replace(
        seq=state.seq + 1, incarnation=state.incarnation + 1, generation=generation, slots=table.slots,
        mark=state.own_mark,
    )
    state_file.write(directory.state, state, salt)
    if not indexed and index_file.is_due(table.slots, 0) and write_index(directory, table, table.slots):
        indexed = table.slots
    return Recovered(table, state, zeros_seq, tags_bytes, indexed)


def _table(directory: Directory, sectors: int, slots: int, told: SegmentHeader | None) -> tuple[TagTable, int]:
    """The table, without what is in the journal, and how many slots the index has: 0 if there is none that can be used,
    so that all of `tags` had to be read."""
    salt = directory.salt
    found = None
    if told is not None and told.written != UNSAID:
        found = index_file.read(directory.files, directory.tags, slots, salt)
    if found is None or told is None:
        if slots >= index_file.MIN_TAIL_SLOTS:
            log.info("there is no usable index: reading all of the file tags (%d MiB) and writing a new index before "
                     "the node answers", slots * SLOT_SIZE >> 20)
        return tags_file.load(directory.tags, slots, sectors, salt), 0
    table = tags_file.resume(found, directory.tags, sectors, salt)
    tags_file.load_rest(table, directory.tags, slots, keys_only=True)
    table.sectors_written, table.highest = told.written, max(told.highest, table.highest)
    table.newest = max(told.newest, table.newest)
    return table, found.slots


def _apply(table: TagTable, entry: Entry, zeros: Runs) -> None:
    """Take what is newer than, or the same as, what is known. `zeros`: takes the runs that are zeros without data from
    this record on."""
    first, count = entry.first, entry.count
    if first + count > table.sectors:
        raise DamagedStorage(f"the journal has sector {first + count - 1} of a disk of {table.sectors}")
    if count > MAX_RUN_SECTORS:
        zeros.add(first, first + count)
        table.put_zeros(first, count, entry.tags)
        return
    known = table.tags(first, count)  # zeros of an unknown sector, so anything applies: see the module
    if is_uniform(entry.tags) and is_uniform(known):  # as nearly always
        if entry.tags[:TAG_SIZE] >= known[:TAG_SIZE]:
            _put(table, entry, 0, count, zeros)
        return
    applies = (entry.tag(index) >= known[index * TAG_SIZE:(index + 1) * TAG_SIZE] for index in range(count))
    for start, stop in spans_of(index for index, newer in enumerate(applies) if newer):
        _put(table, entry, start, stop, zeros)


def _put(table: TagTable, entry: Entry, start: int, stop: int, zeros: Runs) -> None:
    first, count = entry.first + start, stop - start
    if entry.is_dataless:
        if entry.tags[-1]:
            zeros.add(first, first + count)
        table.put_dataless(first, count, entry.tags)
        return
    some = entry.tags[start * TAG_SIZE:stop * TAG_SIZE]
    table.put(first, count, some, entry.crcs[start * CRC_SIZE:stop * CRC_SIZE])


def _punch(directory: Directory, table: TagTable, zeros: Runs) -> None:
    """Give back the room of what is zeros still. The homes may have been punched before the crash, or not."""
    end = -(-directory.home.size() // SECTOR_SIZE)
    for start, stop in zip(zeros.starts, zeros.stops, strict=True):
        kept = Runs()
        for begin, until in table.kept_from(start, min(stop, end), ZERO_TAG):
            kept.add(begin, until)
        for begin, until in kept.gaps(start, min(stop, end)):
            directory.home.punch(begin * SECTOR_SIZE, (until - begin) * SECTOR_SIZE)


def _write_home(directory: Directory, table: TagTable, entry: Entry) -> None:
    """Of a record with data: the values that are those of their sectors still. Their homes may be torn, or empty. A
    value that was trimmed or written over since has no room, maybe, or its home is that of an ordered record."""
    if not entry.data:
        return
    first, count = entry.first, entry.count
    tags, held = table.tags(first, count), table.held(first, count)
    is_newest = (
        has_value and entry.tag(index) == tags[index * TAG_SIZE:(index + 1) * TAG_SIZE]
        for index, has_value in enumerate(held)
    )
    for start, stop in spans_of(index for index, newest in enumerate(is_newest) if newest):
        data = entry.data[start * SECTOR_SIZE:stop * SECTOR_SIZE]
        directory.home.pwritev([data], (first + start) * SECTOR_SIZE)


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
