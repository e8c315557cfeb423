"""Simulated clients: the production core with simulated connections, and one that knows only the contract.

Both do as many operations as they are told to, some at a time, and tell the history. A client that crashes
comes back as another one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from dsreg.client.core import ClientCore
from dsreg.client.events import (
    Abandon,
    Attached,
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
from dsreg.client.limits import TICK_S
from dsreg.errors import AlreadyAttached, AuthenticationFailed, ClientError, Outcome
from dsreg.protocol.messages import Message
from tests.simulation.client_connection import ClientConnection
from tests.simulation.history import Call, History
from tests.simulation.loop import Loop
from tests.simulation.network import Network
from tests.simulation.options import Options

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
            call = self.calls[self._number] = self.world.history.call(self.name, first, count, is_write)
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
            if self._busy.isdisjoint(range(first, first + count)):
                self.to_do -= 1
                return first, count, rng.random() >= options.reads
        return None

    def _over(self, number: int) -> Call:
        call = self.calls.pop(number)
        self._busy.difference_update(range(call.first, call.first + call.count))
        return call

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


class ExtensionClient(Worker):
    """dsreg.client.core under simulated connections, one to each node."""

    def __init__(self, world: World, name: str, host: int) -> None:
        super().__init__(world, name, world.options.max_run)
        self._host = host
        self._life = 0
        # Most writes do not mind an attachment. With numbers of their own: the other choices stay what they were.
        self._forcing = random.Random(f"force {world.options.seed} {name}")
        self._revive()

    def _revive(self) -> None:
        ranks = list(self.world.options.ranks)
        if not self.world.options.one_home:
            self.world.loop.rng.shuffle(ranks)
        self.core = self._new_core(ranks)
        self._connections = {
            rank: ClientConnection(self.world, self._host, rank, self)
            for rank in ranks
        }
        self._ticking = False
        self._deferred: list[Event] = []

    def _new_core(self, ranks: list[int]) -> ClientCore:
        return ClientCore(ranks)

    def crash(self) -> None:
        self._die()
        self._revive()
        self._next()

    def _die(self) -> None:
        self.paused = False
        for connection in self._connections.values():
            connection.kill()
        super().crash()
        self._life += 1
        self.name = f"{self.name.split('.')[0]}.{self._life}"

    # --- operations -----------------------------------------------------------------------------
    def begin(self, number: int, call: Call) -> None:
        force = self._forcing.random() < 0.75
        self.step(Start(number, call.first, call.count, call.data if call.is_write else None, force))
        options, loop = self.world.options, self.world.loop
        if self.world.network.meddles and loop.chance(options.abandon):
            patience_s = loop.rng.choice((options.latency_s * 8, 0.1, 2.0)) * loop.rng.random()
            loop.after(patience_s, self._give_up, self._life, number)

    def _give_up(self, life: int, number: int) -> None:
        if life == self._life and number in self.calls:
            self.step(Abandon(number))

    def resume(self) -> None:
        super().resume()
        deferred, self._deferred = self._deferred, []
        for event in deferred:
            self.step(event)

    def step(self, event: Event) -> None:
        if self.paused:
            self._deferred.append(event)
            return
        for effect in self.core.step(event, self._clock()):
            if isinstance(effect, Send):
                self._connections[effect.rank].send(effect.message)
            elif isinstance(effect, Withdraw):
                self._connections[effect.rank].withdraw(effect.request)
            elif isinstance(effect, Drop):
                self._connections[effect.rank].drop()
            elif isinstance(effect, Completed):
                self.world.history.returned(self._over(effect.operation), effect.data, self.epoch)
            elif isinstance(effect, Dropped):
                self.world.history.not_done(self._over(effect.operation))
            elif isinstance(effect, Failed):
                self._failed(effect)
            elif isinstance(effect, Attached | NotAttached):
                self._told(effect)
        if self.core.busy and not self._ticking and not self.out:
            self._ticking = True
            self.world.loop.after(TICK_S, self._tick, self._life)
        self._next()

    def _clock(self) -> float:
        now_s, step_s = self.world.loop.now_s, self.world.options.clock_step_s
        return now_s - now_s % step_s if step_s else now_s

    def _failed(self, effect: Failed) -> None:
        self._expect(effect.error)
        call = self._over(effect.operation)
        if effect.error.outcome is Outcome.DID_NOT_HAPPEN:
            self.world.history.not_done(call)
        else:
            self.world.history.lost(call, self.epoch)

    def _expect(self, error: ClientError) -> None:
        if isinstance(error, AlreadyAttached):
            assert self.world.options.frontends and error.outcome is Outcome.DID_NOT_HAPPEN
            self.world.loop.fault("refused_beside_an_attachment", self.name)
            return
        # Corruption can make a node look as if it had another key; every other failure is a bug.
        assert isinstance(error, AuthenticationFailed), error
        assert self.world.options.frame_share("corrupt"), error

    def _told(self, effect: Attached | NotAttached) -> None:
        raise AssertionError("it has not asked for an attachment")

    def _tick(self, life: int) -> None:
        if life != self._life:
            return
        self._ticking = False
        if self.core.busy:
            self.step(Tick())

    # --- what the connections tell ----------------------------------------------------------------
    def connected(self, rank: int, nodes: int) -> None:
        self.step(Connected(rank, nodes))

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        self.step(Received(rank, messages))

    def disconnected(self, event: Disconnected | Refusal) -> None:
        self.step(event)
