"""One connection to one node: made, greeted, kept, and made again when it breaks."""

from __future__ import annotations

import collections
import enum
import itertools
import logging
import random
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from dsreg.client.events import Disconnected, KeyRefused, NotSealed, OtherDisk, Refusal
from dsreg.client.limits import CONNECT_S, HELLO_S, RECONNECT_FIRST_S, RECONNECT_MAX_S, SEND_BATCH_BYTES
from dsreg.constants import RECV_BYTES
from dsreg.core.codec import Encoder, Keys, Side, UnsealingDecoder
from dsreg.core.greeting import Greeter, Seals, Verdict
from dsreg.core.messages import FEATURE_SEALED, Buffer, Command, CommandKind, Hello, Message, Response, StatusRequest
from dsreg.core.sealed import MAX_RECORD_BYTES, Sealer
from dsreg.core.wire import CLUSTER_SIZE

_log = logging.getLogger("dsreg.client")

# A client does not know the cluster's identity: a node takes zeros from a client for "any".
_ANY_CLUSTER: Final = bytes(CLUSTER_SIZE)
# A node with another client key drops our HELLO in silence. A command of the contract it must answer, with
# AUTH_FAILURE under its own key, which we see as a bad HMAC; with our key it must answer that there is no such
# sector. Neither has any effect, and a node that speaks the contract only is told from one that is stuck.
_KEY_QUESTION: Final = Command(CommandKind.READ, 0, (1 << 64) - 1, 1)
# Below this size one copy is cheaper than the kernel's walk through many pieces.
_JOIN_BYTES: Final = 64 * 1024
_MAX_PIECES: Final = 512  # in one sendmsg; IOV_MAX is 1024


class Owner(Protocol):
    """What a connection tells, in the order of happening. `messages` may be empty: bytes came."""

    def connected(self, rank: int, nodes: int) -> None: ...

    def received(self, rank: int, messages: Sequence[Message]) -> None: ...

    def disconnected(self, event: Disconnected | Refusal) -> None: ...


class _Greeting(enum.Enum):
    """How an attempt to be greeted ended; the value is what to log."""

    GOOD = "usable"
    LOST = "closes the connection instead of answering the HELLO"
    SILENT = "does not answer the HELLO"
    FOREIGN = "does not speak the extension of the protocol: not used"
    KEY_REFUSED = "has another client key"
    OTHER_DISK = "has a disk of another size"
    UNSEALED = "does not seal its connections, which require_sealed demands: not used"
    CHANGED = "cannot be greeted: what it says is changed on its way"


class Connection:
    """`run` it in a nursery; it never ends by itself. Between `connected` and `disconnected`, what is given to
    `send` goes out in order, all that is ready in one go."""

    def __init__(
        self, rank: int, host: str, port: int, *, keys: Keys, sectors: int, owner: Owner, rng: random.Random,
        seals: Seals,
    ) -> None:
        self._rank, self._host, self._port = rank, host, port
        self._keys, self._sectors = keys, sectors
        self._owner = owner
        self._rng = rng
        self._seals = seals
        self._plain, self._bare = Encoder(keys), Encoder(None)
        self._sealer: Sealer | None = None  # of the connection in use, if it is sealed
        # Bounded by the operations in flight (limits.MAX_OPERATIONS): what is settled is withdrawn.
        self._queue: collections.OrderedDict[int, Command | StatusRequest] = collections.OrderedDict()
        self._ready = trio.Event()
        self._up = False
        self._scope = trio.CancelScope()
        self._backoff_s = RECONNECT_FIRST_S
        self._told: tuple[_Greeting, int] | None = None
        self._node_sectors = sectors  # as the node has said last
        self._cluster_size = 0  # as well

    @property
    def complaint(self) -> str:
        """Why the node was not used when it was greeted last; "" if it was, or has not been reached yet."""
        if self._told is None or self._told[0] is _Greeting.GOOD:
            return ""
        return self._describe(self._told[0])

    def send(self, message: Command | StatusRequest) -> None:
        assert self._up
        self._queue[message.request] = message
        self._ready.set()

    def withdraw(self, request: int) -> None:
        """Do not send the message, if that has not begun."""
        self._queue.pop(request, None)

    def drop(self) -> None:
        """Close the connection, as if it had broken."""
        self._scope.cancel()

    async def run(self) -> None:
        while True:
            greeting = _Greeting.LOST
            with trio.CancelScope() as self._scope:
                greeting = await self._connect()
            self._queue.clear()
            self._up = False
            self._owner.disconnected(self._ending(greeting))
            # Jitter: the clients of a node that restarts must not all come back at the same moment.
            await trio.sleep(self._backoff_s * self._rng.uniform(0.5, 1.0))
            self._backoff_s = min(2 * self._backoff_s, RECONNECT_MAX_S)

    async def _connect(self) -> _Greeting:
        """One connection from its beginning to its end."""
        try:
            with trio.fail_after(CONNECT_S):
                stream = await trio.open_tcp_stream(self._host, self._port)
        except (OSError, trio.TooSlowError) as error:
            _log.debug("node %d (%s:%d): cannot connect: %s", self._rank, self._host, self._port, error)
            return _Greeting.LOST
        async with stream:
            try:
                return await self._serve(stream.socket)
            except OSError as error:
                _log.info("node %d: cannot send: %s", self._rank, error)
                return _Greeting.LOST

    async def _serve(self, sock: trio.socket.SocketType) -> _Greeting:
        decoder = UnsealingDecoder(
            self._keys, sectors=self._sectors, ranks=frozenset(), side=Side.CLIENT, extended=True
        )
        self._sealer = None
        greeting, messages = await self._greet(sock, decoder)
        self._tell(greeting)
        if greeting is not _Greeting.GOOD:
            return greeting
        self._up = True
        self._owner.connected(self._rank, self._cluster_size)
        self._owner.received(self._rank, messages)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, sock)
            while data := await _receive(sock):
                messages = decoder.feed(data)
                if messages:
                    self._backoff_s = RECONNECT_FIRST_S
                self._owner.received(self._rank, messages)
                if decoder.broken:
                    _log.info("node %d: what came was not what was sent", self._rank)
                    break
            nursery.cancel_scope.cancel()
        _log.info("node %d: the connection is over", self._rank)
        return _Greeting.LOST

    async def _greet(
        self, sock: trio.socket.SocketType, decoder: UnsealingDecoder
    ) -> tuple[_Greeting, list[Message]]:
        """Say HELLO, wait for the answer, and seal the connection if the node can; gives also what came behind."""
        greeter = Greeter(Hello(0, False, _ANY_CLUSTER, 0, self._sectors, FEATURE_SEALED), 0, self._seals)
        foreign = False
        with trio.move_on_after(HELLO_S):
            hello, *handshake = greeter.messages
            await send_all(sock, [piece for message in (hello, _KEY_QUESTION, *handshake)
                                  for piece in self._plain.encode(message)])
            while data := await _receive(sock):
                messages = decoder.feed(data)
                for index, message in enumerate(messages):
                    verdict = greeter.take(message)
                    if verdict is not None:
                        return self._judge(greeter, verdict, decoder, messages[index + 1 :])
                    foreign |= isinstance(message, Response) and not message.extended
                if decoder.counters["bad_mac"]:
                    return _Greeting.KEY_REFUSED, []
            return _Greeting.LOST, []
        if greeter.answer is not None:
            return _Greeting.CHANGED, []  # it was to be sealed, and somebody has kept that from us
        return _Greeting.FOREIGN if foreign else _Greeting.SILENT, []

    def _judge(
        self, greeter: Greeter, verdict: Verdict, decoder: UnsealingDecoder, messages: list[Message]
    ) -> tuple[_Greeting, list[Message]]:
        assert greeter.answer is not None
        self._node_sectors, self._cluster_size = greeter.answer.sectors, greeter.answer.features & 0xFF
        if verdict is Verdict.BROKEN:
            return _Greeting.CHANGED, []
        if self._node_sectors != self._sectors:
            return _Greeting.OTHER_DISK, []
        if verdict is Verdict.SEALED:
            self._sealer = greeter.sealer
            messages = decoder.unseal(greeter.opener, between_nodes=False)
        elif self._seals.required:
            return _Greeting.UNSEALED, []
        return _Greeting.GOOD, messages

    async def _write(self, sock: trio.socket.SocketType) -> None:
        """Send what is queued, for as long as the connection lives. A failed send ends the connection."""
        try:
            while True:
                await self._ready.wait()
                while self._queue:
                    await send_all(sock, self._next_batch())
                self._ready = trio.Event()
        except OSError as error:
            _log.info("node %d: cannot send: %s", self._rank, error)
            self.drop()

    def _next_batch(self) -> list[Buffer]:
        """What is ready, up to SEND_BATCH_BYTES; sealed in as few records as it takes."""
        pieces: list[Buffer] = []
        sealed: list[Buffer] = []
        size = total = 0
        encoder = self._plain if self._sealer is None else self._bare
        while self._queue and total < SEND_BATCH_BYTES:
            _, message = self._queue.popitem(last=False)
            frame = encoder.encode(message)
            length = sum(map(len, frame))
            if self._sealer is not None and size + length > MAX_RECORD_BYTES:
                sealed += self._sealer.seal(pieces)
                pieces, size = [], 0
            size += length
            total += length
            pieces += frame
        return pieces if self._sealer is None else sealed + self._sealer.seal(pieces)

    def _tell(self, greeting: _Greeting) -> None:
        """Log how it went, once until it changes."""
        if (greeting, self._node_sectors) != self._told:
            self._told = greeting, self._node_sectors
            level = logging.INFO if greeting in (_Greeting.GOOD, _Greeting.LOST) else logging.WARNING
            _log.log(level, "node %d (%s:%d): %s", self._rank, self._host, self._port, self._describe(greeting))

    def _describe(self, greeting: _Greeting) -> str:
        sizes = f" ({self._node_sectors} sectors, not {self._sectors})" if greeting is _Greeting.OTHER_DISK else ""
        return greeting.value + sizes

    def _ending(self, greeting: _Greeting) -> Disconnected | Refusal:
        if greeting is _Greeting.KEY_REFUSED:
            return KeyRefused(self._rank)
        if greeting is _Greeting.UNSEALED:
            return NotSealed(self._rank)
        if greeting is _Greeting.OTHER_DISK:
            return OtherDisk(self._rank, self._node_sectors, self._sectors)
        return Disconnected(self._rank)


async def send_all(sock: trio.socket.SocketType, pieces: Sequence[Buffer]) -> None:
    """Send the pieces in order. Raises OSError."""
    if sum(map(len, pieces)) <= _JOIN_BYTES:
        pieces = [b"".join(pieces)]
    left = collections.deque(memoryview(piece) for piece in pieces)
    while left:
        sent = await sock.sendmsg(list(itertools.islice(left, _MAX_PIECES)))
        while left and sent >= len(left[0]):
            sent -= len(left.popleft())
        if sent:
            left[0] = left[0][sent:]


async def _receive(sock: trio.socket.SocketType) -> bytes:
    """The bytes that have come, b"" when the connection has ended, in whichever way."""
    try:
        return await sock.recv(RECV_BYTES)
    except OSError as error:
        _log.debug("the connection broke: %s", error)
        return b""
