"""A simulated node: the production replica, interpreter, server, codec and storage, and what kills and revives them.

A `Process` is one life of it, from the opening of the storage to a crash; the node itself stays, with its disk
and its clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from dsreg.constants import DRAIN_S
from dsreg.errors import DamagedStorage, NoSpace, StorageError
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.members import Members
from dsreg.node.server import Server
from dsreg.protocol.codec import Encoder, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.life import STORE_SIZE
from dsreg.protocol.messages import (
    FEATURE_LIVES,
    FEATURE_SEALED,
    Hello,
    LivesReport,
    ReadProc,
    Receipt,
    Seal,
    WriteProc,
)
from dsreg.protocol.wire import SEAL_CONTENT
from dsreg.register.assembly import new_replica, node_hello
from dsreg.register.effects import Tell
from dsreg.register.quorum import majority_of
from dsreg.storage import Commit, Identity, StableStorage
from dsreg.testing.memory_files import Chooser, drop_all, keep_all, random_chooser
from tests.simulation.dialer import SimDialer
from tests.simulation.disk import SimDisk
from tests.simulation.files import Crash, SimFiles
from tests.simulation.loop import Loop
from tests.simulation.network import Host, Network, SimTransport
from tests.simulation.options import Options
from tests.simulation.witness import BrokenPromise, Moment, Witness, check_start

CLUSTER = bytes(range(16))
KEYS = Keys(bytes(range(32)), bytes(range(64)))
# What the clocks of the hosts say when a run begins, in seconds since 1970.
UNIX_TIME_S = 1_800_000_000.0
# A node that could not start, or has died of an error, is started again after this long, as a supervisor does.
RESTART_S = 0.5

_STARTED, _DIED = 10, 11


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


class Process:
    """From the opening of the storage on: see dsreg.node.process.Node, whose parts these are."""

    def __init__(self, world: World, node: SimNode, storage: StableStorage) -> None:
        loop, options, rank = world.loop, world.options, node.rank
        self.alive = True
        self.storage = storage
        self.connections: dict[SimTransport, Connection] = {}
        self._world = world
        self._node = node
        self._greeting = node_hello(
            rank, options.nodes, CLUSTER, storage.incarnation, options.sectors, seals=world.seals(rank)
        )
        self._is_foreign = world.is_foreign(rank)
        if self._is_foreign:  # it knows nothing of greetings between nodes, or of lives
            self._greeting = self._greeting._replace(features=self._greeting.features & ~FEATURE_LIVES)
            storage.lives.begin()
        seals = Seals(KEYS, world.fresh_key, required=options.require_sealed)
        self._ranks = frozenset(options.ranks)
        quorum = majority_of(options.ranks)
        self.replica = new_replica(
            rank,
            quorum,
            storage,
            uuid_prefix=loop.rng.getrandbits(32),
            jitter=lambda: loop.between(0.8, 1.2),
            unix_time=lambda: UNIX_TIME_S + loop.now_s,
            started_s=node.clock(),
            store=storage.lives.own.store,
        )
        self.interpreter = Interpreter(self.replica, storage, Encoder(KEYS), node.clock)
        self.witness = Witness(
            self.interpreter, node.told, lambda what, client: world.happens(what, rank, client)
        )
        self.disk = SimDisk(
            loop, self.interpreter, node.files, self.guard, self._stored, node.disk_s, options.interleave,
            options.checkpoint_factor,
        )
        self.members = Members(rank, quorum, storage.lives, self.interpreter, strict=options.strict_start)
        self.server = Server(self.interpreter, self._greeting, self._new_decoder, lambda: b"{}", seals, self.members)
        self._due_s = float("inf")
        self.interpreter.on_due = self._on_due
        self.dialers = [
            SimDialer(
                loop, world.network, rank, other, self.interpreter, self._greeting, self._new_decoder, self.guard,
                not self._is_foreign, seals, self.members,
            )
            for other in options.ranks
            if other != rank
        ]
        by_rank = dict(zip((other for other in options.ranks if other != rank), self.dialers, strict=True))
        self.interpreter.on_contract = self.members.heard_contract
        self.members.on_greet = lambda other: by_rank[other].greet_soon()
        self.members.on_review = self._review
        self._on_due()

    def _review(self) -> None:
        if self.interpreter.started:
            self._node.check_served()
        for dialer in self.dialers:
            dialer.review()

    def _new_decoder(self, extended: bool) -> UnsealingDecoder:
        decoder = UnsealingDecoder(
            KEYS, sectors=self._world.options.sectors, ranks=self._ranks, side=Side.NODE, extended=extended
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
    def accept(self, port: SimTransport) -> None:
        connection = Connection(port)  # type: ignore[arg-type]  # it is what a Transport is to those behind it
        decoder = self._new_decoder(False)
        self.connections[port] = connection
        port.on_data = lambda data: self.guard(self._take, connection, decoder, data)
        port.on_end = lambda: self.guard(self._gone, port, connection)

    def _take(self, connection: Connection, decoder: UnsealingDecoder, data: bytes) -> None:
        for message in decoder.feed(data):
            if self._is_foreign and isinstance(message, Hello | Seal | LivesReport) and message.rank:
                continue
            if self._world.options.receipts and isinstance(message, ReadProc | WriteProc) and message.uuid:
                kind = 3 if isinstance(message, ReadProc) else 5
                self.interpreter.carry_out([Tell(message.rank, Receipt(self._node.rank, kind, message.uuid))])
            if isinstance(message, WriteProc):
                self.witness.was_asked(message)
            self.server._take(connection, decoder, message)
        self.interpreter.end_turn()
        if decoder.broken and not connection.port.closed:
            connection.port.close()
            self._world.loop.fault("seal_broken", connection.port.peer)
            self._gone(connection.port, connection)  # type: ignore[arg-type]

    def _gone(self, port: SimTransport, connection: Connection) -> None:
        self.connections.pop(port, None)
        self.members.left(port, connection)  # type: ignore[arg-type]
        self.interpreter.disconnected(connection)

    def ports(self) -> list[SimTransport]:
        return [*self.connections, *(port for dialer in self.dialers for port in dialer.ports())]

    # --- time -----------------------------------------------------------------------------------
    def _on_due(self) -> None:
        due_s = min(self.interpreter.next_due(), self.members.next_due)
        if due_s < self._due_s:
            self._due_s = due_s
            wait_s = max(0.0, due_s - self._node.clock())
            self._world.loop.after(wait_s, self.guard, self._tick, due_s)

    def _tick(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._due_s = float("inf")
            self.interpreter.tick()
            self.members.tick()
            self._on_due()


class SimNode:
    """The node `rank`, off until `start`. `excused`: its disk was damaged, so it may refuse to start."""

    def __init__(self, world: World, rank: int) -> None:
        self.rank = rank
        self.process: Process | None = None
        self.paused = False
        self.excused = False
        self._last_incarnation = 0
        self.told = 0  # the newest epoch under which it has answered
        self.wiped = 0  # how often its directory was deleted
        self.wanted = True  # whether it is to run
        self.deferred: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.disk_s = world.options.disk_s
        if world.options.disk_spread != 1.0 and world.loop.chance(0.5):
            self.disk_s *= world.options.disk_spread
        self.files = SimFiles(world.loop, world.options.cold)
        self._clock_offset_s = world.loop.between(0, 1000)
        self._world = world
        self._identity = Identity(CLUSTER, rank, world.options.ranks, world.options.sectors)
        self._restart = world.loop.after(0, lambda: None)

    def clock(self) -> float:
        return self._world.loop.now_s + self._clock_offset_s

    def jump(self, seconds: float) -> None:
        """The node's clock goes forward at once: its host was asleep."""
        self._clock_offset_s += seconds
        if self.process is not None:
            self.process.guard(self.process.interpreter.tick)

    def accept(self) -> Callable[[SimTransport], None] | None:
        return self.process.accept if self.process is not None else None

    # --- lives ----------------------------------------------------------------------------------
    def start(self) -> None:
        if self.process is not None or not self.wanted:
            return
        self._restart.cancel()
        try:
            storage = StableStorage.open(
                self.files, self._identity, self._world.options.journal_bytes, self._new_store
            )
        except Crash:
            self.lose_power()
            return
        except (NoSpace, DamagedStorage) as error:
            self._not_started(error)
            return
        except StorageError as error:
            self.exit(error)
            return
        self._check_start(storage)
        self._world.loop.note(_STARTED, self.rank, storage.incarnation, 0)
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} starts, incarnation {storage.incarnation}")
        try:
            self.process = Process(self._world, self, storage)
        except Crash:
            self.lose_power()
        except StorageError as error:
            self.exit(error)

    def _new_store(self) -> bytes:
        return bytes([self.wiped]) + self.rank.to_bytes(STORE_SIZE - 1)

    def check_served(self) -> None:
        if self.wiped:
            raise BrokenPromise(f"node {self.rank} serves with an empty directory")

    @property
    def known_to_all(self) -> bool:
        """Whether all other nodes know its directory, durably: see docs/lives.md for what is not covered else."""
        others = [node for node in self._world.nodes.values() if node is not self]
        return all(node.process is not None and self.rank in node.process.members.lives.known for node in others)

    def wipe(self) -> None:
        """Its directory is deleted while it is down; then it is started again."""
        self._end()
        self.wiped += 1
        self.excused = True
        self._last_incarnation = self.told = 0
        self.files = SimFiles(self._world.loop, self._world.options.cold)
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    def _check_start(self, storage: StableStorage) -> None:
        """Behind the back of the product: what is to go wrong, goes wrong later."""
        files = self.files
        crash_in, fail_next = files.crash_in, files.fail_next
        files.crash_in, files.fail_next = 0, None
        check_start(storage, self._last_incarnation, self.told, self.excused)
        files.crash_in, files.fail_next = crash_in, fail_next
        self._last_incarnation = storage.incarnation

    def _not_started(self, error: StorageError) -> None:
        if isinstance(error, DamagedStorage) and not self.excused:
            self._world.broken(self.rank, error)
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} does not start: {error}")
        self.files = self.files.after_kill()
        self.start_after(RESTART_S)

    def start_after(self, delay_s: float) -> None:
        self._restart.cancel()
        self._restart = self._world.loop.after(delay_s, self.start)

    def _end(self) -> None:
        process, self.process = self.process, None
        self._world.loop.note(_DIED, self.rank, 0, 0)
        self.paused = False
        self.deferred.clear()
        if process is not None:
            process.alive = False
            self.told = process.witness.told
            for port in process.ports():
                port.abandon()

    def exit(self, error: StorageError | None = None) -> None:
        """The process ends, by SIGKILL or for this error; the machine goes on."""
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} exits: {error or 'killed'}")
        self._end()
        self.files = self.files.after_kill()
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    def lose_power(self) -> None:
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} loses power")
        self._end()
        self.files = self.files.after_power_loss(self._chooser())
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    def _chooser(self) -> Chooser:
        choosers = {"drop": drop_all, "keep": keep_all, "random": random_chooser(self._world.loop.rng)}
        return choosers[self._world.options.power]

    def pause(self) -> None:
        self.paused = self.process is not None

    def resume(self) -> None:
        self.paused = False
        while self.deferred and not self.paused:
            call, args = self.deferred.popleft()
            call(*args)

    # --- SIGTERM --------------------------------------------------------------------------------
    def stop(self) -> None:
        """Finish what was begun, close the storage, end; be started again."""
        process = self.process
        if process is not None and not process.server.stopping:
            process.server.stopping = True
            process.guard(self._stop_when_quiet, process, self._world.loop.now_s + DRAIN_S)

    def _stop_when_quiet(self, process: Process, deadline_s: float) -> None:
        loop = self._world.loop
        if process.disk.busy or process.replica.unfinished() and loop.now_s < deadline_s:
            loop.after(self.disk_s, process.guard, self._stop_when_quiet, process, deadline_s)
            return
        process.disk.stop()
        process.storage.close()
        self.exit()
