"""A node 1 of three that heals, for plays: its storage is in memory, and what the others have is, too."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import DigestQuery, Digests, ReadProc, Value
from dsreg.register.assembly import first_rid, is_of_heal, new_heal, new_replica
from dsreg.register.digests import TagDigests
from dsreg.register.effects import Adopt, Effect, Persist, Reserve, Tell
from dsreg.register.now import Now
from dsreg.register.quorum import majority_of
from dsreg.register.tag_allocator import PROMISE_STEP
from dsreg.testing.memory_storage import MemoryStorage
from tests.protocol.values import tags

SECTORS = 2 * MAX_RUN_SECTORS + 4
CHUNKS = 3
LAST = 2 * MAX_RUN_SECTORS  # the first sector of the last chunk, which has four
RANKS = (1, 2, 3)
FIRST_RID = first_rid(1) + (1 << 39)
PROMISED = PROMISE_STEP - 1  # as of a node that has never named a tag
OLD, NEW = tags((4, 1)), tags((5, 2))


class Other:
    """What another node has, and says."""

    def __init__(self, rank: int, sectors: int = SECTORS) -> None:
        self.rank = rank
        self.storage = MemoryStorage(sectors)
        self.digests = TagDigests(self.storage)
        self.storage.on_stored = self.digests.stored

    def have(self, sector: int, some: bytes, value: bytes) -> None:
        self.storage.queue(Persist(sector, len(some) // 16, some, value, ()))
        self.storage.commit()

    def answer(self, question: DigestQuery | ReadProc, epoch: int = 0) -> Digests | Value:
        if isinstance(question, DigestQuery):
            return self.digests.answer(self.rank, question)
        _, rid, first, count, values, *_ = question
        some, value, _ = self.storage.load(first, count)
        return Value(self.rank, rid, first, count, some, value if values else None, epoch=epoch)


class Play:
    """`links`: with whom the node is linked from the beginning. `learns`: its directory began with every sector
    unknown."""

    def __init__(self, *links: int, learns: bool = False) -> None:
        self.now = 100.0
        self.storage = MemoryStorage(SECTORS)
        if learns:
            self.storage.begin_unknown()
        self.storage.ts_reserved = PROMISED
        self.replica = new_replica(1, majority_of(RANKS), self.storage, uuid_prefix=7, jitter=lambda: 1.0)
        self.heal = new_heal(self.replica, majority_of(RANKS), self.storage)
        self.others = {rank: Other(rank) for rank in RANKS[1:]}
        self.asked: list[Tell] = []
        self.link(*links)

    def link(self, *ranks: int) -> None:
        for rank in ranks:
            self.take(self.heal.link_up(rank, self.now))

    def at(self) -> Now:
        return Now(self.now, 0.0)

    def have(self, sector: int, some: bytes, value: bytes, *ranks: int) -> None:
        """It is there at these nodes."""
        for rank in ranks:
            if rank > 1:
                self.others[rank].have(sector, some, value)
                continue
            self.storage.queue(Persist(sector, len(some) // 16, some, value, ()))
            self.storage.commit()

    def take(self, effects: list[Effect]) -> list[Effect]:
        """Questions are kept for `answer`, what is to be promised is; gives the rest."""
        for effect in effects:
            if isinstance(effect, Reserve):
                self.storage.queue(effect)
                self.storage.commit()
                effects = [*(other for other in effects if other is not effect), *effect.then]
        self.asked += [effect for effect in effects if isinstance(effect, Tell)]
        return [effect for effect in effects if not isinstance(effect, Tell)]

    def answer(self, epoch: int = 0) -> list[Effect]:
        """The oldest question is answered as the other one would."""
        rank, question = self.asked.pop(0)
        assert isinstance(question, DigestQuery | ReadProc) and is_of_heal(question.rid)
        return self.say(self.others[rank].answer(question, epoch))

    def say(self, message: Digests | Value) -> list[Effect]:
        return self.take(self.heal.message(None, message, self.at()))

    def store(self, adopt: Effect, ok: bool = True, *, lost: bool = False) -> list[Effect]:
        assert isinstance(adopt, Adopt)
        if ok:
            self.storage.queue(Persist(adopt.first, adopt.count, adopt.tags, adopt.data, (), adopt.repair))
            assert self.storage.commit()[1]
        return self.take(self.heal.adopted(adopt, ok, self.now, lost=lost))

    def tick(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.take(self.heal.tick(self.now))

    def to_the_end(self, *, silently: bool = False) -> None:
        """All is answered and stored, as long as there is anything to do at once. `silently`: but a node that does not
        know what it is asked for says nothing."""
        while self.asked:
            if silently and not self._is_known(self.asked[0]):
                self.asked.pop(0)
                continue
            for effect in self.answer(self.storage.epoch):
                self.store(effect)

    def _is_known(self, asked: Tell) -> bool:
        """To the node that is asked for it."""
        rank, question = asked
        storage = self.others[rank].storage
        return not (isinstance(question, ReadProc) and storage.unknown(question.first, question.count))

    def in_sync(self, *ranks: int) -> bool:
        return all(self.heal._comparing.in_sync(rank) for rank in ranks)

    def tag(self, sector: int) -> bytes:
        return self.storage.tags(sector, 1)
