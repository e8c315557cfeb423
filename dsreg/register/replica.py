"""Replica: which register, which operation, which queue. Events in, effects out, no I/O.

It runs the operations that clients ask of this node; its part in everybody's operations is the Acceptor's. Messages
to itself are direct calls. The effects and their ordering contract are described in `dsreg.register.effects`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from dsreg.constants import TAG_SIZE
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
)
from dsreg.protocol.tags import highest_epoch, highest_ts
from dsreg.register import actions as reg
from dsreg.register.acceptor import Acceptor
from dsreg.register.attaching import Attaching
from dsreg.register.contract import Uuids
from dsreg.register.effects import (
    Again,
    Answer,
    Connection,
    Durable,
    Effect,
    Load,
    NamedFor,
    Persist,
    Renew,
    RepeatKey,
    Reserve,
    Send,
    Start,
    StoreOwn,
)
from dsreg.register.epochs import Epochs
from dsreg.register.links import RegisterClient
from dsreg.register.operation import Operation, begin, response_to, result_of
from dsreg.register.peers import Peers
from dsreg.register.quorum import Quorum
from dsreg.register.repairs import Refused, Repairs
from dsreg.register.run_queue import RunQueue
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.tag_view import TagView


class Replica:
    """The node `rank`. `quorum`: of all nodes, this one among them. `rids`: never used before. `uuids`: ids for
    contract messages.

    `now`: seconds on any clock that does not go backwards. `unix_time`: seconds since 1970; it may be wrong, and jump.
    `started_s`: when this node began to serve, on the clock of `now`. `allocator`: see there.
    """

    def __init__(
        self,
        rank: int,
        quorum: Quorum,
        storage: TagView,
        *,
        rids: Iterator[int], uuids: Uuids, allocator: TagAllocator, links: RegisterClient,
        unix_time: Callable[[], float] = lambda: 0.0,
        started_s: float = float("-inf"),
    ) -> None:
        self.rank = rank
        self._quorum = quorum
        self.counters: Counter[str] = Counter()
        self.epochs = Epochs(storage, unix_time, started_s)
        self._acceptor = Acceptor(rank, storage, self.epochs, uuids, self._repair, self.counters, unix_time)
        self._storage = storage
        self._rids = rids
        self._uuids = uuids
        self._tags = allocator
        self._links = links
        self._queue: RunQueue[Operation] = RunQueue()
        self.unfinished = self._queue.__len__  # operations of clients that are under way or queued
        self._operations: dict[int, Operation] = {}  # by rid
        self._ready: deque[Operation] = deque()  # may start: what they waited for is complete
        self._peers = Peers(rank, uuids, links.intervals)
        self.link_down = self._peers.link_down
        self._attaching = Attaching(rank, quorum, self.epochs, self._peers, links, rids)
        self._repairs = Repairs(storage)
        self._refused = Refused()

    # --- clients ----------------------------------------------------------------------------------
    def command(self, connection: Connection, command: Command, now: float) -> list[Effect]:
        """A good command (index, tags and HMAC checked). It is answered when it is complete."""
        if command.tags and not self._acceptor.is_plausible(command.first, command.count, command.tags):
            self.counters["implausible_tags"] += 1
            return [Answer(connection, response_to(command, Status.DISBELIEVED), command)]
        if command.kind is CommandKind.ATTACH:
            return self._attaching.command(connection, command, now)
        if command.kind in (CommandKind.GET, CommandKind.PUT):
            return self._run_ready(self._acceptor.command(connection, command), now)
        operation = begin(command, connection, self.rank, self._quorum, self._rids)
        if self._queue.add(operation, command.first, command.count):
            self._ready.append(operation)
        return self._run_ready([], now)

    def disconnected(self, connection: Connection, now: float) -> tuple[list[Command], list[Effect]]:
        """Nobody waits for this connection's commands any more. Gives those given up: reads, and what was not begun."""
        claims = self._attaching.disconnected(connection)
        given_up = [
            operation for operation in self._queue.items()
            if operation.connection is connection
            and (not operation.rid or operation.command.kind in (CommandKind.READ, CommandKind.TAG))
        ]
        for operation in given_up:
            self._forget(operation)
            self._ready.extend(self._queue.remove(operation))
        self._ready = deque(operation for operation in self._ready if operation not in given_up)
        return claims + [operation.command for operation in given_up], self._run_ready([], now)

    def is_under_way(self, rid: int) -> bool:
        """Whether an answer to `rid` still means something."""
        return rid in self._operations or self._attaching.is_asking(rid)

    # --- peers ------------------------------------------------------------------------------------
    def message(self, origin: Connection | None, message: PeerMessage | Receipt, now: float) -> list[Effect]:
        """A message from another node. `origin`: the connection on which to answer an extension message."""
        if message.rank == self.rank:
            self.counters["own_rank_from_outside"] += 1
            return []
        if message.uuid:
            self._peers.heard(message.rank)
        if isinstance(message, Receipt):
            if (question := self._uuids.question_of(message.uuid)) is not None:
                asked, rid, offset = question
                self._links.receipt(asked, rid, message.rank)
                self._peers.receipt(message.rank, asked, rid, offset)
            return []
        effects: list[Effect] = []
        if isinstance(message, ReadProc):
            effects = self._acceptor.read_proc(origin, message)
        elif isinstance(message, WriteProc):
            effects = self._acceptor.write_proc(origin, message)
        elif isinstance(message, Fenced):
            effects = self._outdated(message.rid, message.epoch)
        else:
            effects += self._peers.receipts_for(message, now)
            if (whole := self._peers.join(message, now)) is not None:
                effects += self._answer_from(whole, now)
        return self._run_ready(effects, now)

    def link_up(self, rank: int, extended: bool, now: float) -> list[Effect]:
        """The link to `rank` is connected, and speaks the extension or only the contract."""
        self._peers.link_up(rank, extended)
        return self._run_ready(self._outgoing(self._links.link_up(rank, now), now), now)

    def discount(self, rank: int) -> None:
        """What that node has answered to operations under way does not count any more: see dsreg.register.lives."""
        for operation in self._operations.values():
            operation.register.discount(rank)

    def again(self, again: Again, now: float) -> list[Effect]:
        """The promise for which this waited is durable."""
        what, connection = again
        if isinstance(what, Command):
            assert connection is not None
            if what.kind is CommandKind.ATTACH:
                return self.epochs.attached(connection, what)
            return self._run_ready(self._acceptor.command(connection, what), now)
        if isinstance(what, (ReadProc, WriteProc)):
            return self.message(connection, what, now)
        if isinstance(what, Renew):
            return self._renew(what.rid, now)
        if isinstance(what, StoreOwn):
            return self._store_own(what.rid, now)
        if isinstance(what.operation, Operation) and what.operation in self._queue:  # else its client has left
            self._ready.append(what.operation)
        return self._run_ready([], now)

    # --- what the world did -----------------------------------------------------------------------
    def loaded(self, load: Load, tags: bytes, data: Buffer, damaged: bool, now: float) -> list[Effect]:
        """The outcome of a Load: this node's durable copy of the run. `damaged`: some of it is not there."""
        question = load.question
        # It may have been read when a newer epoch than at the beginning was in force already, and then wholly so.
        if load.epoch < (epoch := highest_epoch(tags)):
            load = load._replace(epoch=epoch)
        if isinstance(question, Command) or question.rank != self.rank:
            effects = self._acceptor.loaded(load, tags, data, damaged)
        elif damaged:
            effects = self._own_absent(question.rid, now)
        else:
            own = Value(self.rank, question.rid, question.first, question.count, tags, data, epoch=load.epoch)
            effects = self._answer_from(own, now)
        return self._run_ready(effects, now)

    def durable(self, what: Ack | RepeatKey | NamedFor, now: float) -> list[Effect]:
        """What Durable(what) belongs to is on stable storage."""
        if isinstance(what, Ack):
            return self._run_ready(self._answer_from(what, now), now)
        if isinstance(what, NamedFor):
            operation = self._operations.get(what.rid)
            return self._advance(operation, operation.register.renamed(*what), now) if operation else []
        self._acceptor.durable(what)
        return []

    def refused(self, persist: Persist, now: float, no_space: bool = False) -> list[Effect]:
        """`persist` was not done, for want of room (`no_space`), or because this node's copy must be repaired first."""
        self.counters["refused"] += 1
        if isinstance(persist.owner, int):
            self._refused.add(persist.owner, now)
            effects = self._promise_instead(persist.owner)
        else:
            effects = self._acceptor.refused(persist, no_space)
        if self._storage.unknown(persist.first, persist.count):
            self._repair(persist.first, persist.count)
        return self._run_ready(effects, now)

    def tick(self, now: float) -> list[Effect]:
        """What is due by `now`."""
        effects = self._outgoing(self._links.resend(now), now, again=True)
        effects += self._peers.resend(self.epochs.promised, now)
        for rid in self._refused.due(now):
            effects += self._store_own(rid, now)
        return self._run_ready(effects, now)

    def next_due(self) -> float | None:
        """When `tick` has something to do; None: not before something else happens."""
        due = (self._links.next_due(), self._peers.next_due(), self._refused.next_due())
        return min((at for at in due if at is not None), default=None)

    # --- operations -------------------------------------------------------------------------------
    def _run_ready(self, effects: list[Effect], now: float) -> list[Effect]:
        """Start what may start; a loop, as starting one can complete it and free the next."""
        while self._ready:
            effects += self._start(self._ready.popleft(), now)
        return effects

    def _start(self, operation: Operation, now: float) -> list[Effect]:
        command = operation.command
        epoch = highest_epoch(command.tags) if command.tags else command.epoch
        first = self.epochs.before(command, epoch, operation.connection, Start(operation))
        if first is not None:
            self._ready.extend(self._queue.remove(operation) if isinstance(first[0], Answer) else ())
            return first
        operation.register.epoch = self.epochs.durable
        return self._advance(operation, operation.start(self._tags), now)

    def _outdated(self, rid: int, epoch: int) -> list[Effect]:
        """The operation has met a newer epoch: one of an attachment is fenced, any other goes on under it."""
        operation = self._operations.get(rid)
        if operation is None or epoch <= operation.register.epoch or not self.epochs.believes(epoch):
            return []
        if operation.command.epoch:
            return self._end(operation, Status.FENCED, epoch)
        return [self.epochs.fence(max(epoch, self.epochs.promised), Again(Renew(rid)))]

    def _end(self, operation: Operation, status: Status, epoch: int = 0) -> list[Effect]:
        """It cannot go on. `epoch`: see Epochs.refusal."""
        self._forget(operation)
        self._ready.extend(self._queue.remove(operation))
        return [Answer(operation.connection, self.epochs.refusal(operation.command, status, epoch), operation.command)]

    def _renew(self, rid: int, now: float) -> list[Effect]:
        if (operation := self._operations.get(rid)) is None or self.epochs.durable <= operation.register.epoch:
            return []
        self.counters["renewed"] += 1
        return self._run_ready(self._advance(operation, operation.register.renew(self.epochs.durable), now), now)

    def _advance(self, operation: Operation, steps: list[reg.Action], now: float) -> list[Effect]:
        """Translate what the register wants into effects of this node."""
        effects: list[Effect] = []
        for step in steps:
            if isinstance(step, (reg.AskAll, reg.StoreAll)):
                effects += self._tell_all(operation, step, now)
            elif isinstance(step, reg.StoreOwn):
                effects += self._persist_own(operation, step)
            else:
                effects += self._complete(operation, step, now)
        return effects

    def _tell_all(self, operation: Operation, step: reg.AskAll | reg.StoreAll, now: float) -> list[Effect]:
        self._follow(operation, step.rid)
        first, count, epoch = operation.command.first, operation.command.count, operation.register.epoch
        if isinstance(step, reg.AskAll):
            question = ReadProc(self.rank, step.rid, first, count, step.values, epoch=epoch)
            return self._outgoing(self._links.broadcast(question, now), now)
        order = WriteProc(self.rank, step.rid, first, count, step.tags, step.data)
        return self._outgoing(self._links.broadcast(order, now, but=self.rank), now)

    def _persist_own(self, operation: Operation, step: reg.StoreOwn) -> list[Effect]:
        self._follow(operation, step.rid)
        command = operation.command
        epoch = operation.register.epoch
        if epoch < self.epochs.promised:
            return self._outdated(step.rid, self.epochs.promised)
        self.epochs.accepted(step.tags)
        own = Durable(Ack(self.rank, step.rid, command.first, command.count))
        persist = Persist(command.first, command.count, step.tags, step.data, (own,), step.repair, step.rid)
        promise = 0 if epoch else self._tags.choose(highest_ts(step.tags) if command.kind is CommandKind.WRITE else 0)
        # Not the store itself: a newer epoch may be promised before this promise is durable.
        return [Reserve(promise, (Again(StoreOwn(step.rid)),)) if promise else persist]

    def _store_own(self, rid: int, now: float) -> list[Effect]:
        operation = self._operations.get(rid)
        return self._advance(operation, operation.register.store_own(rid), now) if operation is not None else []

    def _promise_instead(self, rid: int) -> list[Effect]:
        """A WRITE that has no room here goes on under a tag that needs none: see AtomicRegister.renamed."""
        operation = self._operations.get(rid)
        if operation is None or (own := operation.register.recording) is None:
            return []
        if (epoch := highest_epoch(own.tags)) < self.epochs.promised:
            return self._outdated(rid, self.epochs.promised)
        tags, promise = self._tags.name(highest_ts(own.tags), len(own.tags) // TAG_SIZE, epoch)
        then = Durable(NamedFor(rid, tags))
        return [Reserve(promise, (then,)) if promise else then]

    def _follow(self, operation: Operation, rid: int) -> None:
        """The operation goes on under `rid`; answers to an earlier one no longer count."""
        if operation.rid != rid:
            self._forget(operation)
            operation.rid = rid
            self._operations[rid] = operation

    def _forget(self, operation: Operation) -> None:
        if self._operations.pop(operation.rid, None) is not None:
            self._links.cancel(operation.rid)
            self._peers.forget(operation.rid)

    def _complete(self, operation: Operation, result: reg.Return, now: float) -> list[Effect]:
        self._forget(operation)
        command = operation.command
        if operation.connection is None:
            self._repairs.end(command.first)
            return []
        effects: list[Effect] = []
        if command.kind is CommandKind.TAG:
            tags, promise = self._tags.name(highest_ts(result.tags), command.count, operation.register.epoch)
            answer = Answer(operation.connection, response_to(command, Status.OK, tags=tags), command)
            effects = [Reserve(promise, (answer,)) if promise else answer]
        else:
            effects = [Answer(operation.connection, result_of(command, result), command)]
        self.counters[command.kind.name.lower()] += 1
        self._ready.extend(self._queue.remove(operation))
        return effects

    def _answer_from(self, answer: Value | Ack, now: float) -> list[Effect]:
        """A whole VALUE or ACK, from whichever node, for an operation of this node."""
        operation = self._operations.get(answer.rid)
        if operation is None:
            return self._attaching.told(answer, now) if isinstance(answer, Value) else []
        command, register = operation.command, operation.register
        if (answer.first, answer.count) != (command.first, command.count):
            self.counters["foreign_run"] += 1
            return []
        if isinstance(answer, Ack):
            if answer.overtaken and command.epoch and command.kind is CommandKind.STORE:
                return self._end(operation, Status.OVERTAKEN)
            self._links.answered(answer)
            return self._advance(operation, register.ack(answer.rank, answer.rid), now)
        if not self._acceptor.is_plausible_answer(answer):
            self.counters["implausible_tags"] += 1
            return []
        if answer.epoch != register.epoch:
            return self._outdated(answer.rid, answer.epoch)
        self._links.answered(answer)
        return self._advance(operation, register.value(answer.rank, answer.rid, answer.tags, answer.data), now)

    # --- this node's part in its own operations ---------------------------------------------------
    def _own_read_proc(self, message: ReadProc, now: float) -> list[Effect]:
        own = self._acceptor.own_read_proc(message, self._operations[message.rid].register.wants_own_values)
        if own is None:
            return self._own_absent(message.rid, now)
        return [own] if isinstance(own, Load) else self._answer_from(own, now)

    def _own_absent(self, rid: int, now: float) -> list[Effect]:
        operation = self._operations.get(rid)
        if operation is not None and self._storage.unknown(operation.command.first, operation.command.count):
            self._tags.forget()
        return self._advance(operation, operation.register.own_absent(rid, self._tags.last), now) if operation else []

    def _repair(self, first: int, count: int) -> None:
        """See to the damaged sectors of a run. Not queued: see Repairs."""
        for read in self._repairs.begin(first, count):
            self.counters["repairs"] += 1
            self._ready.append(begin(read, None, self.rank, self._quorum, self._rids))

    # --- links ------------------------------------------------------------------------------------
    def _outgoing(self, sends: list[Send], now: float, *, again: bool = False) -> list[Effect]:
        """What the links want sent; to this node itself by direct call."""
        effects: list[Effect] = []
        effects += self._peers.translated(sends, self.epochs.promised, now, again=again)
        for send in sends:
            if send.rank == self.rank and isinstance(send.message, ReadProc):  # its WRITE_PROC to itself is a Persist
                effects += self._own_read_proc(send.message, now)
        return effects
