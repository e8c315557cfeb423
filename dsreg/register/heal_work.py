"""What dsreg.register.heal has under way: chunks that it looks at, runs that it fetches, questions."""

from __future__ import annotations

from typing import NamedTuple

from dsreg.constants import TAG_SIZE
from dsreg.protocol.messages import DigestQuery, Digests, ReadProc, Value
from dsreg.register.lacking import Lack


class Chunk:
    """One that is looked at. `which`: the mask of the nodes from whose it differs. `settled`: it differed before."""

    def __init__(self, number: int, which: int, epoch: int, waits: list[int], settled: bool) -> None:
        self.number = number
        self.which = which
        self.epoch = epoch  # under which the tags were asked for
        self.settled = settled
        self.waits = set(waits)  # ranks whose tags have not come
        self.told: dict[int, bytes] = {}
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

    def split(self, count: int) -> tuple[Run, Run]:
        """The first `count` sectors, and the rest."""
        start, stop, rank, sectors, tags = self.lack
        at, some = start + count, min(sectors, count)
        return (
            self._replace(lack=Lack(start, at, rank, some, tags[:count * TAG_SIZE])),
            self._replace(lack=Lack(at, stop, rank, sectors - some, tags[count * TAG_SIZE:])),
        )


class Question(NamedTuple):
    """`chunk`: whose tags it is about; `run`: whose values; neither: digests."""

    rank: int
    due_s: float
    message: DigestQuery | ReadProc
    chunk: Chunk | None
    run: Run | None

    def is_answered_by(self, answer: Digests | Value) -> bool:
        asked = self.message
        if answer.rank != self.rank or answer.first != asked.first:
            return False
        if isinstance(asked, DigestQuery):
            return isinstance(answer, Digests) and answer.count <= asked.count
        if not isinstance(answer, Value) or answer.count != asked.count:
            return False
        return self.run is None or answer.data is not None
