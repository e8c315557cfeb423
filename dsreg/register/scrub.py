"""Scrub: a node verifies its own copy on its disk, and compares checksums with the other nodes. Pure. docs/scrub.md.

    verify     chunk by chunk, from a random place on: slots of tags, and values against their checksums. What is
               damaged is lost here, and repaired as dsreg.register.heal repairs
    compare    of a chunk that was verified each node that answers is asked for tags and checksums. A tag names one
               value: the same one with two checksums is a contradiction, which is counted and told, and not decided

A pass is once through the disk. One of its own accord takes `period_s`, whatever is written; one that was asked for
takes as long as it takes. Both do little at a time while clients are at it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dsreg.chunks import number_of_chunks, run_of
from dsreg.constants import CRC_SIZE, MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.messages import Sums, SumsQuery
from dsreg.protocol.tags import EPOCH_SIZE, iter_tags, writers
from dsreg.register.damage import Damage, Kind, Ledger, contradiction, pieces
from dsreg.register.effects import Connection, Effect, Repair, Reply, Tell, Verify
from dsreg.register.heal_work import ANSWER_S
from dsreg.register.throttle import BUSY_SECTORS, Throttle

DAY_S = 86400.0
# Questions that may wait for their answer; with more the next chunk waits.
MAX_ASKED = 32
# How often a node is asked that does not answer: it may sync its disk for seconds, and its link may break.
MAX_TIMES_ASKED = 5
# So long a pass of its own accord waits at most for its next chunk, before it looks which one that is.
LOOK_S = 600.0
# When it is looked again at what was being stored, or written, and how often: what is stored all the time is new.
RETRY_S = 0.1
MAX_TRIES = 10


class Check(Protocol):
    """See dsreg.storage.verify.CopyCheck."""

    found: list[Damage]

    def crcs(self, first: int, count: int) -> bytes: ...


class ScrubView(Protocol):
    """What is needed of stable storage."""

    sectors: int

    @property
    def check(self) -> Check: ...

    @property
    def sectors_written(self) -> int: ...

    def tags(self, first: int, count: int) -> bytes: ...

    def damaged_of(self, first: int, count: int) -> list[int]: ...

    def next_chunk(self, chunk: int) -> int | None: ...


class _Pass:
    """`number`: of those that were asked for; 0: of its own accord. `chunks`: of the disk as it was then: what it has
    more since is for the next pass."""

    def __init__(self, number: int, chunks: int, start: int, began_s: float) -> None:
        self.number = number
        self.chunks = chunks
        self.start = start  # the first chunk
        self.began_s = began_s
        self.passed = 0  # chunks from there on that are through, written or not
        self.offset = 0  # sectors of the next one that are
        self.tries = 0
        self.verified = 0  # sectors that were written
        self.not_compared = 0  # chunks, times nodes


class _Question(NamedTuple):
    rank: int
    due_s: float
    message: SumsQuery
    times: int = 1  # that it was asked


class Scrub:
    """Of the node `rank`. `throttle`: that of Heal, which knows whether clients are at it. `period_s`: 0: only when
    asked. `place`: where to begin, 0 <= place < 1 of the disk. Times are in seconds, on the clock of `Now.s`.

    `compares()`: the ranks of the nodes that answer a SumsQuery, and that count."""

    def __init__(
        self, rank: int, storage: ScrubView, throttle: Throttle, *, period_s: float, place: float, started_s: float
    ) -> None:
        self.compares: Callable[[], list[int]] = list
        self.ledger = Ledger(self._is_open)
        self.news: list[Damage] = []  # what is to be logged; whoever does clears it
        self._rank = rank
        self._storage = storage
        self._throttle = throttle
        self._period_s = period_s
        self._start = int(place * number_of_chunks(storage.sectors))
        self._rids = itertools.count(1)
        self._pass: _Pass | None = None
        self._verifying: tuple[_Pass, Verify] | None = None
        self._due_s = started_s if period_s else math.inf  # of the next step, or pass
        self._questions: dict[int, _Question] = {}  # by rid, in the order in which they are due
        self._contradicted: dict[int, tuple[bytes, int]] = {}  # by sector: the name of the write, and who
        self._wanted = 0  # the number of the last pass that was asked for
        self._done = _Pass(0, number_of_chunks(storage.sectors), 0, started_s)  # the last of these that is through
        self._passes = 0
        self._last_s: float | None = None  # when a pass was through last

    # --- events -----------------------------------------------------------------------------------
    def ask(self, now: float) -> int:
        """A pass that begins not before now; its number."""
        under_way = self._pass
        if under_way is not None and under_way.number:
            self._wanted = under_way.number + 1  # it has gone over a part of the disk already
        elif self._wanted == self._done.number:
            self._wanted += 1
            self._begin(now)
        return self._wanted

    def tick(self, now: float) -> list[Effect]:
        effects = self._take_found() + self._ask_again(now)
        if self._pass is None and now >= self._due_s:
            self._begin(now)
        if self._pass is not None and self._verifying is None and now >= self._due_s:
            effects += self._step(self._pass, now)
        return effects

    def verified(self, verify: Verify, is_sure: bool, now: float) -> list[Effect]:
        """It was read; what is damaged is in `found` of the storage. Not `is_sure`: it was being stored meanwhile."""
        assert self._verifying is not None and self._verifying[1] is verify
        (of, _), self._verifying = self._verifying, None
        effects = self._take_found()
        if of is not self._pass:  # it was given up for one that was asked for
            return effects + self.tick(now)
        if not is_sure and of.tries < MAX_TRIES:
            of.tries += 1
            self._due_s = now + RETRY_S
            return effects
        of.tries = 0
        first, count = verify
        of.verified += count - writers(self._storage.tags(first, count)).count(0)
        if lost := self._storage.damaged_of(first, count):
            effects.append(Repair(tuple(lost)))
        of.offset += count
        if of.offset >= self._run_of(self._chunk(of))[1]:
            effects += self._compare(of, now)
            of.offset = 0
            of.passed += 1
        self._due_s = now + self._throttle.pause_s(now)
        return effects + self.tick(now)

    def message(self, origin: Connection | None, message: SumsQuery | Sums, now: float) -> list[Effect]:
        """A question of another node, or the answer to one of this."""
        if isinstance(message, SumsQuery):
            _, rid, first, count = message
            tags, crcs = self._storage.tags(first, count), self._storage.check.crcs(first, count)
            return [Reply(origin, Sums(self._rank, rid, first, count, tags, crcs))]
        question = self._questions.get(message.rid)
        asked = question and (question.rank, question.message.first, question.message.count)
        if asked != (message.rank, message.first, message.count):
            return []
        del self._questions[message.rid]
        if message.rank in self.compares():  # else it may give the name of an old write to a new one
            self._hold_against(message)
        return self.tick(now)

    def next_due(self) -> float:
        """When `tick` has something to do; inf: not before something else happens."""
        if self._storage.check.found:
            return -math.inf
        due_s = math.inf if self._verifying is not None or self._is_waiting() else self._due_s
        question = next(iter(self._questions.values()), None)
        return due_s if question is None else min(due_s, question.due_s)

    @property
    def done(self) -> int:
        """The number of the last pass that was asked for and is through."""
        return self._done.number

    # --- passes -----------------------------------------------------------------------------------
    def _begin(self, now: float) -> None:
        number = self._wanted if self._wanted > self._done.number else 0
        chunks = number_of_chunks(self._storage.sectors)
        self._pass = _Pass(number, chunks, 0 if number else self._start, now)
        self._due_s = now

    def _is_waiting(self) -> bool:
        """Whether answers have to come first."""
        if self._pass is not None and self._pass.passed >= self._pass.chunks:
            return bool(self._questions)
        return len(self._questions) >= MAX_ASKED

    def _step(self, of: _Pass, now: float) -> list[Effect]:
        if not of.offset:
            passed = self._next_written(of)
            if not of.number and now < (due_s := of.began_s + self._period_s * passed / of.chunks):
                self._due_s = min(due_s, now + LOOK_S)  # what is passed over may be written meanwhile
                return []
            of.passed = passed
        if self._is_waiting():
            return []
        if of.passed >= of.chunks:
            self._end(of, now)
            return []
        first, count = self._run_of(self._chunk(of))
        most = BUSY_SECTORS if self._throttle.is_busy(now) else MAX_RUN_SECTORS
        verify = Verify(first + of.offset, min(most, count - of.offset))
        self._verifying = (of, verify)
        return [verify]

    def _chunk(self, of: _Pass) -> int:
        return (of.start + of.passed) % of.chunks

    def _run_of(self, chunk: int) -> tuple[int, int]:
        return run_of(chunk, self._storage.sectors)

    def _next_written(self, of: _Pass) -> int:
        """How many chunks are through when the next one is of which a tag may be other than zeros, or none is left."""
        passed = of.passed
        while passed < of.chunks:
            here = (of.start + passed) % of.chunks
            end = of.chunks if here >= of.start else of.start
            found = self._storage.next_chunk(here)
            if found is not None and found < end:
                return passed + found - here
            passed += end - here
        return passed

    def _end(self, of: _Pass, now: float) -> None:
        self._pass = None
        self._passes += 1
        self._last_s = now
        if of.number:
            self._done = of
        if self._wanted > self._done.number:
            self._begin(now)
        elif not self._period_s:
            self._due_s = math.inf
        else:
            self._due_s = now if of.number else max(now, of.began_s + self._period_s)

    # --- comparing --------------------------------------------------------------------------------
    def _compare(self, of: _Pass, now: float) -> list[Effect]:
        first, count = self._run_of(self._chunk(of))
        if not any(writers(self._storage.tags(first, count))):
            return []
        effects: list[Effect] = []
        for rank in self.compares():
            query = SumsQuery(self._rank, next(self._rids), first, count)
            self._questions[query.rid] = _Question(rank, now + ANSWER_S, query)
            effects.append(Tell(rank, query))
        return effects

    def _ask_again(self, now: float) -> list[Effect]:
        """What was not answered in time, of the nodes that can be asked still, some times."""
        effects: list[Effect] = []
        for rid, question in list(self._questions.items()):
            if question.due_s > now:
                break
            del self._questions[rid]
            if question.times < MAX_TIMES_ASKED and question.rank in self.compares():
                self._questions[rid] = question._replace(due_s=now + ANSWER_S, times=question.times + 1)
                effects.append(Tell(question.rank, question.message))
            elif self._pass is not None:
                self._pass.not_compared += 1
        return effects

    def _hold_against(self, other: Sums) -> None:
        first, count = other.first, other.count
        own_tags, own_crcs = self._storage.tags(first, count), self._storage.check.crcs(first, count)
        if own_tags == other.tags and own_crcs == other.crcs and not self._contradicted:  # as nearly always
            return
        found = []
        for index, (own, tag) in enumerate(zip(iter_tags(own_tags), iter_tags(other.tags), strict=True)):
            if not own[-1] or own[EPOCH_SIZE:] != tag[EPOCH_SIZE:]:
                continue
            sector, at = first + index, slice(index * CRC_SIZE, (index + 1) * CRC_SIZE)
            if own_crcs[at] != other.crcs[at]:
                found.append(contradiction(sector, own, own_crcs[at], other.crcs[at], f"at node {other.rank}"))
                self._contradicted.setdefault(sector, (own[EPOCH_SIZE:], other.rank))
            elif self._contradicted.get(sector, (b"", 0))[1] == other.rank:
                del self._contradicted[sector]
        self.news += self.ledger.take(found)

    # --- damage -----------------------------------------------------------------------------------
    def _take_found(self) -> list[Effect]:
        """What the storage has found since, here or when somebody read it."""
        found = self._storage.check.found
        if not found:
            return []
        new = self.ledger.take(found)
        found.clear()
        self.news += new
        for damage in new:
            if damage.kind is Kind.CONTRADICTION:
                name = self._storage.tags(damage.first, 1)[EPOCH_SIZE:]
                self._contradicted.setdefault(damage.first, (name, self._rank))
        runs = [piece for damage in new for piece in pieces(damage.first, damage.count)]
        lost = {sector for first, count in runs for sector in self._storage.damaged_of(first, count)}
        return [Repair(tuple(sorted(lost)))] if lost else []

    def _is_open(self, damage: Damage) -> bool:
        lost = any(self._storage.damaged_of(*piece) for piece in pieces(damage.first, damage.count))
        if damage.kind is not Kind.CONTRADICTION:
            return lost
        name, rank = self._contradicted.get(damage.first, (b"", 0))
        is_same = self._storage.tags(damage.first, 1)[EPOCH_SIZE:] == name and (rank != self._rank or lost)
        if not is_same:
            self._contradicted.pop(damage.first, None)
        return is_same

    # --- what is told -----------------------------------------------------------------------------
    def report(self, now: float) -> dict[str, object]:
        """For STATUS: see docs/scrub.md."""
        of = self._pass or self._done
        return {
            "period_days": self._period_s / DAY_S,
            "running": self._pass is not None,
            "number": of.number,
            "progress": round(of.passed / of.chunks, 4),
            "verified_bytes": of.verified * SECTOR_SIZE,
            "total_bytes": max(of.verified, self._storage.sectors_written) * SECTOR_SIZE,
            "not_compared": of.not_compared,
            "done": self._done.number,
            "done_bytes": self._done.verified * SECTOR_SIZE,
            "done_not_compared": self._done.not_compared,
            "passes": self._passes,
            "last_s": None if self._last_s is None else round(now - self._last_s, 1),
            "next_s": self._next_s(now),
        }

    def _next_s(self, now: float) -> float | None:
        """Until the next pass of its own accord begins; None: there is none, or one is under way."""
        if not self._period_s or self._pass is not None and not self._pass.number:
            return None
        return max(0.0, round(self._due_s - now, 1)) if self._pass is None else 0.0
