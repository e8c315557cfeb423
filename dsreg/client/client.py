"""The client under trio: callers in, the core's effects out."""

from __future__ import annotations

import dataclasses
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import trio

from dsreg.client.admission import Admission
from dsreg.client.attachment import Claim, State
from dsreg.client.cluster import Attach, Cluster, Node
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
    Event,
    Failed,
    NotAttached,
    Received,
    Refusal,
    Send,
    Start,
    Tick,
    Withdraw,
)
from dsreg.client.limits import MAX_OPERATION_BYTES, MAX_OPERATIONS, MAX_RUNS_PER_CALL, TICK_S
from dsreg.client.range_lock import Held, RangeLock
from dsreg.client.state import Counters
from dsreg.constants import MAX_RUN_SECTORS, OWNER_ID_SIZE, SECTOR_SIZE
from dsreg.core.codec import EncodeOnce, Encoder, Keys
from dsreg.core.greeting import Seals
from dsreg.core.messages import Buffer, Message, StatusReport, StatusRequest, owner_of
from dsreg.errors import ClientClosed, ClientError, OperationTimeout, Outcome, OutOfRange


# Told, once, what a run has come to: what was read (b"" of a write), or the error.
Done = Callable[[Buffer, ClientError | None], None]


class _Run(NamedTuple):
    """A run that the core has, and what it holds meanwhile."""

    held: Held
    size: int
    done: Done


class _Outcome:
    """Of a run, for a task that waits for it."""

    __slots__ = ("data", "error", "event")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.data: Buffer = b""
        self.error: ClientError | None = None

    def settle(self, data: Buffer, error: ClientError | None) -> None:
        self.data, self.error = data, error
        self.event.set()


@dataclasses.dataclass(slots=True, eq=False)
class _Progress:
    """What is known of a whole call if it ends here."""

    outcome: Outcome = Outcome.DID_NOT_HAPPEN


@dataclasses.dataclass(slots=True, eq=False)
class _StatusCall:
    rank: int
    over: trio.Event
    report: StatusReport | None = None


class Client:
    """Reads and writes sectors on a cluster, from any number of tasks at once.

        async with Client(load_config(path)) as client:
            await client.write(7, bytes(4096))

    Operations on different sectors run side by side, at most limits.MAX_OPERATIONS of them; those that
    overlap run one after the other in the order of their calls. An operation lasts until a majority of the
    nodes has answered, however long that takes, or until `timeout_s`. Cancelling a call drops the operation;
    a write whose STORE may be under way is completed in the background and later operations on its sectors
    wait for it. Every failure is a dsreg.errors.ClientError, whose `outcome` says what is known.

    With `attach` the disk is this client's alone (but for clients that do not attach): writes take one round, and
    whoever attaches it later fences this one, whose operations then fail with DiskFenced. Operations wait until it is
    attached; `attached` tells.
    """

    def __init__(self, config: Cluster, timeout_s: float | None = None, attach: Attach | None = None) -> None:
        self.sectors = config.sectors
        self.nodes: tuple[Node, ...] = tuple(sorted(config.nodes, key=lambda node: node.rank))
        self._timeout_s = timeout_s
        self._open = False
        claim = None
        if attach is not None:
            claim = Claim(owner_of(secrets.token_bytes(OWNER_ID_SIZE), attach.name), attach.take_over)
        self._core = ClientCore([node.rank for node in self.nodes], claim)
        self._attachment = trio.Event()  # set once it is known whether the disk is attached
        self._lost = trio.Event()
        self._lock = RangeLock()
        self._admission = Admission(MAX_OPERATIONS, MAX_OPERATION_BYTES)
        self._runs: dict[int, _Run] = {}
        self._last_operation = 0
        self._busy = trio.Event()
        self._ups = {node.rank: trio.Event() for node in self.nodes}
        self._known: set[int] = set()  # ranks that have been connected
        self._status_calls: dict[int, _StatusCall] = {}
        keys, rng = Keys(config.client_key, b""), random.Random()
        seals = Seals(keys, lambda: secrets.token_bytes(32), required=getattr(config, "require_sealed", False))
        encode = EncodeOnce(Encoder(keys)), EncodeOnce(Encoder(None))
        self._connections = {
            node.rank: Connection(
                node.rank, node.host, node.port, keys=keys, sectors=config.sectors, owner=self, rng=rng, seals=seals,
                encode=encode,
            )
            for node in self.nodes
        }
        self._dirty: set[Connection] = set()  # have something to flush
        self._turn = trio.Event()  # somebody has given them something, and will not flush it
        self._effects: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Withdraw: lambda effect: self._connections[effect.rank].withdraw(effect.request),
            Drop: lambda effect: self._connections[effect.rank].drop(),
            Completed: lambda effect: self._settle(effect.operation, effect.data, None),
            Failed: lambda effect: self._settle(effect.operation, b"", effect.error),
            Dropped: lambda effect: self._settle(effect.operation, b"", None),
            Attached: lambda effect: self._attachment.set(),
            NotAttached: lambda effect: self._not_attached(),
        }

    # --- the caller's side --------------------------------------------------------------------
    async def read(self, sector: int, count: int = 1) -> bytes:
        """The `count` * 4096 bytes of the sectors from `sector` on, `count` >= 1. Each run of up to 256 sectors
        that lies in one 256-sector chunk is read at once, and each sector in it atomically; the whole is not."""
        if count < 1:
            raise ValueError("count must be at least 1")
        self._check(sector, count)
        parts = await self._call(sector, count, None)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def write(self, sector: int, data: Buffer) -> None:
        """Write `data`, a positive multiple of 4096 bytes, to the sectors from `sector` on. Returned: it is
        durable at a majority. Each sector changes atomically; the whole does not."""
        size = memoryview(data).nbytes
        if size == 0 or size % SECTOR_SIZE:
            raise ValueError(f"the data must be a positive multiple of {SECTOR_SIZE} bytes")
        self._check(sector, size // SECTOR_SIZE)
        # A caller who gives up may reuse its buffer while the write is being completed.
        await self._call(sector, size // SECTOR_SIZE, data if isinstance(data, bytes) else bytes(data))

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool:
        """Begin to read a run of sectors, or to write `data` to it, without waiting: `done` is called once, from within
        some later call or this one. Nothing is sent before `flush`, so that one writing serves many runs.

        False, and nothing begun, if that is not possible: for more than one run (see `read`), while an operation on
        one of its sectors is under way, while as much is under way as may be, and with a `timeout_s`."""
        if self._timeout_s is not None or not self._open or sector % MAX_RUN_SECTORS + count > MAX_RUN_SECTORS:
            return False
        self._check(sector, count)
        if (held := self._lock.acquire_now(sector, sector + count)) is None:
            return False
        size = count * SECTOR_SIZE
        if not self._admission.acquire_now(size):
            self._lock.release(held)
            return False
        self._start(sector, count, data, held, done)
        return True

    def flush(self) -> None:
        """Send what has been begun."""
        while self._dirty:
            self._dirty.pop().flush()

    async def status(self, rank: int, timeout_s: float) -> dict[str, Any]:
        """The node's own report, and `round_trip_s`. Raises OperationTimeout if none comes in time, ClientError
        if it cannot be read, ValueError for a rank that the cluster does not have."""
        if rank not in self._connections:
            raise ValueError(f"no node has rank {rank}")
        with trio.move_on_after(timeout_s):
            while self._open:
                await self._ups[rank].wait()
                started_s = trio.current_time()
                report = await self._ask_status(rank)
                if report is not None:
                    return _parse_status(report, trio.current_time() - started_s)
            raise _closed()
        raise OperationTimeout(f"no status from node {rank} within {timeout_s} s", Outcome.DID_NOT_HAPPEN)

    async def attached(self) -> int:
        """Wait until the disk is attached, or cannot be; the epoch. Raises AlreadyAttached, AttachRefused, DiskFenced
        once it has been taken over, AuthenticationFailed or WrongDisk if no node can be used, ClientClosed, and with
        `timeout_s` OperationTimeout if no majority answers."""
        attachment = self._core.attachment
        if attachment is None:
            raise ValueError("this client was made without `attach`")
        with trio.move_on_after(float("inf") if self._timeout_s is None else self._timeout_s):
            await self._attachment.wait()
        if attachment.error is not None:
            raise attachment.error
        if self._attachment.is_set() and attachment.state is not State.HELD:
            raise _closed()
        if not self._attachment.is_set():
            raise OperationTimeout(f"not attached within {self._timeout_s} s", Outcome.DID_NOT_HAPPEN)
        return attachment.epoch

    async def lost(self) -> ClientError:
        """Wait until the disk is not this client's any more: why every operation fails from then on. Closing the
        client does not end the wait."""
        await self._lost.wait()
        assert self._core.attachment is not None and self._core.attachment.error is not None
        return self._core.attachment.error

    @property
    def counters(self) -> Counters:
        """Counts since the start; they go on counting."""
        return self._core.counters

    @property
    def connected_ranks(self) -> tuple[int, ...]:
        """The nodes that can be asked at this moment."""
        return tuple(node.rank for node in self.nodes if self._core.up(node.rank))

    def complaint(self, rank: int) -> str:
        """Why the node cannot be used, as it turned out when it was greeted last; "" if nothing is known against it."""
        return self._connections[rank].complaint

    async def __aenter__(self) -> Self:
        assert not self._open
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        self._open = True
        nursery.start_soon(self._tick)
        nursery.start_soon(self._flush_turns)
        for connection in self._connections.values():
            nursery.start_soon(connection.run)
        self._nursery = nursery
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._step(Close())
        self._attachment.set()
        for call in self._status_calls.values():
            call.over.set()
        self._nursery.cancel_scope.cancel()
        # The body's error is not shown to the nursery, which would wrap it in an ExceptionGroup.
        await self._manager.__aexit__(None, None, None)

    # --- calls ----------------------------------------------------------------------------------
    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or sector + count > self.sectors:
            last = self.sectors - 1
            raise OutOfRange(f"sectors {sector}..{sector + count - 1} of 0..{last}", Outcome.DID_NOT_HAPPEN)

    async def _call(self, first: int, count: int, data: bytes | None) -> list[Buffer]:
        progress = _Progress()
        if self._timeout_s is None:
            return await self._pieces(progress, first, count, data)
        with trio.move_on_after(self._timeout_s):
            return await self._pieces(progress, first, count, data)
        what = "read" if data is None else "write"
        up = f"{len(self.connected_ranks)} of {len(self.nodes)} nodes connected"
        raise OperationTimeout(
            f"{what} of sectors {first}..{first + count - 1}: not done within {self._timeout_s} s, {up}",
            progress.outcome,
        )

    async def _pieces(self, progress: _Progress, first: int, count: int, data: bytes | None) -> list[Buffer]:
        """Do all runs, some at a time; what was read, in order. The first failure ends the rest."""
        runs = list(split(first, count))
        if len(runs) == 1:
            return [await self._run(progress, first, count, data)]
        parts: list[Buffer] = [b""] * len(runs)
        failures: list[ClientError] = []
        pending = iter(enumerate(runs))

        async def work() -> None:
            for index, (start, sectors) in pending:
                begin = (start - first) * SECTOR_SIZE
                piece = None if data is None else data[begin : begin + sectors * SECTOR_SIZE]
                try:
                    parts[index] = await self._run(progress, start, sectors, piece)
                except ClientError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(runs), MAX_RUNS_PER_CALL)):
                nursery.start_soon(work)
        if failures:
            error = failures[0]
            if error.outcome is progress.outcome:
                raise error
            raise type(error)("a part of the write failed", progress.outcome) from error
        return parts

    async def _run(self, progress: _Progress, first: int, count: int, data: bytes | None) -> Buffer:
        """One run, as one operation of the core, alone on its sectors."""
        run = _Outcome()
        operation = await self._begin(first, count, data, run.settle)
        self._turn.set()
        try:
            await run.event.wait()
        finally:
            if not run.event.is_set():
                if self._core.outcome(operation) is Outcome.MAY_HAVE_HAPPENED:
                    progress.outcome = Outcome.MAY_HAVE_HAPPENED
                self._step(Abandon(operation))
            elif data is not None and (run.error is None or run.error.outcome is Outcome.MAY_HAVE_HAPPENED):
                progress.outcome = Outcome.MAY_HAVE_HAPPENED
        if run.error is not None:
            raise run.error
        return run.data

    async def _begin(self, first: int, count: int, data: bytes | None, done: Done) -> int:
        """Wait for the sectors, then for room; start the operation."""
        held = await self._lock.acquire(first, first + count)
        admitted = False
        try:
            await self._admission.acquire(count * SECTOR_SIZE)
            admitted = True
        finally:
            if not admitted:
                self._lock.release(held)
        return self._start(first, count, data, held, done)

    def _start(self, first: int, count: int, data: bytes | None, held: Held, done: Done) -> int:
        """Start the operation. What it holds is released when it settles."""
        self._last_operation = operation = self._last_operation + 1
        self._runs[operation] = _Run(held, count * SECTOR_SIZE, done)
        if self._open:
            self._step(Start(operation, first, count, data))
        else:
            self._settle(operation, b"", _closed())
        return operation

    async def _ask_status(self, rank: int) -> StatusReport | None:
        """None: the connection broke first."""
        request = self._core.new_request()
        call = self._status_calls[request] = _StatusCall(rank, trio.Event())
        self._send(Send(rank, StatusRequest(request)))
        self._turn.set()
        try:
            await call.over.wait()
        finally:
            del self._status_calls[request]
            self._connections[rank].withdraw(request)
        return call.report

    # --- the core's side ------------------------------------------------------------------------
    def _step(self, event: Event) -> None:
        for effect in self._core.step(event, _now_s()):
            self._effects[type(effect)](effect)
        if self._core.busy:
            self._busy.set()

    def _send(self, effect: Send) -> None:
        connection = self._connections[effect.rank]
        connection.send(effect.message)
        self._dirty.add(connection)

    async def _flush_turns(self) -> None:
        """For tasks that have begun something: all that do so in one pass of the scheduler are served together."""
        while True:
            await self._turn.wait()
            self._turn = trio.Event()
            self.flush()

    def _settle(self, operation: int, data: Buffer, error: ClientError | None) -> None:
        held, size, done = self._runs.pop(operation)
        self._admission.release(size)
        self._lock.release(held)
        done(data, error)

    def _not_attached(self) -> None:
        self._attachment.set()
        self._lost.set()

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            while self._core.busy:
                await trio.sleep(TICK_S)
                self._step(Tick())
                self.flush()
            self._busy = trio.Event()

    # --- the connections' side (connection.Owner) -------------------------------------------------
    def connected(self, rank: int, nodes: int) -> None:
        self._core.counters.reconnects += rank in self._known
        self._known.add(rank)
        self._step(Connected(rank, nodes))
        self.flush()
        self._ups[rank].set()

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self._step(Received(rank, messages))
        self.flush()
        if self._status_calls:
            self._report(messages)

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self._step(event)
        self.flush()
        rank = event.rank
        if self._ups[rank].is_set():
            self._ups[rank] = trio.Event()
        for call in self._status_calls.values():
            if call.rank == rank:
                call.over.set()


    def _report(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, StatusReport) and message.request in self._status_calls:
                call = self._status_calls[message.request]
                call.report = message
                call.over.set()


def _now_s() -> float:
    """Seconds that also pass while the machine sleeps: the tags of an attachment must not fall behind others."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def split(first: int, count: int) -> Iterator[tuple[int, int]]:
    """The runs (first, count) of a range of sectors, none across a multiple of 256."""
    stop = first + count
    while first < stop:
        sectors = min(stop - first, MAX_RUN_SECTORS - first % MAX_RUN_SECTORS)
        yield first, sectors
        first += sectors


def _closed() -> ClientClosed:
    return ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN)


def _parse_status(report: StatusReport, round_trip_s: float) -> dict[str, Any]:
    try:
        status = json.loads(report.body)
    except ValueError as error:
        raise ClientError(f"a status that is no JSON: {error}", Outcome.DID_NOT_HAPPEN) from error
    if not isinstance(status, dict):
        raise ClientError("a status that is no JSON object", Outcome.DID_NOT_HAPPEN)
    return {**status, "round_trip_s": round_trip_s}
