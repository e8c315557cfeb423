"""Persists, tickets, and the commit that makes a batch of persists durable.

A commit runs in any thread. It touches files and its own records, nothing else of the storage.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.tags import is_uniform
from dsreg.storage import journal
from dsreg.storage import state as state_file
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Buffer, File
from dsreg.storage.journal import BARE_BYTES, RECORD_BYTES, SegmentHeader
from dsreg.storage.layout import GROUP_SECTORS, SLOT_SIZE, TAGS_AHEAD_BYTES, TAGS_STEP_BYTES
from dsreg.storage.slots import CHUNK_KEYS, CHUNK_SECTORS, SLOT_CHUNKS
from dsreg.storage.state import State
from dsreg.storage.tags import TagTable

Span = tuple[int, int]  # start and stop, in sectors from the first of the record


_WHOLE_SECTOR: Sequence[Span] = ((0, 1),)


class Refusal(enum.Enum):
    """Why nothing of a persist was stored."""

    NO_SPACE = "no room on the disk"
    UNKNOWN = "the tag of a sector is lost: only a repair may store there"
    CONTRADICTION = "another value is known under the tag of a sector"
    BUSY = "too much is waiting to be stored"


class Ticket:
    """The outcome of a persist or reserve. `ok` means something once `done`: False if it was refused."""

    __slots__ = ("done", "ok", "refusal", "waiting")

    def __init__(self) -> None:
        self.done = False
        self.ok = True
        self.refusal: Refusal | None = None
        self.waiting = 0  # records that it still waits for

    def refuse(self, refusal: Refusal) -> Ticket:
        self.ok = False
        self.refusal = refusal
        return self

    def finish(self) -> Ticket:
        self.done = True
        return self


class Record:
    """A run of sectors to store. `home_first`: spans whose home holds nothing of value, which are written
    before the journal; `home_after`: the others. Both are set when the record enters a commit. `bare`: the sectors
    were never written, all have the same tag, and there is no data."""

    __slots__ = (
        "bare", "count", "crcs", "data", "first", "home_after", "home_first", "new_groups", "refused", "size",
        "tags", "tickets",
    )

    def __init__(self, first: int, count: int, tags: bytes, data: Buffer, ticket: Ticket) -> None:
        self.first = first
        self.count = count
        self.tags = tags
        self.data = data
        self.crcs = b""
        self.bare = not data
        self.tickets = [ticket]
        ticket.waiting += 1
        self.size = RECORD_BYTES[count] if data else BARE_BYTES  # in the journal
        self.home_first: Sequence[Span] = ()
        self.home_after: Sequence[Span] = ()
        self.new_groups = False
        self.refused = False

    def tag_of(self, sector: int) -> bytes:
        at = (sector - self.first) * TAG_SIZE
        return self.tags[at:at + TAG_SIZE]

    def join(self, ticket: Ticket) -> None:
        if self.tickets[-1] is not ticket:
            self.tickets.append(ticket)
            ticket.waiting += 1

    def decided(self) -> list[Ticket]:
        """It is stored, or refused for want of room: the tickets that are done now."""
        done: list[Ticket] = []
        for ticket in self.tickets:
            if self.refused:
                ticket.refuse(Refusal.NO_SPACE)
            ticket.waiting -= 1
            if not ticket.waiting:
                done.append(ticket.finish())
        return done


def place(records: Sequence[Record], table: TagTable) -> tuple[int, set[int]]:
    """Say for each record what goes home before the journal and what after it.

    Returns the bytes that the tag file needs for the slots that are new (0: there are none), and the sectors whose home
    holds a value until the commit overwrites it.
    """
    new: set[int] = set()
    storing: set[int] = set()
    shared = _shared_chunks(records) if any(record.bare for record in records) else set()
    for record in records:
        if record.bare:
            keys = _keys_of_bare(record, table, shared)
            record.new_groups = bool(keys)
            new |= keys
            continue
        if record.count == 1 and not table.damaged:
            if not table.tag(record.first)[-1]:
                record.home_first = _WHOLE_SECTOR
                number = record.first // GROUP_SECTORS
                if table.find(number) is None:
                    new.add(number)
                    record.new_groups = True
            else:
                record.home_after = _WHOLE_SECTOR
                storing.add(record.first)
            continue
        keys = table.new_keys(record.first, record.count)
        record.new_groups = bool(keys)
        new |= keys
        _place_home(record, table, storing)
    return (table.slots + len(new)) * SLOT_SIZE if new else 0, storing


def ahead_of(sectors: int) -> int:
    """Bytes of `tags` to have allocated beyond those in use, for a disk of this size."""
    chunks = -(-sectors // CHUNK_SECTORS)
    return min(TAGS_AHEAD_BYTES, -(-chunks // SLOT_CHUNKS) * SLOT_SIZE)


def grow_tags(file: File, allocated: int, wanted: int) -> int:
    """What is allocated then: at least `wanted` bytes, unless there is no room."""
    if wanted <= allocated:
        return allocated
    grown = -(-wanted // TAGS_STEP_BYTES) * TAGS_STEP_BYTES
    try:
        file.allocate(allocated, grown - allocated)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return allocated
    return grown


def _chunks_of(record: Record) -> range:
    return range(record.first // CHUNK_SECTORS, (record.first + record.count - 1) // CHUNK_SECTORS + 1)


def _shared_chunks(records: Sequence[Record]) -> set[int]:
    """The chunks that more than one of the records is about."""
    times = Counter(chunk for record in records for chunk in _chunks_of(record))
    return {chunk for chunk, number in times.items() if number > 1}


def _keys_of_bare(record: Record, table: TagTable, shared: set[int]) -> set[int]:
    """The keys that may get a slot. Where a bare record is kept depends on what the chunk says, and which of its groups
    have a slot, when it is put: where another record of the commit may change that before, any place is possible."""
    chunks = _chunks_of(record)
    if shared.isdisjoint(chunks):
        return table.new_keys(record.first, record.count, record.tags[:TAG_SIZE])
    states = {base + chunk // SLOT_CHUNKS for chunk in chunks for base in CHUNK_KEYS}
    return table.new_keys(record.first, record.count) | {key for key in states if table.find(key) is None}


def _place_home(record: Record, table: TagTable, storing: set[int]) -> None:
    first, count = record.first, record.count
    known = table.tags(first, count)
    if not table.damaged and is_uniform(known):
        if not known[TAG_SIZE - 1]:
            record.home_first = ((0, count),)
        else:
            record.home_after = ((0, count),)
            storing.update(range(first, first + count))
        return
    spans: tuple[list[Span], list[Span]] = ([], [])
    for index in range(count):
        at = index * TAG_SIZE
        holds_value = known[at + TAG_SIZE - 1] and not (table.damaged and table.is_missing(first + index))
        if holds_value:
            storing.add(first + index)
        some = spans[1 if holds_value else 0]
        if some and some[-1][1] == index:
            some[-1] = (some[-1][0], index + 1)
        else:
            some.append((index, index + 1))
    record.home_first, record.home_after = spans


class Commit:
    """One batch. Call `run` once, in any thread, then hand it to finish_commit.

    The order in `run` is what everything rests on:

    0. Sectors whose home holds nothing of value (never written, or lost) are written home first. That
       allocates the space, so that ENOSPC refuses just that record, before anything is promised. It is
       harmless: nobody reads the home of a sector never written, restamped or not, or of one known to be lost.
    1. All records go to the journal, which is preallocated.
    2. One fdatasync. From here on they are durable.
    3. The other sectors go home through the page cache, over space that is allocated. Not earlier: a crash
       before 2 must leave the old value whole.

    An error in 1..3, or any but "no space" in 0, is fatal: it leaves a journal or home of which nobody knows
    what it holds, and recovery from the journal sets that right.
    """

    __slots__ = (
        "batch", "end", "header", "records", "state", "tags_ahead", "tags_bytes", "tags_wanted",
        "_directory", "_failure", "_generation", "_position",
    )

    def __init__(
        self, directory: Directory, failure: Failure, generation: int, position: int, batch: int, records: list[Record]
    ) -> None:
        self._directory = directory
        self._failure = failure
        self._generation = generation
        self._position = position
        self.batch = batch
        self.records = records
        self.header: SegmentHeader | None = None  # to be written first: the segment is new
        self.state: State | None = None  # to be written first
        self.tags_bytes = 0  # allocated size of the tag file
        self.tags_wanted = 0  # the size it must have for the slots that this commit adds; 0: it adds none
        self.tags_ahead = 0  # by how much more it should be larger
        self.end = position  # where the journal ends after `run`

    @property
    def written(self) -> bool:
        """Whether anything went to the journal."""
        return self.end > self._position

    def run(self) -> None:
        """Raises SyncFailed, after which the storage is of no use any more."""
        self._failure.check()
        doing = "writing the journal header or the state"
        try:
            if self.header is not None:
                journal.write_header(self._journal, self._directory.salt, self.header)
            if self.state is not None:
                state_file.write(self._directory.state, self.state, self._directory.salt)
            doing = "writing to the file sectors"
            self._claim_space()
            kept = [record for record in self.records if not record.refused]
            if not kept:
                return
            doing = "writing the journal"
            self._write_journal(kept)
            doing = "writing to the file sectors"
            self._write_home(kept)
        except OSError as error:
            raise self._failure.fail(doing, error) from error

    @property
    def _journal(self) -> File:
        return self._directory.journals[self._generation % 2]

    def _claim_space(self) -> None:
        if self.tags_wanted:
            self._claim_tags()
        for record in self.records:
            if not record.home_first or record.refused:
                continue
            try:
                self._write_spans(record, record.home_first)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                record.refused = True

    def _claim_tags(self) -> None:
        ahead = 0 if self.tags_wanted > self.tags_bytes else self.tags_ahead
        self.tags_bytes = grow_tags(self._directory.tags, self.tags_bytes, self.tags_wanted + ahead)
        if self.tags_wanted > self.tags_bytes:
            for record in self.records:
                record.refused = record.new_groups

    def _write_journal(self, kept: list[Record]) -> None:
        salt, generation, batch = self._directory.salt, self._generation, self.batch
        buffers: list[Buffer] = []
        for index, record in enumerate(kept):
            first, count, tags = record.first, record.count, record.tags
            place = (batch, index, len(kept))
            if record.bare:
                buffers.append(journal.bare_record(salt, generation, place, first, count, tags[:TAG_SIZE]))
                continue
            record.crcs = crcs = journal.checksums(record.data, count)
            buffers.append(journal.record_head(salt, generation, place, first, count, tags, crcs))
            buffers.append(record.data)
        self._journal.pwritev(buffers, self._position)
        self._journal.fdatasync()
        self.end = self._position + sum(map(len, buffers))

    def _write_home(self, kept: list[Record]) -> None:
        # A refused record may have got as far as half over what another one of this batch wrote first.
        again = len(kept) < len(self.records)
        for record in kept:
            if again and record.home_first:
                self._write_spans(record, record.home_first)
            if record.home_after:
                self._write_spans(record, record.home_after)

    def _write_spans(self, record: Record, spans: Sequence[Span]) -> None:
        home = self._directory.home
        if record.count == 1:
            home.pwritev((record.data,), record.first * SECTOR_SIZE)
            return
        for start, stop in spans:
            data = record.data
            if stop - start != record.count:
                data = memoryview(data)[start * SECTOR_SIZE:stop * SECTOR_SIZE]
            home.pwritev((data,), (record.first + start) * SECTOR_SIZE)
