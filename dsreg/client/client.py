"""Client: the client for tasks under trio; a task that calls waits for the engine's callback."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from dsreg.client.attachment import Claim, State
from dsreg.client.cluster import Attach, Cluster, NodeAddress
from dsreg.client.contract_nodes import describe_contract_nodes
from dsreg.client.limits import MAX_RUNS_PER_CALL
from dsreg.client.metering import Counters, Meter, Moment
from dsreg.client.runner import Runner
from dsreg.constants import MAX_RUN_SECTORS, MAX_SECTORS, OWNER_ID_SIZE, SECTOR_SIZE
from dsreg.errors import ClientClosed, ClientError, OperationTimeout, Outcome
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answer, Question
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.life import Life
from dsreg.protocol.messages import StatusReport, owner_of
from dsreg.register.quorum import Quorum, counted, mask
from dsreg.store import SETTLED, Buffer, Done, Runs, Submitted, out_of_range
from dsreg.waiting import Waiter

_Answer = TypeVar("_Answer")


class _Call:
    """The runs of one call, which have one deadline."""

    is_cached = False
    obstacle = ""

    def __init__(self, runner: Runner, sectors: int, force: bool) -> None:
        self.sectors = sectors
        self._runner = runner
        self._force = force
        self._deadline_s = runner.engine.deadline_s()

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        return self._runner.engine.submit(first, count, data, done, self._deadline_s, self._force)

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        return self._runner.engine.zero(first, count, done, self._deadline_s, self._force)

    def map(self, first: int, count: int, done: Done) -> Submitted:
        return self._runner.engine.map(first, count, done, self._deadline_s)

    def flush(self, done: Done) -> None:
        done(b"", None)

    def end_turn(self) -> None:
        self._runner.end_turn_soon()


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

    `meter`: counts for metrics (dsreg.metrics.of_client).
    """

    def __init__(
        self, config: Cluster, timeout_s: float | None = None, attach: Attach | None = None, force: bool = False,
        meter: Meter | None = None,
    ) -> None:
        self.meter = meter
        self._configured_sectors = config.sectors
        self.nodes: tuple[NodeAddress, ...] = tuple(sorted(config.nodes, key=lambda node: node.rank))
        self._timeout_s = timeout_s
        self._force = force
        claim = None
        if attach is not None:
            claim = Claim(owner_of(secrets.token_bytes(OWNER_ID_SIZE), attach.name), attach.take_over)
        self._runner = Runner(config, self.nodes, claim, timeout_s, meter)
        self._engine = self._runner.engine
        self._core = self._engine.core

    # --- the caller's side --------------------------------------------------------------------
    async def read(self, sector: int, count: int = 1) -> bytes:
        """The `count` * 4096 bytes of the sectors from `sector` on, `count` >= 1. Each run of up to 256 sectors
        that lies in one 256-sector chunk is read at once, and each sector in it atomically; the whole is not."""
        if count < 1:
            raise ValueError("count must be at least 1")
        return await self._call(sector, count, None, False)

    async def write(self, sector: int, data: Buffer, force: bool = False) -> None:
        """Write `data`, a positive multiple of 4096 bytes, to the sectors from `sector` on. Returned: it is
        durable at a majority. Each sector changes atomically; the whole does not. `force`: see Client."""
        size = memoryview(data).nbytes
        if size == 0 or size % SECTOR_SIZE:
            raise ValueError(f"the data must be a positive multiple of {SECTOR_SIZE} bytes")
        # A caller who gives up may reuse its buffer while the write is being completed.
        await self._call(sector, size // SECTOR_SIZE, data if isinstance(data, bytes) else bytes(data), force)

    # --- a store of sectors: see dsreg.store.SectorStore ------------------------------------------
    is_cached = False

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        """Begin to read a run of sectors, or to write `data` to it. Nothing is sent before `end_turn`, so that one
        writing serves many runs. With a `timeout_s`, `done` is told an OperationTimeout when it has passed."""
        if first < 0 or first + count > self._bound:
            done(b"", out_of_range(first, count, self.sectors))
            return SETTLED
        return self._engine.submit(first, count, data, done, force=self._force)

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        """Begin to write zeros to many whole chunks: see dsreg.store.SectorStore."""
        if first < 0 or first + count > self._bound:
            done(b"", out_of_range(first, count, self.sectors))
            return SETTLED
        return self._engine.zero(first, count, done, force=self._force)

    def map(self, first: int, count: int, done: Done) -> Submitted:
        """Begin to ask which whole chunks are holes: see dsreg.store.SectorStore."""
        if first < 0 or first + count > self._bound:
            done(b"", out_of_range(first, count, self.sectors))
            return SETTLED
        return self._engine.map(first, count, done)

    def flush(self, done: Done) -> None:
        """What has been written is durable."""
        done(b"", None)

    def end_turn(self) -> None:
        """Send what has been submitted."""
        self._engine.end_turn()

    def end_turn_soon(self) -> None:
        """The same, when the other tasks that run in this pass of the scheduler have submitted what they have to."""
        self._runner.end_turn_soon()

    # --- the cluster ------------------------------------------------------------------------------
    async def status(self, rank: int, timeout_s: float) -> dict[str, Any]:
        """The node's own report, `round_trip_s`, and `clock_ahead_s`: how far its clock is ahead of the one here, give
        or take half of that; not there if the node does not tell the time. Raises OperationTimeout if none comes in
        time, ClientError if it cannot be read, ValueError for a rank that the cluster does not have."""
        if rank not in self._runner.connections:
            raise ValueError(f"no node has rank {rank}")

        async def ask(rank: int) -> dict[str, Any] | None:
            started_s = trio.current_time()
            report = await self._runner.ask_status(rank)
            return None if report is None else _parse_status(report, trio.current_time() - started_s, time.time())

        return await self._asked(rank, timeout_s, ask, "status")

    async def scrub(self, rank: int, timeout_s: float) -> int | None:
        """Have the node verify all of its own copy now: the number of the pass that does, as its status has it; None if
        it is of a version that does not. Raises as `status` does."""
        if "scrub" not in await self.status(rank, timeout_s):
            return None
        return (await self._asked(rank, timeout_s, self._runner.ask_scrub, "answer")).number

    async def _asked(
        self, rank: int, timeout_s: float, ask: Callable[[int], Awaitable[_Answer | None]], what: str
    ) -> _Answer:
        """What `ask` gives, once the node is up; again whenever it gives None, as the connection broke first."""
        with trio.move_on_after(timeout_s):
            while self._engine.is_open:
                await self._runner.ups[rank].wait()
                answer = await ask(rank)
                if answer is not None:
                    return answer
            raise ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN)
        raise OperationTimeout(f"no {what} from node {rank} within {timeout_s} s", Outcome.DID_NOT_HAPPEN)

    async def propose(self, rank: int, question: Question, timeout_s: float) -> Answer | None:
        """Ask the node about the configuration that follows: see dsreg.register.proposal. None if it does not answer in
        time, must not be counted now, or is unknown here. Only of nodes whose status tells of their configuration."""
        if rank not in self._runner.ups:
            return None
        with trio.move_on_after(timeout_s):
            await self._runner.ups[rank].wait()
            answer = await self._runner.propose(rank, question)
            return answer if self._core.counts(rank) else None
        return None

    def tell(self, configuration: Configuration) -> None:
        """All nodes that are connected: this one was chosen."""
        self._runner.tell(configuration)

    @property
    def configuration(self) -> Configuration | None:
        """The latest that a node has told: which nodes there are. None if none has."""
        return self._core.configuration

    @property
    def sectors(self) -> int:
        """The size of the disk: as the latest configuration says that a node has told; until then as `config` does,
        which may be older."""
        configuration = self._core.configuration
        return self._configured_sectors if configuration is None else configuration.sectors

    @property
    def _bound(self) -> int:
        """What is beyond this is refused at once: until a node has told the size, the nodes see to it."""
        return MAX_SECTORS if self._core.configuration is None else self.sectors

    async def size(self) -> int:
        """How many sectors the disk has, as a majority knows: nothing beyond that was in use before this call. One node
        alone may have been away. Raises as `read` does."""
        await self.read(0)
        return self.sectors

    async def told_size(self, other_than: int = 0) -> int:
        """Wait until a node has told the size of the disk, and it is another one: in sectors."""
        while self._core.configuration is None or self.sectors == other_than:
            await self._runner.resized.wait()
        return self.sectors

    def life(self, rank: int) -> Life | None:
        """The latest of the node that any of them has told. What a node has answered before that counts no more."""
        return self._core.life(rank)

    async def attached(self) -> int:
        """Wait until the disk is attached, or cannot be; the epoch. Raises AlreadyAttached, AttachRefused, DiskFenced
        once it has been taken over, AuthenticationFailed or WrongDisk if no node can be used, ClientClosed, and with
        `timeout_s` OperationTimeout if no majority answers."""
        attachment = self._core.attachment
        if attachment is None:
            raise ValueError("this client was made without `attach`")
        with trio.move_on_after(float("inf") if self._timeout_s is None else self._timeout_s):
            await self._runner.settled.wait()
        if attachment.error is not None:
            raise attachment.error
        if self._runner.settled.is_set() and attachment.state is not State.HELD:
            raise ClientClosed(f"the client is not open{attachment.aftermath}", attachment.outcome)
        if not self._runner.settled.is_set():
            why = f"{self.why_not_attached()}{attachment.aftermath}"
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
        await self._runner.lost.wait()
        assert self._core.attachment is not None and self._core.attachment.error is not None
        return self._core.attachment.error

    @property
    def counters(self) -> Counters:
        """Counts since the start; they go on counting."""
        return self._core.counters

    def moment(self) -> Moment:
        """What the client is doing now. May be called from any thread."""
        ranks, quorum, attachment = self.ranks, self._core.quorum, self._core.attachment
        up = mask(self.connected_ranks)
        error = None if attachment is None else attachment.error
        return Moment(
            connected={rank: self._core.up(rank) for rank in ranks},
            has_majority=quorum.decided(up),
            spare=quorum.spare(up),
            unfinished=self._core.unfinished,
            waiting=self._engine.waiting,
            lagging_bytes={rank: self._core.lagging_bytes(rank) for rank in ranks},
            attachment="shared" if attachment is None else attachment.state.name.lower(),
            epoch=0 if attachment is None else attachment.epoch,
            why_lost="" if error is None else error.reason,
            sectors=self.sectors,
        )

    @property
    def connected_ranks(self) -> tuple[int, ...]:
        """The nodes that can be asked at this moment."""
        return tuple(rank for rank in self._core.ranks if self._core.up(rank))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The nodes that decide, as far as it is known where they are: those of the configuration, until the nodes have
        told others."""
        return tuple(self._core.ranks)

    @property
    def quorum(self) -> Quorum:
        """Of the nodes that decide, whether it is known where they are or not."""
        return self._core.quorum

    @property
    def obstacle(self) -> str:
        """What keeps operations from being done at this moment, as far as is known: too few nodes are connected, or
        too few have room for new data. "" if nothing is known."""
        return self._engine.obstacle()[0]

    def why_not_attached(self) -> str:
        """What stands in the way of attaching at this moment, for people."""
        up, quorum, contract = len(self.connected_ranks), self._core.quorum, self._core.contract_nodes.ranks
        if contract:
            return f"{describe_contract_nodes(contract)}, with which a disk cannot be attached"
        if self.waits_for:
            return self.waits_for
        if not quorum.decided(mask(self.connected_ranks)):
            counts = counted(quorum, mask(self.connected_ranks), "are connected")
            return f"no majority of the nodes can be reached: {counts}"
        return f"{up} of {quorum.size} nodes are connected, but no majority has agreed yet"

    def complaint(self, rank: int) -> str:
        """Why the node cannot be used, as it turned out when it was greeted last; "" if nothing is known against it."""
        connection = self._runner.connections.get(rank)
        return "" if connection is None else connection.complaint

    def place(self, rank: int) -> Place:
        """Where the node is, as far as is known: as the configuration says, or as the node has said."""
        return self._runner.destinations[rank].preferred

    async def __aenter__(self) -> Self:
        assert not self._engine.is_open
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._runner.start(self._nursery)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()
        self._nursery.cancel_scope.cancel()
        # The body's error is not shown to the nursery, which would wrap it in an ExceptionGroup.
        await self._manager.__aexit__(None, None, None)

    # --- calls ----------------------------------------------------------------------------------
    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or sector + count > self._bound:
            raise out_of_range(sector, count, self.sectors)

    async def _call(self, first: int, count: int, data: bytes | None, force: bool) -> bytes:
        self._check(first, count)
        force = force or self._force
        waiter = Waiter()
        call: Submitted
        if first % MAX_RUN_SECTORS + count <= MAX_RUN_SECTORS:
            call = self._engine.submit(first, count, data, waiter.done, force=force)
        else:
            call = Runs(_Call(self._runner, self.sectors, force), first, count, data, waiter.done, MAX_RUNS_PER_CALL)
        self._runner.end_turn_soon()
        content = await waiter.wait(call.abandon)
        return content if isinstance(content, bytes) else bytes(content)


def _parse_status(report: StatusReport, round_trip_s: float, received_unix_s: float) -> dict[str, Any]:
    try:
        status = json.loads(report.body)
    except ValueError as error:
        raise ClientError(f"a status that is no JSON: {error}", Outcome.DID_NOT_HAPPEN) from error
    if not isinstance(status, dict):
        raise ClientError("a status that is no JSON object", Outcome.DID_NOT_HAPPEN)
    if isinstance(unix_s := status.get("unix_s"), int | float):
        status["clock_ahead_s"] = round(unix_s - (received_unix_s - round_trip_s / 2), 3)
    return {**status, "round_trip_s": round_trip_s}
