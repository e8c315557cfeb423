"""Heal: a node that lacks something takes it from another one, with no client and no operation. Pure. docs/heal.md.

    compare    it asks each node that it reaches for the digests of its chunks (256 sectors each), piece by piece
    tags       of a chunk that differs it asks for the tags, those nodes from whose it does
    values     where another one's tag is higher it asks for the value, and adopts that under the tag that it has

What is adopted is a copy that an acceptor holds, stored where the tag is lower: like a WRITE_PROC that comes late, but
that nobody counts it. It keeps its epoch, which may be below what this node has promised, as that of a repair may.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Protocol

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.messages import Buffer, DigestQuery, Digests, ReadProc, Value
from dsreg.protocol.plausibility import are_plausible
from dsreg.protocol.tags import highest_epoch, iter_tags
from dsreg.register.comparing import Comparing
from dsreg.register.digests import TagDigests, Tags
from dsreg.register.effects import Adopt, Connection, Effect, Reply, Reserve, Tell
from dsreg.register.epochs import Epochs
from dsreg.register.heal_report import report
from dsreg.register.heal_work import Chunk, Question, Run
from dsreg.register.lacking import NOBODY, lacking
from dsreg.register.now import Now
from dsreg.register.quorum import Quorum, bit, mask
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.throttle import Throttle

# A comparison with each node comes again after this long: what a client could not deliver leaves no other trace.
INTERVAL_S = 600.0
# How long an answer may take.
ANSWER_S = 2.0
# When what has failed is tried again; and what found no room here.
RETRY_S = 1.0
# A chunk that differs though this node was in sync is looked at once more after this long, before anything is fetched:
# mostly a write was on its way.
SETTLE_S = 0.5
# Chunks that are known to differ, and wait; with more the comparison waits. 64 GiB of disk.
MAX_WAITING = 65536


class HealView(Tags, Protocol):
    """What is needed of stable storage."""

    on_stored: Callable[[int, int], None]

    def latest_tags(self, first: int, count: int) -> bytes: ...

    def missing(self, first: int, count: int) -> list[int]: ...

    def lost(self) -> list[int]: ...


class Heal:
    """Of the node `rank`. `quorum`: of all nodes. `allocator`: of its tags. `rids`: for its questions, never used
    before. `counts(rank)`: whether that node has shown the directory that it is known by.
    Times are in seconds, on the clock of `Now.s`."""

    def __init__(
        self, rank: int, quorum: Quorum, storage: HealView, epochs: Epochs, allocator: TagAllocator,
        rids: Iterator[int], *, throttle: Throttle, interval_s: float = INTERVAL_S,
    ) -> None:
        self.counts: Callable[[int], bool] = lambda rank: True
        self.counters: Counter[str] = Counter()
        self.throttle = throttle
        self._digests = TagDigests(storage)
        storage.on_stored = self._digests.stored
        self._comparing = Comparing(self._digests, storage.lost, interval_s)
        self._rank = rank
        self._quorum = quorum
        self._storage = storage
        self._epochs = epochs
        self._allocator = allocator
        self._rids = rids
        self._questions: dict[int, Question] = {}  # by rid, in the order in which they are due
        self._todo: dict[int, int] = {}  # chunks that differ, and the mask of the nodes from whose they do
        self._later: list[tuple[float, int, int]] = []  # likewise, and when
        self._settled: set[int] = set()  # of these: differed before
        self._open: dict[int, Chunk] = {}
        self._runs: deque[Run] = deque()  # to be fetched
        self._storing: dict[int, Run] = {}  # by rid
        self._under_way = 0  # sectors being fetched or stored
        self._paused_until_s = -math.inf  # there is no room here
        self._looked_at = self._found = 0  # chunks that differed so far, and sectors that were lacking in them

    # --- events -----------------------------------------------------------------------------------
    def link_up(self, rank: int, now: float) -> list[Effect]:
        """The node is linked, counts, and answers for digests."""
        self._drop(rank, now)
        self._comparing.link_up(rank)
        return self._pump(now)

    def link_down(self, rank: int, now: float) -> list[Effect]:
        """It is not, any more."""
        self._drop(rank, now)
        return self._pump(now)  # what waited for its answer goes on without that

    def _drop(self, rank: int, now: float) -> None:
        """What the node was asked is not answered any more, nor is it asked."""
        self._comparing.link_down(rank)
        for rid in [rid for rid, question in self._questions.items() if question.rank == rank]:
            self._give_up(self._questions.pop(rid), now)
        for number in [number for number, which in self._todo.items() if which == bit(rank)]:
            del self._todo[number]

    def look(self, at_s: float) -> None:
        """This node may have missed something: compare with all again then."""
        self._comparing.look(at_s)

    def message(self, origin: Connection | None, message: DigestQuery | Digests | Value, now: Now) -> list[Effect]:
        """A question of another node, or the answer to one of this."""
        if isinstance(message, DigestQuery):
            return [Reply(origin, self._digests.answer(self._rank, message))]
        question = self._questions.get(message.rid)
        if question is None or not question.is_answered_by(message) or not self.counts(message.rank):
            self.counters["heal_stray"] += 1
            return []
        del self._questions[message.rid]
        effects: list[Effect] = []
        if isinstance(message, Digests):
            for chunk in self._comparing.answered(message, now.s, self.throttle.pause_s(now.s)):
                self._todo[chunk] = self._todo.get(chunk, 0) | bit(message.rank)
        elif question.run is not None:
            effects = self._fetched(question.run, message, now)
        elif question.chunk is not None:
            effects = self._told(question.chunk, message, now)
        return effects + self._pump(now.s)

    def adopted(self, adopt: Adopt, ok: bool, now: float, *, lost: bool = False) -> list[Effect]:
        """The storage has decided on it. Not `ok`: nothing of it was stored, as a tag is `lost` here, or for want of
        room."""
        run = self._storing.pop(adopt.rid)
        self._under_way -= run.size
        if ok:
            self.counters["healed"] += run.lack.sectors
            self.throttle.stored(run.lack.sectors, now)
        elif not lost:
            self._paused_until_s = now + RETRY_S
        self._end_run(run, now, ok)
        return self._pump(now)

    def tick(self, now: float) -> list[Effect]:
        return self._pump(now)

    def next_due(self, now: float) -> float:
        """When `tick` has something to do; inf: not before something else happens."""
        due = [entry[0] for entry in self._later]
        if (first := next(iter(self._questions.values()), None)) is not None:
            due.append(first.due_s)
        if self._runs:
            due.append(self._paused_until_s if now < self._paused_until_s else self.throttle.next_due(now))
        if len(self._todo) < MAX_WAITING:
            due.append(self._comparing.next_due())
        return min(due, default=math.inf)

    def is_asking(self, rid: int) -> bool:
        return rid in self._questions

    def report(self, now: float) -> dict[str, object]:
        """For STATUS: see docs/heal.md."""
        return report(
            self._comparing, self._behind(), self.throttle.rate(now), lost=len(self._storage.lost()),
            alone=self._quorum.size == 1,
        )

    def _behind(self) -> dict[int, int]:
        """Bytes that are lacking here, by who has them, as far as is known; of chunks that wait as many as of those
        that were looked at."""
        each = self._found // self._looked_at if self._looked_at else MAX_RUN_SECTORS
        waiting = [*self._todo.values(), *(which for _, _, which in self._later)]
        behind = {
            rank: each * sum(1 for which in waiting if which & bit(rank)) for rank in self._comparing.ranks
        }
        for run in (*self._runs, *self._storing.values(), *(each.run for each in self._questions.values() if each.run)):
            if run.lack.rank in behind:
                behind[run.lack.rank] += run.lack.sectors
        return {rank: sectors * SECTOR_SIZE for rank, sectors in behind.items()}

    # --- what is due ------------------------------------------------------------------------------
    def _pump(self, now: float) -> list[Effect]:
        """Ask whatever may be asked now."""
        self._expire(now)
        effects: list[Effect] = []
        if len(self._todo) < MAX_WAITING:
            for rank, first, count in self._comparing.due(now):
                effects.append(self._ask(rank, DigestQuery(self._rank, next(self._rids), first, count), now))
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            self._todo[entry[1]] = self._todo.get(entry[1], 0) | entry[2]
        while len(self._open) < self.throttle.chunks(now):
            number = next((number for number in self._todo if number not in self._open), None)
            if number is None:
                break
            effects += self._ask_tags(number, now)
        effects += self._fetch(now)
        if not self._todo and not self._later and not self._open:
            self._comparing.nothing_differs()
        return effects

    def _ask(
        self, rank: int, message: DigestQuery | ReadProc, now: float, chunk: Chunk | None = None,
        run: Run | None = None,
    ) -> Tell:
        self._questions[message.rid] = Question(rank, now + ANSWER_S, message, chunk, run)
        return Tell(rank, message)

    def _expire(self, now: float) -> None:
        """Give up what was not answered."""
        for rid, question in list(self._questions.items()):
            if question.due_s > now:
                return
            self.counters["heal_unanswered"] += 1
            del self._questions[rid]
            self._give_up(question, now)

    def _give_up(self, question: Question, now: float) -> None:
        chunk = question.chunk
        if question.run is not None:
            self._under_way -= question.run.size
            self._end_run(question.run, now, ok=False)
        elif chunk is not None:
            chunk.waits.discard(question.rank)
            chunk.failed = True
            if not chunk.waits:
                self._decide(chunk, now)
        else:
            self._comparing.unanswered(question.rank, now)

    # --- tags -------------------------------------------------------------------------------------
    def _ask_tags(self, number: int, now: float) -> list[Effect]:
        which = self._todo.pop(number)
        first, count = self._digests.run_of(number)
        asked = [rank for rank in self._comparing.ranks if which & bit(rank)]
        if self._storage.missing(first, count):
            asked = self._comparing.ranks
        settled = number in self._settled
        self._settled.discard(number)
        if not asked:
            return []
        chunk = self._open[number] = Chunk(number, which, self._epochs.durable, asked, settled)
        return [
            self._ask(rank, ReadProc(self._rank, next(self._rids), first, count, False, epoch=chunk.epoch), now, chunk)
            for rank in asked
        ]

    def _is_believed(self, value: Value, now: Now) -> bool:
        """As the answers to an operation are: see Acceptor."""
        return (
            value.epoch == self._epochs.durable and highest_epoch(value.tags) <= value.epoch
            and are_plausible(value.tags, now.unix_s)
        )

    def _follow(self, value: Value, now: Now) -> list[Effect]:
        """A newer epoch is in force elsewhere: promise that, before anything of it is stored here."""
        epochs = self._epochs
        if value.epoch > epochs.promised and epochs.believes(value.epoch, now):
            return [epochs.fence(value.epoch)]
        return []

    def _told(self, chunk: Chunk, value: Value, now: Now) -> list[Effect]:
        chunk.waits.discard(value.rank)
        if self._is_believed(value, now):
            chunk.told[value.rank] = value.tags
        else:
            chunk.failed = True
        if not chunk.waits:
            self._decide(chunk, now.s)
        return self._follow(value, now)

    def _decide(self, chunk: Chunk, now: float) -> None:
        """All have told their tags, or will not."""
        if not chunk.told or chunk.epoch != self._epochs.durable:
            self._end_chunk(chunk, now, failed=True)
            return
        first, count = self._digests.run_of(chunk.number)
        missing = {sector - first for sector in self._storage.missing(first, count)}
        unknown = {sector - first for sector in self._storage.unknown(first, count)}
        # Whatever was acknowledged is at one of these, whether or not this node was among those that did.
        chunk.learns = bool(unknown) and self._quorum.blocks(mask(chunk.told) & ~bit(self._rank))
        own = self._storage.latest_tags(first, count)
        lacks = lacking(own, chunk.told, missing, () if chunk.learns else unknown)
        if lacks and not chunk.settled and not missing and all(map(self._comparing.in_sync, chunk.told)):
            del self._open[chunk.number]
            self._settled.add(chunk.number)
            self._later.append((now + SETTLE_S, chunk.number, chunk.which))
            return
        sectors = sum(lack.sectors for lack in lacks)
        self._looked_at += 1
        self._found += sectors
        chunk.runs = len(lacks)
        self._runs += [Run(chunk, first, lack) for lack in lacks]
        if not lacks:
            self._end_chunk(chunk, now, failed=chunk.failed)

    # --- values -----------------------------------------------------------------------------------
    def _fetch(self, now: float) -> list[Effect]:
        """Ask for values, as far as there is room."""
        effects: list[Effect] = []
        while self._runs and now >= self._paused_until_s and (room := self.throttle.room(self._under_way, now)):
            run = self._runs.popleft()
            rank = run.lack.rank
            if rank != NOBODY and (rank not in self._comparing.ranks or not self.counts(rank)):
                self._end_run(run, now, ok=False)
                continue
            if run.size > room:
                run, rest = run.split(room)
                run.chunk.runs += 1
                self._runs.appendleft(rest)
            self._under_way += run.size
            rid, first = next(self._rids), run.first + run.lack.start
            if rank == NOBODY:
                effects.append(self._adopt(run, rid, run.lack.tags, bytes(run.size * SECTOR_SIZE)))
                continue
            self.throttle.asked(run.size, now)
            question = ReadProc(self._rank, rid, first, run.size, True, epoch=self._epochs.durable)
            effects.append(self._ask(rank, question, now, run=run))
        return effects

    def _fetched(self, run: Run, value: Value, now: Now) -> list[Effect]:
        assert value.data is not None
        # A tag that is lost here becomes known with nothing less than what enough nodes have told.
        enough = not run.chunk.learns or all(map(bytes.__ge__, iter_tags(value.tags), iter_tags(run.lack.tags)))
        if not enough or not self._is_believed(value, now):
            self._under_way -= run.size
            self._end_run(run, now.s, ok=False)
            return self._follow(value, now)
        return [self._adopt(run, value.rid, value.tags, value.data)]

    def _adopt(self, run: Run, rid: int, tags: bytes, data: Buffer) -> Adopt | Reserve:
        self._storing[rid] = run
        self._epochs.accepted(tags)
        adopt = Adopt(run.first + run.lack.start, run.size, tags, data, rid, run.chunk.learns)
        if not run.chunk.learns:
            return adopt
        # What was lost may have been a tag of this node's own choice, which nobody that was asked knows: see there.
        self._allocator.forget()
        promise = 0 if self._epochs.durable else self._allocator.choose(0)
        return Reserve(promise, (adopt,)) if promise else adopt

    def _end_run(self, run: Run, now: float, ok: bool) -> None:
        chunk = run.chunk
        chunk.runs -= 1
        chunk.failed |= not ok
        if not chunk.runs:
            self._end_chunk(chunk, now, failed=chunk.failed)

    def _end_chunk(self, chunk: Chunk, now: float, *, failed: bool) -> None:
        del self._open[chunk.number]
        if failed:
            self._settled.add(chunk.number)
            self._later.append((now + RETRY_S, chunk.number, chunk.which))
