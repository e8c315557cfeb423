"""Simulated clients: the production engine with simulated connections, and one that knows only the contract.

Both do as many operations as they are told to, some at a time, and tell the history. A client that crashes
comes back as another one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from dsreg.client.admission import Admission
from dsreg.client.attachment import Claim
from dsreg.client.engine import Engine, Run
from dsreg.client.events import (
    Attached,
    Completed,
    Disconnected,
    Dropped,
    NotAttached,
    NotCounted,
    Refusal,
    Waits,
)
from dsreg.client.limits import TICK_S
from dsreg.constants import MAX_RUN_BYTES
from dsreg.errors import AlreadyAttached, AuthenticationFailed, DsregError, OperationTimeout, Outcome
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answered
from dsreg.protocol.messages import Buffer, Message, ScrubBegun, StatusReport
from dsreg.store import outcome_of
from tests.simulation.client_connection import ClientConnection
from tests.simulation.history import Call, History
from tests.simulation.loop import Loop
from tests.simulation.network import Network
from tests.simulation.options import Options
from tests.simulation.watched_core import End, WatchedCore

# How long a client waits at most between its operations in the liveness phase, in seconds.
LAST_THOUGHTS_S = 5.0


class World(Protocol):
    """What a client has around it."""

    loop: Loop
    network: Network
    options: Options
    history: History

    def seals(self, host: int) -> bool:
        """Whether the client can seal its connections."""

    def fresh_key(self) -> bytes:
        """32 bytes, from the seed."""


class Worker:
    """Chooses what to do next. `plan`: exact runs (first, count, is_write) to do before anything is chosen."""

    epoch = 0  # of its attachment
    overlaps = False  # it begins runs that overlap others of its own

    def __init__(self, world: World, name: str, max_run: int) -> None:
        self.name = name
        self.world = world
        self.to_do = 0
        self.plan: list[tuple[int, int, bool]] = []
        self.depth = world.options.depth
        self.paused = False
        self.out = False  # does nothing, for now
        self.retired = False  # and never will again
        self.calls: dict[int, Call] = {}  # under way, by the client's number
        self._max_run = max_run
        self._busy: set[int] = set()
        self._number = 0
        self._thinking = False
        self._thoughts = 0

    @property
    def idle(self) -> bool:
        return self.out or not self.to_do and not self.plan and not self.calls

    def work(self, operations: int) -> None:
        """Do so many more, from now on: whatever the worker was waiting for to pass does not matter any more."""
        self.to_do += operations
        self._thinking = False
        self._next()

    def _next(self) -> None:
        while not self.out and len(self.calls) < self.depth and not self.paused and not self._thinking:
            if not self.plan and not self.to_do:
                return
            run = self._choose()
            if run is None:
                return
            first, count, is_write = run
            self._number += 1
            call = self.calls[self._number] = self._record(first, count, is_write)
            self._busy.update(range(first, first + count))
            self.begin(self._number, call)
            self._think()

    def _think(self) -> None:
        """After a burst of operations, for so long that it makes up for them."""
        options, loop = self.world.options, self.world.loop
        if self.to_do and not self.plan and options.think_s and loop.chance(1 / self.depth):
            lasts_s = options.think_s * self.depth * loop.between(0, 2)
            # Once the faults have stopped nothing is to be outlasted, and the time counts.
            self.rest(lasts_s if self.world.network.meddles else min(lasts_s, LAST_THOUGHTS_S))

    def rest(self, seconds: float) -> None:
        """Begin nothing for so long."""
        self._thinking = True
        self._thoughts += 1
        self.world.loop.after(seconds, self._thought, self._thoughts)

    def _thought(self, number: int) -> None:
        if number == self._thoughts:
            self._thinking = False
            self._next()

    def _choose(self) -> tuple[int, int, bool] | None:
        rng, options = self.world.loop.rng, self.world.options
        if self.plan:
            first, count, is_write = self.plan[-1]
            if not self._busy.isdisjoint(range(first, first + count)):
                return None
            return self.plan.pop()
        for _ in range(4):
            count = rng.randint(1, self._max_run)
            first = rng.randrange(options.sectors - count + 1)
            if self.overlaps or self._busy.isdisjoint(range(first, first + count)):
                self.to_do -= 1
                return first, count, rng.random() >= options.reads
        return None

    def _over(self, number: int) -> Call:
        call = self.calls.pop(number)
        self._busy.difference_update(range(call.first, call.first + call.count))
        return call

    def _record(self, first: int, count: int, is_write: bool) -> Call:
        return self.world.history.call(self.name, first, count, is_write)

    def begin(self, number: int, call: Call) -> None:
        """Do it; `settle` comes later."""
        raise NotImplementedError

    def pause(self) -> None:
        """SIGSTOP; what happens to it meanwhile is seen after `resume`."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def put_back(self) -> bool:
        """The machine is put back to an earlier state of its memory, and its clock with it; whether that means
        anything to the client."""
        return False

    def crash(self) -> None:
        """All that it knew is gone."""
        for number in list(self.calls):
            self.world.history.lost(self._over(number), self.epoch)


# Where runs overlap: so many at a time, of which the engine lets through fewer.
OVERLAP_DEPTH = 8
OVERLAP_ADMITTED = 3
# The time limits of runs there, in seconds, while there are faults.
TIME_LIMITS_S = (math.inf, math.inf, 0.5, 5.0)


class ExtensionClient(Worker):
    """dsreg.client.engine under simulated connections, one to each node. It is an engine.Shell."""

    def __init__(self, world: World, name: str, host: int) -> None:
        super().__init__(world, name, world.options.max_run)
        self._host = host
        self._life = 0
        # Most writes do not mind an attachment. With numbers of their own: the other choices stay what they were.
        self._forcing = random.Random(f"force {world.options.seed} {name}")
        self._limits = random.Random(f"time limits {world.options.seed} {name}")
        self.overlaps = world.options.overlaps
        if self.overlaps:
            self.depth = OVERLAP_DEPTH
        self._revive()

    def _revive(self) -> None:
        ranks = list(self.world.options.ranks)
        if not self.world.options.one_home:
            self.world.loop.rng.shuffle(ranks)
        self._runs: dict[int, Run] = {}  # by the worker's number
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
    def begin(self, number: int, call: Call) -> None:
        force = self._forcing.random() < 0.75
        options, loop = self.world.options, self.world.loop
        limit_s = math.inf
        if self.overlaps and self.world.network.meddles:
            limit_s = self._clock() + self._limits.choice(TIME_LIMITS_S)
        data = call.data if call.is_write else None
        run = self.engine.submit(
            call.first, call.count, data, partial(self._done, self._life, number), limit_s, force
        )
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
        if error is None:
            self._check_order(number)
            self.world.history.returned(self._over(number), data, self.epoch)
        else:
            self._failed(number, error)

    def _check_order(self, number: int) -> None:
        """Of runs that overlap, what was submitted first is done first, unless nobody waits for it any more."""
        call, given_up = self.calls[number], self._abandoned.values()
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
            assert self.world.options.frontends and error.outcome is Outcome.DID_NOT_HAPPEN
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
    def connected(self, rank: int, nodes: int) -> None:
        self._enter(self.engine.connected, rank, nodes)

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self._enter(self.engine.received, rank, messages)

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self._enter(self.engine.disconnected, event)
