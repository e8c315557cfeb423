"""Engine: the client's core at work, its connections and what operations hold. No caller waits in here.

What is begun calls back. For callers that wait, in tasks of their own: dsreg.client.client.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import trio

from dsreg.client.admission import Admission
from dsreg.client.attachment import Claim
from dsreg.client.cluster import Cluster, Node
from dsreg.client.connection import Connection
from dsreg.client.core import ClientCore
from dsreg.client.events import (
    Attached,
    Close,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Event,
    Failed,
    NotAttached,
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
from dsreg.core.codec import EncodeOnce, Encoder, Keys
from dsreg.core.greeting import Seals
from dsreg.core.messages import Buffer, Message, StatusReport, StatusRequest
from dsreg.errors import ClientClosed, ClientError, Outcome

_log = logging.getLogger("dsreg.client")

# Told, once, what a run has come to: what was read (b"" of a write), or the error.
# It must not raise: that ends the client, and what was to be told next is not.
Done = Callable[[Buffer, ClientError | None], None]


class _Run(NamedTuple):
    """A run that the core has, and what it holds meanwhile."""

    held: Held
    size: int
    done: Done


class _StatusCall:
    """A question for a node's status."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.over = trio.Event()
        self.report: StatusReport | None = None


class Engine:
    """Between `start` and `close`. What is begun, by `begin`, `run` or `step`, goes out with the next `flush_turn`, so
    that one writing serves all that is begun in a turn; a task that does not end the turn calls `flush_soon`."""

    def __init__(self, config: Cluster, nodes: Sequence[Node], claim: Claim | None) -> None:
        self.core = ClientCore([node.rank for node in nodes], claim)
        self.is_open = False
        self.settled = trio.Event()  # whether the disk is attached is known, or the client was closed
        self.lost = trio.Event()  # it is not attached, or not any more
        self.ups = {node.rank: trio.Event() for node in nodes}
        self._lock = RangeLock()
        self._admission = Admission(MAX_OPERATIONS, MAX_OPERATION_BYTES)
        self._runs: dict[int, _Run] = {}
        self._last_operation = 0
        self._ticks = False  # from the first operation until none is left
        self._busy = trio.Event()
        self._known: set[int] = set()  # ranks that have been connected
        self._status_calls: dict[int, _StatusCall] = {}
        keys, rng = Keys(config.client_key, b""), random.Random()
        seals = Seals(keys, lambda: secrets.token_bytes(32), required=getattr(config, "require_sealed", False))
        encode = EncodeOnce(Encoder(keys)), EncodeOnce(Encoder(None))
        self.connections = {
            node.rank: Connection(
                node.rank, node.host, node.port, keys=keys, sectors=config.sectors, owner=self, rng=rng, seals=seals,
                encode=encode,
            )
            for node in nodes
        }
        self._dirty: set[Connection] = set()  # have something to flush
        self._turn = trio.Event()  # set by flush_soon
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
        }

    def start(self, nursery: trio.Nursery) -> None:
        self.is_open = True
        nursery.start_soon(self._tick)
        nursery.start_soon(self._flush_turns)
        for connection in self.connections.values():
            nursery.start_soon(connection.run)

    def close(self) -> None:
        """Every operation, and every wait, is over."""
        self.is_open = False
        self.step(Close())
        self.settled.set()
        for call in self._status_calls.values():
            call.over.set()

    def obstacle(self) -> tuple[str, bool]:
        """See Ring."""
        return self.core.obstacle(_now_s())

    # --- operations -----------------------------------------------------------------------------
    def begin(self, first: int, count: int, data: bytes | None, done: Done, force: bool) -> bool:
        """See Client.begin; `force`: see Start."""
        if not self.is_open or first % MAX_RUN_SECTORS + count > MAX_RUN_SECTORS:
            return False
        if (held := self._lock.acquire_now(first, first + count)) is None:
            return False
        if not self._admission.acquire_now(count * SECTOR_SIZE):
            self._lock.release(held)
            return False
        self._start(first, count, data, held, done, force)
        return True

    async def run(self, first: int, count: int, data: bytes | None, done: Done, force: bool) -> int:
        """Wait for the sectors of a run, then for room; begin the operation, and give its number."""
        held = await self._lock.acquire(first, first + count)
        admitted = False
        try:
            await self._admission.acquire(count * SECTOR_SIZE)
            admitted = True
        finally:
            if not admitted:
                self._lock.release(held)
        return self._start(first, count, data, held, done, force)

    def _start(self, first: int, count: int, data: bytes | None, held: Held, done: Done, force: bool) -> int:
        """Start the operation. What it holds is released when it settles."""
        self._last_operation = operation = self._last_operation + 1
        self._runs[operation] = _Run(held, count * SECTOR_SIZE, done)
        if self.is_open:
            self.step(Start(operation, first, count, data, force))
        else:
            self._settle(operation, b"", ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN))
        return operation

    async def ask_status(self, rank: int) -> StatusReport | None:
        """None: the connection broke first, perhaps in the very turn in which the caller was told that it is up."""
        if not self.ups[rank].is_set():
            return None
        request = self.core.new_request()
        call = self._status_calls[request] = _StatusCall(rank)
        self._send(Send(rank, StatusRequest(request)))
        self.flush_soon()
        try:
            await call.over.wait()
        finally:
            del self._status_calls[request]
            self.connections[rank].withdraw(request)
        return call.report

    # --- turns ----------------------------------------------------------------------------------
    def flush_turn(self) -> None:
        """Send what has been begun."""
        while self._dirty:
            self._dirty.pop().flush()

    def flush_soon(self) -> None:
        """When the other tasks that run in this pass of the scheduler have begun what they have to."""
        self._turn.set()

    async def _flush_turns(self) -> None:
        while True:
            await self._turn.wait()
            self._turn = trio.Event()
            self.flush_turn()

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            self._busy = trio.Event()
            while self.core.busy:
                await trio.sleep(TICK_S)
                self.step(Tick())
                self.flush_turn()
            self._ticks = False

    # --- the core's side ------------------------------------------------------------------------
    def step(self, event: Event) -> None:
        for effect in self.core.step(event, _now_s()):
            self._effects[type(effect)](effect)
        if not self._ticks and self.core.busy:
            self._ticks = True
            self._busy.set()

    def _send(self, effect: Send) -> None:
        connection = self.connections[effect.rank]
        connection.send(effect.message)
        self._dirty.add(connection)

    def _settle(self, operation: int, data: Buffer, error: ClientError | None) -> None:
        held, size, done = self._runs.pop(operation)
        self._admission.release(size)
        self._lock.release(held)
        done(data, error)

    def _waits(self, effect: Waits) -> None:
        level = logging.WARNING if effect.needs_help else logging.INFO
        _log.log(level, "the disk is not attached yet: %s", effect.text)

    def _not_attached(self) -> None:
        self.settled.set()
        self.lost.set()

    # --- the connections' side (connection.Owner) -------------------------------------------------
    def connected(self, rank: int, nodes: int) -> None:
        self.core.counters.reconnects += rank in self._known
        self._known.add(rank)
        self.step(Connected(rank, nodes))
        self.flush_turn()
        self.ups[rank].set()

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self.step(Received(rank, messages))
        self.flush_turn()
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
        self.flush_turn()
        rank = event.rank
        if self.ups[rank].is_set():
            self.ups[rank] = trio.Event()
        for call in self._status_calls.values():
            if call.rank == rank:
                call.over.set()


def _now_s() -> float:
    """Seconds that also pass while the machine sleeps: the tags of an attachment must not fall behind others."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
