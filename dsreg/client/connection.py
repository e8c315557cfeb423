"""The connection to one node: what dsreg.link.client_line decides, done to what waits to be sent and to the client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from dsreg.client.events import Disconnected, KeyRefused, NotSealed, OtherDisk, Refusal
from dsreg.lines import Driver, Lines
from dsreg.link.client_line import ClientLine, Ending
from dsreg.link.destinations import Destinations
from dsreg.link.effects import Deliver, Down, Log, Up
from dsreg.outbox import Outbox
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import ConfigurationReport, Proposed
from dsreg.protocol.codec import UNBOUNDED, Encodings, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    FEATURE_MAP,
    FEATURE_ZERO_CHUNKS,
    Command,
    Hello,
    Message,
    ScrubRequest,
    StatusRequest,
)

_log = logging.getLogger("dsreg.client")


class Observer(Protocol):
    """Whom a connection tells, in the order of happening. `messages` may be empty: bytes came."""

    def connected(self, rank: int, nodes: int, zeroes: bool, maps: bool) -> None: ...

    def received(self, rank: int, messages: Sequence[Message]) -> None: ...

    def disconnected(self, event: Disconnected | Refusal) -> None: ...


class Connection:
    """To the node `rank`, over `lines` to `destinations`; they are to run with `driver`. Between `connected` and
    `disconnected`, what is given to `send` goes out in order, with the next `flush`. `hello`: the client's. `jitter`:
    a factor for the pauses between attempts to connect."""

    def __init__(
        self, rank: int, lines: Lines, destinations: Destinations, *, hello: Hello, seals: Seals,
        observer: Observer, encodings: Encodings, jitter: Callable[[], float], clock: Callable[[], float],
    ) -> None:
        self.rank = rank
        self._lines = lines
        self._destinations = destinations
        self._observer = observer
        self._encodings = encodings

        def new_decoder() -> UnsealingDecoder:
            return UnsealingDecoder(seals.keys, bounds=UNBOUNDED, side=Side.CLIENT, extended=True)

        self._machine = ClientLine(hello, seals, new_decoder, jitter)
        self._sectors = hello.sectors
        # While the connection is up. Bounded by the operations in flight (limits.MAX_OPERATIONS): what is settled is
        # withdrawn.
        self._outbox: Outbox[Command | StatusRequest | ScrubRequest | Proposed] | None = None
        self._line = 0
        self.driver = Driver(
            self._machine, lines, clock, encodings.encode,
            {
                Up: self._up,
                Deliver: lambda effect: observer.received(rank, effect.messages),
                Down: self._down,
                Log: lambda effect: _log.log(effect.level, "node %d (%s): %s", rank, lines.peer, effect.text,
                                              extra={"node": rank, "peer": lines.peer}),
            },
        )

    @property
    def complaint(self) -> str:
        """Why the node was not used when it was greeted last; "" if it was, or has not been reached yet."""
        return self._machine.complaint

    @property
    def is_up(self) -> bool:
        return self._outbox is not None

    def send(self, message: Command | StatusRequest | ScrubRequest | Proposed) -> None:
        """It goes with the next `flush`, or when the transport has room for it."""
        assert self._outbox is not None
        self._outbox.send(message)

    def tell(self, report: ConfigurationReport) -> None:
        """It goes with the next `flush`; a node that is not connected is not told."""
        if self._outbox is not None:
            transport = self._outbox.transport
            transport.put(self._encodings.once(transport.is_sealed, transport.features)(report))

    def withdraw(self, request: int) -> None:
        """Do not send the message, if it still waits for room."""
        if self._outbox is not None:
            self._outbox.withdraw(request)

    def flush(self) -> None:
        if self._outbox is not None:
            self._outbox.transport.flush()

    def moved(self, place: Place, *, is_first: bool) -> None:
        """The node says that it is there: see Destinations."""
        if self._destinations.learn(place, is_first=is_first):
            self.driver.redial()

    def drop(self) -> None:
        """Close the connection, as if it had broken."""
        self._lines.close(self._line)

    # --- effects ------------------------------------------------------------------------------------
    def _up(self, effect: Up) -> None:
        transport = self._lines.transports[effect.line]
        encode = self._encodings.once(transport.is_sealed, transport.features)
        self._line = effect.line
        self._destinations.worked()
        self._outbox = Outbox(transport, encode, lambda message: message.request)
        features = transport.features
        zeroes, maps = features & FEATURE_ZERO_CHUNKS != 0, features & FEATURE_MAP != 0
        self._observer.connected(self.rank, effect.nodes, zeroes, maps)

    def _down(self, effect: Down) -> None:
        self._outbox = None
        self._observer.disconnected(self._event(self._machine.ending))

    def _event(self, ending: Ending) -> Disconnected | Refusal:
        if ending is Ending.KEY_REFUSED:
            return KeyRefused(self.rank)
        if ending is Ending.UNSEALED:
            return NotSealed(self.rank)
        if ending is Ending.OTHER_DISK:
            return OtherDisk(self.rank, self._machine.node_sectors, self._sectors)
        return Disconnected(self.rank, ending is Ending.FOREIGN)
