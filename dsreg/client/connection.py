"""One connection to one node: made, greeted, kept, and made again when it breaks."""

from __future__ import annotations

import enum
import logging
import random
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from dsreg.client.events import Disconnected, KeyRefused, NotSealed, OtherDisk, Refusal
from dsreg.client.limits import (
    CONNECT_S,
    FOREIGN_S,
    HELLO_MAX_S,
    HELLO_S,
    HIGH_WATER_BYTES,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
)
from dsreg.protocol.codec import EncodeOnce, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Command, CommandKind, LivesReport, Message, Response, StatusRequest
from dsreg.protocol.record_bound import RecordBound
from dsreg.register.assembly import client_hello
from dsreg.transport import Transport, dial

_log = logging.getLogger("dsreg.client")

# A node with another client key drops our HELLO in silence. A command of the contract it must answer, with
# AUTH_FAILURE under its own key, which we see as a bad HMAC; with our key it must answer that there is no such
# sector. Neither has any effect, and a node that speaks the contract only is told from one that is stuck.
_KEY_QUESTION: Final = Command(CommandKind.READ, 0, (1 << 64) - 1, 1)


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


# What a byte that was changed on its way, or a slow node, can look like, too: believed when it is seen twice in a row.
_DOUBTFUL: Final = (_Greeting.FOREIGN, _Greeting.KEY_REFUSED, _Greeting.CHANGED, _Greeting.SILENT)


class Connection:
    """`run` it in a nursery; it never ends by itself. Between `connected` and `disconnected`, what is given to
    `send` goes out in order, with the next `flush`. `encode`: for frames with an HMAC, and for those without."""

    def __init__(
        self, rank: int, host: str, port: int, *, keys: Keys, sectors: int, owner: Owner, rng: random.Random,
        seals: Seals, encode: tuple[EncodeOnce, EncodeOnce],
    ) -> None:
        self._rank, self._host, self._address = rank, host, port
        self._keys, self._sectors = keys, sectors
        self._owner = owner
        self._rng = rng
        self._seals = seals
        self._encode_plain, self._encode_bare = encode
        self._encode = self._encode_plain
        # Those that the port had no room for. Bounded by the operations in flight (limits.MAX_OPERATIONS): what is
        # settled is withdrawn.
        self._waiting: dict[int, Command | StatusRequest] = {}
        self._records = RecordBound()
        self._port: Transport | None = None
        self._up = False
        self._backoff_s = RECONNECT_FIRST_S
        self._hello_s = HELLO_S
        self._suspected: _Greeting | None = None  # how the last attempt to be greeted ended
        self._told: tuple[_Greeting, int] | None = None
        self._node_sectors = sectors  # as the node has said last
        self._cluster_size = 0  # as well
        self._shows_lives = False  # as well

    @property
    def complaint(self) -> str:
        """Why the node was not used when it was greeted last; "" if it was, or has not been reached yet."""
        if self._told is None or self._told[0] is _Greeting.GOOD:
            return ""
        return self._describe(self._told[0])

    def send(self, message: Command | StatusRequest) -> None:
        """It goes with the next `flush`, or when the port has room for it."""
        port = self._port
        assert port is not None and self._up
        if self._waiting or port.outgoing_bytes >= HIGH_WATER_BYTES:
            self._waiting[message.request] = message
        else:
            port.put(self._encode(message))

    def withdraw(self, request: int) -> None:
        """Do not send the message, if it still waits for room."""
        self._waiting.pop(request, None)

    def flush(self) -> None:
        if self._port is not None:
            self._port.flush()

    def drop(self) -> None:
        """Close the connection, as if it had broken."""
        if self._port is not None:
            self._port.close()

    def _pump(self) -> None:
        """The port has room again."""
        port = self._port
        while port is not None and self._waiting and port.outgoing_bytes < HIGH_WATER_BYTES:
            port.put(self._encode(self._waiting.pop(next(iter(self._waiting)))))

    async def run(self) -> None:
        while True:
            greeting = await self._connect()
            self._up = False
            self._waiting.clear()
            self._owner.disconnected(self._ending(greeting))
            # Jitter: the clients of a node that restarts must not all come back at the same moment.
            await trio.sleep(self._backoff_s * self._rng.uniform(0.5, 1.0))
            self._backoff_s = min(2 * self._backoff_s, RECONNECT_MAX_S)

    async def _connect(self) -> _Greeting:
        """One connection from its beginning to its end."""
        try:
            with trio.fail_after(CONNECT_S):
                port = await dial(self._host, self._address)
        except (OSError, trio.TooSlowError) as error:
            _log.debug("node %d (%s:%d): cannot connect: %s", self._rank, self._host, self._address, error)
            return _Greeting.LOST
        port.on_room = self._pump
        self._port = port
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                greeting = await self._serve(port)
                nursery.cancel_scope.cancel()
            return greeting
        finally:
            self._port = None
            port.close()

    async def _serve(self, port: Transport) -> _Greeting:
        decoder = UnsealingDecoder(
            self._keys, sectors=self._sectors, ranks=frozenset(), side=Side.CLIENT, extended=True
        )
        self._encode = self._encode_plain
        greeting, messages = await self._greet(port, decoder)
        self._hello_s = min(2 * self._hello_s, HELLO_MAX_S) if greeting is _Greeting.SILENT else HELLO_S
        if greeting in _DOUBTFUL and greeting is not self._suspected:
            self._suspected = greeting
            _log.info("node %d: %s, or so it seems: asking again", self._rank, greeting.value)
            return _Greeting.LOST
        self._suspected = greeting
        self._tell(greeting)
        if greeting is not _Greeting.GOOD:
            return greeting
        if self._shows_lives and not await self._lives_come(port, decoder, messages):
            return _Greeting.LOST
        self._up = True
        self._owner.connected(self._rank, self._cluster_size)
        self._owner.received(self._rank, messages)
        while data := await port.receive():
            messages = decoder.feed(data)
            if messages:
                self._backoff_s = RECONNECT_FIRST_S
                self._records.heard()
                port.record_bytes = self._records.bound
            self._owner.received(self._rank, messages)
            if decoder.broken:
                _log.info("node %d: what came was not what was sent", self._rank)
                break
        self._records.broke(port.largest_record)
        _log.info("node %d: the connection is over", self._rank)
        self._told = None  # whoever reads that wants to read as well that it is usable again
        return _Greeting.LOST

    async def _lives_come(self, port: Transport, decoder: UnsealingDecoder, messages: list[Message]) -> bool:
        """Wait for what the node tells of lives, which comes first and is not to be missed; add it to `messages`."""
        with trio.move_on_after(HELLO_S):
            while not any(isinstance(message, LivesReport) for message in messages):
                if not (data := await port.receive()):
                    return False
                messages += decoder.feed(data)
            return True
        return False

    async def _greet(self, port: Transport, decoder: UnsealingDecoder) -> tuple[_Greeting, list[Message]]:
        """Say HELLO, wait for the answer, and seal the connection if the node can; gives also what came behind."""
        greeter = Greeter(client_hello(self._sectors), 0, self._seals)
        good = foreign = False
        with trio.move_on_after(self._hello_s) as limit:
            hello, *handshake = greeter.messages
            for question in (hello, _KEY_QUESTION, *handshake):
                port.put(self._encode(question))
            port.flush()
            while data := await port.receive():
                messages = decoder.feed(data)
                good |= bool(messages)
                for index, message in enumerate(messages):
                    verdict = greeter.take(message)
                    if verdict is not None:
                        return self._judge(port, greeter, verdict, decoder, messages[index + 1 :])
                    if isinstance(message, Response) and not message.extended and greeter.answer is None:
                        # A node answers what it knows in the order of its coming, and the HELLO came first.
                        foreign = True
                        limit.deadline = min(limit.deadline, trio.current_time() + FOREIGN_S)
                if decoder.counters["bad_mac"] and not good:
                    return _Greeting.KEY_REFUSED, []
                if decoder.counters:
                    return _Greeting.CHANGED, []
            return _Greeting.LOST, []
        if greeter.answer is not None:
            return _Greeting.CHANGED, []  # it was to be sealed, and somebody has kept that from us
        return _Greeting.FOREIGN if foreign else _Greeting.SILENT, []

    def _judge(
        self, port: Transport, greeter: Greeter, verdict: Verdict, decoder: UnsealingDecoder, messages: list[Message]
    ) -> tuple[_Greeting, list[Message]]:
        assert greeter.answer is not None
        self._node_sectors, self._cluster_size = greeter.answer.sectors, greeter.answer.features & 0xFF
        self._shows_lives = bool(greeter.answer.features & FEATURE_LIVES)
        if verdict is Verdict.BROKEN:
            return _Greeting.CHANGED, []
        if self._node_sectors != self._sectors:
            return _Greeting.OTHER_DISK, []
        if verdict is Verdict.SEALED:
            assert greeter.sealer is not None and greeter.opener is not None
            port.seal(greeter.sealer)
            self._records.opened()
            port.record_bytes = self._records.bound
            self._encode = self._encode_bare
            # What the node has had so far may have been recorded by somebody, and a record cannot.
            port.put(self._encode(_KEY_QUESTION))
            port.flush()
            messages = decoder.unseal(greeter.opener, between_nodes=False)
        elif self._seals.required:
            return _Greeting.UNSEALED, []
        return _Greeting.GOOD, messages

    def _tell(self, greeting: _Greeting) -> None:
        """Log how it went, once until it changes."""
        if (greeting, self._node_sectors) != self._told:
            self._told = greeting, self._node_sectors
            level = logging.INFO if greeting in (_Greeting.GOOD, _Greeting.LOST) else logging.WARNING
            _log.log(level, "node %d (%s:%d): %s", self._rank, self._host, self._address, self._describe(greeting))

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
        return Disconnected(self._rank, greeting is _Greeting.FOREIGN)

