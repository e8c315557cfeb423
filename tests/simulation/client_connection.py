"""A connection of a simulated client: that of dsreg.client, over simulated lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dsreg.client.connection import Connection, Observer
from dsreg.link.destinations import Destinations
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.codec import Encodings, Keys
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Command, StatusRequest
from dsreg.register.assembly import client_hello
from tests.simulation.lines import SimLines
from tests.simulation.loop import Loop
from tests.simulation.network import Network
from tests.simulation.options import Options

CLIENT_KEYS = Keys(bytes(range(32)), b"")
ENCODINGS = Encodings(CLIENT_KEYS)


class World(Protocol):
    loop: Loop
    network: Network
    options: Options

    def seals(self, host: int) -> bool: ...

    def fresh_key(self) -> bytes: ...


class ClientConnection:
    """Connects at once, and for ever, until `kill`. `observer`: is not told of anything after that."""

    def __init__(self, world: World, host: int, rank: int, observer: Observer) -> None:
        loop, sectors = world.loop, world.options.created_sectors
        self._loop = loop
        self._alive = True
        self._writing = False
        self._destinations = Destinations(Place(f"node-{rank}", 1))
        self._lines = SimLines(loop, world.network, host, rank, self._guard, lambda: loop.now_s)
        self._connection = Connection(
            rank, self._lines, self._destinations,  # type: ignore[arg-type]
            hello=client_hello(sectors, seals=world.seals(host)),
            seals=Seals(CLIENT_KEYS, world.fresh_key, required=world.options.require_sealed),
            observer=observer, encodings=ENCODINGS,
            jitter=lambda: loop.between(0.5, 1.0), clock=lambda: loop.now_s,
        )
        self._lines.begin(self._connection.driver)

    def _guard(self, call: Callable[..., None], *args: Any) -> None:
        if self._alive:
            call(*args)

    def kill(self) -> None:
        """The client is gone."""
        self._alive = False
        self._lines.abandon()

    def send(self, message: Command | StatusRequest) -> None:
        if not self._connection.is_up:
            return  # a client that was stopped learns of the loss only now
        self._connection.send(message)
        if not self._writing:
            self._writing = True
            self._loop.after(0, self._guard, self._write)

    def tell(self, report: ConfigurationReport) -> None:
        self._connection.tell(report)
        if not self._writing:
            self._writing = True
            self._loop.after(0, self._guard, self._write)

    def withdraw(self, request: int) -> None:
        self._connection.withdraw(request)

    def moved(self, place: Place, *, is_first: bool) -> None:
        self._connection.moved(place, is_first=is_first)

    def drop(self) -> None:
        self._connection.drop()

    def flush(self) -> None:
        """The turn ends. It ends for all that happens at this moment, so that one writing takes it."""

    def _write(self) -> None:
        self._writing = False
        self._connection.flush()
