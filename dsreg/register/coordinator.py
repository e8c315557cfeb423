"""Coordinator: the operations that clients ask of this node, and the repairs of its own copy, each on a register.

An operation waits in the run queue while an earlier one has sectors of its run. Its register says what is to be done;
that becomes messages to all nodes, by stubborn links, and stores of this node's own copy.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from dsreg.constants import TAG_SIZE
from dsreg.protocol.messages import Ack, Command, CommandKind, ReadProc, Status, Value, WriteProc
from dsreg.protocol.tags import highest_epoch, highest_ts
from dsreg.register.acceptor import Acceptor
from dsreg.register.actions import Action, AskAll, Return, StoreAll, StoreOwn
from dsreg.register.effects import (
    Again,
    Connection,
    Durable,
    Effect,
    Load,
    NamedFor,
    OwnCopy,
    Persist,
    Renew,
    Reply,
    Reserve,
    StartExecution,
    StoreOwnCopy,
    Tell,
)
from dsreg.register.epochs import Epochs, Refuse, Wait
from dsreg.register.execution import Execution, new_execution, response_to, result_of
from dsreg.register.links import RegisterClient
from dsreg.register.now import Now
from dsreg.register.peers import Peers
from dsreg.register.quorum import Quorum
from dsreg.register.repairs import Refused, Repairs
from dsreg.register.run_queue import RunQueue
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.tag_view import TagView


class Coordinator:
    """Of the node `rank`; the parts are those of its replica. What a method leaves ready to start is started by
    `start_ready`, which is for the end of each event."""

    def __init__(
        self,
        rank: int,
        quorum: Quorum,
        storage: TagView,
        *,
        rids: Iterator[int], allocator: TagAllocator, links: RegisterClient, peers: Peers, epochs: Epochs,
        acceptor: Acceptor, repairs: Repairs, counters: Counter[str],
    ) -> None:
        self._rank = rank
        self._quorum = quorum
        self._storage = storage
        self._rids = rids
        self._tags = allocator
        self._links = links
        self._peers = peers
        self._epochs = epochs
        self._acceptor = acceptor  # for the own copy
        self._repairs = repairs
        self._counters = counters
        self._refused = Refused()
        self._queue: RunQueue[Execution] = RunQueue()
        self.unfinished = self._queue.__len__  # operations of clients that are under way or queued
        self._executions: dict[int, Execution] = {}  # by rid
        self._ready: deque[Execution] = deque()  # may start: what they waited for is complete

    # --- clients ----------------------------------------------------------------------------------
    def add(self, connection: Connection, command: Command) -> None:
        """A READ, WRITE, TAG or STORE."""
        execution = new_execution(command, connection, self._rank, self._quorum, self._rids)
        if self._queue.add(execution, command.first, command.count):
            self._ready.append(execution)

    def disconnected(self, connection: Connection) -> list[Command]:
        """Gives the commands that are given up: reads, and what was not begun."""
        given_up = [
            execution for execution in self._queue.items()
            if execution.connection is connection
            and (not execution.rid or execution.command.kind in (CommandKind.READ, CommandKind.TAG))
        ]
        for execution in given_up:
            self._forget(execution)
            self._ready.extend(self._queue.remove(execution))
        kept = [execution for execution in self._ready if execution not in given_up]
        self._ready.clear()
        self._ready.extend(kept)
        return [execution.command for execution in given_up]

    def give_up(self) -> list[tuple[Connection, Command]]:
        """Everything, in a node that will never serve: as long as it has not begun to, nothing is stored. Gives what
        clients have asked."""
        given_up = [*self._queue.items(), *(each for each in self._executions.values() if each.connection is None)]
        for execution in given_up:
            self._forget(execution)
            if execution.connection is None:
                self._repairs.end(execution.command.first)
            else:
                self._queue.remove(execution)
        self._ready.clear()
        return [(each.connection, each.command) for each in given_up if each.connection is not None]

    def start_ready(self, effects: list[Effect], now: Now) -> list[Effect]:
        """Start what may start; a loop, as starting one can complete it and free the next."""
        ready, wanted = self._ready, self._repairs.wanted
        while ready or wanted:
            while wanted:  # not queued: see Repairs
                self._counters["repairs"] += 1
                read = Command.read(0, wanted.popleft())
                ready.append(new_execution(read, None, self._rank, self._quorum, self._rids))
            effects += self._start(ready.popleft(), now)
        return effects

    def start_again(self, start: StartExecution) -> None:
        """The promise for which this waited is durable."""
        execution = start.execution
        if isinstance(execution, Execution) and execution in self._queue:  # else its client has left
            self._ready.append(execution)

    # --- what has happened to an operation, by its rid --------------------------------------------
    def is_under_way(self, rid: int) -> bool:
        return rid in self._executions

    def discount(self, rank: int) -> None:
        """What that node has answered to operations under way does not count any more: see dsreg.register.lives."""
        for execution in self._executions.values():
            execution.register.discount(rank)
        self._links.discount(rank)

    def reconfigured(self, quorum: Quorum, now: Now) -> list[Effect]:
        """`quorum` decides from now on: see AtomicRegister.reconfigured."""
        self._quorum = quorum
        effects: list[Effect] = []
        under_way = list(self._executions.values())
        waiting = [each for each in (*self._queue.items(), *self._ready) if not each.rid]
        for execution in (*under_way, *waiting):
            effects += self._advance(execution, execution.register.reconfigured(quorum), now)
        return effects

    def _start(self, execution: Execution, now: Now) -> list[Effect]:
        command = execution.command
        epoch = highest_epoch(command.tags) if command.tags else command.epoch
        verdict = self._epochs.before(command, epoch, execution.connection, StartExecution(execution))
        if isinstance(verdict, Wait):
            return [verdict.promise]
        if isinstance(verdict, Refuse):
            self._ready.extend(self._queue.remove(execution))
            return [verdict.reply]
        execution.register.epoch = self._epochs.durable
        if command.alone:
            return self._name_alone(execution)
        return self._advance(execution, execution.start(self._tags), now)

    def _name_alone(self, execution: Execution) -> list[Effect]:
        """A tag above the own copy, for a client that asks a majority itself. In its turn among the operations on these
        sectors: a WRITE under way may be about to choose this very tag, and its own copy is to be seen first."""
        command = execution.command
        if self._storage.unknown(command.first, command.count):
            self._repairs.want(command.first, command.count)
            return self._end(execution, Status.REFUSED)
        return self._complete(execution, Return(self._storage.tags(command.first, command.count), b""))

    def outdated(self, rid: int, epoch: int, now: Now) -> list[Effect]:
        """The operation has met a newer epoch: one of an attachment is fenced, any other goes on under it."""
        execution = self._executions.get(rid)
        if execution is None or epoch <= execution.register.epoch or not self._epochs.believes(epoch, now):
            return []
        if execution.command.epoch:
            return self._end(execution, Status.FENCED, epoch)
        return [self._epochs.fence(max(epoch, self._epochs.promised), Again(Renew(rid)))]

    def _end(self, execution: Execution, status: Status, epoch: int = 0) -> list[Effect]:
        """It cannot go on. `epoch`: see Epochs.refusal."""
        self._forget(execution)
        self._ready.extend(self._queue.remove(execution))
        return [Reply(execution.connection, self._epochs.refusal(execution.command, status, epoch), execution.command)]

    def renew(self, rid: int, now: Now) -> list[Effect]:
        """A newer epoch is in force: see AtomicRegister.renew."""
        if (execution := self._executions.get(rid)) is None or self._epochs.durable <= execution.register.epoch:
            return []
        self._counters["renewed"] += 1
        return self._advance(execution, execution.register.renew(self._epochs.durable), now)

    def _advance(self, execution: Execution, steps: list[Action], now: Now) -> list[Effect]:
        """Translate what the register wants into effects of this node."""
        effects: list[Effect] = []
        for step in steps:
            if isinstance(step, (AskAll, StoreAll)):
                effects += self._tell_all(execution, step, now)
            elif isinstance(step, StoreOwn):
                effects += self._persist_own(execution, step, now)
            else:
                effects += self._complete(execution, step)
        return effects

    def _tell_all(self, execution: Execution, step: AskAll | StoreAll, now: Now) -> list[Effect]:
        self._follow(execution, step.rid)
        first, count, epoch = execution.command.first, execution.command.count, execution.register.epoch
        if isinstance(step, AskAll):
            question = ReadProc(self._rank, step.rid, first, count, step.values, epoch=epoch)
            return self.outgoing(self._links.broadcast(question, now.s), now)
        order = WriteProc(self._rank, step.rid, first, count, step.tags, step.data)
        return self.outgoing(self._links.broadcast(order, now.s, but=self._rank), now)

    def _persist_own(self, execution: Execution, step: StoreOwn, now: Now) -> list[Effect]:
        self._follow(execution, step.rid)
        command = execution.command
        epoch = execution.register.epoch
        if epoch < self._epochs.promised:
            return self.outdated(step.rid, self._epochs.promised, now)
        self._epochs.accepted(step.tags)
        own = Durable(Ack(self._rank, step.rid, command.first, command.count))
        persist = Persist(command.first, command.count, step.tags, step.data, (own,), step.repair, OwnCopy(step.rid))
        promise = 0 if epoch else self._tags.choose(highest_ts(step.tags) if command.kind is CommandKind.WRITE else 0)
        # Not the store itself: a newer epoch may be promised before this promise is durable.
        return [Reserve(promise, (Again(StoreOwnCopy(step.rid)),)) if promise else persist]

    def store_own(self, rid: int, now: Now) -> list[Effect]:
        """Once more: see AtomicRegister.store_own."""
        execution = self._executions.get(rid)
        return self._advance(execution, execution.register.store_own(rid), now) if execution is not None else []

    def refused(self, rid: int, now: Now) -> list[Effect]:
        """Its own copy found no room here. A WRITE goes on under a tag that needs none: see AtomicRegister.renamed."""
        self._refused.add(rid, now.s)
        execution = self._executions.get(rid)
        if execution is None or (own := execution.register.recording) is None:
            return []
        if (epoch := highest_epoch(own.tags)) < self._epochs.promised:
            return self.outdated(rid, self._epochs.promised, now)
        tags, promise = self._tags.name(highest_ts(own.tags), len(own.tags) // TAG_SIZE, epoch)
        then = Durable(NamedFor(rid, tags))
        return [Reserve(promise, (then,)) if promise else then]

    def renamed(self, named: NamedFor, now: Now) -> list[Effect]:
        """The promise of these tags is durable."""
        execution = self._executions.get(named.rid)
        return self._advance(execution, execution.register.renamed(*named), now) if execution is not None else []

    def _follow(self, execution: Execution, rid: int) -> None:
        """The operation goes on under `rid`; answers to an earlier one no longer count."""
        if execution.rid != rid:
            self._forget(execution)
            execution.rid = rid
            self._executions[rid] = execution

    def _forget(self, execution: Execution) -> None:
        if self._executions.pop(execution.rid, None) is not None:
            self._links.cancel(execution.rid)
            self._peers.forget(execution.rid)

    def _complete(self, execution: Execution, result: Return) -> list[Effect]:
        self._forget(execution)
        command = execution.command
        if execution.connection is None:
            self._repairs.end(command.first)
            return []
        effects: list[Effect] = []
        if command.kind is CommandKind.TAG:
            tags, promise = self._tags.name(highest_ts(result.tags), command.count, execution.register.epoch)
            answer = Reply(execution.connection, response_to(command, Status.OK, tags=tags), command)
            effects = [Reserve(promise, (answer,)) if promise else answer]
        else:
            effects = [Reply(execution.connection, result_of(command, result), command)]
        self._counters[command.kind.name.lower()] += 1
        self._ready.extend(self._queue.remove(execution))
        return effects

    def answer(self, answer: Value | Ack, now: Now) -> list[Effect]:
        """A whole VALUE or ACK, from whichever node, for an operation of this node."""
        execution = self._executions.get(answer.rid)
        if execution is None:
            return []
        command, register = execution.command, execution.register
        if (answer.first, answer.count) != (command.first, command.count):
            self._counters["foreign_run"] += 1
            return []
        if isinstance(answer, Ack):
            if answer.overtaken and command.epoch and command.kind is CommandKind.STORE:
                return self._end(execution, Status.OVERTAKEN)
            self._links.answered(answer)
            return self._advance(execution, register.ack(answer.rank, answer.rid), now)
        if not self._acceptor.is_plausible_answer(answer, now):
            self._counters["implausible_tags"] += 1
            return []
        if answer.epoch != register.epoch:
            return self.outdated(answer.rid, answer.epoch, now)
        self._links.answered(answer)
        return self._advance(execution, register.value(answer.rank, answer.rid, answer.tags, answer.data), now)

    # --- this node's part in its own operations ---------------------------------------------------
    def _own_read_proc(self, message: ReadProc, now: Now) -> list[Effect]:
        own = self._acceptor.own_read_proc(message, self._executions[message.rid].register.wants_own_values)
        if own is None:
            return self.own_absent(message.rid, now)
        return [own] if isinstance(own, Load) else self.answer(own, now)

    def own_absent(self, rid: int, now: Now) -> list[Effect]:
        """This node's own copy of the run is damaged, or not known yet. That is no answer; but the tag of a write goes
        above what it has, which may be of this node's own choice."""
        if (execution := self._executions.get(rid)) is None:
            return []
        first, count = execution.command.first, execution.command.count
        if self._storage.unknown(first, count):
            self._tags.forget()
        floor = max(self._tags.last, highest_ts(self._storage.latest_tags(first, count)))
        return self._advance(execution, execution.register.own_absent(rid, floor), now)

    # --- links ------------------------------------------------------------------------------------
    def outgoing(self, sends: list[Tell], now: Now, *, again: bool = False) -> list[Effect]:
        """What the links want sent; to this node itself by direct call."""
        effects: list[Effect] = []
        effects += self._peers.translated(sends, self._epochs.promised, now.s, again=again)
        for send in sends:
            if send.rank == self._rank and isinstance(send.message, ReadProc):  # its WRITE_PROC to itself is a Persist
                effects += self._own_read_proc(send.message, now)
        return effects

    # --- time -------------------------------------------------------------------------------------
    def tick(self, now: Now) -> list[Effect]:
        """What is due by `now.s`."""
        effects: list[Effect] = []
        for rid in self._refused.due(now.s):
            effects += self.store_own(rid, now)
        return effects

    def next_due(self) -> float | None:
        return self._refused.next_due()
