"""What a simulated client does next, and when; how it is done is another matter: clients.py."""

from __future__ import annotations

import random
from typing import Protocol

from dsreg.constants import MAX_RUN_SECTORS
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
        # With numbers of its own: the other choices stay what they were.
        self._zeroing = random.Random(f"zeros {world.options.seed} {name}")
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

    @property
    def reach(self) -> int:
        """How many sectors the disk has, as far as it knows."""
        return self.world.options.sectors

    def _choose(self) -> tuple[int, int, bool] | None:
        rng, options = self.world.loop.rng, self.world.options
        if self.plan:
            first, count, is_write = self.plan[-1]
            if not self._busy.isdisjoint(range(first, first + count)):
                return None
            return self.plan.pop()
        window = options.window[: self.reach]
        for _ in range(4):
            count = min(rng.randint(1, self._max_run), len(window))
            first = window[rng.randrange(len(window) - count + 1)]
            count = min(count, MAX_RUN_SECTORS - first % MAX_RUN_SECTORS)
            if self.overlaps or self._busy.isdisjoint(range(first, first + count)):
                self.to_do -= 1
                return first, count, rng.random() >= options.reads
        return None

    def _over(self, number: int) -> Call:
        call = self.calls.pop(number)
        self._busy.difference_update(range(call.first, call.first + call.count))
        return call

    def _record(self, first: int, count: int, is_write: bool) -> Call:
        zeros = self._zeroing.random() < self.world.options.zeros
        return self.world.history.call(self.name, first, count, is_write, zeros=zeros)

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
