"""The part of dsreg.node.dialer, without tasks: connects to one node, greets it, uses the link, reconnects."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dsreg.node.dialer import LIVES_AGAIN_S
from dsreg.node.interpreter import Interpreter
from dsreg.node.members import Members
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.dialing import GREET_AGAIN_S, GREETING_S, RECONNECT_FIRST_S, RECONNECT_MAX_S
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Ack, Fenced, Hello, LivesReport, Message, Receipt, Value
from tests.simulation.disk import Guard
from tests.simulation.loop import Loop, Timer
from tests.simulation.network import Network, SimTransport


class Met(NamedTuple):
    """As _Greeted of the product."""

    decoder: UnsealingDecoder
    messages: list[Message]
    shows_lives: bool


# Gets the port, and what has come of it if the greeting was answered.
Greeted = Callable[[SimTransport, Met | None], None]


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
        members: Members,
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
        self._members = members
        self._is_up = False  # the link, over the connection in use
        self._speaks = self._shows = False  # the extension, over that; and tells of lives
        self._greeting_now = False  # a peer of the contract is being greeted
        self._greets = False  # the peer has answered a greeting before
        self._pause_s = RECONNECT_FIRST_S
        self._serving: SimTransport | None = None
        self._ports: set[SimTransport] = set()
        self._connect(self._connected)

    def ports(self) -> list[SimTransport]:
        return list(self._ports)

    def _connect(self, done: Callable[[SimTransport | None], None]) -> None:
        def guarded(port: SimTransport | None) -> None:
            self._guard(self._add, port, done)

        self._network.connect(self._own, self._rank, True, guarded)

    def _add(self, port: SimTransport | None, done: Callable[[SimTransport | None], None]) -> None:
        if port is not None:
            self._ports.add(port)
        done(port)

    def _connected(self, port: SimTransport | None) -> None:
        if port is None:
            self._loop.after(self._pause_s * self._loop.between(0.8, 1.2), self._guard, self._connect, self._connected)
            self._pause_s = min(2 * self._pause_s, RECONNECT_MAX_S)
            return
        self._pause_s = RECONNECT_FIRST_S
        if self._greets or self._seals.required or self._keeps_lives:
            self._greet(port, self._greeted_at_once)
        else:
            self._serve(port, Met(self._new_decoder(False), [], False), extended=False)
            self._try_greeting(port)

    # --- greetings ------------------------------------------------------------------------------
    def _greet(self, port: SimTransport, done: Greeted) -> None:
        """Say HELLO; `done` gets what came of it if it is answered, None if it is not."""
        decoder = self._new_decoder(True)
        greeter = Greeter(self._greeting, self._rank, self._seals)
        timer: Timer | None
        self._members.greeting(self._rank)

        def finish(found: Met | None, hung_up: bool = False) -> None:
            nonlocal timer
            if timer is None:
                return  # a node that was stopped gets the answer and the timeout at once
            if greeter.answer is None:
                self._members.unanswered(self._rank, hung_up=hung_up)
            else:
                self._members.greets(self._rank)
            timer.cancel()
            timer = None
            port.on_data = lambda data: None
            port.on_end = lambda: None
            done(port, found)

        def take(data: bytes) -> None:
            messages = decoder.feed(data)
            for index, message in enumerate(messages):
                verdict = greeter.take(message)
                if verdict is None:
                    continue
                behind = messages[index + 1 :]
                if verdict is Verdict.SEALED:
                    port.seal(greeter.sealer)
                    behind = decoder.unseal(greeter.opener, between_nodes=True)
                    self._loop.fault("sealed", port.peer)
                good = verdict is Verdict.SEALED or verdict is Verdict.PLAIN and not self._seals.required
                assert greeter.answer is not None or not good
                shows = greeter.answer is not None and bool(greeter.answer.features & FEATURE_LIVES)
                finish(Met(decoder, behind, shows) if good else None)
                return

        timer = self._loop.after(GREETING_S, self._guard, finish, None)
        port.on_data = lambda data: self._guard(take, data)
        port.on_end = lambda: self._guard(finish, None, True)
        for message in greeter.messages:
            port.put(self._interpreter.encoder.encode(message))
        port.flush()

    def _greeted_at_once(self, port: SimTransport, met: Met | None) -> None:
        if met is None:
            self._greets = False
            self._drop(port)
            pause_s = RECONNECT_MAX_S if self._seals.required or self._keeps_lives else 0.0
            self._loop.after(pause_s, self._guard, self._connect, self._connected)
        else:
            self._serve(port, met, extended=True)

    def _try_greeting(self, contract: SimTransport) -> None:
        """Over a second connection, while the first is used without."""
        if self._may_greet and self._serving is contract and not self._greeting_now:
            self._greeting_now = True
            self._connect(lambda port: self._second(contract, port))

    def _second(self, contract: SimTransport, port: SimTransport | None) -> None:
        if port is not None and self._serving is contract:
            self._greet(port, lambda port, met: self._second_greeted(contract, port, met))
        elif port is not None:
            self._greeting_now = False
            self._drop(port)
        else:
            self._greeting_now = False
            self._loop.after(GREET_AGAIN_S, self._guard, self._try_greeting, contract)

    def _second_greeted(self, contract: SimTransport, port: SimTransport, met: Met | None) -> None:
        self._greeting_now = False
        if met is None or self._serving is not contract:
            self._drop(port)
            self._loop.after(GREET_AGAIN_S, self._guard, self._try_greeting, contract)
            return
        self._greets = True
        self._interpreter.link_down(self._rank, contract)
        self._serving = None
        self._drop(contract)
        self._serve(port, met, extended=True)

    # --- the link in use ------------------------------------------------------------------------
    def _serve(self, port: SimTransport, met: Met, *, extended: bool) -> None:
        self._serving, self._is_up = port, False
        self._speaks, self._shows = extended, met.shows_lives
        decoder = met.decoder
        port.on_data = lambda data: self._guard(self._take, port, decoder, data)
        port.on_end = lambda: self._guard(self._ended, port)
        if port.closed:  # it broke between the answer and now
            self._loop.after(0, self._guard, self._ended, port)
        if met.shows_lives:
            self._members.listens(port, node=True, answer=False)  # type: ignore[arg-type]
            self._loop.after(LIVES_AGAIN_S, self._guard, self._say_again, port)
        for message in met.messages:
            self._take_one(message)
        self.review()
        self._interpreter.end_turn()

    def _say_again(self, port: SimTransport) -> None:
        if self._serving is port:
            self._members.tell_again(port)  # type: ignore[arg-type]
            self._interpreter.end_turn()
            self._loop.after(LIVES_AGAIN_S, self._guard, self._say_again, port)

    def _take(self, port: SimTransport, decoder: UnsealingDecoder, data: bytes) -> None:
        if self._serving is not port:
            return
        for message in decoder.feed(data):
            self._take_one(message)
        self.review()
        self._interpreter.end_turn()
        if decoder.broken:
            self._loop.fault("seal_broken", port.peer)
            self._ended(port)

    def _take_one(self, message: Message) -> None:
        if isinstance(message, LivesReport):
            if message.rank == self._rank:
                self._members.told(message)
        elif self._is_up and isinstance(message, Value | Ack | Fenced | Receipt):
            self._interpreter.message(None, message)

    @property
    def _keeps_lives(self) -> bool:
        return self._members.lives.keeps_lives(self._rank)

    def greet_soon(self) -> None:
        if self._serving is not None and not self._speaks:
            self._try_greeting(self._serving)

    def review(self) -> None:
        """As Dialer.review."""
        port, lives = self._serving, self._members.lives
        if port is None:
            return
        good = lives.counts(self._rank) if self._shows else not self._keeps_lives
        if lives.fault(self._rank) or self._is_up and not good:
            self._loop.after(0, self._guard, self._ended, port)
        elif good and not self._is_up:
            self._is_up = True
            self._interpreter.link_up(self._rank, port, self._speaks)  # type: ignore[arg-type]

    def _ended(self, port: SimTransport) -> None:
        if self._serving is port:
            self._serving = None
            self._interpreter.link_down(self._rank, port)
            self._members.left(port)  # type: ignore[arg-type]
            self._drop(port)
            pause_s = RECONNECT_MAX_S if self._members.lives.fault(self._rank) else 0.0
            self._loop.after(pause_s, self._guard, self._connect, self._connected)

    def _drop(self, port: SimTransport) -> None:
        self._ports.discard(port)
        port.close()
