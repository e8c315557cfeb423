"""The client under trio: callers, each in a task of its own, over the engine that does what they ask."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import trio

from dsreg.client.attachment import Claim, State
from dsreg.client.cluster import Attach, Cluster, Node
from dsreg.client.contract_nodes import describe_contract_nodes
from dsreg.client.engine import Done, Engine
from dsreg.client.events import (
    Abandon,
)
from dsreg.client.limits import MAX_RUNS_PER_CALL
from dsreg.client.state import Counters
from dsreg.constants import MAX_RUN_SECTORS, OWNER_ID_SIZE, SECTOR_SIZE
from dsreg.core.messages import Buffer, StatusReport, owner_of
from dsreg.core.quorum import majority
from dsreg.errors import ClientClosed, ClientError, NodesFull, OperationTimeout, Outcome, OutOfRange


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
    """A whole call. `outcome`: what is known of it if it ends here."""

    force: bool
    outcome: Outcome = Outcome.DID_NOT_HAPPEN


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

    Without it, writes fail with AlreadyAttached, and do not happen, while another client that is alive has the disk
    attached, be it since later than this one's start; with `force`, here or at a write, they are done all the same.
    """

    def __init__(
        self, config: Cluster, timeout_s: float | None = None, attach: Attach | None = None, force: bool = False
    ) -> None:
        self.sectors = config.sectors
        self.nodes: tuple[Node, ...] = tuple(sorted(config.nodes, key=lambda node: node.rank))
        self._timeout_s = timeout_s
        self._force = force
        claim = None
        if attach is not None:
            claim = Claim(owner_of(secrets.token_bytes(OWNER_ID_SIZE), attach.name), attach.take_over)
        self._engine = Engine(config, self.nodes, claim)
        self._core = self._engine.core

    # --- the caller's side --------------------------------------------------------------------
    async def read(self, sector: int, count: int = 1) -> bytes:
        """The `count` * 4096 bytes of the sectors from `sector` on, `count` >= 1. Each run of up to 256 sectors
        that lies in one 256-sector chunk is read at once, and each sector in it atomically; the whole is not."""
        if count < 1:
            raise ValueError("count must be at least 1")
        self._check(sector, count)
        parts = await self._call(sector, count, None, False)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def write(self, sector: int, data: Buffer, force: bool = False) -> None:
        """Write `data`, a positive multiple of 4096 bytes, to the sectors from `sector` on. Returned: it is
        durable at a majority. Each sector changes atomically; the whole does not. `force`: see Client."""
        size = memoryview(data).nbytes
        if size == 0 or size % SECTOR_SIZE:
            raise ValueError(f"the data must be a positive multiple of {SECTOR_SIZE} bytes")
        self._check(sector, size // SECTOR_SIZE)
        # A caller who gives up may reuse its buffer while the write is being completed.
        await self._call(sector, size // SECTOR_SIZE, data if isinstance(data, bytes) else bytes(data), force)

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool:
        """Begin to read a run of sectors, or to write `data` to it, without waiting: `done` is called once, from within
        some later call or this one. Nothing is sent before `flush_turn`, so that one writing serves many runs.

        False, and nothing begun, if that is not possible: for more than one run (see `read`), while an operation on
        one of its sectors is under way, while as much is under way as may be, and with a `timeout_s`."""
        if self._timeout_s is not None:
            return False
        self._check(sector, count)
        return self._engine.begin(sector, count, data, done, self._force)

    def flush_turn(self) -> None:
        """Send what has been begun."""
        self._engine.flush_turn()

    async def status(self, rank: int, timeout_s: float) -> dict[str, Any]:
        """The node's own report, and `round_trip_s`. Raises OperationTimeout if none comes in time, ClientError
        if it cannot be read, ValueError for a rank that the cluster does not have."""
        if rank not in self._engine.connections:
            raise ValueError(f"no node has rank {rank}")
        with trio.move_on_after(timeout_s):
            while self._engine.is_open:
                await self._engine.ups[rank].wait()
                started_s = trio.current_time()
                report = await self._engine.ask_status(rank)
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
            await self._engine.settled.wait()
        if attachment.error is not None:
            raise attachment.error
        if self._engine.settled.is_set() and attachment.state is not State.HELD:
            raise ClientClosed(f"the client is not open{attachment.aftermath}", attachment.outcome)
        if not self._engine.settled.is_set():
            up = f"{len(self.connected_ranks)} of {len(self.nodes)} nodes are connected"
            why = f"{attachment.waits_for.text or up}{attachment.aftermath}"
            raise OperationTimeout(f"not attached within {self._timeout_s} s: {why}", attachment.outcome)
        return attachment.epoch

    @property
    def waits_for(self) -> str:
        """What the attaching waits for at this moment, for people; "" for nothing but answers."""
        attachment = self._core.attachment
        return "" if attachment is None else attachment.waits_for.text

    async def lost(self) -> ClientError:
        """Wait until the disk is not this client's any more: why every operation fails from then on. Closing the
        client does not end the wait."""
        await self._engine.lost.wait()
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

    @property
    def obstacle(self) -> str:
        """What keeps operations from being done at this moment, as far as is known: too few nodes are connected, or
        too few have room for new data. "" if nothing is known."""
        return self._engine.obstacle()[0]

    def why_not_attached(self) -> str:
        """What stands in the way of attaching at this moment, for people."""
        up, nodes, contract = len(self.connected_ranks), len(self.nodes), self._core.contract_nodes.ranks
        needed = majority(nodes)
        if contract:
            return f"{describe_contract_nodes(contract)}, with which a disk cannot be attached"
        if up < needed:
            return f"no majority of the nodes can be reached: {up} of {nodes} are connected, {needed} are needed"
        return f"{up} of {nodes} nodes are connected, but no majority has agreed yet"

    def complaint(self, rank: int) -> str:
        """Why the node cannot be used, as it turned out when it was greeted last; "" if nothing is known against it."""
        return self._engine.connections[rank].complaint

    async def __aenter__(self) -> Self:
        assert not self._engine.is_open
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._engine.start(self._nursery)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()
        self._nursery.cancel_scope.cancel()
        # The body's error is not shown to the nursery, which would wrap it in an ExceptionGroup.
        await self._manager.__aexit__(None, None, None)

    # --- calls ----------------------------------------------------------------------------------
    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or sector + count > self.sectors:
            last = self.sectors - 1
            raise OutOfRange(f"sectors {sector}..{sector + count - 1} of 0..{last}", Outcome.DID_NOT_HAPPEN)

    async def _call(self, first: int, count: int, data: bytes | None, force: bool) -> list[Buffer]:
        progress = _Progress(force or self._force)
        if self._timeout_s is None:
            return await self._pieces(progress, first, count, data)
        with trio.move_on_after(self._timeout_s):
            return await self._pieces(progress, first, count, data)
        what = "read" if data is None else "write"
        obstacle, is_full = self._engine.obstacle()
        why = obstacle or f"{len(self.connected_ranks)} of {len(self.nodes)} nodes connected"
        kind = NodesFull if is_full and data is not None else OperationTimeout
        raise kind(
            f"{what} of sectors {first}..{first + count - 1}: not done within {self._timeout_s} s, {why}",
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
            raise type(error)(f"a part of the write failed: {error.reason}", progress.outcome) from error
        return parts

    async def _run(self, progress: _Progress, first: int, count: int, data: bytes | None) -> Buffer:
        """One run, as one operation of the core, alone on its sectors."""
        run = _Outcome()
        operation = await self._engine.run(first, count, data, run.settle, progress.force)
        self._engine.flush_soon()
        try:
            await run.event.wait()
        finally:
            if not run.event.is_set():
                if self._core.outcome(operation) is Outcome.MAY_HAVE_HAPPENED:
                    progress.outcome = Outcome.MAY_HAVE_HAPPENED
                self._engine.step(Abandon(operation))
            elif data is not None and (run.error is None or run.error.outcome is Outcome.MAY_HAVE_HAPPENED):
                progress.outcome = Outcome.MAY_HAVE_HAPPENED
        if run.error is not None:
            raise run.error
        return run.data


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
