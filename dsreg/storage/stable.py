"""StableStorage: the registers of one node on its disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dsreg.constants import DEFAULT_JOURNAL_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.tags import attached_counter, writers
from dsreg.protocol.zeros import is_zeros
from dsreg.storage import index_file
from dsreg.storage.checkpoint import Checkpoint
from dsreg.storage.commit import Commit, Record, Refusal, Ticket, ahead_of
from dsreg.storage.directory import USUAL, Start
from dsreg.storage.draining import drain
from dsreg.storage.extents import Extents
from dsreg.storage.files import Buffer, Files
from dsreg.storage.identity import Identity
from dsreg.storage.journal import RECORD_BYTES, RECORDS_AT, SegmentHeader
from dsreg.storage.layout import GROUP_SECTORS, MAX_COMMIT_BYTES, MAX_QUEUED_BYTES
from dsreg.storage.load import Loaded, LoadJob
from dsreg.storage.opening import Opened, open_and_recover, random_store
from dsreg.storage.ordered import Ordering
from dsreg.storage.persists import latest, part_of, size_of, split, wanted
from dsreg.storage.placing import place
from dsreg.storage.promises import Promises
from dsreg.storage.recovery import FIRST_BATCH
from dsreg.storage.verify import CopyCheck
from dsreg.storage.zeroing import Zeroing


class StableStorage:
    """Made by `open`. All methods belong to one thread; only the `run` of a Commit, Checkpoint or LoadJob may be
    called in another. Runs are 1..256 sectors within the disk; `tags` is 16 bytes a sector, `data` 4096.

    After SyncFailed every call but `close` raises it again.
    """

    def __init__(self, opened: Opened) -> None:
        self._directory, recovered, self.lives, self._failure, self.learning, self.configuration, self.marks = opened
        self._table = table = recovered.table
        self.check = CopyCheck(self._directory, table)
        self.promises = Promises(recovered.state)
        self.ts_reserved = recovered.state.ts_reserved
        self.sectors = table.sectors  # of the disk
        # Queued and under way: the newest record for each sector.
        self._pending: dict[int, Record] = {}
        self._queue: deque[Record] = deque()
        self.queued_bytes = self._queued = 0  # of records; and how many, since the start
        self._storing: set[int] = set()  # sectors whose home the commit under way overwrites
        self._commit: Commit | None = None
        self.on_stored: Callable[[int, int], None] = lambda first, count: None  # this run has other tags now
        # The journal: the active segment, where it ends, and the one waiting for a checkpoint.
        self._zeroing = Zeroing(self._directory, self._failure, table, recovered.zeros_seq, self._enqueue)
        self.zero, self.punching = self._zeroing.zero, self._zeroing.punching
        self.extents = Extents(table, self.learning, self._failure).of
        settled = (table.slots, table.sectors_written, table.highest, table.newest)
        self._segment = SegmentHeader(recovered.state.generation, False, FIRST_BATCH, *settled)
        self._segment_written = True
        self._position, self._batch = RECORDS_AT, FIRST_BATCH
        self._ordering, self._tags_bytes = Ordering(), recovered.tags_bytes
        self._settled = settled  # what the file tags certainly has: slots, and as SegmentHeader says
        self._indexed = recovered.indexed  # slots that the file index has
        self._sealed: SegmentHeader | None = None
        self._sealed_bytes = 0
        self._checkpoint: Checkpoint | None = None
        self.checkpoints = 0

    @classmethod
    def open(
        cls, files: Files, identity: Identity, journal_bytes: int = DEFAULT_JOURNAL_BYTES,
        new_store: Callable[[], bytes] = random_store, start: Start = USUAL,
    ) -> StableStorage:
        """Open the directory, or make it if it is empty, upgrade it if it is of an older format, recover. Blocks.

        `journal_bytes`: size of each of the two segments of a new directory; an existing one keeps its own.
        `new_store` gives the id of a new directory: 16 bytes that no other has.
        Raises StorageError, of which StorageLocked, WrongDirectory, DamagedStorage, NoSpace and SyncFailed say more.
        """
        return cls(open_and_recover(files, identity, journal_bytes, new_store, start))

    def close(self) -> None:
        """Store what is queued, checkpoint, close the files, release the lock. Blocks.

        No commit or checkpoint may be under way. Raises SyncFailed; the lock is released all the same.
        """
        try:
            if self._failure.error is None:
                assert self._commit is None and self._checkpoint is None
                drain(self, idle=True)
        finally:
            self._directory.close()

    def grow(self, sectors: int) -> None:
        """The disk has so many sectors from now on, as `configuration` has recorded. The new ones were never written
        here; they are to be learned if others are. Fewer only of a directory in which nothing was stored yet."""
        self.on_stored(self.sectors - 1, 1)  # its chunk may have more of them now
        self.sectors = self._table.sectors = sectors
        self.learning.grow(sectors)

    def _check(self, first: int, count: int) -> None:
        self._failure.check()
        assert first >= 0 and 1 <= count <= MAX_RUN_SECTORS and first + count <= self.sectors, (first, count)

    # --- tags -------------------------------------------------------------------------------------
    def tags(self, first: int, count: int) -> bytes:
        """The durable tags; of a sector that is unknown a lower bound, zeros where it is damaged. In memory."""
        self._check(first, count)
        return self._table.tag(first) if count == 1 else self._table.tags(first, count)

    def latest_tags(self, first: int, count: int) -> bytes:
        """As `tags`, with what is queued or under way."""
        tags = latest(self.tags(first, count), self._pending, first)
        return tags if self._zeroing.is_idle else self._zeroing.latest(first, tags)

    def missing(self, first: int, count: int) -> list[int]:
        """The sectors of the run whose value is lost, `unknown` ones included: the node does not answer with it."""
        return self.learning.with_left(first, count, self.damaged_of(first, count))

    def unknown(self, first: int, count: int) -> list[int]:
        """The sectors of the run whose tag is lost, or yet to be learned: the node must not answer for them."""
        self._check(first, count)
        self._table.touch(first, count)
        unknown = self._table.unknown_of(first, count) if self._table.damaged else []
        return self.learning.with_left(first, count, unknown)

    def damaged_of(self, first: int, count: int) -> list[int]:
        """The sectors of the run whose value, or tag and value, was stored here and is lost."""
        self._check(first, count)
        self._table.touch(first, count)
        return self._table.missing_of(first, count) if self._table.damaged else []

    def lost(self) -> list[int]:
        """All sectors of the disk whose tag or value is damaged, as far as that was found, and they had a slot."""
        return sorted(self._table.missing | self._table.unknown)

    def next_chunk(self, chunk: int) -> int | None:
        """The first chunk of 256 sectors, from this one on, of which a tag may be other than zeros, if there is one."""
        self._failure.check()
        return self._table.next_chunk(chunk)

    def unknown_chunks(self, chunk: int, stop: int) -> tuple[int, int] | None:
        """The first chunks [start, end) that begin within [chunk, stop) of which nothing is known, or not all."""
        found = (self.learning.chunks(chunk), self._table.blank(chunk, stop))
        return min((each for each in found if each is not None and each[0] < stop), default=None)

    # --- storing ----------------------------------------------------------------------------------
    def persist(self, first: int, count: int, tags: bytes, data: Buffer, repair: bool = False) -> Ticket:
        """Queue a conditional store. `data` must not change until the ticket is done.

        A sector is stored iff its tag is above the latest one, or equal to it while the value is missing. The
        ticket is done once every sector's durable tag is at least the given one; at once if that is so already.
        It is refused, and nothing of it stored, if there is no room; if it touches a sector whose tag is lost by damage
        and is not a `repair` (a value from a majority that does not count this node); if it has another value than the
        one that is missing under an equal tag, by their checksums; or if too much is queued. A persist that joined
        another one is refused with it. A sector that is to be learned stays so.
        """
        self._check(first, count)
        assert len(tags) == count * TAG_SIZE and len(data) == count * SECTOR_SIZE
        ticket = Ticket()
        if count > 1 or first // GROUP_SECTORS not in self._table.hot:
            self._table.touch(first, count)
        if not repair and self._table.damaged and self._table.unknown_of(first, count):
            return ticket.refuse(Refusal.UNKNOWN).finish()
        spans, zeros = wanted(self._table, self._pending, first, count, tags, data, ticket), is_zeros(data)
        if spans and not self._zeroing.is_idle:
            spans = self._zeroing.joined(first, tags, spans, ticket)
        if some := zeros or not tags[-1] or count > 1 and 0 in writers(tags):  # without data
            spans = split(tags, spans, zeros)
        size = sum(size_of(tags, start, stop, zeros) if some else RECORD_BYTES[stop - start] for start, stop in spans)
        if size and self.queued_bytes + size > MAX_QUEUED_BYTES:
            ticket.refuse(Refusal.BUSY)  # done once what it joined is
            return ticket if ticket.waiting else ticket.finish()
        for start, stop in spans:
            record = part_of(first, count, tags, data, start, stop, ticket, zeros)
            self._enqueue(record)
            if count == 1:
                self._pending[first] = record
                break
            self._pending.update(dict.fromkeys(range(first + start, first + stop), record))
        return ticket if ticket.waiting else ticket.finish()

    def _enqueue(self, record: Record) -> None:
        self.queued_bytes += record.size
        self._queue.append(record)
        self._queued += 1

    def reserve(self, ts: int) -> Ticket:
        """Promise durably that this node may have named tags up to `ts`."""
        self._failure.check()
        return self.promises.reserve(ts)

    @property
    def epoch(self) -> int:
        """That of the newest `fence` that is done."""
        return self.promises.in_force[0]

    @property
    def owner(self) -> bytes:
        """Who has attached the disk in `epoch`, as far as this node has been told; 64 bytes."""
        return self.promises.in_force[1]

    @property
    def attached_counter(self) -> int:
        """The highest counter of a durable write of the attachment of `epoch`."""
        return attached_counter(self._table.highest, self.epoch)

    @property
    def incarnation(self) -> int:
        """Of this node, above all that it has had with this directory."""
        return self.promises.state.incarnation

    def fence(self, epoch: int, owner: bytes, incarnation: int = 0) -> Ticket:
        """Promise durably to store nothing of an epoch below `epoch` any more, and to know `owner` as its owner; and to
        be of this `incarnation`, if it is above the own one.

        Keeping the promise is the caller's, from this call on. The ticket is done once it is durable and every
        persist from before has been decided on, so that what is read then is all that there will be of older epochs.
        """
        self._failure.check()
        return self.promises.fence(epoch, owner, self._queued, incarnation)

    def has_work(self) -> bool:
        """Whether anything is queued, or under way, that a commit is needed for."""
        return bool(self._queue) or self.promises.pending

    def next_commit(self, punches: bool = True) -> Commit | None:
        """Everything queued, as far as it fits into one batch. If nothing is, or the journal is full until the next
        checkpoint has finished: one that gives room back, if `punches`. None also if a commit is under way."""
        self._failure.check()
        if self._commit is not None:
            return None
        if not self._can_store():
            if punches and not self.punching.is_over:
                self._commit = self._zeroing.next_punch(self._segment.generation, self._position, self._tags_bytes)
            return self._commit
        records = self._zeroing.take(self._queue, min(self._room, MAX_COMMIT_BYTES))
        self.queued_bytes -= sum(record.size for record in records)
        commit = Commit(self._directory, self._failure, self._segment.generation, self._position, self._batch, records)
        commit.tags_bytes, commit.tags_ahead = self._tags_bytes, ahead_of(self.sectors)
        commit.tags_wanted, self._storing = place(self._zeroing.place(commit), self._table)
        self._ordering.choose(records)
        commit.header = None if self._segment_written else self._segment
        if commit.header is not None or self.promises.pending or self.promises.marks:
            wanted = self.promises.wanted()
            commit.state = wanted._replace(generation=self._segment.generation, slots=self._segment.slots)
        self._commit = commit
        return commit

    def _can_store(self) -> bool:
        if self._queue and self._queue[0].size > self._room:
            if self._sealed is not None:
                return self.promises.pending
            self._seal()
        return self.has_work() and not self.punching.is_full

    @property
    def _room(self) -> int:
        """Bytes in the active segment. What its records speak of counts as well: a checkpoint comes as often."""
        return self._directory.recorded.journal_bytes - self._position - self._ordering.spoken

    def _seal(self) -> None:
        """Go on in the other segment, which is free; this one waits for a checkpoint."""
        assert self._sealed is None
        assert self._position > RECORDS_AT, "a record that does not fit into a whole segment would wait for ever"
        self._sealed, self._sealed_bytes = self._segment, self._position - RECORDS_AT
        self._segment = SegmentHeader(self._segment.generation + 1, False, self._batch, *self._settled)
        self._segment_written = False
        self._position, self._ordering.spoken = RECORDS_AT, 0

    def finish_commit(self, commit: Commit) -> list[Ticket]:
        """After `commit.run` has returned: the tickets that are done now."""
        self._failure.check()
        assert commit is self._commit
        self._commit, self._storing = None, set()
        self._segment_written = self._segment_written or commit.header is not None
        self._tags_bytes, self._position = commit.tags_bytes, commit.end
        self._batch += commit.written
        self._ordering.committed(commit)
        self._zeroing.finished(commit)
        done: list[Ticket] = []
        for record in commit.records:
            self._finish_record(record, done)
        self.promises.decided += len(commit.records)
        if commit.state is not None:
            self.promises.state = commit.state
        return done + self.promises.kept()

    def _finish_record(self, record: Record, done: list[Ticket]) -> None:
        if record.is_of_chunks:
            self._zeroing.finish(record)
        elif record.dataless and not record.refused:
            self._table.put_dataless(record.first, record.count, record.tags[:TAG_SIZE])
        elif not record.refused:
            self._table.put(record.first, record.count, record.tags, record.crcs)
        self.on_stored(record.first, record.count)
        if not record.is_of_chunks:
            for sector in range(record.first, record.first + record.count):
                if self._pending.get(sector) is record:
                    del self._pending[sector]
        done += record.decided()

    # --- reading ----------------------------------------------------------------------------------
    def load(self, first: int, count: int, wait: bool) -> Loaded | None:
        """The durable values.

        None if a commit under way is storing over them: call again after it has finished. With wait=False also
        if not all of it is in memory: use load_job then. With wait=True this blocks on the disk.
        """
        job = self.load_job(first, count)
        if self._storing and not self._storing.isdisjoint(range(first, first + count)):
            return None
        if not wait:
            return self.finish_load(job) if job.run_nowait() else None
        job.run()
        return self.finish_load(job)

    def load_job(self, first: int, count: int) -> LoadJob:
        """A read to run in a thread, for when `load` would block."""
        self._check(first, count)
        table = self._table
        tags, held = table.tags(first, count), table.held(first, count)  # damage to them is found now
        absent = self.missing(first, count) if table.damaged or self.learning.left else []
        return LoadJob(self._directory.home, first, count, tags, table.crcs(first, count), held, absent)

    def finish_load(self, job: LoadJob) -> Loaded | None:
        """After `job.run` has returned: the values as they were durable when the job was made.

        None if a commit was storing over them meanwhile, so that they prove nothing: make a new job.
        """
        self._failure.check()
        for sector in job.bad:
            index = sector - job.first
            changed = self._table.tag(sector) != job.tags[index * TAG_SIZE:(index + 1) * TAG_SIZE]
            if changed or sector in self._storing:
                return None
        self._table.lose(job.bad)
        return job.loaded()

    # --- checkpoints ------------------------------------------------------------------------------
    def checkpoint_due(self, idle: bool) -> bool:
        """Whether to call next_checkpoint now. `idle`: nobody is waiting for the disk, so any would do."""
        if self._checkpoint is not None or not self.punching.is_over:
            return False  # what is to be punched stands in the journal: after a crash a recovery does it
        if self._sealed is not None or not idle or self._commit is not None:
            return self._sealed is not None
        return self._position > RECORDS_AT or self.learning.is_unsaid or bool(self._table.pages.dirty)

    def next_checkpoint(self) -> Checkpoint | None:
        """Frees what of the journal can be freed now, and records what was learned. None if there is nothing to do or
        one is under way."""
        self._failure.check()
        if not self.checkpoint_due(idle=True):
            return None
        progress, table = self.learning.progress(), self._table
        if self._sealed is None and self._position > RECORDS_AT:
            self._seal()
        if self._sealed is not None:
            # Every commit to the sealed segment has finished, so the table and home have all that is in it.
            self._sealed = self._sealed._replace(
                freed=True, slots=table.slots, written=table.sectors_written, highest=table.highest,
                newest=table.newest,
            )
        index_of = table if self._sealed is not None and index_file.is_due(table.slots, self._indexed) else None
        self._ordering.checkpoint()
        dirty, zeros = table.take_dirty(), self._zeroing.unsaid()
        self._checkpoint = Checkpoint(self._directory, self._failure, self._sealed, dirty, index_of, progress, zeros)
        return self._checkpoint

    def finish_checkpoint(self, checkpoint: Checkpoint) -> None:
        """After `checkpoint.run` has returned."""
        self._failure.check()
        assert checkpoint is self._checkpoint
        self._checkpoint = None
        self.checkpoints += 1
        if checkpoint.progress is not None:
            self.learning.written(checkpoint.progress, checkpoint.recorded)
        self._table.pages.written()
        if self._sealed is None or not checkpoint.frees:
            return
        sealed = self._sealed
        self._settled = (sealed.slots, sealed.written, sealed.highest, sealed.newest)
        self._indexed = checkpoint.indexed or self._indexed
        self._sealed, self._sealed_bytes = None, 0

    # --- figures ----------------------------------------------------------------------------------
    @property
    def sectors_written(self) -> int:
        """Sectors with a value on the disk: were written, and not with zeros."""
        return self._table.values(self._directory.home)

    @property
    def journal_used(self) -> int:
        """Bytes of records that no checkpoint has brought home yet."""
        return self._position - RECORDS_AT + self._sealed_bytes

    @property
    def damaged(self) -> int:
        """Sectors found damaged and not yet repaired; those without a slot, while one is lost, not counted."""
        return len(self._table.missing | self._table.unknown)
