"""What a node has yet to learn, as its directory began without it, and in which order: docs/lives.md, rule 14. Pure.

It asks those that may teach, all of them at once, for the digests of what is left. What as many as must have told say
was never written is learned at once, however much that is; what one of them has is to be looked at by Heal. A digest
that is there decides nothing; that there is none is no digest, but says that all tags are zeros.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Sequence
from typing import Protocol

from dsreg.chunks import number_of_chunks
from dsreg.constants import MAX_DIGESTS, MAX_RUN_SECTORS
from dsreg.protocol.messages import Digests
from dsreg.register.digests import UNKNOWN
from dsreg.register.quorum import mask
from dsreg.register.teachers import Teachers
from dsreg.runs import Runs

# When it is tried again to ask as many as must tell; and to learn what too few of them knew.
RETRY_S = 1.0
# Chunks that questions have been about which were not answered, the newest of them.
MAX_HINTS = 256


class Left(Protocol):
    """What is needed of stable storage: see dsreg.storage.learned."""

    sectors: int
    left: int

    @property
    def is_recorded(self) -> bool: ...

    def chunks(self, chunk: int) -> tuple[int, int] | None: ...

    def learned(self, first: int, count: int, told: bytes = b"") -> bool: ...


class Learner:
    """`teachers`: who of the others has to tell."""

    def __init__(self, teachers: Teachers, learning: Left) -> None:
        self._enough = teachers
        self._learning = learning
        self._hints: deque[int] = deque(maxlen=MAX_HINTS)
        self.found = Runs()  # chunks to be looked at
        self._ignorant: dict[int, Runs] = {}  # chunks that the node, a teacher, does not know itself
        self._cursor = 0  # what is before it was asked for
        self._again_s = -math.inf
        self._rests = False  # until what is being looked at is known
        self._first = 0  # of the present question
        self._waits: set[int] = set()  # who has not answered it
        self._answers: dict[int, Digests] = {}

    @property
    def left(self) -> int:
        """Sectors that are to be learned."""
        return self._learning.left

    @property
    def waiting(self) -> int:
        """Chunks that are to be looked at. One that somebody waited for may be known before the digests tell of it."""
        return self.found.total if self.left else 0

    def is_left(self, chunk: int) -> bool:
        """Whether something of the chunk is."""
        stretch = self._learning.chunks(chunk)
        return stretch is not None and stretch[0] == chunk

    def hint(self, chunk: int) -> None:
        """Somebody waits for it."""
        if self.is_left(chunk) and chunk not in self._hints:
            self._hints.append(chunk)

    def next(self, busy: Container[int]) -> int | None:
        """The chunk to look at now, none of `busy`."""
        while self._hints or self.found.total:
            chunk = self._hints.pop() if self._hints else self.found.pop()
            if chunk not in busy and self.is_left(chunk):
                return chunk
        return None

    def too_few_know(self, now: float) -> None:
        """The chunk that `next` gave is left for later, when others may have learned it: all are asked anew then."""
        self._rests, self._again_s = False, now + RETRY_S

    def know(self, chunk: int, teachers: Sequence[int]) -> list[int]:
        """Those of them that may know the chunk."""
        return [rank for rank in teachers if chunk not in self._ignorant.get(rank, ())]

    def look(self) -> None:
        """There may be enough to ask now."""
        self._again_s = -math.inf

    # --- questions --------------------------------------------------------------------------------
    def due(self, teachers: Sequence[int], idle: bool, now: float) -> tuple[int, int] | None:
        """First chunk, and number of chunks, for whose digests all of these are to be asked now. Each has to answer,
        or is `unanswered`. `idle`: no chunk is being looked at."""
        self._rests = False
        if not self.left or self._waits or now < self._again_s:
            return None
        if not self._enough.covers(mask(teachers)):
            self._again_s = now + RETRY_S
            return None
        stretch = self._learning.chunks(self._cursor)
        if stretch is None:
            if idle and not self.found.total:  # too few knew what is left, or were there
                self._cursor, self._again_s = 0, now + RETRY_S
                self._ignorant.clear()
            else:
                self._rests = True
            return None
        self._first = stretch[0]
        self._waits, self._answers = set(teachers), {}
        return self._first, min(MAX_DIGESTS, number_of_chunks(self._learning.sectors) - self._first)

    def answered(self, message: Digests, now: float) -> None:
        self._answers[message.rank] = message
        self.unanswered(message.rank, now)

    def unanswered(self, rank: int, now: float) -> None:
        """It will not answer."""
        if rank in self._waits:
            self._waits.discard(rank)
            if not self._waits:
                self._decide(now)

    def drop(self, rank: int, now: float) -> None:
        """What it has told does not count any more."""
        self._answers.pop(rank, None)
        self.unanswered(rank, now)

    def next_due(self) -> float:
        """When `due` may say something without having been told anything; inf: never."""
        return math.inf if not self.left or self._waits or self._rests else self._again_s

    def _decide(self, now: float) -> None:
        """All have answered, or will not."""
        answers = list(self._answers.values())
        if not self._enough.covers(mask(self._answers)):
            self._again_s = now + RETRY_S
            return
        end = min(max(answer.following, answer.first + answer.count) for answer in answers)
        written: set[int] = set()
        ignorant: dict[int, set[int]] = {}  # by chunk
        blind: set[int] = set()  # ranks that know nothing of all this
        for answer in answers:
            last = answer.first + answer.count - 1
            if answer.digests.get(last) == UNKNOWN and answer.following > last + 1:  # of all up to there
                blind.add(answer.rank)
                self._does_not_know(answer.rank, self._first, end)
            for chunk, digest in answer.digests.items():
                if chunk < end and digest == UNKNOWN:
                    ignorant.setdefault(chunk, set()).add(answer.rank)
                    self._does_not_know(answer.rank, chunk, chunk + 1)
                elif chunk < end:
                    written.add(chunk)
        told = {answer.rank for answer in answers} - blind
        self._cursor = end
        if not self._enough.covers(mask(told)):
            return
        at = self._first
        for chunk in sorted(written | ignorant.keys()):
            self._learn(at, chunk)
            at = chunk
            if chunk in written or not self._enough.covers(mask(told - ignorant[chunk])):
                at = chunk + 1
            if chunk in written:
                self.found.add(chunk, chunk + 1)
        self._learn(at, end)

    def _does_not_know(self, rank: int, start: int, stop: int) -> None:
        self._ignorant.setdefault(rank, Runs()).add(start, stop)

    def _learn(self, start: int, stop: int) -> None:
        """These chunks were never written."""
        first, end = start * MAX_RUN_SECTORS, min(stop * MAX_RUN_SECTORS, self._learning.sectors)
        if first < end:
            self._learning.learned(first, end - first)
