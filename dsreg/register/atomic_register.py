"""(N,N)-AtomicRegister, crash-recovery: the coordinator's side, one operation at a time, as a pure
state machine over a run of consecutive sectors.

Each sector of the run is a register of its own with its own tag; a run is only a way to carry many
of them in one message. The instance knows no storage, network or time. Its methods take what arrived
and return the actions to take, in order. The line numbers L1..L6 that the tests cite are these:

    L1  read or write:  new rid; broadcast READ_PROC(rid)
    L2  on VALUE from a majority, for the current rid, in the read phase: take the highest tag, its value
    L3      reading: broadcast WRITE_PROC(rid, that tag, that value)
    L4      writing: broadcast WRITE_PROC(rid, (maxts + 1, own rank), the new value)
    L5  on WRITE_PROC(tag', v'): if tag' > own tag store it durably; then ACK(rid)   (the replica's part)
    L6  on ACK from a majority, for the current rid, in the write phase: return

Five operations are made of these two phases: READ and WRITE of the contract, TAG (the first phase
of a write whose tag the client keeps), STORE (the second phase under such a tag) and REPAIR (the first phase
of a read, for this node alone).

An operation runs under an `epoch` (docs/attachments.md; 0 where the disk was never attached): who answers it has
promised to store nothing of an older one, and whatever it stores, it stores under that epoch. If a newer epoch
turns up on the way, `renew` asks again under that one: what an older epoch left behind may outrank nothing, and
be outranked by nothing, that was not looked at first.

Two rules go beyond the lines, and both are about crashes:

* A READ may return after the first phase if a majority, this node among it, reports one identical
  vector of durable tags: the write-back would change nothing. See `dsreg.register.one_round`.
* A WRITE counts this node's own answer in its first phase, and makes its own copy durable before any
  other node hears of the tag. Otherwise a coordinator that crashed after one peer had stored
  (maxts + 1, rank) could choose the same tag again for another value. (Where this node's own copy is
  damaged it does not answer, a majority of the others decides, and the tag is above all that this node
  has ever chosen: one that is lost here may be on its way to a node that was not asked. Where it has no
  room it promises another tag instead, see `renamed`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.messages import Buffer
from dsreg.protocol.tags import highest, is_restamped, iter_tags, restamped, successors
from dsreg.register.actions import Action, AskAll, Copy, Return, StoreAll, StoreOwn
from dsreg.register.one_round import may_return
from dsreg.register.quorum import Quorum, bit


class Read(NamedTuple):
    """`strict`: for the attachment whose epoch this is. What is not at a majority under this very epoch is returned
    with its tags and not stored: the attachment restamps it, so that one decides, once, what older epochs left."""

    strict: bool


class Write(NamedTuple):
    data: Buffer
    ts_floor: int  # no tag at or below it is chosen
    life: int  # of the tag under an attachment: it makes it one that no earlier start of this node has chosen
    bare_life: int  # without one: 0 in the first life of the node


class Tag(NamedTuple):
    pass


class Store(NamedTuple):
    tags: bytes
    data: Buffer


class Repair(NamedTuple):
    """A read for this node's own damaged copy. It is restored as it is elsewhere, and nobody else is told: a copy of an
    older epoch is restamped by the owner of the disk alone: else it might come up after the owner has looked."""


Request = Read | Write | Tag | Store | Repair


class Querying:
    """The read phase: VALUEs are collected."""

    __slots__ = ("answers", "own_absent", "ranks", "rid", "values")

    def __init__(self, rid: int, values: bool) -> None:
        self.rid = rid
        self.values = values
        self.answers: dict[int, Copy] = {}
        self.ranks = 0
        self.own_absent = False


class Recording:
    """A WRITE's tag is chosen and is being made durable here, before anybody else hears of it. Or a REPAIR."""

    __slots__ = ("own", "rid")

    def __init__(self, own: StoreOwn) -> None:
        self.rid = own.rid
        self.own = own


class Storing:
    """The write phase: ACKs are counted."""

    __slots__ = ("acks", "own", "result", "rid")

    def __init__(self, own: StoreOwn, result: Return) -> None:
        self.rid = own.rid
        self.own = own
        self.result = result
        self.acks = 0


class AtomicRegister:
    """Coordinates one operation on the sectors [first, first + count) for the node `rank`.

    `quorum`: whose answers decide. `rids` gives read identifiers that were never given before, not even by an earlier
    incarnation.
    """

    __slots__ = ("_chosen", "_request", "count", "epoch", "first", "phase", "quorum", "rank", "rids")

    def __init__(
        self, rank: int, quorum: Quorum, first: int, count: int, rids: Iterator[int], epoch: int = 0
    ) -> None:
        self.rank = rank
        self.quorum = quorum
        self.first = first
        self.count = count
        self.rids = rids
        self.epoch = epoch
        self.phase: Querying | Recording | Storing | None = None
        self._request: Request | None = None
        self._chosen: Copy | None = None  # what a write stores, if its tags were chosen under an older epoch

    # --- invocations ------------------------------------------------------------------------------
    def read(self, strict: bool = False) -> list[Action]:
        return self._query(Read(strict))  # L1

    def repair(self) -> list[Action]:
        return self._query(Repair())  # L1

    def write(self, data: Buffer, ts_floor: int = 0, life: int = 1, bare_life: int = 0) -> list[Action]:
        assert len(data) == self.count * SECTOR_SIZE
        return self._query(Write(data, ts_floor, life, bare_life))  # L1

    def tag(self) -> list[Action]:
        return self._query(Tag())  # L1

    def store(self, tags: bytes, data: Buffer) -> list[Action]:
        assert len(tags) == self.count * TAG_SIZE and len(data) == self.count * SECTOR_SIZE
        self._begin(Store(tags, data))
        if not is_restamped(tags, self.epoch):
            self._chosen = Copy(tags, data)
            return self._ask(values=True)
        return self._store(StoreOwn(next(self.rids), tags, data), Return(b"", b""))

    # --- what arrives -----------------------------------------------------------------------------
    def value(self, rank: int, rid: int, tags: bytes, data: Buffer | None) -> list[Action]:
        """VALUE(rid, tags, data) from `rank`; `data` is None where only tags were sent."""
        phase = self.phase
        if not isinstance(phase, Querying) or phase.rid != rid:
            return []
        if phase.values and data is None:
            return []
        phase.answers[rank] = Copy(tags, data)
        phase.ranks |= bit(rank)
        return self._decide(phase)

    def own_absent(self, rid: int, ts_floor: int = 0) -> list[Action]:
        """This node's own copy is damaged and does not answer READ_PROC(rid). `ts_floor`: see Write."""
        phase = self.phase
        if not isinstance(phase, Querying) or phase.rid != rid:
            return []
        if isinstance(self._request, Write):
            self._request = self._request._replace(ts_floor=max(self._request.ts_floor, ts_floor))
        phase.own_absent = True
        return self._decide(phase)

    def ack(self, rank: int, rid: int) -> list[Action]:
        """ACK(rid) from `rank`."""
        phase = self.phase
        if isinstance(phase, Recording) and phase.rid == rid and rank == self.rank:
            return self._recorded(phase)
        if not isinstance(phase, Storing) or phase.rid != rid:
            return []
        phase.acks |= bit(rank)
        if not self.quorum.decided(phase.acks):
            return []
        return self._finish(phase.result)  # L6

    def discount(self, rank: int) -> None:
        """What `rank` has answered does not count any more: it has forgotten it. The others have been asked, too."""
        phase = self.phase
        if isinstance(phase, Querying):
            phase.answers.pop(rank, None)
            phase.ranks &= ~bit(rank)
        elif isinstance(phase, Storing):
            phase.acks &= ~bit(rank)

    def reconfigured(self, quorum: Quorum) -> list[Action]:
        """`quorum` decides from now on. What has been answered was said under an earlier configuration, and does not
        count: all are asked again, or told to store the same under the same tags."""
        self.quorum = quorum
        phase = self.phase
        if isinstance(phase, Querying):
            return self._ask(phase.values)
        if phase is None:
            return []
        own = phase.own._replace(rid=next(self.rids))
        if isinstance(phase, Storing):
            return self._store(own, phase.result)
        self.phase = Recording(own)
        return [own]

    @property
    def recording(self) -> StoreOwn | None:
        """What a WRITE is making durable here before anybody else may hear of it; None in any other phase."""
        writes = isinstance(self._request, Write)
        return self.phase.own if isinstance(self.phase, Recording) and writes else None

    def renamed(self, rid: int, tags: bytes) -> list[Action]:
        """This node has no room for StoreOwn(rid), but has durably promised never to choose `tags` again.

        That serves the purpose of the own copy as well, so the others may hear of the write.
        """
        phase = self.phase
        if not isinstance(phase, Recording) or phase.rid != rid:
            return []
        assert tags > phase.own.tags
        return self._store(phase.own._replace(tags=tags), Return(b"", b""))

    def store_own(self, rid: int) -> list[Action]:
        """StoreOwn(rid) once more: this node refused it some time ago, or had to promise something before it."""
        phase = self.phase
        if not isinstance(phase, Recording | Storing) or phase.rid != rid:
            return []
        return [phase.own]

    def renew(self, epoch: int) -> list[Action]:
        """A newer epoch is in force, at this node as well: what was asked and stored under the old one is void."""
        assert epoch > self.epoch
        self.epoch = epoch
        phase = self.phase
        if isinstance(phase, Querying):
            return self._ask(phase.values)
        if phase is not None and not isinstance(self._request, Read | Repair):
            self._chosen = Copy(phase.own.tags, phase.own.data)
        return self._ask(values=True)

    @property
    def wants_own_values(self) -> bool:
        """Whether this node is to answer a query with its values, whatever the others are asked for."""
        return isinstance(self._request, Read | Repair) or self._chosen is not None

    # --- transitions ------------------------------------------------------------------------------
    def _begin(self, request: Request) -> None:
        assert self._request is None, "one register executes one operation at a time"
        self._request = request

    def _query(self, request: Request) -> list[Action]:
        self._begin(request)
        return self._ask(values=False)

    def _ask(self, values: bool) -> list[Action]:
        self.phase = Querying(next(self.rids), values)
        return [AskAll(self.phase.rid, values, self.wants_own_values)]

    def _finish(self, result: Return) -> list[Action]:
        self.phase = None
        self._request = self._chosen = None
        return [result]

    def _decide(self, phase: Querying) -> list[Action]:
        if not self.quorum.decided(phase.ranks):  # L2
            return []
        own = phase.answers.get(self.rank)
        if own is None and not phase.own_absent:
            return []
        if self._chosen is not None:
            return self._decide_again(phase, self._chosen, own)
        match self._request:
            case Read(strict):
                return self._decide_read(phase, own, strict)
            case Repair():
                return self._decide_repair(phase, own)
            case Write(data, ts_floor, life, bare_life):
                life = life if self.epoch else bare_life
                tags = successors(self._highest(phase), self.rank, ts_floor, self.epoch, life)
                record = StoreOwn(phase.rid, tags, data, repair=own is None)
                self.phase = Recording(record)
                return [record]  # L4, own copy first
            case Tag():
                return self._finish(Return(self._highest(phase), b""))
            case _:
                raise AssertionError("a query phase without a request that has one")

    def _decide_read(self, phase: Querying, own: Copy | None, strict: bool) -> list[Action]:
        if own is not None and own.data is not None:
            agreeing = _agreeing(phase, own.tags)
            if may_return(self.quorum, agreeing, own.tags, self.epoch if strict else 0):
                return self._finish(Return(b"" if strict else own.tags, own.data))
        tags = self._highest(phase)
        data = _compose(tags, list(phase.answers.values()))
        if data is not None and strict:
            return self._finish(Return(tags, data))
        if data is not None:
            tags = restamped(tags, self.epoch)
            return self._store(StoreOwn(phase.rid, tags, data, repair=own is None), Return(tags, data))  # L3
        assert not phase.values, "every answer of a query for values has them"
        return self._ask(values=True)

    def _decide_repair(self, phase: Querying, own: Copy | None) -> list[Action]:
        tags = self._highest(phase)
        data = _compose(tags, list(phase.answers.values()))
        if data is None:
            return self._ask(values=True)
        record = StoreOwn(phase.rid, tags, data, repair=own is None)
        self.phase = Recording(record)
        return [record]

    def _decide_again(self, phase: Querying, chosen: Copy, own: Copy | None) -> list[Action]:
        """The tags of a write were chosen under an older epoch: under this one goes it, or per sector what is there.

        Restamped, the two compare by the names of the writes: a read that has restamped an older write meanwhile,
        because it did not see this one, must not make this one lose.
        """
        there = self._highest(phase)
        values = _compose(there, list(phase.answers.values()))
        assert values is not None, "every answer of a query for values has them"
        choices = [
            Copy(restamped(chosen.tags, self.epoch), chosen.data), Copy(restamped(there, self.epoch), values)
        ]
        tags = highest([choice.tags for choice in choices])
        data = _compose(tags, choices)
        assert data is not None
        return self._store(StoreOwn(phase.rid, tags, data, repair=own is None), Return(b"", b""))

    def _recorded(self, phase: Recording) -> list[Action]:
        if isinstance(self._request, Repair):
            return self._finish(Return(b"", b""))
        self.phase = Storing(phase.own, Return(b"", b""))
        rest: list[Action] = [StoreAll(phase.rid, phase.own.tags, phase.own.data)]  # L4
        return [*rest, *self.ack(self.rank, phase.rid)]

    def _store(self, own: StoreOwn, result: Return) -> list[Action]:
        self.phase = Storing(own, result)
        return [StoreAll(own.rid, own.tags, own.data), own]

    def _highest(self, phase: Querying) -> bytes:
        return highest([answer.tags for answer in phase.answers.values()])


def _agreeing(phase: Querying, tags: bytes) -> int:
    """The mask of the nodes that have answered with this very vector."""
    ranks = 0
    for rank, answer in phase.answers.items():
        if answer.tags == tags:
            ranks |= bit(rank)
    return ranks


def _compose(tags: bytes, answers: list[Copy]) -> Buffer | None:
    """The values that belong to `tags`, out of the answers that carry values; None if one is not there."""
    for answer in answers:
        if answer.tags == tags and answer.data is not None:
            return answer.data
    columns = [(iter_tags(answer.tags), answer.data) for answer in answers if answer.data is not None]
    parts: list[Buffer] = []
    for index, tag in enumerate(iter_tags(tags)):
        data = next((data for own, data in columns if own[index] == tag), None)
        if data is None:
            return None
        parts.append(data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE])
    return b"".join(parts)
