"""A client that knows only the contract: READ and WRITE of single sectors, over one connection at a time.

Where a connection is lost, what was under way has no known outcome. Often the client then does what a user does:
it writes to that sector again, another value as far as the checker is concerned. Some are loyal to their node, so
one that crashed while it coordinated a write has to coordinate the next one for the same sector.
"""

from __future__ import annotations

from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from tests.simulation.client_connection import CLIENT_KEYS
from tests.simulation.history import Call
from tests.simulation.network import SimTransport
from tests.simulation.worker import Worker, World

ENCODER = Encoder(CLIENT_KEYS)
# How long it waits for an answer before it gives the connection up, in seconds, if it does at all.
PATIENCE_S = (1.0, 5.0, 30.0)
RECONNECT_S = 0.2
# How often a lost write is followed by another one to its sector.
AGAIN = 0.5
# How often the node that was asked last is asked again; one of these for each client.
LOYALTY = (0.0, 0.5, 0.95)


class ContractClient(Worker):
    """Whatever is under way when its connection ends has no known outcome; that command is never sent again."""

    def __init__(self, world: World, name: str, host: int) -> None:
        super().__init__(world, name, 1)
        self._host = host
        self._patience_s = world.loop.rng.choice(PATIENCE_S)
        self._port: SimTransport | None = None
        self._life = 0
        self._rank = 0  # the node that was asked last; 0: none
        self._loyalty = world.loop.rng.choice(LOYALTY)
        self._deferred: list[tuple[SimTransport, Decoder, bytes]] = []
        self._connect()

    # --- the connection -------------------------------------------------------------------------
    def _connect(self) -> None:
        loyal = self._rank and self.world.network.meddles and self.world.loop.chance(self._loyalty)
        if not loyal:
            self._rank = self.world.loop.rng.choice(self.world.options.ranks)
        life = self._life
        self.world.network.connect(self._host, self._rank, False, lambda transport: self._connected(life, transport))

    def _connected(self, life: int, transport: SimTransport | None) -> None:
        if life != self._life:
            if transport is not None:
                transport.abandon()
        elif transport is None:
            self.world.loop.after(RECONNECT_S, self._reconnect, life)
        else:
            self._port = transport
            decoder = Decoder(CLIENT_KEYS, bounds=Bounds(self.world.options.sectors, frozenset()), side=Side.CLIENT)
            transport.on_data = lambda data: self._take(transport, decoder, data)
            transport.on_end = lambda: self._lost(transport)
            self._next()

    def _reconnect(self, life: int) -> None:
        if life == self._life and self._port is None:
            self._connect()

    def reset(self) -> None:
        """Give the connection up, and perhaps the node as well."""
        transport, self._port = self._port, None
        self._life += 1
        self.name = f"{self.name.split('.')[0]}.{self._life}"
        if transport is not None:
            transport.abandon()
        for number in list(self.calls):
            call = self._over(number)
            self.world.history.lost(call)
            if call.is_write and self.world.network.meddles and self.world.loop.chance(AGAIN):
                self.plan.append((call.first, 1, True))
        self.world.loop.after(RECONNECT_S * self.world.loop.between(0, 1), self._reconnect, self._life)

    def crash(self) -> None:
        self.reset()

    def _lost(self, transport: SimTransport) -> None:
        if self._port is transport:
            self.reset()

    # --- operations -----------------------------------------------------------------------------
    def _next(self) -> None:
        if self._port is not None:
            super()._next()

    def resume(self) -> None:
        super().resume()
        deferred, self._deferred = self._deferred, []
        for transport, decoder, data in deferred:
            self._take(transport, decoder, data)
        self._next()

    def begin(self, number: int, call: Call) -> None:
        transport = self._port
        assert transport is not None
        kind = CommandKind.WRITE if call.is_write else CommandKind.READ
        transport.put(ENCODER.encode(Command(kind, number, call.first, 1, b"", call.data)))
        transport.flush()
        self.world.loop.after(self._patience_s, self._give_up, number)

    def _give_up(self, number: int) -> None:
        if number in self.calls:
            self.reset()

    def _take(self, transport: SimTransport, decoder: Decoder, data: bytes) -> None:
        if self._port is not transport:
            return
        if self.paused:
            self._deferred.append((transport, decoder, data))
            return
        for message in decoder.feed(data):
            if not isinstance(message, Response):
                continue
            call = self.calls.get(message.request)
            if call is None or message.kind is not (CommandKind.WRITE if call.is_write else CommandKind.READ):
                continue
            if message.status is Status.OK:
                self.world.history.returned(self._over(message.request), message.data)
            else:
                # The command was damaged on its way, perhaps in its number: this may be the answer to another.
                self.world.history.lost(self._over(message.request))
        self._next()
