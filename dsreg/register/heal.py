"""Heal: a node that lacks something takes it from another one, with no client and no operation. Pure. docs/heal.md.

    compare    it asks each node that it reaches for the digests of its chunks (256 sectors each), piece by piece
    tags       of a chunk that differs it asks for the tags, those nodes from whose it does
    values     where another one's tag is higher it asks for the value, and adopts that under the tag that it has
    learn      of what it has yet to learn (learner.py) it asks as many as must tell, and then knows it

What is adopted is a copy that an acceptor holds, stored where the tag is lower: like a WRITE_PROC that comes late, but
that nobody counts it. It keeps its epoch, which may be below what this node has promised, as that of a repair may.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.messages import Buffer, DigestQuery, Digests, ReadProc, Value
from dsreg.protocol.tags import highest
from dsreg.register.comparing import Comparing
from dsreg.register.differing import Awaited, Differing
from dsreg.register.digests import TagDigests
from dsreg.register.effects import Adopt, Connection, Effect, Reply, Reserve
from dsreg.register.epochs import Epochs
from dsreg.register.heal_report import behind, report
from dsreg.register.heal_work import MAX_WAITING, SETTLE_S, Chunk, HealView, Question, Questions, Run, is_believed
from dsreg.register.lacking import NOBODY, lacking
from dsreg.register.learner import Learner
from dsreg.register.now import Now
from dsreg.register.quorum import Quorum, bit, mask
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.teachers import OfAll, Teachers
from dsreg.register.throttle import Throttle

# A comparison with each node comes again after this long: what a client could not deliver leaves no other trace.
INTERVAL_S = 600.0
# When what has failed is tried again; and what found no room here.
RETRY_S = 1.0


class Heal:
    """Of the node `rank`. `quorum`: of all nodes. `allocator`: of its tags. `rids`: for its questions, never used
    before. `counts(rank)`: whether that node has shown the directory that it is known by. `may_teach(rank)`: whether
    that node has accepted the life in which this one learns; what it told before does not count. `teachers`: who has
    to tell what is to be learned; None: as many as meet every quorum. Times: seconds, on the clock of `Now.s`."""

    def __init__(
        self, rank: int, quorum: Quorum, storage: HealView, epochs: Epochs, allocator: TagAllocator,
        rids: Iterator[int], *, throttle: Throttle, interval_s: float = INTERVAL_S, teachers: Teachers | None = None,
    ) -> None:
        self.counts: Callable[[int], bool] = lambda rank: True
        self.may_teach: Callable[[int], bool] = lambda rank: True
        self.counters: Counter[str] = Counter()
        self.throttle = throttle
        self._digests = TagDigests(storage)
        storage.on_stored = self._digests.stored
        self._comparing = Comparing(self._digests, storage.lost, interval_s)
        self._teachers = OfAll(quorum) if teachers is None else teachers
        self._learner = Learner(self._teachers, storage.learning)
        self._learns = self._learner.left > 0
        self.hint = self._learner.hint  # that somebody waits for this chunk
        self._rank = rank
        self._quorum = quorum
        self._storage = storage
        self._epochs = epochs
        self._allocator = allocator
        self._questions = Questions(rids)
        self._ask, self._new_rid = self._questions.ask, self._questions.new_rid
        self.is_asking = self._questions.__contains__
        self._differing = Differing()
        self._awaited = Awaited(storage)
        self._open: dict[int, Chunk] = {}
        self._runs: deque[Run] = deque()  # to be fetched
        self._storing: dict[int, Run] = {}  # by rid
        self._under_way = 0  # sectors being fetched or stored
        self._paused_until_s = -math.inf  # there is no room here

    # --- events -----------------------------------------------------------------------------------
    def link_up(self, rank: int, now: float) -> list[Effect]:
        """The node is linked, counts, and answers for digests."""
        self._drop(rank, now)
        self._comparing.link_up(rank)
        self._learner.look()
        return self._pump(now)

    def link_down(self, rank: int, now: float) -> list[Effect]:
        self._drop(rank, now)
        return self._pump(now)  # what waited for its answer goes on without that

    def _drop(self, rank: int, now: float) -> None:
        """What the node was asked is not answered any more, nor is it asked."""
        self._comparing.link_down(rank)
        self._learner.drop(rank, now)
        for chunk in self._open.values():
            if chunk.taught and chunk.told.pop(rank, None) is not None:
                chunk.failed = True  # nothing is learned of it now
        for question in self._questions.drop(rank):
            self._give_up(question, now)
        self._differing.drop(rank)

    def reconfigured(self, quorum: Quorum, now: float) -> list[Effect]:
        """`quorum` decides from now on. What others have told until now was told under an earlier number."""
        self._quorum = quorum
        self._teachers.reconfigured(quorum)
        for rank in self._comparing.ranks:
            self._drop(rank, now)
            self._comparing.link_up(rank)
        self._learner.look()
        return self._pump(now)

    def look(self, at_s: float) -> None:
        """This node may have missed something: compare with all again then."""
        self._comparing.look(at_s)

    def repair(self, sectors: Iterable[int], now: float) -> list[Effect]:
        """The values or tags of these are lost here: see to them now."""
        self._want({sector // MAX_RUN_SECTORS for sector in sectors}, mask(self._comparing.ranks))
        return self._pump(now)

    def message(self, origin: Connection | None, message: DigestQuery | Digests | Value, now: Now) -> list[Effect]:
        """A question of another node, or the answer to one of this."""
        if isinstance(message, DigestQuery):
            again = self.link_up(message.rank, now.s) if self._comparing.asks_anew(message.rank, origin) else []
            return [Reply(origin, self._digests.answer(self._rank, message)), *again]
        question = self._questions.get(message.rid)
        if (
            question is None or not question.is_answered_by(message) or not self.counts(message.rank)
            or question.teaches and not self.may_teach(message.rank)
        ):
            self.counters["heal_stray"] += 1
            return []
        effects: list[Effect] = []
        self._questions.end(message.rid)
        if isinstance(message, Digests) and question.learns:
            self._learner.answered(message, now.s)
        elif isinstance(message, Digests):
            differ = self._comparing.answered(message, now.s, self.throttle.pause_s(now.s))
            self._want(differ, bit(message.rank))
        elif question.run is not None:
            effects = self._fetched(question.run, message, now)
        elif question.chunk is not None:
            effects = self._told(question.chunk, message, now)
        return effects + self._pump(now.s)

    def _want(self, chunks: Iterable[int], which: int) -> None:
        for chunk in chunks:
            if which and not self._learner.is_left(chunk):
                self._differing.want(chunk, which)

    def adopted(self, adopt: Adopt, ok: bool, now: float, *, lost: bool = False) -> list[Effect]:
        """The storage has decided on it. Not `ok`: nothing was stored, as a tag is `lost` here, or for want of room."""
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
        due = [self._differing.next_due(), self._questions.next_due(), self._learner.next_due()]
        due.append(self._awaited.again_s if self._is_idle else math.inf)
        if self._runs:
            due.append(max(self._paused_until_s, self.throttle.next_due(self._under_way, now)))
        if len(self._differing) < MAX_WAITING:
            due.append(self._comparing.next_due())
        return min(due)

    def told(self) -> int:
        """Mask: this node, and those that have told all that they have since `reconfigured`, as it is here, durably; 0
        while something of the own copy is lost, or to be learned."""
        is_whole = not self._learns and not self._storage.learning.is_recorded and not self._storage.lost()
        return self._comparing.told | bit(self._rank) if is_whole else 0

    def report(self, now: float) -> dict[str, object]:
        """For STATUS: see docs/heal.md."""
        lost, alone = len(self._storage.lost()), self._quorum.size == 1
        return report(self._comparing, self._behind(), self.throttle.rate(now), lost=lost, alone=alone,
                      learning=self._storage.learning, sectors=self._storage.sectors)

    def _behind(self) -> dict[int, int]:
        runs = (*self._runs, *self._storing.values(), *self._questions.runs())
        masks, each, lacks = self._differing.masks, self._differing.each, [run.lack for run in runs]
        return behind(self._comparing.ranks, masks, self._learner.waiting, each, lacks)

    # --- what is due ------------------------------------------------------------------------------
    def _pump(self, now: float) -> list[Effect]:
        """Ask whatever may be asked now."""
        self._expire(now)
        if self._learner.left:
            self._learns = True
        elif self._learns:
            self._learns = False
            for rank in self._comparing.ranks:  # now that there is something to compare
                self._drop(rank, now)
                self._comparing.link_up(rank)
        effects: list[Effect] = []
        if len(self._differing) < MAX_WAITING:
            for rank, first, count in self._comparing.due(now):
                effects.append(self._ask(rank, DigestQuery(self._rank, self._new_rid(), first, count), now))
        for again, which in self._differing.due(now):
            if self._learner.is_left(again):
                self._learner.found.add(again, again + 1)
            self._want((again,), which)
        if self._learner.left:
            effects += self._learn(now)
        while len(self._open) < self.throttle.chunks(now):
            if (differs := self._differing.next(self._open)) is None:
                break
            effects += self._ask_tags(*differs, now)
        effects += self._fetch(now)
        self._review(now)
        return effects

    @property
    def _is_idle(self) -> bool:
        """Whether no chunk is looked at, or waits for that."""
        return self._differing.is_empty and not self._open

    def _review(self, now: float) -> None:
        """Perhaps all that differed has been seen to, durably."""
        if self._is_idle and not self._awaited.is_empty:
            self._want(self._awaited.review(now), mask(self._comparing.ranks))
        if self._is_idle and self._awaited.is_empty:
            self._comparing.nothing_differs()

    def _learn(self, now: float) -> list[Effect]:
        """Ask about what is to be learned."""
        effects: list[Effect] = []
        teachers = [rank for rank in self._comparing.ranks if self.counts(rank) and self.may_teach(rank)]
        if (due := self._learner.due(teachers, not self._open and self._differing.rests, now)) is not None:
            for rank in teachers:
                question = DigestQuery(self._rank, self._new_rid(), *due)
                effects.append(self._ask(rank, question, now, learns=True))
        while self._teachers.covers(mask(teachers)) and len(self._open) < self.throttle.chunks(now):
            if (number := self._learner.next(self._open)) is None:
                break
            asked = self._learner.know(number, teachers)
            if self._teachers.covers(mask(asked)):
                run, of = self._digests.run_of(number), (mask(asked), self._epochs.durable, asked)
                effects += self._open_chunk(Chunk(number, run, *of, settled=True, taught=True), now)
            else:
                self._learner.too_few_know(now)
        return effects

    def _expire(self, now: float) -> None:
        """Give up what was not answered."""
        for question in self._questions.expired(now):
            self.counters["heal_unanswered"] += 1
            self._give_up(question, now)

    def _give_up(self, question: Question, now: float) -> None:
        chunk = question.chunk
        if question.run is not None:
            self._under_way -= question.run.size
            self._end_run(question.run, now, ok=False)
        elif chunk is not None:
            chunk.waits.discard(question.rank)
            chunk.failed |= not chunk.taught  # to learn takes enough of them: one that learns as well never answers
            if not chunk.waits:
                self._decide(chunk, now)
        elif question.learns:
            self._learner.unanswered(question.rank, now)
        else:
            self._comparing.unanswered(question.rank, now)

    # --- tags -------------------------------------------------------------------------------------
    def _ask_tags(self, number: int, which: int, settled: bool, now: float) -> list[Effect]:
        first, count = self._digests.run_of(number)
        asked = [rank for rank in self._comparing.ranks if which & bit(rank)]
        if self._storage.damaged_of(first, count):
            asked = self._comparing.ranks
        if not asked:
            return []
        return self._open_chunk(Chunk(number, (first, count), which, self._epochs.durable, asked, settled), now)

    def _open_chunk(self, chunk: Chunk, now: float) -> list[Effect]:
        self._open[chunk.number] = chunk
        first, count = chunk.run
        return [
            self._ask(rank, ReadProc(self._rank, self._new_rid(), first, count, False, epoch=chunk.epoch), now, chunk)
            for rank in sorted(chunk.waits)
        ]

    def _follow(self, value: Value, now: Now) -> list[Effect]:
        """A newer epoch is in force elsewhere: promise that, before anything of it is stored here."""
        epochs = self._epochs
        if value.epoch > epochs.promised and epochs.believes(value.epoch, now):
            return [epochs.fence(value.epoch)]
        return []

    def _told(self, chunk: Chunk, value: Value, now: Now) -> list[Effect]:
        chunk.waits.discard(value.rank)
        if is_believed(value, self._epochs.durable, now):
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
        first, count = chunk.run
        enough = self._quorum.covers(mask(chunk.told) & ~bit(self._rank))
        missing = {sector - first for sector in self._storage.damaged_of(first, count)}
        if chunk.taught:
            # What is damaged was stored in this life, so that the rule for that holds as well.
            if not self._teachers.covers(mask(chunk.told)) or missing and not enough:
                self._end_chunk(chunk, now, failed=True)
                return
            chunk.learns = bool(missing)
            unknown: set[int] = set()
            own = self._storage.tags(first, count)  # what is not durable yet may never be
            chunk.highest = highest(list(chunk.told.values()))
        else:
            unknown = {sector - first for sector in self._storage.unknown(first, count)}
            # Whatever was acknowledged is at one of these, whether or not this node was among those that did.
            chunk.learns = bool(unknown) and enough
            own = self._storage.latest_tags(first, count)
            self._awaited.add(chunk.run, chunk.told.values(), now)
        lacks = lacking(own, chunk.told, missing, () if chunk.learns else unknown)
        if lacks and not chunk.settled and not missing and all(map(self._comparing.in_sync, chunk.told)):
            del self._open[chunk.number]
            self._differing.want_later(now + SETTLE_S, chunk.number, chunk.which)
            return
        self._differing.looked_at(sum(lack.sectors for lack in lacks))
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
            rid, first = self._new_rid(), run.first + run.lack.start
            if rank == NOBODY:
                effects.append(self._adopt(run, rid, run.lack.tags, bytes(run.size * SECTOR_SIZE)))
                continue
            self.throttle.asked(run.size, now)
            question = ReadProc(self._rank, rid, first, run.size, True, epoch=self._epochs.durable)
            effects.append(self._ask(rank, question, now, run=run))
        return effects

    def _fetched(self, run: Run, value: Value, now: Now) -> list[Effect]:
        assert value.data is not None
        # A tag that is lost here, or to be learned, becomes known with nothing less than what enough nodes have told.
        enough = run.is_enough(value.tags, self._storage.tags(value.first, value.count))
        if not enough or not is_believed(value, self._epochs.durable, now):
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
        if chunk.taught and not failed:
            failed = not self._storage.learning.learned(*chunk.run, chunk.highest)
        if failed:
            self._differing.want_later(now + RETRY_S, chunk.number, chunk.which)
