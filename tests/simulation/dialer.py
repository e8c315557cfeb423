"""The part of dsreg.node.dialer, without tasks: connects to one node, greets it, uses the link, reconnects."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.core.codec import UnsealingDecoder
from dsreg.core.dialing import GREET_AGAIN_S, GREETING_S, RECONNECT_FIRST_S, RECONNECT_MAX_S
from dsreg.core.greeting import Greeter, Seals, Verdict
from dsreg.core.messages import Ack, Fenced, Hello, Receipt, Value
from dsreg.node.interpreter import Interpreter
from tests.simulation.disk import Guard
from tests.simulation.loop import Loop, Timer
from tests.simulation.network import Network, SimPort

# Gets the port, and its decoder if the greeting was answered.
Greeted = Callable[[SimPort, UnsealingDecoder | None], None]


class SimDialer:
    """The link from the node `own` to the node `rank`. `greets`: False for a node that knows the contract only."""

    def __init__(
        self,
        loop: Loop,
        network: Network,
        own: int,
        rank: int,
        interpreter: Interpreter,
        greeting: Hello,
        new_decoder: Callable[[bool], UnsealingDecoder],
        guard: Guard,
        greets: bool,
        seals: Seals,
    ) -> None:
        self._loop = loop
        self._network = network
        self._own = own
        self._rank = rank
        self._interpreter = interpreter
        self._greeting = greeting
        self._new_decoder = new_decoder
        self._guard = guard
        self._may_greet = greets
        self._seals = seals
        self._greets = False  # the peer has answered a greeting before
        self._pause_s = RECONNECT_FIRST_S
        self._serving: SimPort | None = None
        self._ports: set[SimPort] = set()
        self._connect(self._connected)

    def ports(self) -> list[SimPort]:
        return list(self._ports)

    def _connect(self, done: Callable[[SimPort | None], None]) -> None:
        def guarded(port: SimPort | None) -> None:
            self._guard(self._add, port, done)

        self._network.connect(self._own, self._rank, True, guarded)

    def _add(self, port: SimPort | None, done: Callable[[SimPort | None], None]) -> None:
        if port is not None:
            self._ports.add(port)
        done(port)

    def _connected(self, port: SimPort | None) -> None:
        if port is None:
            self._loop.after(self._pause_s * self._loop.between(0.8, 1.2), self._guard, self._connect, self._connected)
            self._pause_s = min(2 * self._pause_s, RECONNECT_MAX_S)
            return
        self._pause_s = RECONNECT_FIRST_S
        if self._greets or self._seals.required:
            self._greet(port, self._greeted_at_once)
        else:
            self._serve(port, self._new_decoder(False), extended=False)
            self._try_greeting(port)

    # --- greetings ------------------------------------------------------------------------------
    def _greet(self, port: SimPort, done: Greeted) -> None:
        """Say HELLO; `done` gets the decoder if it is answered, None if it is not."""
        decoder = self._new_decoder(True)
        greeter = Greeter(self._greeting, self._rank, self._seals)
        timer: Timer | None

        def finish(found: UnsealingDecoder | None) -> None:
            nonlocal timer
            if timer is None:
                return  # a node that was stopped gets the answer and the timeout at once
            timer.cancel()
            timer = None
            port.on_data = lambda data: None
            port.on_end = lambda: None
            done(port, found)

        def take(data: bytes) -> None:
            for message in decoder.feed(data):
                verdict = greeter.take(message)
                if verdict is None:
                    continue
                if verdict is Verdict.SEALED:
                    port.seal(greeter.sealer)
                    decoder.unseal(greeter.opener, between_nodes=True)
                    self._loop.fault("sealed", port.peer)
                good = verdict is Verdict.SEALED or verdict is Verdict.PLAIN and not self._seals.required
                finish(decoder if good else None)
                return

        timer = self._loop.after(GREETING_S, self._guard, finish, None)
        port.on_data = lambda data: self._guard(take, data)
        port.on_end = lambda: self._guard(finish, None)
        for message in greeter.messages:
            port.put(self._interpreter.encoder.encode(message))
        port.flush()

    def _greeted_at_once(self, port: SimPort, decoder: UnsealingDecoder | None) -> None:
        if decoder is None:
            self._greets = False
            self._drop(port)
            pause_s = RECONNECT_MAX_S if self._seals.required else 0.0
            self._loop.after(pause_s, self._guard, self._connect, self._connected)
        else:
            self._serve(port, decoder, extended=True)

    def _try_greeting(self, contract: SimPort) -> None:
        """Over a second connection, while the first is used without."""
        if self._may_greet and self._serving is contract:
            self._connect(lambda port: self._second(contract, port))

    def _second(self, contract: SimPort, port: SimPort | None) -> None:
        if port is not None and self._serving is contract:
            self._greet(port, lambda port, decoder: self._second_greeted(contract, port, decoder))
        elif port is not None:
            self._drop(port)
        else:
            self._loop.after(GREET_AGAIN_S, self._guard, self._try_greeting, contract)

    def _second_greeted(self, contract: SimPort, port: SimPort, decoder: UnsealingDecoder | None) -> None:
        if decoder is None or self._serving is not contract:
            self._drop(port)
            self._loop.after(GREET_AGAIN_S, self._guard, self._try_greeting, contract)
            return
        self._greets = True
        self._interpreter.link_down(self._rank, contract)
        self._serving = None
        self._drop(contract)
        self._serve(port, decoder, extended=True)

    # --- the link in use ------------------------------------------------------------------------
    def _serve(self, port: SimPort, decoder: UnsealingDecoder, *, extended: bool) -> None:
        self._serving = port
        port.on_data = lambda data: self._guard(self._take, port, decoder, data)
        port.on_end = lambda: self._guard(self._ended, port)
        if port.closed:  # it broke between the answer and now
            self._loop.after(0, self._guard, self._ended, port)
        self._interpreter.link_up(self._rank, port, extended)

    def _take(self, port: SimPort, decoder: UnsealingDecoder, data: bytes) -> None:
        if self._serving is not port:
            return
        for message in decoder.feed(data):
            if isinstance(message, Value | Ack | Fenced | Receipt):
                self._interpreter.message(None, message)
        self._interpreter.end_turn()
        if decoder.broken:
            self._loop.fault("seal_broken", port.peer)
            self._ended(port)

    def _ended(self, port: SimPort) -> None:
        if self._serving is port:
            self._serving = None
            self._interpreter.link_down(self._rank, port)
            self._drop(port)
            self._connect(self._connected)

    def _drop(self, port: SimPort) -> None:
        self._ports.discard(port)
        port.close()
