"""Engine: carries out what the client's core decides, over its connections; admits and orders operations.

What is submitted calls back. For callers that wait, in tasks of their own: dsreg.client.client.
"""

from __future__ import annotations

import collections
import itertools
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from dsreg.client.admission import Admission, Entry
from dsreg.client.attachment import Claim
from dsreg.client.cluster import Cluster, NodeAddress
from dsreg.client.connection import Connection
from dsreg.client.core import ClientCore
from dsreg.client.events import (
    Abandon,
    Attached,
    Close,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Effect,
    Event,
    Failed,
    NotAttached,
    NotCounted,
    Received,
    Refusal,
    Send,
    Start,
    Tick,
    Waits,
    Withdraw,
)
from dsreg.client.limits import MAX_OPERATION_BYTES, MAX_OPERATIONS, TICK_S
from dsreg.client.range_lock import Held, RangeLock
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import ClientClosed, ClientError, NodesFull, OperationTimeout, Outcome
from dsreg.lines import TcpLines
from dsreg.protocol.codec import EncodeOnce, Encoder, Keys
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Message, StatusReport, StatusRequest
from dsreg.register.assembly import client_hello
from dsreg.store import Buffer, Done

_log = logging.getLogger("dsreg.client")


class Run:
    """A run that was submitted: it waits for its sectors, then for room, then it is an operation of the core."""

    __slots__ = ("count", "data", "deadline_s", "done", "engine", "entry", "first", "force", "held", "operation")
    held: Held

    def __init__(
        self, engine: Engine, first: int, count: int, data: bytes | None, done: Done, deadline_s: float, force: bool
    ) -> None:
        self.engine = engine
        self.first = first
        self.count = count
        self.data = data
        self.done: Done | None = done  # None: nobody waits any more
        self.deadline_s = deadline_s
        self.force = force
        self.entry: Entry | None = None  # while it waits for room
        self.operation = 0  # of the core; 0: not yet

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * SECTOR_SIZE

    def locked(self) -> None:
        self.engine.ask_for_room(self)

    def admitted(self) -> None:
        self.entry = None
        self.engine.ready.append(self)

    def abandon(self) -> Outcome:
        """See dsreg.store.Submitted."""
        return self.engine.abandon(self)


class _StatusCall:
    """A question for a node's status."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.over = trio.Event()
        self.report: StatusReport | None = None


class Engine:
    """Between `start` and `close`. What is submitted goes out with the next `end_turn`, so that one writing serves all
    that is submitted in a turn; a task that does not end the turn calls `end_turn_soon`. `timeout_s`: for each run,
    None for none."""

    def __init__(
        self, config: Cluster, nodes: Sequence[NodeAddress], claim: Claim | None, timeout_s: float | None = None
    ) -> None:
        self.core = ClientCore([node.rank for node in nodes], claim)
        self.is_open = False
        self.settled = trio.Event()  # whether the disk is attached is known, or the client was closed
        self.lost = trio.Event()  # it is not attached, or not any more
        self.ups = {node.rank: trio.Event() for node in nodes}
        self._lock = RangeLock()
        self._admission = Admission(MAX_OPERATIONS, MAX_OPERATION_BYTES)
        self._timeout_s = timeout_s
        self._runs: dict[Run, None] = {}  # all that have not ended
        self._operations: dict[int, Run] = {}  # those that the core has
        self._last_operation = 0
        self.ready: collections.deque[Run] = collections.deque()  # hold all they need, and are to be started
        self._is_starting = False
        self._under_way: list[list[Effect]] = []  # of steps within steps
        self._ticks = False  # from the first operation until none is left
        self._busy = trio.Event()
        self._known: set[int] = set()  # ranks that have been connected
        self._status_calls: dict[int, _StatusCall] = {}
        keys, rng = Keys(config.client_key, b""), random.Random()
        seals = Seals(keys, lambda: secrets.token_bytes(32), required=getattr(config, "require_sealed", False))
        encode = EncodeOnce(Encoder(keys)), EncodeOnce(Encoder(None))
        self._lines = {node.rank: TcpLines(node.host, node.port) for node in nodes}
        self.connections = {
            rank: Connection(
                rank, lines, hello=client_hello(config.sectors), keys=keys, seals=seals, observer=self, encode=encode,
                jitter=lambda: rng.uniform(0.5, 1.0), clock=trio.current_time,
            )
            for rank, lines in self._lines.items()
        }
        self._dirty: set[Connection] = set()  # have something to flush
        self._turn = trio.Event()  # set by end_turn_soon
        self._effects: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Withdraw: lambda effect: self.connections[effect.rank].withdraw(effect.request),
            Drop: lambda effect: self.connections[effect.rank].drop(),
            Completed: lambda effect: self._settle(effect.operation, effect.data, None),
            Failed: lambda effect: self._settle(effect.operation, b"", effect.error),
            Dropped: lambda effect: self._settle(effect.operation, b"", None),
            Attached: lambda effect: self.settled.set(),
            Waits: self._waits,
            NotAttached: lambda effect: self._not_attached(),
            NotCounted: self._not_counted,
        }

    def start(self, nursery: trio.Nursery) -> None:
        self.is_open = True
        nursery.start_soon(self._tick)
        nursery.start_soon(self._end_turns)
        for rank, lines in self._lines.items():
            nursery.start_soon(lines.run, self.connections[rank].driver)

    def close(self) -> None:
        """Every operation, and every wait, is over."""
        self.is_open = False
        self.step(Close())
        self.settled.set()
        for call in self._status_calls.values():
            call.over.set()

    def obstacle(self) -> tuple[str, bool]:
        """See NodeSelector."""
        return self.core.obstacle(_now_s())

    # --- runs -----------------------------------------------------------------------------------
    def submit(
        self, first: int, count: int, data: bytes | None, done: Done, deadline_s: float = math.inf, force: bool = False
    ) -> Run:
        """A run of one chunk, within the disk: see dsreg.store.SectorStore; `force`: see Client."""
        assert first % MAX_RUN_SECTORS + count <= MAX_RUN_SECTORS and count
        if self._timeout_s is not None and deadline_s == math.inf:
            deadline_s = self.deadline_s()
        run = Run(self, first, count, data, done, deadline_s, force)
        self._runs[run] = None
        run.held = self._lock.acquire(first, first + count, run.locked)
        if not run.held.waits:
            self.ask_for_room(run)
            self._start_ready()
        return run

    def deadline_s(self) -> float:
        """For what is submitted now."""
        return math.inf if self._timeout_s is None else _now_s() + self._timeout_s

    def ask_for_room(self, run: Run) -> None:
        """The sectors are the run's."""
        run.entry = self._admission.acquire(run.size, run.admitted)
        if run.entry is None:
            self.ready.append(run)

    def _start_ready(self) -> None:
        """Not within a step, whose effects come first. A loop: what is started may end at once, and free the next."""
        if self._is_starting or self._under_way:
            return
        self._is_starting = True
        while self.ready:
            self._start(self.ready.popleft())
        self._is_starting = False

    def _start(self, run: Run) -> None:
        self._last_operation = operation = run.operation = self._last_operation + 1
        self._operations[operation] = run
        if self.is_open:
            self.step(Start(operation, run.first, run.count, run.data, run.force))
        else:
            self._settle(operation, b"", ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN))

    def _settle(self, operation: int, data: Buffer, error: ClientError | None) -> None:
        run = self._operations.pop(operation)
        self._release(run)
        if run.done is not None:
            run.done(data, error)

    def _release(self, run: Run) -> None:
        del self._runs[run]
        self._admission.release(run.size)
        self._lock.release(run.held)

    def abandon(self, run: Run) -> Outcome:
        """See dsreg.store.Submitted."""
        outcome = Outcome.DID_NOT_HAPPEN
        if run not in self._runs or run.done is None:
            return outcome
        run.done, run.deadline_s = None, math.inf
        if run.operation:
            outcome = self._outcome(run)
            self.step(Abandon(run.operation))
        elif run.held.waits or run.entry is not None:
            del self._runs[run]
            if run.entry is not None:
                self._admission.give_up(run.entry)
            self._lock.release(run.held)
        else:
            self.ready.remove(run)
            self._release(run)
        self._start_ready()
        return outcome

    def _outcome(self, run: Run) -> Outcome:
        """What is known of a run that the core has, or that has ended in a step of which not all is carried out yet:
        one event may end many, and the first to be told gives up the others of its call."""
        known = self.core.outcome(run.operation)
        if known is not None:
            return known
        for effect in itertools.chain.from_iterable(self._under_way):
            if isinstance(effect, Failed) and effect.operation == run.operation:
                return effect.error.outcome
        return Outcome.DID_NOT_HAPPEN if run.data is None else Outcome.MAY_HAVE_HAPPENED

    def _end_overdue(self) -> None:
        now_s = _now_s()
        for run in [run for run in self._runs if run.deadline_s <= now_s]:
            if (done := run.done) is None:
                continue  # ended by what the one before it has caused
            what = "read" if run.data is None else "write"
            obstacle, is_full = self.obstacle()
            up = f"{sum(map(self.core.up, self.connections))} of {len(self.connections)} nodes connected"
            kind = NodesFull if is_full and run.data is not None else OperationTimeout
            where = f"{run.first}..{run.first + run.count - 1}"
            reason = f"{what} of sectors {where}: not done within {self._timeout_s} s, {obstacle or up}"
            done(b"", kind(reason, self.abandon(run)))

    async def ask_status(self, rank: int) -> StatusReport | None:
        """None: the connection broke first, perhaps in the very turn in which the caller was told that it is up."""
        if not self.ups[rank].is_set():
            return None
        request = self.core.new_request()
        call = self._status_calls[request] = _StatusCall(rank)
        self._send(Send(rank, StatusRequest(request)))
        self.end_turn_soon()
        try:
            await call.over.wait()
        finally:
            del self._status_calls[request]
            self.connections[rank].withdraw(request)
        return call.report

    # --- turns ----------------------------------------------------------------------------------
    def end_turn(self) -> None:
        """Send what has been submitted."""
        while self._dirty:
            self._dirty.pop().flush()

    def end_turn_soon(self) -> None:
        """When the other tasks that run in this pass of the scheduler have submitted what they have to."""
        self._turn.set()

    async def _end_turns(self) -> None:
        while True:
            await self._turn.wait()
            self._turn = trio.Event()
            self.end_turn()

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            self._busy = trio.Event()
            while self.core.busy:
                await trio.sleep(TICK_S)
                self.step(Tick())
                self._end_overdue()
                self.end_turn()
            self._ticks = False

    # --- the core's side ------------------------------------------------------------------------
    def step(self, event: Event) -> None:
        effects = self.core.step(event, _now_s())
        self._under_way.append(effects)
        for effect in effects:
            self._effects[type(effect)](effect)
        self._under_way.pop()
        self._start_ready()
        if not self._ticks and self.core.busy:
            self._ticks = True
            self._busy.set()

    def _send(self, effect: Send) -> None:
        connection = self.connections[effect.rank]
        connection.send(effect.message)
        self._dirty.add(connection)

    def _waits(self, effect: Waits) -> None:
        level = logging.WARNING if effect.needs_help else logging.INFO
        _log.log(level, "the disk is not attached yet: %s", effect.text)

    def _not_counted(self, effect: NotCounted) -> None:
        if effect.fault:
            _log.error(
                "node %d is neither asked nor counted: %s. Put its old directory back; if that is lost for good, "
                "follow the runbook, \"A node's directory is lost\", and then start this program again",
                effect.rank, effect.fault,
            )
        else:
            _log.warning("node %d is used again: its directory is the one that it is known by", effect.rank)

    def _not_attached(self) -> None:
        self.settled.set()
        self.lost.set()

    # --- the connections' side (connection.Observer) -------------------------------------------------
    def connected(self, rank: int, nodes: int) -> None:
        self.core.counters.reconnects += rank in self._known
        self._known.add(rank)
        self.step(Connected(rank, nodes))
        self.end_turn()
        self.ups[rank].set()

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self.step(Received(rank, messages))
        self.end_turn()
        if self._status_calls:
            self._report(messages)

    def _report(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, StatusReport) and message.request in self._status_calls:
                call = self._status_calls[message.request]
                call.report = message
                call.over.set()

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self.step(event)
        self.end_turn()
        rank = event.rank
        if self.ups[rank].is_set():
            self.ups[rank] = trio.Event()
        for call in self._status_calls.values():
            if call.rank == rank:
                call.over.set()


def _now_s() -> float:
    """Seconds that also pass while the machine sleeps: the tags of an attachment must not fall behind others."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
