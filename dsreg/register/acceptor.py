"""Acceptor: this node's own copy, and its part in all operations: it answers queries and stores what it is sent.

The questions and orders are the algorithm's READ_PROC and WRITE_PROC, from other nodes, and GET, PUT, ZERO and MAP, by
which a client that counts the majority itself asks the same. They are dealt with at once, beside whatever is queued for
the same sectors.
"""

from __future__ import annotations

from collections import Counter

from dsreg.constants import MAX_RUN_SECTORS, TAG_SIZE
from dsreg.protocol.extents import encode_extents
from dsreg.protocol.messages import (
    Ack,
    Buffer,
    Command,
    CommandKind,
    Fenced,
    ReadProc,
    Status,
    Value,
    WriteProc,
    is_of_contract,
)
from dsreg.protocol.plausibility import are_plausible
from dsreg.protocol.tags import ATTACHED, fit_contract, highest_epoch
from dsreg.register.contract import Uuids
from dsreg.register.effects import (
    Again,
    ClientOrder,
    Connection,
    Durable,
    Effect,
    Load,
    Persist,
    RepeatKey,
    Reply,
    Tell,
)
from dsreg.register.epochs import Epochs, Go, Wait
from dsreg.register.execution import response_to
from dsreg.register.now import Now
from dsreg.register.repairs import Repairs
from dsreg.register.repeats import Repeats, Seen
from dsreg.register.tag_view import TagView

# Members of enumerations that each command needs: see dsreg.protocol.messages.
_PUT, _ZERO, _MAP, _OK = CommandKind.PUT, CommandKind.ZERO, CommandKind.MAP, Status.OK


class Acceptor:
    """Of the node `rank`. `repairs`: what is to be repaired. `counters`: the replica's."""

    def __init__(
        self,
        rank: int,
        storage: TagView,
        epochs: Epochs,
        uuids: Uuids,
        repairs: Repairs,
        counters: Counter[str],
    ) -> None:
        self._rank = rank
        self._storage = storage
        self._epochs = epochs
        self._uuids = uuids
        self._repairs = repairs
        self._counters = counters
        self._repeats = Repeats()

    def is_plausible(self, first: int, count: int, tags: bytes, now: Now) -> bool:
        """Whether these tags are believed of the run; what is held already is."""
        if not self._epochs.believes(highest_epoch(tags), now):
            return False
        if are_plausible(tags, now.unix_s):
            return True
        return len(tags) == count * TAG_SIZE and tags == self._storage.tags(first, count)

    def is_plausible_answer(self, value: Value, now: Now) -> bool:
        """A tag of a newer epoch than the one in force where it comes from would lead to more that nobody believes."""
        if highest_epoch(value.tags) > value.epoch:
            return False
        return self.is_plausible(value.first, value.count, value.tags, now)

    # --- questions and orders of nodes --------------------------------------------------------------
    def read_proc(self, origin: Connection | None, question: ReadProc, now: Now) -> list[Effect]:
        epochs = self._epochs
        if epochs.promised and is_of_contract(question) or not epochs.believes(question.epoch, now):
            self._counters["dishonest_epoch"] += 1  # the contract knows no epochs
            return []
        if question.epoch > epochs.durable:
            return [epochs.fence(max(question.epoch, epochs.promised), Again(question, origin))]
        if question.values:
            return [Load(question, origin, epochs.durable)]
        first, count = question.first, question.count
        if self._storage.unknown(first, count):
            self._repairs.want(first, count)
            return []
        return [self._reply(origin, question, self._storage.tags(first, count), None, epochs.durable)]

    def write_proc(self, origin: Connection | None, message: WriteProc, now: Now) -> list[Effect]:
        first, count = message.first, message.count
        if not self.is_plausible(first, count, message.tags, now):
            self._counters["implausible_tags"] += 1
            return []
        if self._epochs.promised and is_of_contract(message):
            self._counters["dishonest_epoch"] += 1
            return []
        epoch = highest_epoch(message.tags)
        if epoch < self._epochs.promised:
            return [Reply(origin, Fenced(self._rank, message.rid, first, count, self._epochs.promised))]
        if epoch > self._epochs.durable:
            return [self._epochs.fence(epoch, Again(message, origin))]
        if not is_of_contract(message):
            overtaken = ATTACHED in message.tags[TAG_SIZE - 1::TAG_SIZE] and self._epochs.is_overtaken(message)
            answer = Reply(origin, Ack(self._rank, message.rid, first, count, overtaken=overtaken))
            self._epochs.accepted(message.tags)
            return [Persist(first, count, message.tags, message.data, (answer,))]
        ack = Tell(message.rank, Ack(self._rank, message.rid, first, count, self._uuids.answer(Ack)))
        key = RepeatKey(message.rank, message.uuid, message.rid, first, message.tags)
        match self._repeats.see(key):
            case Seen.IN_PROGRESS:
                return []
            case Seen.DONE:
                return [ack]
            case Seen.NEW:
                return [Persist(first, count, message.tags, message.data, (Durable(key), ack), origin=key)]

    def _reply(
        self, origin: Connection | None, question: ReadProc, tags: bytes, data: Buffer | None, epoch: int
    ) -> Effect:
        value = Value(self._rank, question.rid, question.first, question.count, tags, data, epoch=epoch)
        if is_of_contract(question):
            return Tell(question.rank, value._replace(uuid=self._uuids.answer(Value)))
        return Reply(origin, value)

    def own_read_proc(self, question: ReadProc, values: bool) -> Load | Value | None:
        """READ_PROC from this node to itself: the answer, or the way to it; None if the copy is damaged."""
        epoch = self._epochs.durable
        if values:
            return Load(question, None, epoch)
        first, count = question.first, question.count
        if self._storage.unknown(first, count):
            return None
        return Value(self._rank, question.rid, first, count, self._storage.tags(first, count), None, epoch=epoch)

    # --- and of clients -----------------------------------------------------------------------------
    def command(self, connection: Connection, command: Command) -> list[Effect]:
        """A GET or MAP, or a PUT or ZERO whose tags are plausible."""
        verdict = self._epochs.before(command, command.epoch, connection, command)
        if not isinstance(verdict, Go):
            return [verdict.promise if isinstance(verdict, Wait) else verdict.reply]
        if command.kind is _PUT or command.kind is _ZERO:
            status = Status.OVERTAKEN if self._epochs.is_overtaken(command) else _OK
            self._epochs.accepted(command.tags)
            answer = Reply(connection, response_to(command, status), command)
            origin = ClientOrder(connection, command)
            return [Persist(command.first, command.count, command.tags, command.data, (answer,), origin=origin)]
        epoch = self._epochs.durable
        if command.kind is _MAP:
            chunks = command.first // MAX_RUN_SECTORS, command.count // MAX_RUN_SECTORS
            content = encode_extents(self._storage.extents(*chunks))
            return [Reply(connection, response_to(command, _OK, b"", content, epoch), command)]
        if command.values:
            return [Load(command, connection, epoch)]
        if self._storage.unknown(command.first, command.count):
            return [self._refuse(connection, command)]
        tags = self._storage.tags(command.first, command.count)
        return [Reply(connection, response_to(command, _OK, tags, epoch=epoch), command)]

    def _refuse(self, connection: Connection | None, command: Command, status: Status = Status.REFUSED) -> Reply:
        if command.kind is not _ZERO:  # which is done without this node, and the damage is found without it
            self._repairs.want(command.first, command.count)
        return Reply(connection, self._epochs.refusal(command, status), command)

    # --- what became of them ------------------------------------------------------------------------
    def loaded(self, load: Load, tags: bytes, data: Buffer, damaged: bool) -> list[Effect]:
        """The outcome of a Load that was not for this node itself."""
        question, origin = load.question, load.origin
        if isinstance(question, Command):
            if damaged:
                return [self._refuse(origin, question)]
            return [Reply(origin, response_to(question, _OK, tags, data, load.epoch), question)]
        if damaged:
            self._repairs.want(question.first, question.count)
            return []
        if is_of_contract(question) and not fit_contract(tags):
            self._counters["beyond_contract"] += 1  # said before a node has rejoined: nobody waits for the answer
            return []
        return [self._reply(origin, question, tags, data, load.epoch)]

    def durable(self, key: RepeatKey) -> None:
        self._repeats.done(key)

    def refused(self, persist: Persist, no_space: bool) -> list[Effect]:
        """An order found no room, or this node's copy is damaged. A client is told which; a node asks again."""
        match persist.origin:
            case ClientOrder(connection, command):
                return [self._refuse(connection, command, Status.NO_SPACE if no_space else Status.REFUSED)]
            case RepeatKey() as key:
                self._repeats.forget(key)
        return []
