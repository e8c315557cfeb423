"""Simulated clients: the production engine with simulated connections, and one that knows only the contract.

Both do as many operations as they are told to, some at a time, and tell the history. A client that crashes
comes back as another one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dsreg.client.admission import Admission
from dsreg.client.attachment import Claim
from dsreg.client.engine import Engine
from dsreg.client.events import (
    Attached,
    Completed,
    Disconnected,
    Dropped,
    NotAttached,
    NotCounted,
    Refusal,
    Split,
    Waits,
)
from dsreg.client.limits import TICK_S
from dsreg.client.run import Run
from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import AlreadyAttached, AuthenticationFailed, DsregError, OperationTimeout, Outcome
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answered
from dsreg.protocol.messages import Buffer, Message, ScrubBegun, StatusReport
from dsreg.store import outcome_of
from tests.simulation.client_connection import ClientConnection
from tests.simulation.history import Call
from tests.simulation.options import LONG_SECTORS
from tests.simulation.watched_core import End, WatchedCore
from tests.simulation.worker import Worker, World

# Where runs overlap: so many at a time, of which the engine lets through fewer.
OVERLAP_DEPTH = 8
OVERLAP_ADMITTED = 3
# The time limits of runs there, in seconds, while there are faults.
TIME_LIMITS_S = (math.inf, math.inf, 0.5, 5.0)


# What is zeroed as a whole where that is drawn; and which chunk is asked for, of those of which something is seen.
LONG_RUNS = (range(0, 512), range(256, 768), range(0, 768))
MAPPED = (range(0, 256), range(256, 512))


class ExtensionClient(Worker):
    """dsreg.client.engine under simulated connections, one to each node. It is an engine.Shell."""

    def __init__(self, world: World, name: str, host: int) -> None:
        super().__init__(world, name, world.options.max_run)
        self._host = host
        self._life = 0
        # Most writes do not mind an attachment. With numbers of their own: the other choices stay what they were.
        self._forcing = random.Random(f"force {world.options.seed} {name}")
        self._limits = random.Random(f"time limits {world.options.seed} {name}")
        self._lengths = random.Random(f"long zeros {world.options.seed} {name}")
        self._long: range | None = None  # of whole chunks, of which the call that is about to begin zeroes what is seen
        self._mapping = random.Random(f"maps {world.options.seed} {name}")
        self._mapped: range | None = None  # likewise: the chunk of which it asks whether it is a hole
        self.overlaps = world.options.overlaps
        if self.overlaps:
            self.depth = OVERLAP_DEPTH
        self._revive()

    def _revive(self) -> None:
        ranks = list(self.world.options.ranks)
        if not self.world.options.one_home:
            self.world.loop.rng.shuffle(ranks)
        self._runs: dict[int, Run] = {}  # by the worker's number
        self._maps: dict[int, range] = {}  # likewise: the chunk that is asked for
        self._abandoned: dict[int, int] = {}  # the worker's numbers, by that of the core
        self._connections: list[ClientConnection] = []
        self._deferred: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        admitted = OVERLAP_ADMITTED if self.overlaps else self.depth
        self.core = WatchedCore(ranks, self._claim(), admitted, self._ended)
        self.engine = Engine(
            self.core, ranks, lambda rank, _: self._connect(rank), self, self._clock,
            Admission(admitted, OVERLAP_DEPTH * MAX_RUN_BYTES),
        )
        self.engine.open()

    @property
    def reach(self) -> int:
        configuration = self.core.configuration
        return self.world.options.created_sectors if configuration is None else configuration.sectors

    def _connect(self, rank: int) -> ClientConnection:
        connection = ClientConnection(self.world, self._host, rank, self)
        self._connections.append(connection)
        return connection

    def _claim(self) -> Claim | None:
        return None

    def crash(self) -> None:
        self._die()
        self._revive()
        self._next()

    def _die(self) -> None:
        self.paused = False
        for connection in self._connections:
            connection.kill()
        super().crash()
        self._life += 1
        self.name = f"{self.name.split('.')[0]}.{self._life}"

    # --- operations -----------------------------------------------------------------------------
    def _choose(self) -> tuple[int, int, bool] | None:
        options = self.world.options
        asks = self._mapping.random() < (0.5 if self._long is not None else options.long_zeros)
        self._long = self._mapped = None
        if options.long_zeros and not self.plan and self._lengths.random() < options.long_zeros:
            run, window = self._lengths.choice(LONG_RUNS), options.window
            seen = range(max(run.start, window.start), min(run.stop, window.stop))
            if self.overlaps or self._busy.isdisjoint(seen):
                self._long = run
                self.to_do -= 1
                return seen.start, len(seen), True
        if options.long_zeros and not self.plan and asks:
            return self._choose_chunk()
        return super()._choose()

    def _choose_chunk(self) -> tuple[int, int, bool] | None:
        chunk, window = self._mapping.choice(MAPPED), self.world.options.window
        seen = range(max(chunk.start, window.start), min(chunk.stop, window.stop))
        if not self.overlaps and not self._busy.isdisjoint(seen):
            return super()._choose()
        self._mapped = chunk
        self.to_do -= 1
        return seen.start, len(seen), False

    def _record(self, first: int, count: int, is_write: bool) -> Call:
        if self._long is None:
            return super()._record(first, count, is_write)
        return self.world.history.call(self.name, first, count, True, zeros=True)

    def begin(self, number: int, call: Call) -> None:
        force = self._forcing.random() < 0.75
        options, loop = self.world.options, self.world.loop
        limit_s = math.inf
        if self.overlaps and self.world.network.meddles:
            limit_s = self._clock() + self._limits.choice(TIME_LIMITS_S)
        data, done = call.data if call.is_write else None, partial(self._done, self._life, number)
        if (long := self._long) is not None:
            run = self.engine.zero(long.start, len(long), done, limit_s, force)
        elif self._mapped is not None:
            self._maps[number] = self._mapped
            run = self.engine.map(0, LONG_SECTORS, done, limit_s)
        else:
            run = self.engine.submit(call.first, call.count, data, done, limit_s, force)
        if number in self.calls:
            self._runs[number] = run
        self.engine.end_turn()
        self._next()
        if self.world.network.meddles and loop.chance(options.abandon):
            patience_s = loop.rng.choice((options.latency_s * 8, 0.1, 2.0)) * loop.rng.random()
            loop.after(patience_s, self._give_up, self._life, number)

    def _done(self, life: int, number: int, data: Buffer, error: DsregError | None) -> None:
        """See dsreg.store.Done."""
        assert life == self._life and number in self.calls, "a run that was over ends"
        self._runs.pop(number, None)
        if (chunk := self._maps.pop(number, None)) is not None and error is None:
            self._told_holes(number, chunk, data)
        elif error is None:
            self._check_order(number)
            self.world.history.returned(self._over(number), data, self.epoch)
        else:
            self._failed(number, error)

    def _told_holes(self, number: int, chunk: range, holes: Buffer) -> None:
        """A hole is a read of zeros. What may be data says nothing."""
        call = self._over(number)
        if holes[chunk.start // MAX_RUN_SECTORS : chunk.stop // MAX_RUN_SECTORS] == b"\1":
            self.world.loop.fault("hole", self.name)
            self.world.history.returned(call, bytes(call.count * SECTOR_SIZE), self.epoch)
        else:
            self.world.history.not_done(call)

    def _check_order(self, number: int) -> None:
        """Of runs that overlap, what was submitted first is done first, unless nobody waits for it any more."""
        call, given_up = self.calls[number], (*self._abandoned.values(), *self._maps)
        for other, earlier in self.calls.items():
            if other < number and other not in given_up:
                overlaps = call.first < earlier.first + earlier.count and earlier.first < call.first + call.count
                assert not overlaps, f"{call} is done before {earlier}"

    def _give_up(self, life: int, number: int) -> None:
        if life == self._life and number in self._runs:
            self._enter(self._abandon, number)

    def _abandon(self, number: int) -> None:
        run = self._runs.pop(number, None)
        if run is None:
            return  # it has ended while this client was stopped
        operation = run.operation
        if run.pieces is not None:
            assert run.abandon() is Outcome.MAY_HAVE_HAPPENED
            self.world.history.lost(self._over(number), self.epoch)
            self.engine.end_turn()
            return
        if operation:
            self._abandoned[operation] = number
        outcome = run.abandon()
        if not operation:
            assert outcome is Outcome.DID_NOT_HAPPEN
            self.world.history.not_done(self._over(number))
        elif operation in self._abandoned:
            is_write = self.calls[number].is_write
            assert not is_write or outcome is Outcome.MAY_HAVE_HAPPENED, "a write that goes on may happen"
        else:
            assert outcome is Outcome.DID_NOT_HAPPEN, "a run was dropped of which nobody knows whether it happened"
        self.engine.end_turn()

    def _ended(self, end: End) -> None:
        """The core has ended an operation; nobody is told of one that was given up."""
        number = self._abandoned.pop(end.operation, None)
        if number is None:
            return
        if isinstance(end, Completed):
            self.world.history.returned(self._over(number), end.data, self.epoch)
        elif isinstance(end, Split):  # and nothing more is done of it
            self.world.history.lost(self._over(number), self.epoch)
        elif isinstance(end, Dropped):
            self.world.history.not_done(self._over(number))
        else:
            self._failed(number, end.error)

    def resume(self) -> None:
        super().resume()
        deferred, self._deferred = self._deferred, []
        for call, args in deferred:
            self._enter(call, *args)

    def _enter(self, call: Callable[..., object], *args: Any) -> None:
        """Something happens to the engine: at once, or once this client goes on."""
        if self.paused:
            self._deferred.append((call, args))
            return
        call(*args)
        assert not self.engine.has_unsent, "the turn has not been ended"
        self._next()

    def _clock(self) -> float:
        now_s, step_s = self.world.loop.now_s, self.world.options.clock_step_s
        return now_s - now_s % step_s if step_s else now_s

    def _failed(self, number: int, error: DsregError) -> None:
        self._expect(error)
        call = self._over(number)
        if outcome_of(error) is Outcome.DID_NOT_HAPPEN:
            self.world.history.not_done(call)
        else:
            self.world.history.lost(call, self.epoch)

    def _expect(self, error: DsregError) -> None:
        if isinstance(error, AlreadyAttached):
            # Of a zeroing in pieces some may be done before the next one is refused.
            is_sure = error.outcome is Outcome.DID_NOT_HAPPEN or "a part of the zeroing failed" in error.reason
            assert self.world.options.frontends and is_sure
            self.world.loop.fault("refused_beside_an_attachment", self.name)
            return
        if isinstance(error, OperationTimeout):
            assert self.overlaps, error
            self.world.loop.fault("overdue", self.name)
            return
        # Corruption can make a node look as if it had another key; every other failure is a bug.
        assert isinstance(error, AuthenticationFailed), error
        assert self.world.options.frame_share("corrupt"), error

    # --- what the engine tells (engine.Shell) -----------------------------------------------------
    def told(self, effect: Attached | NotAttached | Waits | NotCounted) -> None:
        assert not isinstance(effect, Attached | NotAttached), "it has not asked for an attachment"

    def busy(self) -> None:
        if not self.out:
            self.world.loop.after(TICK_S, self._tick, self._life)

    def up(self, rank: int) -> None:
        """Nothing waits for that here."""

    def down(self, rank: int) -> None:
        """Nor for that."""

    def found(self, rank: int, place: Place) -> None:
        raise AssertionError("it knows all nodes")

    def sized(self, sectors: int) -> None:
        """It looks when it wants to know."""

    def gone(self, rank: int) -> None:
        raise AssertionError("those that it is configured with are kept")

    def reported(self, report: StatusReport | ScrubBegun | Answered) -> None:
        """It asks for none of its own."""

    def _tick(self, life: int) -> None:
        if life == self._life:
            self._enter(self._tick_now, life)

    def _tick_now(self, life: int) -> None:
        if self.engine.tick() and life == self._life:
            self.busy()

    # --- what the connections tell ----------------------------------------------------------------
    def connected(self, rank: int, nodes: int, zeroes: bool, maps: bool) -> None:
        self._enter(self.engine.connected, rank, nodes, zeroes, maps)

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self._enter(self.engine.received, rank, messages)

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self._enter(self.engine.disconnected, event)
