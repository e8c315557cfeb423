"""A replica of rank 1 for plays: an event, then the effects expected. Its storage is in memory."""

from __future__ import annotations

from dsreg.protocol.messages import Ack, Command, CommandKind, PeerMessage, ReadProc, Response, Status, Value, WriteProc
from dsreg.register.assembly import first_rid, new_replica
from dsreg.register.effects import Again, Durable, Effect, Fence, Load, OwnCopy, Persist, Reply, Reserve, Tell
from dsreg.register.now import Now
from dsreg.register.quorum import majority_of
from dsreg.register.tag_allocator import PROMISE_STEP
from dsreg.testing.memory_storage import MemoryStorage
from tests.protocol.values import data

RANK = 1
RID = first_rid(1)  # of the first operation; then RID + 1, ...
CLIENT = "client"  # a connection
PEER = "peer"  # another
NEW = data(9)


class Play:
    """`nodes` nodes of which this is rank 1. Links are up and speak the extension but to the ranks in `contract`.

    Time stands still at `now` unless the test moves it. `promised`: see TagAllocator; enough for what the tests write.
    """

    def __init__(
        self, nodes: int = 3, contract: tuple[int, ...] = (), unix_time_s: float = 0.0,
        promised: int = PROMISE_STEP - 1,
    ) -> None:
        ranks = tuple(range(1, nodes + 1))
        self.now = 0.0
        self.unix_time_s = unix_time_s
        self.storage = MemoryStorage()
        self.storage.ts_reserved = promised
        self.replica = new_replica(RANK, majority_of(ranks), self.storage, uuid_prefix=77, jitter=lambda: 1.0)
        self.uuids = self.replica._uuids
        self.links = self.replica._links
        for rank in ranks[1:]:
            assert self.replica.link_up(rank, rank not in contract, self.at()) == []

    def at(self) -> Now:
        return Now(self.now, self.unix_time_s)

    # --- events -----------------------------------------------------------------------------------
    def read(self, first: int = 0, count: int = 1, request: int = 1) -> list[Effect]:
        return self.command(Command(CommandKind.READ, request, first, count))

    def write(self, value: bytes = NEW, first: int = 0, request: int = 1) -> list[Effect]:
        return self.command(Command(CommandKind.WRITE, request, first, len(value) // 4096, data=value))

    def tag(self, first: int = 0, count: int = 1, request: int = 1) -> list[Effect]:
        return self.command(Command(CommandKind.TAG, request, first, count, extended=True))

    def store(self, tags: bytes, value: bytes = NEW, first: int = 0, request: int = 1) -> list[Effect]:
        count = len(value) // 4096
        return self.command(Command(CommandKind.STORE, request, first, count, tags, value, True))

    def command(self, command: Command) -> list[Effect]:
        return self.replica.command(CLIENT, command, self.at())

    def message(self, message: PeerMessage) -> list[Effect]:
        return self.replica.message(None if message.uuid else PEER, message, self.at())

    def value(
        self, rank: int, rid: int, tags: bytes, value: bytes | None = None, first: int = 0, epoch: int = 0
    ) -> list[Effect]:
        return self.message(Value(rank, rid, first, len(tags) // 16, tags, value, epoch=epoch))

    def ack(self, rank: int, rid: int, first: int = 0, count: int = 1) -> list[Effect]:
        return self.message(Ack(rank, rid, first, count))

    def tick(self, now: float) -> list[Effect]:
        self.now = now
        return self.replica.tick(self.at())

    # --- what the world does ----------------------------------------------------------------------
    def load(self, effect: Effect) -> list[Effect]:
        assert isinstance(effect, Load)
        loaded = self.storage.load(effect.question.first, effect.question.count)
        return self.replica.loaded(effect, *loaded, self.at())

    def commit(self, effect: Effect) -> list[Effect]:
        """Make it durable; what follows from its `then`, or from its refusal."""
        assert isinstance(effect, Persist | Reserve | Fence)
        self.storage.queue(effect)
        _, ok = self.storage.commit(-1)
        if not ok:
            assert isinstance(effect, Persist)
            return self.replica.refused(effect, self.at(), no_space=self.storage.full)
        effects: list[Effect] = []
        for then in effect.then:
            if isinstance(then, Durable):
                effects += self.replica.durable(then.what, self.at())
            elif isinstance(then, Again):
                effects += self.replica.again(then, self.at())
            else:
                effects.append(then)
        return effects

    def have(self, tags: bytes, value: bytes, first: int = 0) -> None:
        """Durable here from before."""
        self.storage.queue(Persist(first, len(tags) // 16, tags, value, ()))
        self.storage.commit()


def at(now_s: float) -> Now:
    """The machine thinks that it is 1970."""
    return Now(now_s, 0.0)


# --- effects expected -----------------------------------------------------------------------------
def ask(rid: int = RID, first: int = 0, count: int = 1, *, values: bool = False, to: tuple[int, ...] = (2, 3),
        epoch: int = 0) -> list[Effect]:
    return [Tell(rank, ReadProc(RANK, rid, first, count, values, epoch=epoch)) for rank in to]


def tell(tags: bytes, value: bytes = NEW, rid: int = RID, first: int = 0, to: tuple[int, ...] = (2, 3)) -> list[Effect]:
    return [Tell(rank, WriteProc(RANK, rid, first, len(tags) // 16, tags, value)) for rank in to]


def own(tags: bytes, value: bytes = NEW, rid: int = RID, first: int = 0, *, repair: bool = False) -> Persist:
    count = len(tags) // 16
    then = (Durable(Ack(RANK, rid, first, count)),)
    return Persist(first, count, tags, value, then, repair, OwnCopy(rid))


def load(rid: int = RID, first: int = 0, count: int = 1, *, values: bool = False, epoch: int = 0) -> Load:
    return Load(ReadProc(RANK, rid, first, count, values, epoch=epoch), None, epoch)


def ok(command: Command, *, tags: bytes = b"", value: bytes = b"") -> Reply:
    response = Response(Status.OK, command.kind, command.request, tags, value, command.extended)
    return Reply(CLIENT, response, command)
