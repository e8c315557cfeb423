"""Replica: which register, which operation, which queue. Events in, effects out, no I/O.

It runs the operations that clients ask of this node, and plays this node's part (READ_PROC,
WRITE_PROC) in everybody's operations, its own included. Messages to itself are direct calls.
The effects and their ordering contract are described in `dsreg.core.effects`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from dsreg.constants import TAG_SIZE
from dsreg.core import register as reg
from dsreg.core.belief import is_believed
from dsreg.core.contract import ContractPeer, Uuids
from dsreg.core.effects import Answer, Connection, Durable, Effect, Load, NamedFor, Persist, RepeatKey, Reserve, Send
from dsreg.core.links import RegisterClient
from dsreg.core.messages import (
    Ack,
    Buffer,
    Command,
    CommandKind,
    PeerMessage,
    ReadProc,
    Receipt,
    Status,
    Value,
    WriteProc,
)
from dsreg.core.naming import TagNamer
from dsreg.core.operation import Operation, begin, response_to
from dsreg.core.repeats import Repeats, Seen
from dsreg.core.runqueue import RunQueue
from dsreg.core.tags import highest_ts
from dsreg.core.view import TagView

# Damaged sectors being repaired at one time. The others wait for the next question about them.
MAX_REPAIRS = 64
# Seconds until this node tries again to store its own value for which it had no room.
REFUSED_RETRY_S = 1.0


class Replica:
    """The node `rank` among `ranks`.

    `rids`: read identifiers never used before. `uuids`: ids for contract messages. `namer`: see there.
    `now` in the methods is in seconds on any clock that does not go backwards. `unix_time` gives seconds since
    1970; it may be wrong, and jump.
    """

    def __init__(
        self,
        rank: int,
        ranks: tuple[int, ...],
        storage: TagView,
        *,
        rids: Iterator[int],
        uuids: Uuids,
        namer: TagNamer,
        links: RegisterClient,
        unix_time: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.counters: Counter[str] = Counter()
        self.unix_time = unix_time
        self._storage = storage
        self._rids = rids
        self._uuids = uuids
        self._namer = namer
        self._links = links
        self._queue: RunQueue[Operation] = RunQueue()
        self._operations: dict[int, Operation] = {}  # by rid
        self._ready: deque[Operation] = deque()  # may start: what they waited for is complete
        self._repeats = Repeats()
        self._contract_peers: dict[int, ContractPeer] = {}
        self._repairing: set[int] = set()
        self._refused: deque[tuple[float, int]] = deque()  # (retry at, rid), ascending

    # --- clients ----------------------------------------------------------------------------------
    def command(self, connection: Connection, command: Command, now: float) -> list[Effect]:
        """A good command (index, tags and HMAC checked). It is answered when it is complete."""
        if command.kind is CommandKind.STORE and not self._honest(command.first, command.count, command.tags):
            self.counters["dishonest_tags"] += 1
            return [Answer(connection, response_to(command, Status.INVALID_SECTOR_INDEX), command)]
        operation = begin(command, connection, self.rank, len(self.ranks), self._rids)
        if self._queue.add(operation, command.first, command.count):
            self._ready.append(operation)
        return self._run_ready([], now)

    def disconnected(self, connection: Connection, now: float) -> tuple[list[Command], list[Effect]]:
        """Nobody waits for this connection's commands any more. Gives those given up: reads, and what was not begun."""
        given_up = [
            operation for operation in self._queue.items()
            if operation.connection is connection
            and (not operation.rid or operation.command.kind in (CommandKind.READ, CommandKind.TAG))
        ]
        for operation in given_up:
            self._forget(operation)
            self._ready.extend(self._queue.remove(operation))
        self._ready = deque(operation for operation in self._ready if operation not in given_up)
        return [operation.command for operation in given_up], self._run_ready([], now)

    def unfinished(self) -> int:
        """Operations of clients that are under way or queued."""
        return len(self._queue)

    def is_under_way(self, rid: int) -> bool:
        """Whether an answer to `rid` still means something."""
        return rid in self._operations

    # --- peers ------------------------------------------------------------------------------------
    def message(self, origin: Connection | None, message: PeerMessage | Receipt, now: float) -> list[Effect]:
        """A message from another node. `origin`: the connection on which to answer an extension message."""
        if message.rank == self.rank:
            self.counters["own_rank_from_outside"] += 1
            return []
        if isinstance(message, Receipt):
            question = self._uuids.question_of(message.uuid)
            if question is not None:
                self._links.receipt(*question, message.rank)
            return []
        if isinstance(message, ReadProc):
            return self._run_ready(self._read_proc(origin, message), now)
        if isinstance(message, WriteProc):
            return self._write_proc(origin, message)
        effects: list[Effect] = []
        if message.uuid:
            kind = 4 if isinstance(message, Value) else 6
            effects.append(Send(message.rank, Receipt(self.rank, kind, message.uuid)))
        whole = self._join(message)
        if whole is not None:
            effects += self._answer_from(whole, now)
        return self._run_ready(effects, now)

    def link_up(self, rank: int, extended: bool, now: float) -> list[Effect]:
        """The link to `rank` is connected, and speaks the extension or only the contract."""
        if extended:
            self._contract_peers.pop(rank, None)
        else:
            self._contract_peers.setdefault(rank, ContractPeer(self._uuids))
        return self._run_ready(self._outgoing(self._links.link_up(rank), now), now)

    # --- what the world did -----------------------------------------------------------------------
    def loaded(self, load: Load, tags: bytes, data: Buffer, damaged: bool, now: float) -> list[Effect]:
        """The outcome of a Load: this node's durable copy of the run. `damaged`: some of it is not there."""
        question = load.question
        effects: list[Effect] = []
        if question.rank != self.rank:
            if damaged:
                self._repair(question.first, question.count)
            else:
                effects.append(self._reply(load.origin, question, tags, data))
        elif damaged:
            effects = self._own_absent(question.rid, now)
        else:
            own = Value(self.rank, question.rid, question.first, question.count, tags, data)
            effects = self._answer_from(own, now)
        return self._run_ready(effects, now)

    def durable(self, what: Ack | RepeatKey | NamedFor, now: float) -> list[Effect]:
        """What Durable(what) belongs to is on stable storage."""
        if isinstance(what, Ack):
            return self._run_ready(self._answer_from(what, now), now)
        if isinstance(what, NamedFor):
            operation = self._operations.get(what.rid)
            return self._advance(operation, operation.register.renamed(*what), now) if operation else []
        self._repeats.done(what)
        return []

    def refused(self, persist: Persist, now: float) -> list[Effect]:
        """`persist` was not done, for want of room, or because this node's copy must be repaired first."""
        self.counters["refused"] += 1
        effects: list[Effect] = []
        if isinstance(persist.owner, RepeatKey):
            self._repeats.forget(persist.owner)
        elif persist.owner is not None:
            self._refused.append((now + REFUSED_RETRY_S, persist.owner))
            effects = self._promise_instead(persist.owner)
        if self._storage.unknown(persist.first, persist.count):
            self._repair(persist.first, persist.count)
        return self._run_ready(effects, now)

    def tick(self, now: float) -> list[Effect]:
        """What is due by `now`."""
        effects: list[Effect] = []
        while self._refused and self._refused[0][0] <= now:
            _, rid = self._refused.popleft()
            operation = self._operations.get(rid)
            if operation is not None:
                effects += self._advance(operation, operation.register.refused(rid), now)
        effects += self._outgoing(self._links.resend(now), now)
        return self._run_ready(effects, now)

    def next_due(self) -> float | None:
        """When `tick` has something to do; None: not before something else happens."""
        due = self._links.next_due()
        if self._refused:
            due = self._refused[0][0] if due is None else min(due, self._refused[0][0])
        return due

    # --- operations -------------------------------------------------------------------------------
    def _run_ready(self, effects: list[Effect], now: float) -> list[Effect]:
        """Start what may start; a loop, as starting one can complete it and free the next."""
        while self._ready:
            effects += self._start(self._ready.popleft(), now)
        return effects

    def _start(self, operation: Operation, now: float) -> list[Effect]:
        command, register = operation.command, operation.register
        match command.kind:
            case CommandKind.READ:
                effects = register.read()
            case CommandKind.WRITE:
                effects = register.write(command.data, self._namer.last)
            case CommandKind.TAG:
                effects = register.tag()
            case CommandKind.STORE:
                effects = register.store(command.tags, command.data)
        return self._advance(operation, effects, now)

    def _advance(self, operation: Operation, steps: list[reg.Effect], now: float) -> list[Effect]:
        """Translate what the register wants into effects of this node."""
        effects: list[Effect] = []
        for step in steps:
            if isinstance(step, reg.AskAll):
                effects += self._ask_all(operation, step, now)
            elif isinstance(step, reg.StoreAll):
                effects += self._store_all(operation, step, now)
            elif isinstance(step, reg.StoreOwn):
                effects.append(self._persist_own(operation, step))
            else:
                effects += self._complete(operation, step, now)
        return effects

    def _ask_all(self, operation: Operation, step: reg.AskAll, now: float) -> list[Effect]:
        self._follow(operation, step.rid)
        command = operation.command
        message = ReadProc(self.rank, step.rid, command.first, command.count, step.values)
        return self._outgoing(self._links.broadcast(message, now), now)

    def _store_all(self, operation: Operation, step: reg.StoreAll, now: float) -> list[Effect]:
        self._follow(operation, step.rid)
        command = operation.command
        message = WriteProc(self.rank, step.rid, command.first, command.count, step.tags, step.data)
        return self._outgoing(self._links.broadcast(message, now, but=self.rank), now)

    def _persist_own(self, operation: Operation, step: reg.StoreOwn) -> Effect:
        command = operation.command
        own = Durable(Ack(self.rank, step.rid, command.first, command.count))
        persist = Persist(command.first, command.count, step.tags, step.data, (own,), step.repair, step.rid)
        promise = self._namer.choose(highest_ts(step.tags) if command.kind is CommandKind.WRITE else 0)
        return Reserve(promise, (persist,)) if promise else persist

    def _promise_instead(self, rid: int) -> list[Effect]:
        """A WRITE that has no room here goes on under a tag that needs none: see AtomicRegister.renamed."""
        operation = self._operations.get(rid)
        own = operation.register.recording if operation is not None else None
        if own is None:
            return []
        tags, promise = self._namer.name(highest_ts(own.tags), len(own.tags) // TAG_SIZE)
        return [Reserve(promise, (Durable(NamedFor(rid, tags)),))]

    def _follow(self, operation: Operation, rid: int) -> None:
        """The operation goes on under `rid`; answers to an earlier one no longer count."""
        if operation.rid == rid:
            return
        self._forget(operation)
        operation.rid = rid
        self._operations[rid] = operation

    def _forget(self, operation: Operation) -> None:
        if self._operations.pop(operation.rid, None) is not None:
            self._links.cancel(operation.rid)
            for peer in self._contract_peers.values():
                peer.forget(operation.rid)

    def _complete(self, operation: Operation, result: reg.Return, now: float) -> list[Effect]:
        self._forget(operation)
        command = operation.command
        if operation.connection is None:
            self._repairing.discard(command.first)
            return []
        effects: list[Effect] = []
        if command.kind is CommandKind.TAG:
            tags, promise = self._namer.name(highest_ts(result.tags), command.count)
            answer = Answer(operation.connection, response_to(command, Status.OK, tags=tags), command)
            effects.append(Reserve(promise, (answer,)))
        else:
            data = result.data if command.kind is CommandKind.READ else b""
            effects.append(Answer(operation.connection, response_to(command, Status.OK, data=data), command))
        self.counters[command.kind.name.lower()] += 1
        self._ready.extend(self._queue.remove(operation))
        return effects

    def _answer_from(self, answer: Value | Ack, now: float) -> list[Effect]:
        """A whole VALUE or ACK, from whichever node, for an operation of this node."""
        operation = self._operations.get(answer.rid)
        if operation is None:
            return []
        command, register = operation.command, operation.register
        if (answer.first, answer.count) != (command.first, command.count):
            self.counters["foreign_run"] += 1
            return []
        if isinstance(answer, Ack):
            self._links.answered(answer)
            return self._advance(operation, register.ack(answer.rank, answer.rid), now)
        if not self._honest(answer.first, answer.count, answer.tags):
            self.counters["dishonest_tags"] += 1
            return []
        self._links.answered(answer)
        return self._advance(operation, register.value(answer.rank, answer.rid, answer.tags, answer.data), now)

    # --- this node's part in everybody's operations -----------------------------------------------
    def _read_proc(self, origin: Connection | None, question: ReadProc) -> list[Effect]:
        if question.values:
            return [Load(question, origin)]
        first, count = question.first, question.count
        if self._storage.unknown(first, count):
            self._repair(first, count)
            return []
        return [self._reply(origin, question, self._storage.tags(first, count), None)]

    def _write_proc(self, origin: Connection | None, message: WriteProc) -> list[Effect]:
        first, count = message.first, message.count
        if not self._honest(first, count, message.tags):
            self.counters["dishonest_tags"] += 1
            return []
        if not message.uuid:
            answer = Answer(origin, Ack(self.rank, message.rid, first, count))
            return [Persist(first, count, message.tags, message.data, (answer,))]
        ack = Send(message.rank, Ack(self.rank, message.rid, first, count, self._uuids.answer(Ack)))
        key = RepeatKey(message.rank, message.uuid, message.rid, first, message.tags)
        match self._repeats.see(key):
            case Seen.IN_PROGRESS:
                return []
            case Seen.DONE:
                return [ack]
            case Seen.NEW:
                return [Persist(first, count, message.tags, message.data, (Durable(key), ack), owner=key)]

    def _reply(self, origin: Connection | None, question: ReadProc, tags: bytes, data: Buffer | None) -> Effect:
        value = Value(self.rank, question.rid, question.first, question.count, tags, data)
        if question.uuid:
            return Send(question.rank, value._replace(uuid=self._uuids.answer(Value)))
        return Answer(origin, value)

    def _own_read_proc(self, message: ReadProc, now: float) -> list[Effect]:
        """READ_PROC from this node to itself."""
        operation = self._operations[message.rid]
        if operation.command.kind is CommandKind.READ:
            return [Load(message)]
        if self._storage.unknown(message.first, message.count):
            return self._own_absent(message.rid, now)
        tags = self._storage.tags(message.first, message.count)
        return self._answer_from(Value(self.rank, message.rid, message.first, message.count, tags, None), now)

    def _own_absent(self, rid: int, now: float) -> list[Effect]:
        operation = self._operations.get(rid)
        if operation is not None and self._storage.unknown(operation.command.first, operation.command.count):
            self._namer.forget()
        return self._advance(operation, operation.register.own_absent(rid, self._namer.last), now) if operation else []

    def _repair(self, first: int, count: int) -> None:
        """Read the damaged sectors of a run through the register, which writes them back here as well.

        Not queued: a run that waits for another node's repair would hold up the repair for which that node's run
        waits. A read chooses no tag, so it may go beside whatever else is under way on its sector.
        """
        for sector in self._storage.missing(first, count):
            if sector not in self._repairing and len(self._repairing) < MAX_REPAIRS:
                self._repairing.add(sector)
                self.counters["repairs"] += 1
                read = Command(CommandKind.READ, 0, sector, 1)
                self._ready.append(begin(read, None, self.rank, len(self.ranks), self._rids))

    # --- links ------------------------------------------------------------------------------------
    def _outgoing(self, sends: list[Send], now: float) -> list[Effect]:
        """What the links want sent, in each peer's own language; to this node itself by direct call."""
        effects: list[Effect] = []
        own: list[ReadProc] = []
        for send in sends:
            peer = self._contract_peers.get(send.rank)
            if send.rank == self.rank:
                own.append(send.message)  # type: ignore[arg-type]  # its WRITE_PROC to itself is a Persist
            elif peer is None:
                effects.append(send)
            else:
                effects += [Send(send.rank, single) for single in peer.split(send.message)]  # type: ignore[arg-type]
        for question in own:
            effects += self._own_read_proc(question, now)
        return effects

    def _join(self, answer: Value | Ack) -> Value | Ack | None:
        peer = self._contract_peers.get(answer.rank)
        return answer if peer is None or not answer.uuid else peer.join(answer)

    def _honest(self, first: int, count: int, tags: bytes) -> bool:
        return is_believed(tags, self.unix_time()) or tags == self._storage.tags(first, count)
