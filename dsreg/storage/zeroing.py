"""Commands that zero runs of whole chunks, from their acceptance to their place in a commit: docs/storage.md, "Long
runs of zeros".

Such a run is one record, which goes the way of all others; but it is never looked at sector by sector, and takes no
slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from dsreg.constants import MAX_RUN_SECTORS, MAX_ZERO_CHUNKS, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.tags import iter_tags, tag_at
from dsreg.runs import Runs
from dsreg.storage import zeros_file
from dsreg.storage.commit import Commit, Record, Refusal, Span, Ticket, spans_of, take
from dsreg.storage.directory import Directory
from dsreg.storage.failure import Failure
from dsreg.storage.punching import Punching, Range
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.storage.tags import TagTable


class Zeroing:
    """Of one storage. `allocated`: bytes of each copy of the file `zeros`."""

    def __init__(
        self, directory: Directory, failure: Failure, table: TagTable, seq: int, enqueue: Callable[[Record], None]
    ) -> None:
        """`seq`: of the last write of the file. `enqueue`: for the next commit."""
        self._directory, self._failure = directory, failure
        self._enqueue = enqueue
        self._home = directory.home
        self._salt = directory.salt
        self._table = table
        self._seq = seq
        self._is_unsaid = False  # whether that lacks something
        self.allocated = zeros_file.allocated(directory.zeros)
        self._pending: dict[Record, None] = {}  # queued or under way, in order
        self.punching = Punching(directory.home)

    # --- accepting --------------------------------------------------------------------------------
    def zero(self, first: int, count: int, tag: bytes) -> Ticket:
        """Queue a conditional store of zeros, all under one tag of a write, over two whole chunks or more. As a
        StableStorage.persist; it takes no memory for its length. Refused also if too many such runs are kept."""
        self._failure.check()
        table, ticket = self._table, Ticket()
        assert is_whole(first, count, table.sectors) and len(tag) == TAG_SIZE and tag[-1], (first, count, tag)
        if table.damaged and table.is_damaged_in(first, first + count):
            return ticket.refuse(Refusal.UNKNOWN).finish()
        if table.runs.covers(first // CHUNK_SECTORS, (first + count) // CHUNK_SECTORS, tag):
            return ticket.finish()
        for record in self._pending:
            if (record.first, record.count, record.tags) == (first, count, tag):
                record.join(ticket)
                return ticket
        if len(table.runs) + len(self._pending) >= zeros_file.MAX_RUNS:
            return ticket.refuse(Refusal.BUSY).finish()
        record = Record(first, count, tag, b"", ticket)
        self._pending[record] = None
        self._enqueue(record)
        return ticket

    def latest(self, first: int, tags: bytes) -> bytes:
        """These tags of the sectors from `first` on, or those of what is queued or under way, if they are higher."""
        stop = first + len(tags) // TAG_SIZE
        for record in self._pending:
            begin, end = max(first, record.first), min(stop, record.first + record.count)
            if begin < end:
                some = tags[(begin - first) * TAG_SIZE:(end - first) * TAG_SIZE]
                raised = b"".join(max(some[at:at + TAG_SIZE], record.tags) for at in range(0, len(some), TAG_SIZE))
                tags = tags[:(begin - first) * TAG_SIZE] + raised + tags[(end - first) * TAG_SIZE:]
        return tags

    def joined(self, first: int, tags: bytes, spans: Sequence[Span], ticket: Ticket) -> Sequence[Span]:
        """What of these parts of a run is to be stored: not what is about to be zeros of a higher tag, for which the
        ticket waits then."""
        for record in self._pending:
            begin, left = record.first - first, list[Span]()
            for start, stop in spans:
                stays = [
                    index for index in range(start, stop)
                    if not begin <= index < begin + record.count or tag_at(tags, index) > record.tags
                ]
                if len(stays) < stop - start:
                    record.join(ticket)
                left += spans_of(stays)
            spans = left
        return spans

    @property
    def is_idle(self) -> bool:
        return not self._pending

    # --- commits ----------------------------------------------------------------------------------
    def take(self, queue: deque[Record], room: int) -> list[Record]:
        """As commit.take; of homes that may have blocks no more than one command is for, as all of their slots may have
        to be looked at, at once."""
        records, punched = take(queue, room), 0
        if not any(record.is_of_chunks for record in records):
            return records  # the file's size is not asked for: that is a hundredth of what a node does for writes
        end = -(-self._home.size() // SECTOR_SIZE)
        for index, record in enumerate(records):
            size = max(0, min(record.first + record.count, end) - record.first) if record.is_of_chunks else 0
            if punched and punched + size > MAX_ZERO_CHUNKS * MAX_RUN_SECTORS:
                queue.extendleft(reversed(records[index:]))
                return records[:index]
            punched += size
        return records

    def place(self, commit: Commit) -> list[Record]:
        """Say what is punched later for the runs of a commit, and what they need; gives its other records."""
        if not self.punching.is_over:
            commit.punching = self.punching
            for record in commit.records:
                if not record.dataless:
                    self.punching.keep(record.first, record.first + record.count)
        runs = [record for record in commit.records if record.is_of_chunks]
        if not runs:
            return commit.records
        for record in runs:
            record.punched = self._punched(record, commit.records)
        commit.zeros_bytes = self.allocated
        commit.zeros_wanted = zeros_file.size_of(2 * (len(self._table.runs) + len(runs)))
        return [record for record in commit.records if not record.is_of_chunks]

    def next_punch(self, generation: int, position: int, tags_bytes: int) -> Commit:
        """One that stores nothing and gives room back. `position`: where the journal ends; see Commit."""
        commit = Commit(self._directory, self._failure, generation, position, 0, [])
        commit.tags_bytes, commit.punching, commit.piece = tags_bytes, self.punching, self.punching.piece()
        return commit

    def _punched(self, record: Record, records: Sequence[Record]) -> list[Range]:
        """All but the homes of values with a higher tag, and of what the same commit stores: what has a higher tag, or
        is stored after it, and may need the room. What lies beyond the end of the file, as the commit will have made
        that, has none."""
        first, ends = record.first, [other.first + other.count for other in records if not other.dataless]
        stop = min(first + record.count, max(-(-self._home.size() // SECTOR_SIZE), *ends, 0))
        if stop <= first:
            return []
        kept = Runs()
        if record.tags < self._table.newest:
            for start, end in self._table.kept_from(first, stop, record.tags):
                kept.add(start, end)
        is_after = False
        for other in records:
            is_after = is_after or other is record
            if other.dataless or other.first >= stop or other.first + other.count <= first:
                continue
            if is_after or any(tag > record.tags for tag in iter_tags(other.tags)):
                kept.add(other.first, other.first + other.count)
        return [(start - first, end - first) for start, end in kept.gaps(first, stop)]

    def finished(self, commit: Commit) -> None:
        """It is over."""
        for first, stop in commit.piece:
            self.punching.keep(first, stop)
        if commit.zeros_wanted:
            self.allocated = commit.zeros_bytes

    def finish(self, record: Record) -> None:
        """The record is decided on, in its turn."""
        del self._pending[record]
        if not record.refused:
            self._table.put_zeros(record.first, record.count, record.tags)
            self._is_unsaid = True
            for start, stop in record.punched:
                self.punching.add(record.first + start, record.first + stop)

    # --- checkpoints ------------------------------------------------------------------------------
    def unsaid(self) -> bytes:
        """What a checkpoint is to write to the file; b"" if that says it."""
        if not self._is_unsaid:
            return b""
        self._is_unsaid = False
        self._seq += 1
        return zeros_file.encode(self._seq, self._table.runs, self._salt)


def is_whole(first: int, count: int, sectors: int) -> bool:
    """Whether these are two whole chunks or more, of a disk of so many sectors."""
    return count > MAX_RUN_SECTORS and not first % CHUNK_SECTORS and not count % CHUNK_SECTORS and (
        0 <= first and first + count <= sectors
    )
