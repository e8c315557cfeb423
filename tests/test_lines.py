"""The connections of a link machine on real sockets: made, given up, closed, and the time kept."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from dsreg.lines import Driver, TcpLines
from dsreg.link.destinations import Destinations
from dsreg.link.effects import Close, Connect, Effect, LimitRecords, Put
from dsreg.protocol.address import Place
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Side
from dsreg.protocol.messages import StatusRequest

KEYS = Keys(bytes(range(32)), bytes(range(64)))
PATIENCE_S = 30.0


class Script:
    """A machine that notes what happens, and answers each kind of event with what the test has written for it."""

    def __init__(self, **answers: list[Effect]) -> None:
        self.next_due = math.inf
        self.events: list[tuple[object, ...]] = []
        self.happened = trio.Event()
        self._answers = answers

    def start(self, now: float) -> list[Effect]:
        return self._event("start")

    def connect_failed(self, line: int, reason: str, now: float) -> list[Effect]:
        return self._event("connect_failed", line)

    def connected(self, line: int, now: float) -> list[Effect]:
        return self._event("connected", line)

    def received(self, line: int, data: bytes, now: float) -> list[Effect]:
        return self._event("received", line, data)

    def closed(self, line: int, largest_record: int, now: float) -> list[Effect]:
        return self._event("closed", line)

    def tick(self, now: float) -> list[Effect]:
        if now < self.next_due:
            return []
        self.next_due = math.inf
        return self._event("tick")

    def _event(self, name: str, *values: object) -> list[Effect]:
        self.events.append((name, *values))
        self.happened.set()
        return self._answers.get(name, [])

    async def until(self, *event: object) -> None:
        while event not in self.events:
            self.happened = trio.Event()
            await self.happened.wait()


@asynccontextmanager
async def running(script: Script, port: int) -> AsyncIterator[tuple[TcpLines, Driver]]:
    lines = TcpLines(Destinations(Place("127.0.0.1", port)))
    driver = Driver(script, lines, trio.current_time, lambda message, sealed: Encoder(KEYS).encode(message), {})
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.run, driver)
            yield lines, driver
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[trio.SocketListener, int]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener, listener.socket.getsockname()[1]


async def test_a_connection_from_its_beginning_to_its_end() -> None:
    script = Script(start=[Connect(1)], connected=[LimitRecords(1, 4096), Put(1, [StatusRequest(7)])])
    async with listening() as (listener, port), running(script, port) as (lines, _):
        stream = await listener.accept()
        decoder = Decoder(KEYS, bounds=Bounds(64, frozenset((1,))), side=Side.NODE, extended=True)
        assert decoder.feed(bytes(await stream.receive_some())) == [StatusRequest(7)]
        assert lines.transports[1].record_bytes == 4096
        await stream.send_all(b"abc")
        await script.until("received", 1, b"abc")
        await stream.aclose()
        await script.until("closed", 1)
        assert not lines.transports
    assert script.events == [("start",), ("connected", 1), ("received", 1, b"abc"), ("closed", 1)]


async def test_nobody_listens() -> None:
    async with listening() as (_, port):
        pass
    script = Script(start=[Connect(1)])
    async with running(script, port):
        await script.until("connect_failed", 1)


async def test_dialling_is_given_up_at_once() -> None:
    """Before its task has begun, in this case."""
    script = Script(start=[Connect(1), Close(1)])
    async with listening() as (_, port), running(script, port) as (lines, _):
        await script.until("closed", 1)
        assert not lines.transports and ("connected", 1) not in script.events


async def test_what_the_machine_closes_is_closed_for_the_other_side_as_well() -> None:
    script = Script(start=[Connect(1)], connected=[Close(1)])
    async with listening() as (listener, port), running(script, port):
        stream = await listener.accept()
        assert await stream.receive_some() == b""
        await script.until("closed", 1)


async def test_two_connections_do_not_mix() -> None:
    script = Script(start=[Connect(1), Connect(2)])
    async with listening() as (listener, port), running(script, port) as (lines, driver):
        streams = [await listener.accept(), await listener.accept()]
        await script.until("connected", 1)
        await script.until("connected", 2)
        driver.carry_out([Close(1)])
        await script.until("closed", 1)
        assert list(lines.transports) == [2]
        for stream in streams:
            await stream.aclose()
        await script.until("closed", 2)


async def test_the_time_can_be_moved_both_ways() -> None:
    script = Script()
    async with listening() as (_, port), running(script, port) as (_, driver):
        await script.until("start")
        script.next_due = trio.current_time() + 1000
        driver.carry_out([])
        await trio.testing.wait_all_tasks_blocked()
        script.next_due = trio.current_time() + 0.02
        driver.carry_out([])
        await script.until("tick")
        assert script.events.count(("tick",)) == 1
