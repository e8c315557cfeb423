"""What drives a link machine of dsreg.link: its effects on connections carried out, and those on sockets at that.

    Driver      calls the machine and carries out what it wants; no trio: the simulator uses it as well
    TcpLines    the connections: dials, receives, keeps the time
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import trio

from dsreg.link.destinations import Destinations
from dsreg.link.effects import Close, Connect, Effect, Features, LimitRecords, Put, SealWith
from dsreg.protocol.messages import Buffer, Message
from dsreg.transport import Transport, dial


class Machine(Protocol):
    """See dsreg.link."""

    @property
    def next_due(self) -> float: ...

    def start(self, now: float) -> list[Effect]: ...

    def connect_failed(self, line: int, reason: str, now: float) -> list[Effect]: ...

    def connected(self, line: int, now: float) -> list[Effect]: ...

    def received(self, line: int, data: bytes, now: float) -> list[Effect]: ...

    def closed(self, line: int, largest_record: int, now: float) -> list[Effect]: ...

    def tick(self, now: float) -> list[Effect]: ...

    def redial(self, now: float) -> list[Effect]: ...


class Lines(Protocol):
    """The connections of one machine, by their numbers. What happens to them is told to the driver."""

    @property
    def peer(self) -> str:
        """How to name the other side in messages to people."""

    @property
    def transports(self) -> Mapping[int, Transport]:
        """From `connected` to `closed`."""

    def connect(self, line: int) -> None: ...

    def close(self, line: int) -> None: ...

    def wake_at(self, due_s: float) -> None:
        """Call `tick` then, and not when it was said before; inf: not at all."""


class Driver:
    """`encode(message, sealed)`: as bytes. `carry`: what is done about the other effects, by type. `end_turn`: called
    when all is carried out that an event has caused."""

    def __init__(
        self,
        machine: Machine,
        lines: Lines,
        clock: Callable[[], float],
        encode: Callable[[Message, bool], Sequence[Buffer]],
        carry: Mapping[type, Callable[[Any], None]],
        end_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._machine = machine
        self._lines = lines
        self._clock = clock
        self._encode = encode
        self._end_turn = end_turn
        self._due_s = math.inf
        self._carry: dict[type, Callable[[Any], None]] = {
            Connect: lambda effect: lines.connect(effect.line),
            Close: lambda effect: lines.close(effect.line),
            Put: self._put,
            SealWith: self._seal,
            Features: self._features,
            LimitRecords: self._limit_records,
            **carry,
        }

    # --- what happens to connections ----------------------------------------------------------------
    def start(self) -> None:
        self._turn(self._machine.start(self._clock()))

    def connect_failed(self, line: int, reason: str) -> None:
        self._turn(self._machine.connect_failed(line, reason, self._clock()))

    def connected(self, line: int) -> None:
        self._turn(self._machine.connected(line, self._clock()))

    def received(self, line: int, data: bytes) -> None:
        self._turn(self._machine.received(line, data, self._clock()))

    def closed(self, line: int, largest_record: int) -> None:
        self._turn(self._machine.closed(line, largest_record, self._clock()))

    def tick(self) -> None:
        self._turn(self._machine.tick(self._clock()))

    def redial(self) -> None:
        self._turn(self._machine.redial(self._clock()))

    # --- effects ------------------------------------------------------------------------------------
    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._carry[type(effect)](effect)
        due_s = self._machine.next_due
        if due_s != self._due_s:
            self._due_s = due_s
            self._lines.wake_at(due_s)

    def _turn(self, effects: Iterable[Effect]) -> None:
        self.carry_out(effects)
        self._end_turn()

    def _put(self, effect: Put) -> None:
        transport = self._lines.transports[effect.line]
        for message in effect.messages:
            transport.put(self._encode(message, transport.is_sealed))
        transport.flush()

    def _seal(self, effect: SealWith) -> None:
        self._lines.transports[effect.line].seal(effect.sealer)

    def _features(self, effect: Features) -> None:
        self._lines.transports[effect.line].features = effect.features

    def _limit_records(self, effect: LimitRecords) -> None:
        self._lines.transports[effect.line].record_bytes = effect.size


class TcpLines:
    """To one party. `unacked_ms`: see dsreg.transport.dial."""

    def __init__(self, destinations: Destinations, unacked_ms: int = 0) -> None:
        self.transports: dict[int, Transport] = {}
        self._destinations = destinations
        self._unacked_ms = unacked_ms
        self._due_s = math.inf
        self._wait = trio.CancelScope()
        self._dialling: dict[int, trio.CancelScope] = {}
        self._driver: Driver
        self._nursery: trio.Nursery

    @property
    def peer(self) -> str:
        return str(self._destinations.current)

    async def run(self, driver: Driver) -> None:
        """Until cancelled."""
        self._driver = driver
        async with trio.open_nursery() as self._nursery:
            driver.start()
            while True:
                self._wait = trio.CancelScope(deadline=self._due_s)
                with self._wait:
                    await trio.sleep_forever()
                driver.tick()

    def wake_at(self, due_s: float) -> None:
        self._due_s = self._wait.deadline = due_s

    def connect(self, line: int) -> None:
        self._dialling[line] = trio.CancelScope()
        self._nursery.start_soon(self._run_line, line)

    def close(self, line: int) -> None:
        if line in self.transports:
            self.transports[line].close()
        elif line in self._dialling:
            self._dialling[line].cancel()

    async def _run_line(self, line: int) -> None:
        driver, scope, place = self._driver, self._dialling[line], self._destinations.next()
        transport = None
        try:
            with scope:
                transport = await dial(*place, self._unacked_ms)
        except OSError as error:
            driver.connect_failed(line, str(error))
            return
        finally:
            del self._dialling[line]
        if scope.cancel_called or transport is None:
            if transport is not None:
                transport.close()
            driver.closed(line, 0)
            return
        self.transports[line] = transport
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run_writer)
                driver.connected(line)
                while data := await transport.receive():
                    driver.received(line, data)
                nursery.cancel_scope.cancel()
            transport.close()
            driver.closed(line, transport.largest_record)
        finally:
            transport.close()
            del self.transports[line]


