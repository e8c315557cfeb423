"""The link to another node as a node makes it that knows the contract only: connects, and says nothing else."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.link.dialing import RECONNECT_MAX_S
from dsreg.node.interpreter import Interpreter
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.messages import Ack, Receipt, Value
from tests.simulation.disk import Guard
from tests.simulation.loop import Loop
from tests.simulation.network import Network, SimTransport


class ContractDialer:
    """The link from the node `own` to the node `rank`."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        own: int,
        rank: int,
        interpreter: Interpreter,
        new_decoder: Callable[[bool], UnsealingDecoder],
        guard: Guard,
    ) -> None:
        self._loop = loop
        self._network = network
        self._own = own
        self._rank = rank
        self._interpreter = interpreter
        self._new_decoder = new_decoder
        self._guard = guard
        self.transports: dict[int, SimTransport] = {}
        self._connect()

    def _connect(self) -> None:
        self._network.connect(
            self._own, self._rank, True, lambda transport: self._guard(self._connected, transport)
        )

    def _connected(self, transport: SimTransport | None) -> None:
        if transport is None:
            self._loop.after(RECONNECT_MAX_S * self._loop.between(0, 1), self._guard, self._connect)
            return
        self.transports[transport.serial] = transport
        decoder = self._new_decoder(False)
        transport.on_data = lambda data: self._guard(self._take, transport, decoder, data)
        transport.on_end = lambda: self._guard(self._ended, transport)
        if transport.closed:  # it broke while the process was stopped
            self._loop.after(0, self._guard, self._ended, transport)
        self._interpreter.link_up(self._rank, transport, False)  # type: ignore[arg-type]

    def _take(self, transport: SimTransport, decoder: UnsealingDecoder, data: bytes) -> None:
        for message in decoder.feed(data):
            if transport.serial in self.transports and isinstance(message, Value | Ack | Receipt):
                self._interpreter.message(None, message)
        self._interpreter.end_turn()

    def _ended(self, transport: SimTransport) -> None:
        if self.transports.pop(transport.serial, None) is not None:
            self._interpreter.link_down(self._rank, transport)  # type: ignore[arg-type]
            transport.close()
            self._connect()
