"""Replica: a node of the register; which command or message is for which of its parts. Events in, effects out, no I/O.

    Coordinator    what clients ask of this node: operations, each with all nodes
    Acceptor       this node's own copy: what nodes, and clients that count the majority themselves, ask of it
    Attaching      who has attached the disk

Messages to itself are direct calls. The effects and their ordering contract are described in `dsreg.register.effects`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dsreg.protocol.messages import (
    Ack,
    Buffer,
    Command,
    CommandKind,
    Fenced,
    PeerMessage,
    ReadProc,
    Receipt,
    Status,
    Value,
    WriteProc,
    is_of_contract,
)
from dsreg.protocol.tags import highest_epoch
from dsreg.register.acceptor import Acceptor
from dsreg.register.attaching import Attaching
from dsreg.register.contract import Uuids
from dsreg.register.coordinator import Coordinator
from dsreg.register.effects import (
    Again,
    Connection,
    Effect,
    Load,
    NamedFor,
    OwnCopy,
    Persist,
    Renew,
    RepeatKey,
    Reply,
    StoreOwnCopy,
)
from dsreg.register.epochs import Epochs
from dsreg.register.execution import response_to
from dsreg.register.links import RegisterClient
from dsreg.register.now import Now
from dsreg.register.peers import Peers
from dsreg.register.quorum import Quorum, bit
from dsreg.register.repairs import Repairs
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.tag_view import TagView

_OWN_COPY = (CommandKind.GET, CommandKind.PUT, CommandKind.ZERO, CommandKind.MAP)
_WRITES = (CommandKind.WRITE, CommandKind.STORE)
_ATTACH = CommandKind.ATTACH  # each command needs it: see dsreg.protocol.messages


class Replica:
    """The node `rank`. `quorum`: of all nodes, this one among them. `rids`: never used before. `uuids`: ids for
    contract messages.

    `started_s`: when this node began to serve, on the clock of `now.s`. `allocator`: see there.
    """

    def __init__(
        self,
        rank: int,
        quorum: Quorum,
        storage: TagView,
        *,
        rids: Iterator[int], uuids: Uuids, allocator: TagAllocator, links: RegisterClient,
        started_s: float = float("-inf"),
    ) -> None:
        self.rank = rank
        self.counters: Counter[str] = Counter()
        self.epochs = Epochs(storage, started_s)
        self.allocator = allocator
        self.plain_write_s: float | None = None  # the last write of a client beside one that has attached the disk
        self._storage = storage
        self._uuids = uuids
        self._links = links
        self._peers = Peers(rank, uuids, links.intervals)
        self.repairs = Repairs(storage)
        self._acceptor = Acceptor(rank, storage, self.epochs, uuids, self.repairs, self.counters)
        self._attaching = Attaching(rank, quorum, self.epochs, self._peers, links, rids)
        self._coordinator = Coordinator(
            rank, quorum, storage, rids=rids, allocator=allocator, links=links, peers=self._peers, epochs=self.epochs,
            acceptor=self._acceptor, repairs=self.repairs, counters=self.counters,
        )
        self.link_down = self._peers.link_down
        self.unfinished = self._coordinator.unfinished
        self.discount = self._coordinator.discount

    # --- clients ----------------------------------------------------------------------------------
    def command(self, connection: Connection, command: Command, now: Now) -> list[Effect]:
        """A good command (index, tags and HMAC checked). It is answered when it is complete."""
        if command.tags and not self._acceptor.is_plausible(command.first, command.count, command.tags, now):
            self.counters["implausible_tags"] += 1
            return [Reply(connection, response_to(command, Status.DISBELIEVED), command)]
        if command.kind is _ATTACH:
            return self._attaching.command(connection, command, now)
        if command.kind in _OWN_COPY:
            return self._coordinator.start_ready(self._acceptor.command(connection, command), now)
        if not command.epoch and command.kind in _WRITES and self.epochs.is_owner_connected:
            self.plain_write_s = now.s
        self._coordinator.add(connection, command)
        return self._coordinator.start_ready([], now)

    def disconnected(self, connection: Connection, now: Now) -> tuple[list[Command], list[Effect]]:
        """Nobody waits for this connection's commands any more. Gives those given up: reads, and what was not begun."""
        given_up = self._attaching.disconnected(connection) + self._coordinator.disconnected(connection)
        return given_up, self._coordinator.start_ready([], now)

    def give_up(self) -> list[tuple[Connection, Command]]:
        """See Coordinator.give_up."""
        return self._coordinator.give_up()

    def is_under_way(self, rid: int) -> bool:
        """Whether an answer to `rid` still means something."""
        return self._coordinator.is_under_way(rid) or self._attaching.is_asking(rid)

    def repair(self, sectors: Iterable[int], now: Now) -> list[Effect]:
        """These are lost here: read them from a majority of the others, by any version of the protocol."""
        for sector in sectors:
            self.repairs.want(sector, 1)
        return self._coordinator.start_ready([], now)

    # --- peers ------------------------------------------------------------------------------------
    def message(self, origin: Connection | None, message: PeerMessage | Receipt, now: Now) -> list[Effect]:
        """A message from another node. `origin`: the connection on which to answer an extension message."""
        if message.rank == self.rank:
            self.counters["own_rank_from_outside"] += 1
            return []
        if isinstance(message, Receipt) or is_of_contract(message):
            self._peers.heard(message.rank)
        if isinstance(message, Receipt):
            if (question := self._uuids.question_of(message.uuid)) is not None:
                asked, rid, offset = question
                self._links.receipt(asked, rid, message.rank)
                self._peers.receipt(message.rank, asked, rid, offset)
            return []
        effects: list[Effect] = []
        if isinstance(message, ReadProc):
            effects = self._acceptor.read_proc(origin, message, now)
        elif isinstance(message, WriteProc):
            effects = self._acceptor.write_proc(origin, message, now)
        elif isinstance(message, Fenced):
            effects = self._coordinator.outdated(message.rid, message.epoch, now)
        else:
            effects += self._peers.receipts_for(message, now.s)
            if (whole := self._peers.join(message, now.s)) is not None:
                effects += self._answer(whole, now)
        return self._coordinator.start_ready(effects, now)

    def link_up(self, rank: int, extended: bool, now: Now) -> list[Effect]:
        """The link to `rank` is connected, and speaks the extension or only the contract."""
        self._peers.link_up(rank, extended)
        return self._coordinator.start_ready(self._coordinator.outgoing(self._links.link_up(rank, now.s), now), now)

    def reconfigured(self, quorum: Quorum, now: Now) -> list[Effect]:
        """`quorum` decides from now on, and its members are all nodes: docs/configurations.md. The caller sees to it
        that no answer of a node that knows another configuration is handed in. Also a node that is no member any more
        completes what it has begun."""
        self._links.reconfigured(quorum.members | bit(self.rank))
        effects = self._attaching.reconfigured(quorum, now)
        return self._coordinator.start_ready(effects + self._coordinator.reconfigured(quorum, now), now)

    def again(self, again: Again, now: Now) -> list[Effect]:
        """The promise for which this waited is durable."""
        what, connection = again
        if isinstance(what, Command):
            assert connection is not None
            if what.kind is CommandKind.ATTACH:
                return self.epochs.attached(connection, what, now)
            return self._coordinator.start_ready(self._acceptor.command(connection, what), now)
        if isinstance(what, (ReadProc, WriteProc)):
            return self.message(connection, what, now)
        effects: list[Effect] = []
        if isinstance(what, Renew):
            effects = self._coordinator.renew(what.rid, now)
        elif isinstance(what, StoreOwnCopy):
            effects = self._coordinator.store_own(what.rid, now)
        else:
            self._coordinator.start_again(what)
        return self._coordinator.start_ready(effects, now)

    # --- what the world did -----------------------------------------------------------------------
    def loaded(self, load: Load, tags: bytes, data: Buffer, damaged: bool, now: Now) -> list[Effect]:
        """The outcome of a Load: this node's durable copy of the run. `damaged`: some of it is not there."""
        question = load.question
        # It may have been read when a newer epoch than at the beginning was in force already, and then wholly so.
        if load.epoch < (epoch := highest_epoch(tags)):
            load = load._replace(epoch=epoch)
        if isinstance(question, Command) or question.rank != self.rank:
            effects = self._acceptor.loaded(load, tags, data, damaged)
        elif damaged:
            effects = self._coordinator.own_absent(question.rid, now)
        else:
            own = Value(self.rank, question.rid, question.first, question.count, tags, data, epoch=load.epoch)
            effects = self._coordinator.answer(own, now)
        return self._coordinator.start_ready(effects, now)

    def durable(self, what: Ack | RepeatKey | NamedFor, now: Now) -> list[Effect]:
        """What Durable(what) belongs to is on stable storage."""
        if isinstance(what, Ack):
            return self._coordinator.start_ready(self._coordinator.answer(what, now), now)
        if isinstance(what, NamedFor):
            return self._coordinator.renamed(what, now)
        self._acceptor.durable(what)
        return []

    def refused(self, persist: Persist, now: Now, no_space: bool = False) -> list[Effect]:
        """`persist` was not done, for want of room (`no_space`), or because this node's copy must be repaired first."""
        self.counters["refused"] += 1
        if isinstance(persist.origin, OwnCopy):
            effects = self._coordinator.refused(persist.origin.rid, now)
        else:
            effects = self._acceptor.refused(persist, no_space)
        if persist.data and self._storage.unknown(persist.first, persist.count):
            self.repairs.want(persist.first, persist.count)
        return self._coordinator.start_ready(effects, now)

    def tick(self, now: Now) -> list[Effect]:
        """What is due by `now.s`."""
        effects = self._coordinator.outgoing(self._links.resend(now.s), now, again=True)
        effects += self._peers.resend(self.epochs.promised, now.s)
        effects += self._coordinator.tick(now)
        return self._coordinator.start_ready(effects, now)

    def next_due(self) -> float | None:
        """When `tick` has something to do; None: not before something else happens."""
        due = (self._links.next_due(), self._peers.next_due(), self._coordinator.next_due())
        return min((at for at in due if at is not None), default=None)

    # --- parts ------------------------------------------------------------------------------------
    def _answer(self, answer: Value | Ack, now: Now) -> list[Effect]:
        """A whole VALUE or ACK of another node: to whichever part has asked."""
        if isinstance(answer, Value) and self._attaching.is_asking(answer.rid):
            return self._attaching.told(answer, now)
        return self._coordinator.answer(answer, now)
