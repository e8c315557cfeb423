"""The part of dsreg.client.connection, without tasks: made, greeted, kept, and made again when it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dsreg.client.limits import HELLO_S, RECONNECT_FIRST_S, RECONNECT_MAX_S
from dsreg.protocol.codec import Encoder, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Command, CommandKind, LivesReport, Message, StatusRequest
from dsreg.register.assembly import client_hello
from tests.simulation.loop import Loop, Timer
from tests.simulation.network import Network, SimTransport
from tests.simulation.options import Options

CLIENT_KEYS = Keys(bytes(range(32)), b"")
ENCODER = Encoder(CLIENT_KEYS)
SEALED_ENCODER = Encoder(None)
_KEY_QUESTION = Command(CommandKind.READ, 0, (1 << 64) - 1, 1)


class Owner(Protocol):
    def connected(self, rank: int) -> None: ...

    def received(self, rank: int, messages: Sequence[Message]) -> None: ...

    def disconnected(self, rank: int, key_refused: bool) -> None: ...


class World(Protocol):
    loop: Loop
    network: Network
    options: Options

    def seals(self, host: int) -> bool: ...

    def fresh_key(self) -> bytes: ...


class ClientConnection:
    """Connects at once, and for ever, until `kill`."""

    def __init__(self, world: World, host: int, rank: int, owner: Owner) -> None:
        self._loop = world.loop
        self._network = world.network
        self._options = world.options
        self._hello = client_hello(world.options.sectors, seals=world.seals(host))
        self._seals = Seals(CLIENT_KEYS, world.fresh_key, required=world.options.require_sealed)
        self._host = host
        self._rank = rank
        self._owner = owner
        self._alive = True
        self._port: SimTransport | None = None
        self._up = False
        self._decoder: UnsealingDecoder
        self._greeter: Greeter
        self._hello_timer: Timer
        self._backoff_s = RECONNECT_FIRST_S
        self._queue: dict[int, Command | StatusRequest] = {}
        self._writing = False
        self._shows_lives = False
        self._behind: list[Message] = []
        self._connect()

    def kill(self) -> None:
        """The client is gone."""
        self._alive = False
        if self._port is not None:
            self._port.abandon()

    def send(self, message: Command | StatusRequest) -> None:
        if not self._up:
            return  # a client that was stopped learns of the loss only now
        self._queue[message.request] = message
        if not self._writing:
            self._writing = True
            self._loop.after(0, self._write)

    def withdraw(self, request: int) -> None:
        self._queue.pop(request, None)

    def drop(self) -> None:
        # The core has dealt with its loss already; what follows is as after any break.
        self._loop.after(0, self._lost, self._port, False)

    def _write(self) -> None:
        self._writing = False
        if self._port is not None and self._up:
            for message in self._queue.values():
                self._port.put((SEALED_ENCODER if self._port.is_sealed else ENCODER).encode(message))
            self._port.flush()
        self._queue.clear()

    # --- up and down ----------------------------------------------------------------------------
    def _connect(self) -> None:
        if self._alive:
            self._network.connect(self._host, self._rank, True, self._connected)

    def _connected(self, port: SimTransport | None) -> None:
        if not self._alive:
            if port is not None:
                port.abandon()
            return
        if port is None:
            self._again(key_refused=False)
            return
        self._port = port
        self._decoder = UnsealingDecoder(
            CLIENT_KEYS, sectors=self._options.sectors, ranks=frozenset(), side=Side.CLIENT, extended=True
        )
        port.on_data = lambda data: self._take(port, data)
        port.on_end = lambda: self._lost(port, False)
        self._greeter = Greeter(self._hello, 0, self._seals)
        hello, *handshake = self._greeter.messages
        for message in (hello, _KEY_QUESTION, *handshake):
            port.put(ENCODER.encode(message))
        port.flush()
        self._hello_timer = self._loop.after(HELLO_S, self._lost, port, False)

    def _take(self, port: SimTransport, data: bytes) -> None:
        if self._port is not port:
            return
        messages = self._decoder.feed(data)
        if self._up:
            if messages:
                self._backoff_s = RECONNECT_FIRST_S
            self._owner.received(self._rank, messages)
            if self._decoder.broken:
                self._loop.fault("seal_broken", port.peer)
                self._lost(port, False)
            return
        if self._greeter.verdict is not None:
            self._behind += messages
            self._begin(port)
            return
        for index, message in enumerate(messages):
            verdict = self._greeter.take(message)
            if verdict is not None:
                self._greeted(port, verdict, messages[index + 1 :])
                return
        if self._decoder.counters["bad_mac"]:
            self._lost(port, True)

    def _greeted(self, port: SimTransport, verdict: Verdict, messages: Sequence[Message]) -> None:
        if verdict is Verdict.BROKEN or verdict is Verdict.PLAIN and self._seals.required:
            self._lost(port, False)
            return
        if verdict is Verdict.SEALED:
            port.seal(self._greeter.sealer)
            messages = self._decoder.unseal(self._greeter.opener, between_nodes=False)
            self._loop.fault("sealed", port.peer)
        assert self._greeter.answer is not None
        self._shows_lives = bool(self._greeter.answer.features & FEATURE_LIVES)
        self._behind = list(messages)
        self._begin(port)

    def _begin(self, port: SimTransport) -> None:
        """Once it has been told of lives, if it is to be."""
        told = any(isinstance(message, LivesReport) for message in self._behind)
        if self._port is port and (told or not self._shows_lives):
            self._hello_timer.cancel()
            self._up = True
            self._owner.connected(self._rank)
            self._owner.received(self._rank, self._behind)

    def _lost(self, port: SimTransport | None, key_refused: bool) -> None:
        if port is None or self._port is not port:
            return
        self._hello_timer.cancel()
        self._port = None
        self._up = False
        port.close()
        self._queue.clear()
        self._again(key_refused)

    def _again(self, key_refused: bool) -> None:
        if self._alive:
            self._owner.disconnected(self._rank, key_refused)
            self._loop.after(self._backoff_s * self._loop.between(0.5, 1.0), self._connect)
            self._backoff_s = min(2 * self._backoff_s, RECONNECT_MAX_S)
