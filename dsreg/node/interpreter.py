"""The one interpreter of effects: carries out what the replica asks, and reports back to it.

Everything runs on trio's thread, without awaiting: one call of `carry_out` per event, one `end_turn` per wake-up. What
blocks (syncs, reads from a cold disk, checkpoints) is queued here and run in threads by the tasks of `dsreg.node.disk`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import trio

from dsreg.constants import MAX_QUEUED_ANSWERS, RESEND_FIRST_S
from dsreg.node.link_outbox import LinkOutbox
from dsreg.protocol.codec import Encodings
from dsreg.protocol.messages import (
    FEATURE_DIGESTS,
    Ack,
    Buffer,
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    HealMessage,
    Message,
    PeerMessage,
    Receipt,
    ScrubMessage,
    Sums,
    SumsQuery,
    Value,
    WriteProc,
    is_of_contract,
)
from dsreg.register.assembly import is_of_heal
from dsreg.register.claim import Adopted
from dsreg.register.effects import Adopt, Again, Durable, Effect, Fence, Load, Persist, Repair, Reply, Reserve, Tell
from dsreg.register.execution import size_of, uncounted
from dsreg.register.heal import Heal
from dsreg.register.held import Held
from dsreg.register.now import Now
from dsreg.register.replica import Replica
from dsreg.storage import Loaded, Refusal, StableStorage, Ticket
from dsreg.transport import Transport

# A client that comes, or comes back, may have written meanwhile what it could not deliver here; and what was refused
# here is elsewhere. Others will still be at it for a moment.
HEAL_AFTER_ATTACH_S = 1.0
HEAL_AFTER_REFUSAL_S = 5.0

# Members of enumerations that each command needs: see dsreg.protocol.messages.
_TAG, _GET, _ATTACH, _ZERO = CommandKind.TAG, CommandKind.GET, CommandKind.ATTACH, CommandKind.ZERO


class Connection:
    """An accepted connection, as the replica's answers find it. Counts the commands read from it and not
    answered, and the bytes of sectors that they hold or will be answered with."""

    __slots__ = (
        "address", "held", "is_fresh", "moved_bytes", "patience", "requests", "room", "shown", "since_s", "transport",
        "unfinished", "unfinished_bytes",
    )

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.address = transport.peer.rpartition(":")[0]
        self.since_s = 0.0
        self.is_fresh = False  # it is sealed, and something has come over it since: see dsreg.node.connection_table
        self.shown = 0  # the rank whose directory it has shown: see dsreg.node.members
        self.held = 0  # bytes of memory for an unfinished frame, as long as it is not fresh
        self.patience = trio.CancelScope()  # has a deadline while the connection is being sealed
        self.unfinished = 0
        self.unfinished_bytes = 0
        self.requests = self.moved_bytes = 0  # that are answered: see dsreg.node.metering
        self.room: trio.Event | None = None  # set when a command is answered, if the reader waits for that


class Interpreter:
    """`clock`, `unix_time`: give the times of Now. Both are read once for each event."""

    def __init__(
        self, replica: Replica, heal: Heal, storage: StableStorage, encodings: Encodings, clock: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self.replica = replica
        self.heal = heal
        self.storage = storage
        self._encodings = encodings
        self.encode = encodings.encode
        self.under: dict[Transport, Callable[[Message, bool, int], list[Buffer]]] = {}  # of other keys: dsreg.node.keys
        self.clock = clock
        self._unix_time = unix_time
        self.on_slow_load: Callable[[Load], None] = lambda load: None  # it may block, or must wait for a commit
        self.on_work: Callable[[], None] = lambda: None  # there is something for the disk's tasks
        self.on_idle: Callable[[], None] = lambda: None  # no operation of this node is unfinished
        self.on_due: Callable[[], None] = lambda: None  # the replica's next_due may have changed
        self.on_sums: Callable[[Connection | None, ScrubMessage], None] = lambda connection, message: None
        self.on_contract: Callable[[int], None] = lambda rank: None  # that node has sent a message of the contract
        self.may_count: Callable[[Transport], bool] | None = None  # see `_answer`; None: whoever it is
        self.started = True  # False while the node waits for its first start: what comes is held
        self.held = Held()
        self._quiet_until = -math.inf
        self._greeted: set[int] = set()  # whose link is up, and speaks the extension
        self.features: dict[int, int] = {}  # as each other node has answered the last greeting
        self._fenced: dict[Ticket, Callable[[], None]] = {}
        self._parked: dict[Ticket, list[Persist | Adopt | Reserve | Fence]] = {}
        self.unfinished = 0  # commands, of all connections
        self.unfinished_bytes = 0
        self.heard: dict[int, float] = {}  # ranks that have sent a message of the contract, and when they did last
        self._links: dict[int, LinkOutbox] = {}
        self._answers: dict[int, deque[PeerMessage | Receipt]] = {}  # for contract peers that are down
        self._dirty: set[Transport] = set()
        self._carry: dict[type, Callable[[Any, Now], Iterable[Effect] | None]] = {
            Persist: self._persist,
            Adopt: self._persist,
            Reserve: self._reserve,
            Fence: self._fence,
            Durable: self._durable,
            Again: self._again,
            Load: self._load,
            Repair: self._repair,
            Tell: self._send,
            Reply: self._answer,
        }

    def handles(self, kind: type, call: Callable[[Any], None]) -> None:
        """Have effects of this kind carried out so: what blocks."""
        self._carry[kind] = lambda effect, now: call(effect)

    def now(self) -> Now:
        return Now(self.clock(), self._unix_time())

    # --- events -----------------------------------------------------------------------------------
    def command(self, connection: Connection, command: Command) -> None:
        connection.unfinished += 1
        self.unfinished += 1
        size = size_of(command)
        connection.unfinished_bytes += size
        self.unfinished_bytes += size
        if not self.started and self.held.holds(connection, command):
            return
        now = self.now()
        self.heal.throttle.client(now.s)
        if command.kind is _ATTACH and command.epoch:
            self.heal.look(now.s + HEAL_AFTER_ATTACH_S)
        self.carry_out(self.replica.command(connection, command, now), now)

    def disconnected(self, connection: Connection) -> None:
        now = self.now()
        given_up, effects = self.replica.disconnected(connection, now)
        for command in (*given_up, *self.held.disconnected(connection)):
            self._settle(connection, command)
        self.carry_out(effects, now)
        self.end_turn()

    def give_up(self) -> Iterator[tuple[Connection, Command]]:
        """The node will never serve: nothing is held any more. Gives the commands that nobody will answer."""
        self.held.take_messages()
        for connection, command in (*self.held.take_commands(), *self.replica.give_up()):
            assert isinstance(connection, Connection)
            self._settle(connection, command)
            yield connection, command

    def message(
        self, connection: Connection | None, message: PeerMessage | HealMessage | ScrubMessage | Receipt
    ) -> None:
        if isinstance(message, (SumsQuery, Sums)):
            self.on_sums(connection, message)
            return
        now = self.now()
        if isinstance(message, (DigestQuery, Digests)) or isinstance(message, Value) and self._is_for_heal(message):
            if self.started:
                self.carry_out(self.heal.message(connection, message, now), now)
            return
        origin = None if isinstance(message, Receipt) or is_of_contract(message) else connection
        if origin is None:
            self.heard[message.rank] = now.s
            self.on_contract(message.rank)
        if not self.started and not isinstance(message, Receipt):
            self.held.message(origin, message)
            return
        if isinstance(message, WriteProc):
            self.heal.throttle.client(now.s)
        self.carry_out(self.replica.message(origin, message, now), now)

    def _is_for_heal(self, value: Value) -> bool:
        return not is_of_contract(value) and is_of_heal(value.rid)

    def _is_under_way(self, rid: int) -> bool:
        return self.heal.is_asking(rid) if is_of_heal(rid) else self.replica.is_under_way(rid)

    def link_up(self, rank: int, transport: Transport, extended: bool) -> None:
        encode = self._encodings.once(transport.is_sealed, transport.features)
        outbox = self._links[rank] = LinkOutbox(transport, encode, self._is_under_way)
        self._greeted.discard(rank)
        if extended:
            self._greeted.add(rank)
        for answer in self._answers.pop(rank, ()):
            outbox.send(answer)
        self._dirty.add(transport)
        self._tell_link_up(rank, extended, self.now())
        self.end_turn()

    def _tell_link_up(self, rank: int, extended: bool, now: Now) -> None:
        self.carry_out(self.replica.link_up(rank, extended, now), now)
        if self.started and extended and self.features.get(rank, 0) & FEATURE_DIGESTS:
            self.carry_out(self.heal.link_up(rank, now.s), now)

    def linked_with(self, feature: int) -> list[int]:
        """The nodes to which the link is up, and that say in their greeting that they can do this."""
        return [rank for rank in self._greeted if self.features.get(rank, 0) & feature]

    def has_spared(self, rank: int) -> bool:
        """Whether writes were not sent to that node, which it does not know: see LinkOutbox."""
        return rank in self._links and self._links[rank].has_spared

    def link_down(self, rank: int, transport: Transport) -> None:
        outbox = self._links.get(rank)
        if outbox is not None and outbox.transport is transport:
            del self._links[rank]
            self._greeted.discard(rank)
            now = self.now()
            self.replica.link_down(rank, now.s)
            self.carry_out(self.heal.link_down(rank, now.s), now)

    def start(self) -> None:
        """The node begins to serve: what has come meanwhile is dealt with, in the order in which it came."""
        self.started = True
        now = self.now()
        if self.held.messages:
            self._quiet_until = now.s + RESEND_FIRST_S
        for connection, command in self.held.take_commands():
            self.carry_out(self.replica.command(connection, command, now), now)
        for origin, message in self.held.take_messages():
            self.carry_out(self.replica.message(origin, message, now), now)
        for rank in self._greeted:  # they have dropped what they were asked before
            self._tell_link_up(rank, True, now)
        self.end_turn()

    def discount(self, rank: int) -> None:
        """The directory of that node has changed: what it has answered to operations under way does not count."""
        self.replica.discount(rank)
        self.carry_out(self.heal.link_down(rank, self.clock()), self.now())

    def fenced(self, call: Callable[[], None]) -> None:
        """Call it once all that was accepted until now, stores and promises, is decided on; now, if it is."""
        self.when_done(self.storage.fence(*self.replica.epochs.promise), call)

    def adopt(self, adopted: Adopted, call: Callable[[], None]) -> None:
        """Promise durably what the life of this node that was lost may have promised; then call it."""
        epoch, owner, incarnation, _ = adopted
        self.replica.epochs.fence(epoch, None, owner)
        self.when_done(self.storage.fence(epoch, owner, incarnation + 1), call)

    def when_done(self, ticket: Ticket, call: Callable[[], None]) -> None:
        if ticket.done:
            call()
        else:
            self._fenced[ticket] = call

    def committed(self, tickets: Iterable[Ticket]) -> None:
        """The storage has decided on these persists and reservations."""
        now = self.now()
        for ticket in tickets:
            for parked in self._parked.pop(ticket, ()):
                self.carry_out(self._outcome(parked, ticket, now), now)
            if (call := self._fenced.pop(ticket, None)) is not None:
                call()
        self.end_turn()

    def loaded(self, load: Load, loaded: Loaded) -> None:
        """A slow load is done."""
        now = self.now()
        self.carry_out(self._report_load(load, loaded, now), now)
        self.end_turn()

    def next_due(self) -> float:
        """When `tick` has something to do; inf: not before something else happens. Nothing is sent again while answers
        are held, or as soon as they are dealt with: they may be the ones."""
        due = None if self.held.messages else self.replica.next_due()
        heal_s = self.heal.next_due(self.clock())
        return heal_s if due is None else min(heal_s, max(due, self._quiet_until))

    def tick(self) -> None:
        now = self.now()
        if now.s < self.next_due():
            return
        self.carry_out(self.replica.tick(now), now)
        self.carry_out(self.heal.tick(now.s), now)
        self.end_turn()

    # --- effects ----------------------------------------------------------------------------------
    def carry_out(self, effects: Iterable[Effect], now: Now) -> None:
        todo = list(effects)
        for effect in todo:  # and what that adds to it
            more = self._carry[type(effect)](effect, now)
            if more:
                todo.extend(more)

    def end_turn(self) -> None:
        """Everything that arrived in this wake-up is dealt with: one write per peer, one commit."""
        for transport in self._dirty:
            transport.flush()
        self._dirty.clear()
        self.on_work()
        self.on_due()
        if not self.unfinished and not self.replica.unfinished():
            self.on_idle()

    def tell(self, transport: Transport, message: Message) -> None:
        """Put the message on the transport; it goes at the end of the turn."""
        encode = self.under.get(transport, self.encode) if self.under else self.encode
        transport.put(encode(message, transport.is_sealed, transport.features))
        self._dirty.add(transport)

    def _persist(self, effect: Persist | Adopt, now: Now) -> Iterable[Effect] | None:
        if effect.data:
            ticket = self.storage.persist(effect.first, effect.count, effect.tags, effect.data, effect.repair)
        else:
            ticket = self.storage.zero(effect.first, effect.count, effect.tags)
        return self._await_ticket(ticket, effect, now)

    def _reserve(self, effect: Reserve, now: Now) -> Iterable[Effect] | None:
        return self._await_ticket(self.storage.reserve(effect.ts), effect, now)

    def _fence(self, effect: Fence, now: Now) -> Iterable[Effect] | None:
        return self._await_ticket(self.storage.fence(effect.epoch, effect.owner), effect, now)

    def _again(self, effect: Again, now: Now) -> Iterable[Effect]:
        return self.replica.again(effect, now)

    def _await_ticket(
        self, ticket: Ticket, effect: Persist | Adopt | Reserve | Fence, now: Now
    ) -> Iterable[Effect] | None:
        if not ticket.done:
            self._parked.setdefault(ticket, []).append(effect)
            return None
        return self._outcome(effect, ticket, now)

    def _outcome(self, effect: Persist | Adopt | Reserve | Fence, ticket: Ticket, now: Now) -> Iterable[Effect]:
        if isinstance(effect, Adopt):
            return self.heal.adopted(effect, ticket.ok, now.s, lost=ticket.refusal is Refusal.UNKNOWN)
        if ticket.ok:
            return effect.then
        assert isinstance(effect, Persist), "a promise has no room to lack"
        self.heal.look(now.s + HEAL_AFTER_REFUSAL_S)
        return self.replica.refused(effect, now, ticket.refusal is Refusal.NO_SPACE)

    def _durable(self, effect: Durable, now: Now) -> Iterable[Effect]:
        return self.replica.durable(effect.what, now)

    def _load(self, effect: Load, now: Now) -> Iterable[Effect] | None:
        question = effect.question
        loaded = self.storage.load(question.first, question.count, wait=False)
        if loaded is None:
            self.on_slow_load(effect)
            return None
        return self._report_load(effect, loaded, now)

    def _report_load(self, load: Load, loaded: Loaded, now: Now) -> Iterable[Effect]:
        return self.replica.loaded(load, loaded.tags, loaded.data, bool(loaded.missing), now)

    def _repair(self, effect: Repair, now: Now) -> Iterable[Effect]:
        effects = self.heal.repair(effect.sectors, now.s)
        if not all(self.features.get(rank, 0) & FEATURE_DIGESTS for rank in self._links):
            effects += self.replica.repair(effect.sectors, now)
        return effects

    def _send(self, effect: Tell, now: Now) -> None:
        message = effect.message
        if (outbox := self._links.get(effect.rank)) is not None:
            outbox.send(message)
            self._dirty.add(outbox.transport)
        elif isinstance(message, (Value, Ack)) and is_of_contract(message):
            # Answers to contract peers wait for their link; questions are remembered by RegisterClient.
            self._answers.setdefault(effect.rank, deque(maxlen=MAX_QUEUED_ANSWERS)).append(message)

    def _answer(self, effect: Reply, now: Now) -> None:
        connection = effect.connection
        assert isinstance(connection, Connection)
        message = effect.message
        if effect.completes is not None:
            self._settle(connection, effect.completes)
            # What was asked before a node has rejoined is decided; an answer that comes after that must not be counted
            # by somebody who does not know of it.
            if self.may_count is not None and not self.may_count(connection.transport):
                message = uncounted(effect.completes) or message
        self.tell(connection.transport, message)

    def _settle(self, connection: Connection, command: Command) -> None:
        size = size_of(command)
        connection.unfinished -= 1
        self.unfinished -= 1
        connection.unfinished_bytes -= size
        self.unfinished_bytes -= size
        if connection.room is not None:
            connection.room.set()
