"""What dsreg.register.heal needs of stable storage, and has under way: chunks that it looks at, runs, questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from dsreg.constants import TAG_SIZE
from dsreg.protocol.messages import DigestQuery, Digests, ReadProc, Value
from dsreg.protocol.plausibility import are_plausible
from dsreg.protocol.tags import highest, highest_epoch, iter_tags
from dsreg.register.digests import Tags
from dsreg.register.effects import Tell
from dsreg.register.lacking import Lack
from dsreg.register.learner import Left
from dsreg.register.now import Now

# How long an answer may take.
ANSWER_S = 2.0
# A chunk that differs though this node was in sync is looked at once more after this long, before anything is fetched:
# mostly a write was on its way.
SETTLE_S = 0.5
# Chunks that are known to differ, and wait; with more the comparison waits. 64 GiB of disk.
MAX_WAITING = 65536


class HealView(Tags, Protocol):
    """What is needed of stable storage."""

    on_stored: Callable[[int, int], None]

    def latest_tags(self, first: int, count: int) -> bytes: ...

    def damaged_of(self, first: int, count: int) -> list[int]: ...

    def lost(self) -> list[int]: ...

    @property
    def learning(self) -> Left: ...


class Chunk:
    """One that is looked at. `run`: first sector, and number of sectors, as of now: the last one of the disk has more
    of them once that is larger. `which`: the mask of the nodes from whose it differs. `settled`: it differed before.
    `taught`: it is to be learned, and all that are asked may teach it."""

    def __init__(
        self, number: int, run: tuple[int, int], which: int, epoch: int, waits: list[int], settled: bool,
        taught: bool = False,
    ) -> None:
        self.number = number
        self.run = run
        self.which = which
        self.epoch = epoch  # under which the tags were asked for
        self.settled = settled
        self.waits = set(waits)  # ranks whose tags have not come
        self.told: dict[int, bytes] = {}
        self.taught = taught
        self.highest = b""  # of a chunk that is taught: what those have told, 16 bytes a sector
        self.learns = False  # tags that are lost here, too, as enough nodes have told theirs
        self.runs = 0  # that are not stored yet
        self.failed = False  # some of it is to be done again


class Run(NamedTuple):
    """What is to be fetched in one piece. `lack`: in sectors from `first`."""

    chunk: Chunk
    first: int
    lack: Lack

    @property
    def size(self) -> int:
        return self.lack.stop - self.lack.start

    def is_enough(self, tags: bytes, own: bytes) -> bool:
        """Whether what has come, with what is here, is not below what was told, where something becomes known by it."""
        if not self.chunk.learns and not self.chunk.taught:
            return True
        return all(map(bytes.__ge__, iter_tags(highest([tags, own])), iter_tags(self.lack.tags)))

    def split(self, count: int) -> tuple[Run, Run]:
        """The first `count` sectors, and the rest."""
        start, stop, rank, sectors, tags = self.lack
        at, some = start + count, min(sectors, count)
        return (
            self._replace(lack=Lack(start, at, rank, some, tags[:count * TAG_SIZE])),
            self._replace(lack=Lack(at, stop, rank, sectors - some, tags[count * TAG_SIZE:])),
        )


class Question(NamedTuple):
    """`chunk`: whose tags it is about; `run`: whose values; neither: digests, which are asked for to learn something if
    it `learns`."""

    rank: int
    due_s: float
    message: DigestQuery | ReadProc
    chunk: Chunk | None
    run: Run | None
    learns: bool = False

    @property
    def teaches(self) -> bool:
        """Whether the answer counts for what is to be learned."""
        return self.learns or self.chunk is not None and self.chunk.taught

    def is_answered_by(self, answer: Digests | Value) -> bool:
        asked = self.message
        if answer.rank != self.rank or answer.first != asked.first:
            return False
        if isinstance(asked, DigestQuery):
            return isinstance(answer, Digests) and answer.count <= asked.count
        if not isinstance(answer, Value) or answer.count != asked.count:
            return False
        return self.run is None or answer.data is not None


class Questions:
    """Those that are under way. `rids`: never used before."""

    def __init__(self, rids: Iterator[int]) -> None:
        self._rids = rids
        self._asked: dict[int, Question] = {}  # by rid, in the order in which they are due

    def __contains__(self, rid: int) -> bool:
        return rid in self._asked

    def __len__(self) -> int:
        return len(self._asked)

    def new_rid(self) -> int:
        return next(self._rids)

    def ask(
        self, rank: int, message: DigestQuery | ReadProc, now: float, chunk: Chunk | None = None,
        run: Run | None = None, *, learns: bool = False,
    ) -> Tell:
        self._asked[message.rid] = Question(rank, now + ANSWER_S, message, chunk, run, learns)
        return Tell(rank, message)

    def get(self, rid: int) -> Question | None:
        return self._asked.get(rid)

    def end(self, rid: int) -> None:
        del self._asked[rid]

    def drop(self, rank: int) -> Iterator[Question]:
        """Those to that node, one after the other: they are not under way any more."""
        for rid in [rid for rid, question in self._asked.items() if question.rank == rank]:
            yield self._asked.pop(rid)

    def expired(self, now: float) -> Iterator[Question]:
        """Likewise those that were not answered in time."""
        for rid, question in list(self._asked.items()):
            if question.due_s > now:
                return
            yield self._asked.pop(rid)

    def runs(self) -> list[Run]:
        """That are being fetched."""
        return [question.run for question in self._asked.values() if question.run is not None]

    def next_due(self) -> float:
        return next((question.due_s for question in self._asked.values()), math.inf)


def is_believed(value: Value, epoch: int, now: Now) -> bool:
    """As the answers to an operation are: see Acceptor. `epoch`: in force here."""
    return (
        value.epoch == epoch and highest_epoch(value.tags) <= value.epoch and are_plausible(value.tags, now.unix_s)
    )
