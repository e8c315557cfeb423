"""The connections of a link machine in the simulator: dsreg.lines.TcpLines, on simulated time and network."""

from __future__ import annotations

import math
from collections.abc import Callable

from dsreg.lines import Driver
from tests.simulation.disk import Guard
from tests.simulation.loop import Loop, Timer
from tests.simulation.network import Host, Network, SimTransport

# A timer that is early by the last bit of a float is set again for this much later.
_SOON_S = 1e-6


class SimLines:
    """From `host` to the node `rank`. `guard`: calls what it is given, as the process of the host, or does not."""

    def __init__(
        self, loop: Loop, network: Network, host: Host, rank: int, guard: Guard, clock: Callable[[], float]
    ) -> None:
        self.transports: dict[int, SimTransport] = {}
        self.peer = f"node {rank}"
        self._loop = loop
        self._network = network
        self._host = host
        self._rank = rank
        self._guard = guard
        self._clock = clock
        self._dialling: set[int] = set()
        self._closing: set[int] = set()
        self._due_s = math.inf
        self._timer: Timer | None = None
        self._driver: Driver

    def begin(self, driver: Driver) -> None:
        self._driver = driver
        driver.start()

    def abandon(self) -> None:
        """The process is gone."""
        self._dialling.clear()
        self.wake_at(math.inf)
        for transport in self.transports.values():
            transport.abandon()

    def wake_at(self, due_s: float) -> None:
        self._due_s = due_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s < math.inf:
            self._timer = self._loop.after(max(0.0, due_s - self._clock()), self._guard, self._tick, due_s)

    def _tick(self, due_s: float) -> None:
        if due_s != self._due_s:
            return  # a process that was stopped is told of all times at once
        if self._clock() >= due_s:
            self._driver.tick()
        if self._due_s == due_s:
            self._timer = self._loop.after(max(_SOON_S, due_s - self._clock()), self._guard, self._tick, due_s)

    # --- connections ----------------------------------------------------------------------------
    def connect(self, line: int) -> None:
        self._dialling.add(line)
        self._network.connect(
            self._host, self._rank, True, lambda transport: self._guard(self._connected, line, transport)
        )

    def _connected(self, line: int, transport: SimTransport | None) -> None:
        if line not in self._dialling:
            if transport is not None:
                transport.abandon()
            return
        self._dialling.discard(line)
        if transport is None:
            self._driver.connect_failed(line, "no answer")
            return
        self.transports[line] = transport
        transport.on_data = lambda data: self._guard(self._received, line, data)
        transport.on_end = lambda: self._guard(self._ended, line)
        if transport.closed:  # it broke while the process was stopped
            self._loop.after(0, self._guard, self._ended, line)
        self._driver.connected(line)

    def _received(self, line: int, data: bytes) -> None:
        if line in self.transports and line not in self._closing:
            self._driver.received(line, data)

    def close(self, line: int) -> None:
        if line in self._dialling:
            self._dialling.discard(line)
            self._loop.after(0, self._guard, self._driver.closed, line, 0)
        elif line in self.transports and line not in self._closing:
            self._closing.add(line)
            self.transports[line].close()
            self._loop.after(0, self._guard, self._ended, line)

    def _ended(self, line: int) -> None:
        if line not in self.transports:
            return
        self._driver.closed(line, self.transports[line].largest_record)
        del self.transports[line]
        self._closing.discard(line)
