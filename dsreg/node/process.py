"""run_register_process: everything a node does, from binding its port to an orderly stop."""

from __future__ import annotations

import errno
import json
import logging
import random
import resource
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from dsreg.config import NodeConfig, format_address
from dsreg.constants import DRAIN_S, MAX_FILE_DESCRIPTORS, MAX_RANK
from dsreg.errors import OlderDirectory, StorageError, WrongDirectory
from dsreg.listening import bind, close_all
from dsreg.node.dialer import Dialer
from dsreg.node.disk import Disk
from dsreg.node.history import History
from dsreg.node.keys import KeysHeld, NodeKeys
from dsreg.node.links import Links
from dsreg.node.members import Members
from dsreg.node.metering import MeteredInterpreter
from dsreg.node.reporting import status_of
from dsreg.node.scrubbing import Scrubbing
from dsreg.node.server import Server
from dsreg.node.slow import SlowCommands
from dsreg.protocol.address import Place
from dsreg.protocol.codec import Bounds
from dsreg.protocol.configuration import Configuration
from dsreg.register.absences import CHECK_INTERVAL_S, Absences, describe_absence
from dsreg.register.assembly import new_heal, new_replica, new_scrub, node_hello
from dsreg.register.configuration import quorum_of
from dsreg.register.quorum import Quorum, ranks_in
from dsreg.register.teachers import OfTheRecovered, Teachers
from dsreg.slow import SlowLog
from dsreg.storage import Identity, OsFiles, StableStorage, Start
from dsreg.storage.marks import Heard
from dsreg.transport import Transport

if TYPE_CHECKING:
    from dsreg.metrics.http import Make

log = logging.getLogger("dsreg.node")

# Not for accepted connections, but for the links, the storage's files and some reserve. When all others are in use one
# is closed for a new one: see dsreg.node.connection_table.
RESERVED_DESCRIPTORS = 300
# The system, or this process, has no descriptor or memory for another connection.
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
NO_DESCRIPTORS_PAUSE_S = 0.1


class Node:
    """One node with its storage open, not yet talking to anybody. `more_pages`: are served beside those of its metrics.
    """

    more_pages: Mapping[str, Make] = MappingProxyType({})

    def __init__(self, config: NodeConfig, storage: StableStorage) -> None:
        cluster = config.cluster
        # From number 2 on it is not cluster.toml that says who decides.
        configuration = storage.configuration.record.current
        quorum = quorum_of(configuration)
        known = {*cluster.ranks, *ranks_in(configuration.used)}
        if cluster.recovered is not None and cluster.recovered.nodes:
            known.update(range(1, MAX_RANK + 1))  # tags have ranks that had left before: docs/recover.md
        bounds = Bounds(storage.sectors, known)  # of all decoders
        size = configuration.members.bit_count() or len(cluster.ranks)
        greeting = node_hello(config.rank, size, cluster.cluster_id, storage.incarnation, storage.sectors)
        held = KeysHeld(cluster, bounds)
        self.config = config
        self.storage = storage
        self.replica = new_replica(
            config.rank, quorum, storage,
            uuid_prefix=secrets.randbits(32),
            jitter=lambda: random.uniform(0.8, 1.2),
            started_s=trio.current_time(),
            store=storage.lives.own.store,
            life=storage.lives.own.number,
        )
        self.heal = new_heal(
            self.replica, quorum, storage, bytes_per_s=config.heal_bytes_per_s,
            store=storage.lives.own.store, teachers=teachers_of(config, storage, quorum),
        )
        clock = trio.lowlevel.current_clock().current_time  # as trio.current_time, which looks the clock up each time
        self.interpreter = MeteredInterpreter(self.replica, self.heal, storage, held.encodings, clock, time.time)
        self.disk = Disk(self.interpreter)
        self.slow = self._new_slow_log()
        self.members = Members(
            config.rank, quorum, storage.lives, self.interpreter, strict=cluster.strict_start, new=config.new,
            rejoin=config.rejoin, was_left=was_left(config),
            place=None if config.advertised is None else Place(*config.advertised),
        )
        self.heal.counts = self.members.lives.counts
        self.heal.may_teach = self.members.may_teach
        places = max_connections()
        self.server = Server(
            self.interpreter, greeting, held.new_acceptor, self.report, held.seals, self.members, places)
        self.links = Links(
            config.rank, {node.rank: Place(node.host, node.port) for node in cluster.nodes}, self.members,
            lambda rank, lines, destinations: Dialer(
                rank, lines, destinations, self.interpreter, greeting, held.new_decoder, held.seals, self.members,
                jitter=lambda: random.uniform(0.8, 1.2),
            ),
            learns=cluster.learn_addresses,
        )

        def reconfigured(later: Configuration) -> None:
            bounds.sectors, bounds.ranks = later.sectors, {*bounds.ranks, *ranks_in(later.used)}
            self.server.greeting = greeting._replace(sectors=later.sectors)
            self.links.reconfigured(later)

        self.keys = NodeKeys(cluster, held, self.interpreter, self.server, self.links.dialers)
        self.scrubbing = self._new_scrubbing()
        self.server.on_node_sealed = self.links.greet_soon
        self.interpreter.on_contract = self.members.heard_contract
        self.members.on_reconfigured = reconfigured
        self._room = trio.CapacityLimiter(places)
        self.started = time.monotonic()
        self.history = History(self)

    def _new_slow_log(self) -> SlowLog:
        slow = SlowCommands(self.config.slow_s, self.disk.last_syncs)
        self.interpreter.slow_s, self.interpreter.on_slow = self.config.slow_s, slow.ended
        return slow.slow

    def _new_scrubbing(self) -> Scrubbing:
        own_days = self.config.scrub_days
        scrub = new_scrub(
            self.replica, self.heal, self.storage, place=random.random(), started_s=trio.current_time(),
            days=self.config.cluster.scrub_days if own_days is None else own_days,
        )
        scrubbing = Scrubbing(self.interpreter, scrub, self.members.lives)
        self.disk.on_verified = scrubbing.verified
        self.server.on_scrub = scrubbing.ask
        return scrubbing

    def report(self) -> bytes:
        """The body of a STATUS answer."""
        return json.dumps(status_of(self)).encode()

    async def run(self, listeners: list[socket.socket], stop: trio.Event) -> None:
        """Serve until `stop`; then finish what was begun, for at most DRAIN_S."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.disk.run)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._watch_peers)
            nursery.start_soon(self._keep_marks)
            nursery.start_soon(self.links.run)
            nursery.start_soon(self.keys.run)
            if self.config.metrics is not None:
                from dsreg.node.figures import serve_metrics  # wants the packages of the extra `metrics`

                nursery.start_soon(self.history.run)
                nursery.start_soon(serve_metrics, self, self.config.metrics)
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, nursery)
                await stop.wait()
                accepting.cancel_scope.cancel()
            close_all(listeners)  # whoever connects now is turned away at once, and asks another node
            self.server.stopping = True
            await self._drain()
            self.members.addressing.keep()
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.members.marking.stop)

    async def _watch_peers(self) -> None:
        """Say which of the others have been out of reach for long, and when they are back; and what was slow."""
        own = self.config.rank
        absences = Absences(self.links.dialers, trio.current_time())
        while True:
            await trio.sleep(CHECK_INTERVAL_S)
            self.slow.tick()
            absences.watch(self.links.dialers, trio.current_time())
            reached = {rank for rank, dialer in self.links.dialers.items() if dialer.state != "down"}
            for rank, is_back, absent_s in absences.check(reached, trio.current_time()):
                address = self.links.address(rank)
                quorum = self.members.configuring.quorum
                in_reach = {own, *reached} & {*ranks_in(quorum.members)}
                log.warning("%s", describe_absence(rank, address, is_back, absent_s, in_reach, quorum),
                            extra={"node": rank, "peer": str(address)})

    async def _keep_marks(self) -> None:
        """Write what was heard of the others' directories."""
        marking = self.members.marking
        heard_of, to_write = trio.open_memory_channel[Heard](1)  # the next comes once this one is written
        marking.on_keep = heard_of.send_nowait
        async for heard in to_write:
            with trio.CancelScope(shield=True):
                kept = await trio.to_thread.run_sync(self.storage.marks.write, heard)
            marking.kept(kept)

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        async def serve(transport: Transport) -> None:
            try:
                await self.server.serve(transport)
            finally:
                self._room.release_on_behalf_of(transport)

        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, address = listener.accept()
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    await trio.sleep(NO_DESCRIPTORS_PAUSE_S)  # nothing tells when there are some again
                continue  # else the peer was gone before we looked
            transport = Transport(sock, f"{address[0]}:{address[1]}")
            if self._room.available_tokens == 0:
                self.server.table.make_room(trio.current_time())
            await self._room.acquire_on_behalf_of(transport)
            nursery.start_soon(serve, transport)

    async def _tick(self) -> None:
        """Calls `tick` when something is due; a turn that makes something due earlier moves the deadline."""
        interpreter, members, scrubbing = self.interpreter, self.members, self.scrubbing
        scope = trio.CancelScope()

        def next_due() -> float:
            return min(interpreter.next_due(), members.next_due, scrubbing.next_due())

        def move_deadline() -> None:
            scope.deadline = min(scope.deadline, next_due())

        interpreter.on_due = move_deadline
        while True:
            scope = trio.CancelScope(deadline=next_due())
            with scope:
                await trio.sleep_forever()
            interpreter.tick()
            members.tick()
            scrubbing.tick()

    async def _drain(self) -> None:
        """Wait until nothing is unfinished and every answer is sent, but not longer than DRAIN_S."""
        idle = trio.Event()
        with trio.move_on_after(DRAIN_S):
            self.interpreter.on_idle = idle.set
            self.interpreter.end_turn()
            await idle.wait()
            for connection in list(self.server.connections):
                await connection.transport.drained(0)
        if self.replica.unfinished():
            log.warning("stopping with %d operations unfinished: no majority answered", self.replica.unfinished())


async def run_register_process(
    config: NodeConfig,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    stop: trio.Event | None = None,
    listeners: list[socket.socket] | None = None,
    pages: Callable[[Node], Mapping[str, Make]] | None = None,
) -> None:
    """Run the node `config.rank` of the cluster until `stop` is set (None: until cancelled).

    Binds first, then opens the storage, whatever recovery has to do: connections wait meanwhile. A caller that has
    bound already (`dsreg.listening.bind`) gives the `listeners`, which are closed in any case. `pages`: makes what is
    served beside the metrics, if these are. `task_status.started()` is called when the node serves. Raises OSError if
    the address cannot be bound, StorageError if the directory cannot be used, or, later, can no longer be trusted
    (SyncFailed).
    """
    _raise_descriptor_limit()
    if listeners is None:
        listeners = await trio.to_thread.run_sync(partial(bind, *config.listen_at, for_others=config.is_for_others))
    stop = trio.Event() if stop is None else stop
    try:
        older = False
        started: Callable[[], None] = task_status.started
        while True:
            try:
                await _run(config, listeners, started, stop, pages, older=older)
                return
            except OlderDirectory as error:
                log.error("%s", error)
                if stop.is_set():
                    return  # the next start finds it out again
                older, started = True, lambda: None
    finally:
        close_all(listeners)


async def _run(
    config: NodeConfig, listeners: list[socket.socket], started: Callable[[], None], stop: trio.Event,
    pages: Callable[[Node], Mapping[str, Make]] | None, *, older: bool,
) -> None:
    """`older`: the directory is an older state of itself. Raises OlderDirectory when that is found out."""
    cluster = config.cluster
    first = sorted({*cluster.first_ranks, config.rank})
    identity = Identity(cluster.cluster_id, config.rank, tuple(first), cluster.created_sectors)

    def open_storage() -> StableStorage:
        # What a cluster before had is at those that were recovered of it: docs/recover.md.
        recovered = cluster.recovered
        return StableStorage.open(
            OsFiles(config.storage), identity, journal_bytes=config.journal_bytes,
            start=Start(
                all_unknown=recovered is not None, epoch=recovered.epoch if recovered is not None else 0,
                joins=config.join or config.rank not in cluster.first_ranks, older=older,
            ),
        )

    storage = await trio.to_thread.run_sync(open_storage)
    if was_left(config) and not may_begin(storage, rejoins=config.rejoin):
        await trio.to_thread.run_sync(storage.close)
        raise WrongDirectory(
            f"this cluster was recovered from node {config.rank}, and {config.storage} is empty, or its recovery was "
            "interrupted: put its directory there, and run `dsreg recover` once more. If it was lost after that, for "
            "good, start this node with an empty directory and --rejoin: it takes over what the others have learned"
        )
    node = Node(config, storage)
    if pages is not None:
        node.more_pages = pages(node)
    if storage.sectors != cluster.sectors:
        log.info("the disk has %d sectors, not the %d of %s, which is where to begin", storage.sectors,
                 cluster.sectors, cluster.path)
    try:
        log.info("rank %d serves on %s", config.rank, format_address(*config.listen_at))
        started()
        await node.run(listeners, stop)
    except* StorageError as group:
        # One fault may end several tasks; each says the same.
        raise _leaves(group)[0] from None
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(storage.close)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def was_left(config: NodeConfig) -> bool:
    """Whether the directory of this node was left when the cluster was recovered: an empty one is never its first."""
    recovered = config.cluster.recovered
    return recovered is not None and config.rank in recovered.ranks


def may_begin(storage: StableStorage, *, rejoins: bool) -> bool:
    """Whether a node that was left may use this directory. Not if its recovery was interrupted: it may have what
    nobody else has, and a node that rejoins would have to learn that from others."""
    if storage.lives.begun or storage.lives.claimed or storage.lives.given_up:
        return True
    return rejoins and storage.learning.left == storage.sectors and storage.next_chunk(0) is None


def teachers_of(config: NodeConfig, storage: StableStorage, quorum: Quorum) -> Teachers | None:
    """From whom this node learns; None: from all."""
    recovered = config.cluster.recovered
    if recovered is None:
        return None
    return OfTheRecovered(recovered.sources(config.rank), lambda: storage.lives.own.number, quorum)


def _raise_descriptor_limit() -> None:
    """Use the whole allowance of the contract where the system's default is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_FILE_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_FILE_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MAX_FILE_DESCRIPTORS)
    return max(allowed - RESERVED_DESCRIPTORS, allowed // 2)
