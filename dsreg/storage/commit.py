"""Persists, tickets, and the commit that makes a batch of persists durable.

A commit runs in any thread. It touches files and its own records, nothing else of the storage.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Iterable, Sequence

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE
from dsreg.storage import journal, zeros_file
from dsreg.storage import state as state_file
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Buffer, File
from dsreg.storage.journal import BARE_BYTES, MAX_BATCH_RECORDS, RECORD_BYTES, ZEROS_BYTES, SegmentHeader
from dsreg.storage.layout import SLOT_SIZE, TAGS_AHEAD_BYTES, TAGS_STEP_BYTES
from dsreg.storage.punching import Punching, Range
from dsreg.storage.slots import CHUNK_SECTORS, SLOT_CHUNKS
from dsreg.storage.state import State

Span = tuple[int, int]  # start and stop, in sectors from the first of the record


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
    before the journal; `home_after`: the others. `punched`: spans whose home had a value, of a record without data; of
    one that `is_of_chunks` later than in the commit. All are set when the record enters a commit. `dataless`: the
    sectors were never written, or are zeros, all have the same tag, and there is no data. `ordered`: all of it goes
    home first, for good, and the journal gets no data. `is_of_chunks`: zeros of two whole chunks or more (zeroing.py),
    of which `tags` is the one tag."""

    __slots__ = (
        "count", "crcs", "data", "dataless", "first", "home_after", "home_first", "is_of_chunks", "new_groups",
        "ordered", "punched", "refused", "size", "tags", "tickets",
    )

    def __init__(self, first: int, count: int, tags: bytes, data: Buffer, ticket: Ticket) -> None:
        self.first = first
        self.count = count
        self.tags = tags
        self.data = data
        self.crcs = b""
        self.dataless = not data
        self.is_of_chunks = count > MAX_RUN_SECTORS
        self.tickets = [ticket]
        ticket.waiting += 1
        without = ZEROS_BYTES if tags[-1] else BARE_BYTES
        self.size = RECORD_BYTES[count] if data else without  # in the journal, at most
        self.home_first: Sequence[Span] = ()
        self.home_after: Sequence[Span] = ()
        self.punched: Sequence[Span] = ()
        self.ordered = False
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


def take(queue: deque[Record], room: int) -> list[Record]:
    """As many of the first as have room in one batch."""
    records: list[Record] = []
    while queue and len(records) < MAX_BATCH_RECORDS and queue[0].size <= room:
        room -= queue[0].size
        records.append(queue.popleft())
    return records


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


def spans_of(indices: Iterable[int]) -> Sequence[Span]:
    """Of ascending numbers."""
    spans: list[Span] = []
    for index in indices:
        if spans and spans[-1][1] == index:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


class Commit:
    """One batch. Call `run` once, in any thread, then hand it to finish_commit.

    The order in `run` is what everything rests on:

    0. Sectors whose home holds nothing of value (never written, zeros, or lost) are written home first. That
       allocates the space, so that ENOSPC refuses just that record, before anything is promised. It is
       harmless: nobody reads the home of a sector never written, restamped or not, of zeros, or of one known to be
       lost.
       Of ordered records (ordered.py) homes are synced as well, before 1.
    1. All records go to the journal, which is preallocated; ordered ones without their data.
    2. One fdatasync. From here on they are durable.
    3. The other sectors go home through the page cache, over space that is allocated, and what is zeros is punched
       out. Not earlier: a crash before 2 must leave the old value whole. What one command zeroes over many chunks is
       punched by commits of its own, later (punching.py).

    An error in 1..3, or any but "no space" in 0, is fatal: it leaves a journal or home of which nobody knows
    what it holds, and recovery from the journal sets that right.
    """

    __slots__ = (
        "batch", "end", "header", "piece", "punching", "records", "state", "sync_s", "tags_ahead", "tags_bytes",
        "tags_wanted", "zeros_bytes", "zeros_wanted", "_directory", "_failure", "_generation", "_position",
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
        self.zeros_bytes = self.zeros_wanted = 0  # likewise of each copy of the file `zeros`
        self.punching: Punching | None = None  # what gives room if there is none
        self.piece: list[Range] = []  # of that, to be punched in place of a commit of records
        self.end = position  # where the journal ends after `run`
        self.sync_s = 0.0  # what the sync of the journal took

    @property
    def size(self) -> int:
        """Bytes that `run` has written to the journal."""
        return self.end - self._position

    @property
    def written(self) -> bool:
        """Whether anything went to the journal."""
        return self.size > 0

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
            if self.punching is not None:
                self._give_back(self.punching)
            kept = [record for record in self.records if not record.refused]
            if not kept:
                return
            if self.ordered_bytes:
                self._directory.home.fdatasync()
            doing = "writing the journal"
            self._write_journal(kept)
            doing = "writing to the file sectors"
            self._write_home(kept)
        except OSError as error:
            raise self._failure.fail(doing, error) from error

    @property
    def ordered_bytes(self) -> int:
        """Of data that is home before the journal is written, and not in that."""
        return sum(len(record.data) for record in self.records if record.ordered and not record.refused)

    @property
    def _journal(self) -> File:
        return self._directory.journals[self._generation % 2]

    def _claim_space(self) -> None:
        if self.tags_wanted:
            self._claim_tags()
        if self.zeros_wanted > self.zeros_bytes:
            self._claim_zeros()
        for record in self.records:
            if not record.home_first or record.refused:
                continue
            try:
                self._write_spans(record, record.home_first)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                record.refused = True

    def _give_back(self, punching: Punching) -> None:
        """Room under zeros of earlier commits: this piece, and if there was none for a record, all, for another try."""
        punching.punch(self.piece)
        if any(record.refused for record in self.records):
            punching.punch_all()
            for record in self.records:
                record.refused = False
            self._claim_space()

    def _claim_tags(self) -> None:
        ahead = 0 if self.tags_wanted > self.tags_bytes else self.tags_ahead
        self.tags_bytes = grow_tags(self._directory.tags, self.tags_bytes, self.tags_wanted + ahead)
        if self.tags_wanted > self.tags_bytes:
            for record in self.records:
                record.refused = record.new_groups

    def _claim_zeros(self) -> None:
        try:
            zeros_file.allocate(self._directory.zeros, self.zeros_bytes, self.zeros_wanted)
            self.zeros_bytes = self.zeros_wanted
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            for record in self.records:
                record.refused = record.refused or record.is_of_chunks

    def _write_journal(self, kept: list[Record]) -> None:
        salt, generation, batch = self._directory.salt, self._generation, self.batch
        buffers: list[Buffer] = []
        for index, record in enumerate(kept):
            first, count, tags = record.first, record.count, record.tags
            place = (batch, index, len(kept))
            if record.dataless:
                buffers.append(journal.dataless_record(salt, generation, place, first, count, tags[:TAG_SIZE]))
                continue
            record.crcs = crcs = journal.checksums(record.data, count)
            ordered = record.ordered
            buffers.append(journal.record_head(salt, generation, place, first, count, tags, crcs, ordered=ordered))
            if not ordered:
                buffers.append(record.data)
        self._journal.pwritev(buffers, self._position)
        began_s = time.perf_counter()
        self._journal.fdatasync()
        self.sync_s = time.perf_counter() - began_s
        self.end = self._position + sum(map(len, buffers))

    def _write_home(self, kept: list[Record]) -> None:
        # A refused record may have got as far as half over what another one of this batch wrote first.
        again = len(kept) < len(self.records)
        for record in kept:
            if again and record.home_first and not record.ordered:
                self._write_spans(record, record.home_first)
            if record.home_after:
                self._write_spans(record, record.home_after)
            for start, stop in () if record.is_of_chunks else record.punched:
                # Refused or not: where its tag stands then the home is not read.
                self._directory.home.punch((record.first + start) * SECTOR_SIZE, (stop - start) * SECTOR_SIZE)

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
