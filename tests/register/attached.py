"""An attached client in the abstract: it counts majorities of GETs and PUTs by itself, as rule 8 of
docs/attachments.md has it, and stops at the first answer that says that it is fenced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dsreg.constants import NO_OWNER, SECTOR_SIZE
from dsreg.protocol.messages import Command, CommandKind, Response, Status, owner_of
from dsreg.protocol.tags import ATTACHED, highest, is_restamped, pack_tag, restamped, ts_of
from dsreg.register.actions import Copy
from dsreg.register.atomic_register import _compose
from dsreg.register.quorum import mask
from tests.protocol.values import data
from tests.register.cluster import Cluster
from tests.register.linearizable import Op

# Counters grow with a clock that is faster than others can write.
COUNTS_PER_TICK = 1000


class Line(NamedTuple):
    """The connection of an attachment to a node."""

    attachment: Attachment
    rank: int


class Work:
    """A read or a write of a run. `number`: 1..255, the fill of what it writes. `epoch`, `life`: of whose it is."""

    def __init__(
        self, number: int, write: bool, first: int, count: int, invoked: int, epoch: int, life: int = 0
    ) -> None:
        self.number = number
        self.write = write
        self.first = first
        self.count = count
        self.invoked = invoked
        self.epoch = epoch
        self.life = life
        self.returned: int | None = None
        self.data = data(*[number] * count) if write else b""
        self.tag = b""
        self.restamping = b""  # the tags, and in `data` the values, that a read has decided on
        self.answers: dict[int, Response] = {}  # GETs under the epoch, or PUTs that are done

    def overlaps(self, first: int, count: int) -> bool:
        return self.first < first + count and first < self.first + self.count

    def history(self) -> list[tuple[int, Op]]:
        known = self.data if self.write or self.returned is not None else b""
        return [
            (self.first + at, Op(self.write, known[at * SECTOR_SIZE] if known else None, self.invoked, self.returned))
            for at in range(self.count)
        ]


class Attachment:
    """`clock` orders everything that clients see. `restamps`: whether its reads insist on its own epoch. `decides`:
    whether a read that must restamp something decides itself, once, what; else it takes what any coordinator says.
    `identity`: its own, unless it has that of another."""

    def __init__(
        self, cluster: Cluster, number: int, clock: Iterator[int], restamps: bool = True, decides: bool = True,
        identity: int = 0,
    ) -> None:
        self.life = number
        self.owner = owner_of(bytes([identity or number]) * 16, f"client {identity or number}")
        self.epoch = 0  # not attached
        self.fenced = False
        self.stopped = False  # it does nothing more
        self.works: list[Work] = []
        self._cluster = cluster
        self._clock = clock
        self._restamps = restamps
        self._decides = decides
        self._wanted = 0  # the epoch that it tries to get; 0: it asks which ones there are
        self._votes: dict[int, Response] = {}
        self._back = 0  # how far its clock was put back
        self._times_back = 0
        self._ask()

    # --- attaching ----------------------------------------------------------------------------------
    def _ask(self) -> None:
        self._wanted = 0
        self._votes = {}
        self._vote()

    def _vote(self) -> None:
        """To all who have not answered."""
        for rank in self._cluster.nodes:
            if rank not in self._votes:
                owner = self.owner if self._wanted else NO_OWNER
                self._send(rank, Command.attach(self._wanted, self._wanted, owner))

    def _voted(self, rank: int, answer: Response) -> None:
        if self.epoch or self.stopped or answer.request != self._wanted:
            return
        if answer.status is not Status.OK:
            self._ask()  # somebody else was faster
            return
        self._votes[rank] = answer
        if not self._cluster.quorum.decided(mask(self._votes)):
            return
        if self._wanted:
            assert all((vote.epoch, vote.owner) >= (self._wanted, self.owner) for vote in self._votes.values())
            self.epoch = self._wanted
            return
        newest = max(vote.epoch for vote in self._votes.values())
        own = newest and all(vote.owner == self.owner for vote in self._votes.values() if vote.epoch == newest)
        self._wanted = newest if own else newest + 1  # rule 15
        self._votes = {}
        self._vote()

    def put_back(self) -> None:
        """Its machine is put back to an earlier state of its memory, and its clock with it."""
        if self.epoch and not self.stopped:
            self._times_back += 1
            ticks = self._cluster.rng.randint(1, next(self._clock))
            # Never to the very count of an earlier write: that is not covered (docs/verification.md).
            furthest = (next(self._clock) - 1) * COUNTS_PER_TICK - 7 * self._times_back
            self._back = min(self._back + ticks * COUNTS_PER_TICK - 7, furthest)

    # --- reading and writing --------------------------------------------------------------------------
    def is_free(self, first: int, count: int) -> bool:
        """Attached, and with nothing under way on the run: a client does one thing at a time with a sector."""
        idle = not any(work.returned is None and work.overlaps(first, count) for work in self.works)
        return self.epoch > 0 and not self.stopped and idle

    def begin(self, number: int, write: bool, first: int, count: int) -> Work:
        assert self.is_free(first, count)
        now = next(self._clock)
        work = Work(number, write, first, count, now, self.epoch, self.life)
        work.tag = pack_tag(ts_of(self.epoch, now * COUNTS_PER_TICK + 1 - self._back), ATTACHED, 0, self.epoch)
        self.works.append(work)
        self._to_all(work)
        return work

    def _to_all(self, work: Work) -> None:
        for rank in self._cluster.nodes:
            if rank not in work.answers:
                self._send(rank, self._command(work, CommandKind.PUT if work.write else CommandKind.GET))

    def _through_one(self, work: Work) -> None:
        """A coordinator sees to it: a write, or what a read has decided to restamp; the same however often sent."""
        if work.write or work.restamping:
            self._send(self._cluster.rng.choice(list(self._cluster.nodes)), self._command(work, CommandKind.STORE))
        elif not self._decides or self._cluster.rng.random() < 0.5:
            self._send(self._cluster.rng.choice(list(self._cluster.nodes)), self._command(work, CommandKind.READ))

    def _command(self, work: Work, kind: CommandKind) -> Command:
        tags = work.tag * work.count if work.write else work.restamping if kind is CommandKind.STORE else b""
        sent = work.data if tags else b""
        values = kind is CommandKind.GET
        return Command(kind, work.number, work.first, work.count, tags, sent, True, self.epoch, values)

    def _send(self, rank: int, command: Command) -> None:
        self._cluster.command(rank, Line(self, rank), command)

    def again(self) -> None:
        """What was not answered may have been lost in a crash: send it again, or through somebody else."""
        if self.stopped:
            return
        if not self.epoch:
            self._vote()
        for work in self.works:
            if work.returned is None:
                self._cluster.rng.choice((self._to_all, self._through_one))(work)

    def respond(self, rank: int, answer: Response) -> None:
        if answer.kind is CommandKind.ATTACH:
            self._voted(rank, answer)
            return
        if answer.status is Status.FENCED:
            assert answer.epoch > self.epoch
            self.fenced = self.stopped = True
        work = next(work for work in self.works if work.number == answer.request)
        if self.stopped or work.returned is not None:
            return
        if answer.status is Status.OVERTAKEN:
            self.stopped = True
        elif answer.status is not Status.OK:
            assert answer.status in (Status.REFUSED, Status.DISBELIEVED)
            if answer.status is Status.DISBELIEVED:  # nobody has told it
                self._send(rank, Command.attach(self.epoch, self.epoch, self.owner))
            if work.write or not self._decides:
                self._through_one(work)
        elif answer.kind is CommandKind.READ:
            if not answer.tags or not self._decides:
                self._return(work, bytes(answer.data))
            elif not work.restamping:  # else it has decided, and another coordinator may have seen something else
                work.restamping, work.data = restamped(answer.tags, self.epoch), bytes(answer.data)
                self._through_one(work)
        elif answer.kind is CommandKind.STORE:
            self._return(work, work.data)
        elif answer.kind is CommandKind.PUT or answer.epoch == self.epoch:
            work.answers[rank] = answer
            self._count(work)

    def _count(self, work: Work) -> None:
        quorum = self._cluster.quorum
        if not quorum.decided(mask(work.answers)):
            return
        if work.write:
            self._return(work, work.data)
            return
        answers = list(work.answers.values())
        for answer in answers:
            same = mask(rank for rank, other in work.answers.items() if other.tags == answer.tags)
            enough = is_restamped(answer.tags, self.epoch) or not self._restamps
            if not work.restamping and (quorum.decided(same) and enough or quorum.all_answered(same)):
                self._return(work, bytes(answer.data))
                return
        if self._decides and not work.restamping:
            vectors = [answer.tags for answer in answers]
            tags = highest(vectors)
            values = _compose(tags, [Copy(answer.tags, answer.data) for answer in answers])
            assert values is not None
            work.restamping, work.data = restamped(tags, self.epoch), bytes(values)
        if work.restamping or quorum.all_answered(mask(work.answers)):
            self._through_one(work)

    def _return(self, work: Work, found: bytes) -> None:
        work.returned = next(self._clock)
        work.data = found
