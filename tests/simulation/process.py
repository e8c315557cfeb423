"""One life of a simulated node, from the opening of its storage to a crash: the production replica, interpreter,
server, dialers, codec and storage, put together as in dsreg.node.process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dsreg.errors import StorageError
from dsreg.link.accepted_line import AcceptedLine
from dsreg.link.destinations import Destinations
from dsreg.link.effects import Take
from dsreg.node.dialer import Dialer
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.members import Members
from dsreg.node.scrubbing import Scrubbing
from dsreg.node.server import Server
from dsreg.protocol.address import Place
from dsreg.protocol.codec import Bounds, Encodings, Keys, Side, UnsealingDecoder
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    FEATURE_DIGESTS,
    FEATURE_LIVES,
    FEATURE_SEALED,
    FEATURE_SUMS,
    Hello,
    ReadProc,
    Receipt,
    WriteProc,
)
from dsreg.protocol.wire import SEAL_CONTENT, Type
from dsreg.register.assembly import new_heal, new_replica, new_scrub, node_hello
from dsreg.register.configuration import quorum_of
from dsreg.register.damage import Damage
from dsreg.register.effects import Tell
from dsreg.register.quorum import Quorum, ranks_in
from dsreg.register.scrub import DAY_S
from dsreg.storage import Commit, StableStorage
from tests.simulation.dialer import ContractDialer
from tests.simulation.disk import SimDisk
from tests.simulation.files import Crash
from tests.simulation.lines import SimLines
from tests.simulation.loop import Loop
from tests.simulation.network import Host, Network, SimTransport
from tests.simulation.options import Options
from tests.simulation.witness import Moment, Witness

if TYPE_CHECKING:
    from tests.simulation.node import SimNode

CLUSTER = bytes(range(16))
KEYS = Keys(bytes(range(32)), bytes(range(64)))
# What the clocks of the hosts say when a run begins, in seconds since 1970.
UNIX_TIME_S = 1_800_000_000.0
# A time limit is looked at a little later, when it has passed for certain.
_LATE_S = 1e-6
# A run is some minutes.
HEAL_INTERVAL_S = 20.0
# So marks are raised, and what is heard of them is written, often enough for a run.
MARK_AFTER_S = 0.5
KEEP_AFTER_S = 0.5


class World(Protocol):
    """What a node has around it."""

    loop: Loop
    network: Network
    options: Options
    nodes: dict[int, SimNode]

    def stored(self, rank: int, commit: Commit) -> None:
        """A commit has become durable at the node."""

    def happens(self, what: Moment, rank: int, client: Host) -> None:
        """The node has come to this moment, with the client or, if that is 0, by itself."""

    def found(self, rank: int, damage: Damage) -> None:
        """The node has found that of its copy."""

    def is_foreign(self, rank: int) -> bool:
        """Whether this node speaks only the contract to other nodes."""

    def seals(self, host: int) -> bool:
        """Whether the node or client can seal its connections."""

    def fresh_key(self) -> bytes:
        """32 bytes, from the seed."""

    def broken(self, rank: int, error: Exception) -> None:
        """The node cannot start, and nothing that was done to it excuses that; or it has a bug."""


def made_seal_blind(decoder: UnsealingDecoder) -> UnsealingDecoder:
    """As of a node that cannot seal: what it is sent for that is of an unknown type. (Not a class of its own, which
    could not derive from that of the compiled build.)"""
    for type_ in SEAL_CONTENT:
        decoder._all_rules.pop(type_, None)
    decoder.extended = decoder.extended  # which rules are in use follows from these
    return decoder


def made_foreign(decoder: UnsealingDecoder) -> None:
    """Likewise of a node that knows the contract only: of greetings between nodes, and of lives."""
    for type_ in (Type.HELLO_NODE, Type.SEAL_NODE, Type.LIVES_NODE):
        decoder._all_rules.pop(type_, None)
    decoder.extended = decoder.extended


def greeting_of(rank: int, members: int, options: Options, storage: StableStorage, seals: bool) -> Hello:
    """A node that does not heal, or scrub, does not say that it can. `members`: a mask."""
    size = members.bit_count() or options.nodes
    hello = node_hello(rank, size, CLUSTER, storage.incarnation, storage.sectors, seals=seals)
    cannot = (0 if options.heal else FEATURE_DIGESTS) | (0 if options.scrub_s else FEATURE_SUMS)
    return hello._replace(features=hello.features & ~cannot)


class Process:
    """From the opening of the storage on: see dsreg.node.process.Node, whose parts these are."""

    def __init__(self, world: World, node: SimNode, storage: StableStorage) -> None:
        loop, options, rank = world.loop, world.options, node.rank
        self.alive = True
        self.storage = storage
        self.connections: dict[SimTransport, Connection] = {}
        self._world = world
        self._node = node
        members = storage.configuration.record.current.members
        self._greeting = greeting_of(rank, members, options, storage, world.seals(rank))
        self._is_foreign = world.is_foreign(rank)
        if self._is_foreign:  # it knows nothing of greetings between nodes, or of lives
            self._greeting = self._greeting._replace(features=self._greeting.features & ~FEATURE_LIVES)
            storage.lives.begin()
        seals = Seals(KEYS, world.fresh_key, required=options.require_sealed)
        self._ranks = frozenset(options.ranks)
        self._bounds = Bounds(storage.sectors, self._ranks)
        quorum = quorum_of(storage.configuration.record.current)
        self.replica = new_replica(
            rank,
            quorum,
            storage,
            uuid_prefix=loop.rng.getrandbits(32),
            jitter=lambda: loop.between(0.8, 1.2),
            started_s=node.clock(),
            store=storage.lives.own.store,
            life=storage.lives.own.number,
        )
        self.heal = new_heal(
            self.replica, quorum, storage, interval_s=HEAL_INTERVAL_S,
            store=storage.lives.own.store,
        )
        self.interpreter = Interpreter(
            self.replica, self.heal, storage, Encodings(KEYS), node.clock, lambda: UNIX_TIME_S + loop.now_s
        )
        self.witness = Witness(
            self.interpreter, node.told, lambda what, client: world.happens(what, rank, client)
        )
        self.disk = SimDisk(
            loop, self.interpreter, node.files, self.guard, self._stored, node.disk_s, options.interleave,
            options.checkpoint_factor,
        )
        self.members = self._new_members(quorum)
        self.heal.counts = self.members.lives.counts
        self.heal.may_teach = self.members.may_teach
        self.scrubbing = self._new_scrubbing(options.scrub_s) if options.scrub_s else None
        self.server = Server(self.interpreter, self._greeting, self._new_decoder, lambda: b"{}", seals, self.members)
        self._due_s = float("inf")
        self.interpreter.on_due = self._on_due
        self.dialers: dict[int, Dialer] = {}
        self._seals = seals
        self._outgoing: dict[int, SimLines | ContractDialer] = {}
        self._follow(self.members.configuring.current)
        self.server.on_node_sealed = self._greet_soon
        self.interpreter.on_contract = self.members.heard_contract
        self.members.on_greet = self._greet_soon
        self.members.on_superseded = self._renew
        self.members.on_reconfigured = self._follow
        self.members.on_review = self._review
        self._on_due()

    def _new_members(self, quorum: Quorum) -> Members:
        node, options = self._node, self._world.options
        members = Members(
            node.rank, quorum, self.storage.lives, self.interpreter, strict=options.strict_start, rejoin=node.lost > 0
        )
        members.marking.mark_after_s, members.marking.keep_after_s = MARK_AFTER_S, KEEP_AFTER_S
        if self._is_foreign:
            members.marking.waits, self.interpreter.started = False, True
        return members

    def _new_scrubbing(self, period_s: float) -> Scrubbing:
        scrub = new_scrub(
            self.replica, self.heal, self.storage, days=period_s / DAY_S, place=self._world.loop.rng.random(),
            started_s=self._node.clock(),
        )
        scrubbing = Scrubbing(self.interpreter, scrub, self.members.lives)
        scrubbing.on_damage = lambda damage: self._world.found(self._node.rank, damage)
        self.disk.on_verified = scrubbing.verified
        return scrubbing

    def _follow(self, current: Configuration) -> None:
        """As dsreg.node.process and dsreg.node.links do."""
        self._bounds.sectors = current.sectors
        gone = set(ranks_in(current.used)) - set(ranks_in(current.members))
        wanted = set(self._ranks) - gone - {self._node.rank}
        for other in sorted(self._outgoing.keys() - wanted):
            lines = self._outgoing.pop(other)
            self.dialers.pop(other).ended(list(lines.transports.values()))  # type: ignore[arg-type]
            assert isinstance(lines, SimLines)
            lines.abandon()
        for other in sorted(wanted - self._outgoing.keys()):
            self._link_to(other, self._seals)
        for dialer in self.dialers.values():
            dialer.greet_soon()

    def _link_to(self, other: int, seals: Seals) -> None:
        loop, network, own = self._world.loop, self._world.network, self._node.rank
        if self._is_foreign:
            self._outgoing[other] = ContractDialer(
                loop, network, own, other, self.interpreter, self._new_decoder, self.guard
            )
            return
        lines = SimLines(loop, network, own, other, self.guard, self._node.clock)
        self._outgoing[other] = lines
        dialer = self.dialers[other] = Dialer(
            other, lines, Destinations(Place(f"node-{other}", 1)), self.interpreter,  # type: ignore[arg-type]
            self._greeting, self._new_decoder, seals, self.members, jitter=lambda: loop.between(0.8, 1.2),
        )
        lines.begin(dialer.driver)

    def _greet_soon(self, other: int) -> None:
        if other in self.dialers:
            self.dialers[other].greet_soon()

    def _renew(self, other: int) -> None:
        if other in self.dialers:
            self.dialers[other].renew()

    def _review(self) -> None:
        if self.interpreter.started:
            self._node.check_served()
        for dialer in list(self.dialers.values()):
            dialer.review()

    def _new_line(self) -> AcceptedLine:
        line = self.server.new_line()
        if self._is_foreign:
            made_foreign(line.decoder)
        return line

    def _new_decoder(self, extended: bool) -> UnsealingDecoder:
        decoder = UnsealingDecoder(
            KEYS, bounds=self._bounds, side=Side.NODE, extended=extended
        )
        return decoder if self._greeting.features & FEATURE_SEALED else made_seal_blind(decoder)

    def _stored(self, commit: Commit) -> None:
        self.witness.stored(commit)
        self._world.stored(self._node.rank, commit)

    def guard(self, call: Callable[..., None], *args: Any) -> None:
        """Do it as this process: not if that is dead, later if it is stopped; what kills it ends here."""
        if not self.alive:
            return
        if self._node.paused:
            self._node.deferred.append((self.guard, (call, *args)))
            return
        try:
            call(*args)
        except Crash:
            if self.alive:
                self._node.lose_power()
        except StorageError as error:
            if self.alive:
                self._node.exit(error)

    # --- connections ----------------------------------------------------------------------------
    def accept(self, transport: SimTransport) -> None:
        connection = Connection(transport)  # type: ignore[arg-type]  # it is what a Transport is to those behind it
        line = self._new_line()
        self.connections[transport] = connection
        self.server.table.add(connection, line, self._node.clock())
        transport.on_data = lambda data: self.guard(self._take, connection, line, data)
        transport.on_end = lambda: self.guard(self._gone, transport, connection)

    def _take(self, connection: Connection, line: AcceptedLine, data: bytes) -> None:
        if connection not in self.server.connections:
            return
        for effect in line.received(data, self._node.clock()):
            message = effect.message if isinstance(effect, Take) else None
            if self._world.options.receipts and isinstance(message, ReadProc | WriteProc) and message.uuid:
                kind = 3 if isinstance(message, ReadProc) else 5
                receipt = Tell(message.rank, Receipt(self._node.rank, kind, message.uuid))
                self.interpreter.carry_out([receipt], self.interpreter.now())
            if isinstance(message, WriteProc):
                self.witness.was_asked(message)
            self.server.carry_out(connection, line, effect)
        self.interpreter.end_turn()
        self.server.table.used(connection)
        if line.next_due < float("inf"):
            wait_s = max(0.0, line.next_due - self._node.clock()) + _LATE_S
            self._world.loop.after(wait_s, self.guard, self._time_out, connection, line)
        self._end_closed()

    def _time_out(self, connection: Connection, line: AcceptedLine) -> None:
        if connection in self.server.connections:
            self.server.carry_out_all(connection, line, line.tick(self._node.clock()))
            self._end_closed()

    def _end_closed(self) -> None:
        """What this node has closed is over."""
        for connection, line in list(self.server.connections.items()):
            if connection.transport.was_closed_here:  # type: ignore[attr-defined]
                if line.decoder.broken:
                    self._world.loop.fault("seal_broken", connection.transport.peer)
                self._gone(connection.transport, connection)  # type: ignore[arg-type]

    def _gone(self, transport: SimTransport, connection: Connection) -> None:
        if self.connections.pop(transport, None) is None:
            return
        self.server.table.remove(connection)
        self.members.left(transport, connection)  # type: ignore[arg-type]
        self.interpreter.disconnected(connection)

    def transports(self) -> list[SimTransport]:
        outgoing = self._outgoing.values()
        return [*self.connections, *(transport for lines in outgoing for transport in lines.transports.values())]

    # --- time -----------------------------------------------------------------------------------
    def _on_due(self) -> None:
        due_s = min(self.interpreter.next_due(), self.members.next_due)
        if self.scrubbing is not None:
            due_s = min(due_s, self.scrubbing.next_due())
        if due_s < self._due_s:
            self._due_s = due_s
            wait_s = max(0.0, due_s - self._node.clock())
            self._world.loop.after(wait_s, self.guard, self._tick, due_s)

    def _tick(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._due_s = float("inf")
            self.interpreter.tick()
            self.members.tick()
            if self.scrubbing is not None:
                self.scrubbing.tick()
            self._on_due()
