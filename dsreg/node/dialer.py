"""The link to one other node: connects, greets, and keeps a way to send to it for as long as the node runs.

A peer that has not been heard greeting gets a plain contract connection first, with not a byte on it that
the contract does not know; the greeting goes over a second one. If it is answered the extension takes
over and the first is closed. A peer that did greet before is greeted at once.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable

import trio

from dsreg.core.codec import UnsealingDecoder
from dsreg.core.dialing import GREETING_S, RECONNECT_FIRST_S, GreetingTimes, Patience, Pauses
from dsreg.core.greeting import Greeter, Seals, Verdict
from dsreg.core.messages import Ack, Fenced, Hello, Message, Receipt, Value
from dsreg.core.record_bound import RecordBound
from dsreg.node.interpreter import Interpreter
from dsreg.port import UNACKED_MS, Port, dial

CONNECT_S = 5.0
# For how long a peer that has sealed and is silent now is only greeted, again and again: it is starting, rather than
# another one that cannot.
AWAIT_SEAL_S = 30.0
# How long a peer that may greet has time to do so before it gets contract messages, in clear text. A greeting takes
# some milliseconds; a peer that speaks only the contract is made to wait this long once.
CONTRACT_AFTER_S = 0.05

log = logging.getLogger("dsreg.node")

_FAULTS = {
    "silent": "does not answer the greeting: it has other keys, is stuck, or speaks only the contract",
    "unsealed": "does not seal its connections: it is of an older version",
}


class Dialer:
    """`greeting`: this node's own HELLO. `new_decoder(extended)`: a decoder for what the peer sends."""

    def __init__(
        self,
        rank: int,
        address: tuple[str, int],
        interpreter: Interpreter,
        greeting: Hello,
        new_decoder: Callable[[bool], UnsealingDecoder],
        seals: Seals,
    ) -> None:
        self.rank = rank
        # For STATUS: "down", "contract", "extension", "sealed"; or, if only what is sealed is good enough, "silent"
        # for a peer that does not answer the greeting and "unsealed" for one that does not seal.
        self.state = "down"
        self._address = address
        self._interpreter = interpreter
        self._greeting = greeting
        self._new_decoder = new_decoder
        self._seals = seals
        self._pauses = Pauses()
        self._patience = Patience()
        self._records = RecordBound()
        self._greetings = GreetingTimes()
        self._relinked = trio.Event()  # since the last greeting began the peer may have come to know greetings
        self._greets = False  # the peer has answered a greeting before
        self._hopeful = True  # it may, as far as is known
        self._awaited_until_s = -math.inf  # it has sealed, and is not spoken to in clear text before this

    async def run(self) -> None:
        while True:
            await self._use(await self._connect())

    def was_greeted(self) -> None:
        """The peer has sealed a connection of its own to this node: it can be greeted."""
        self._greetings = GreetingTimes()
        self._relinked.set()

    async def _connect(self) -> Port:
        """However long it takes."""
        while True:
            try:
                with trio.fail_after(CONNECT_S):
                    return await dial(*self._address, UNACKED_MS)
            except (OSError, trio.TooSlowError):
                self.state = "down"
                await self._pause(self._pauses.failed())

    async def _pause(self, seconds: float) -> None:
        """A back-off, not a wait for something. With jitter: the peers of a node that restarts come back one by one."""
        await trio.sleep(seconds * random.uniform(0.8, 1.2))

    async def _use(self, port: Port) -> None:
        if self._seals.required or self._greets:
            decoder = await self._greet(port, self._patience.seconds if self._greets else GREETING_S)
            if decoder is not None:
                self._greets = True
                await self._serve(port, decoder, extended=True)
                return
            port.close()
            if self._seals.required:
                await self._pause(self._pauses.failed())  # nothing tells when the peer is set right
            elif trio.current_time() < self._awaited_until_s:
                await trio.sleep(RECONNECT_FIRST_S)  # nor when it has recovered
            else:
                self._greets = False
            return
        greeted = await self._speak_contract(port)
        self._greets = True
        await self._serve(*greeted, extended=True)

    async def _speak_contract(self, port: Port) -> tuple[Port, UnsealingDecoder]:
        """Use `port`, and after that others, until the peer has answered a greeting on one of its own: gives that."""
        greeted: tuple[Port, UnsealingDecoder] | None = None
        tried = trio.Event()

        async def greet_until_answered() -> None:
            nonlocal greeted
            while greeted is None:
                self._relinked = trio.Event()
                greeted = await self._try_greeting()
                self._hopeful = greeted is not None
                tried.set()
                if greeted is None:
                    # Nothing tells when a peer is upgraded, or has been restarted and still has the old connection.
                    with trio.move_on_at(self._greetings.next_s(relinked=False)):
                        await self._relinked.wait()
                        await trio.sleep_until(self._greetings.next_s(relinked=True))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet_until_answered)
            await self._stay_linked(port, tried)
        assert greeted is not None
        return greeted

    async def _stay_linked(self, port: Port, tried: trio.Event) -> None:
        """By the contract, until cancelled. `tried`: set when a greeting has been answered, or not been answered."""
        try:
            if self._hopeful:
                # What goes over the contract's connection can be read by anybody.
                with trio.move_on_after(CONTRACT_AFTER_S):
                    await tried.wait()
            while True:
                await self._serve(port, self._new_decoder(False), extended=False)
                port = await self._connect()
                self._relinked.set()
        finally:
            port.close()

    async def _try_greeting(self) -> tuple[Port, UnsealingDecoder] | None:
        """On a connection of its own, which it gives if the peer has answered."""
        try:
            with trio.fail_after(CONNECT_S):
                port = await dial(*self._address, UNACKED_MS)
        except (OSError, trio.TooSlowError):
            self._greetings.failed(trio.current_time())
            return None
        decoder = None
        greeted_s = trio.current_time()
        try:
            decoder = await self._greet(port, GREETING_S)
        finally:
            if decoder is None:
                port.close()
        if decoder is None:
            now = trio.current_time()
            if now - greeted_s >= GREETING_S:
                heard_s = self._interpreter.heard.get(self.rank, -math.inf)
                self._greetings.unanswered(now, speaks_contract=heard_s > greeted_s)
            else:
                self._greetings.failed(now)
            return None
        self._greetings = GreetingTimes()
        return port, decoder

    async def _greet(self, port: Port, patience_s: float) -> UnsealingDecoder | None:
        """Say HELLO, wait for the answer, and seal the connection if the peer can; None if it is not to be used.
        Nothing else is sent by either side before."""
        decoder = self._new_decoder(True)
        greeter = Greeter(self._greeting, self.rank, self._seals)
        for greeting in greeter.messages:
            port.put(self._interpreter.encoder.encode(greeting))
        port.flush()
        state = "silent"
        with trio.move_on_after(patience_s) as limit:
            while greeter.verdict is None and (data := await port.receive()):
                for message in decoder.feed(data):
                    greeter.take(message)
                if greeter.verdict is None and decoder.counters:
                    greeter.damaged()
        if limit.cancelled_caught:
            self._patience.silent()
        verdict = greeter.verdict
        if verdict is Verdict.SEALED:
            port.seal(greeter.sealer)
            # An answer to nothing. What the peer has had so far may have been recorded, and a record cannot.
            self._interpreter.tell(port, Ack(self._greeting.rank, 0, 0, 1))
            port.flush()
            decoder.unseal(greeter.opener, between_nodes=True)
            self._patience.answered()
            self._records.opened()
            port.record_bytes = self._records.bound
            return decoder
        if verdict is Verdict.PLAIN:
            if not self._seals.required:
                return decoder
            state = "unsealed"
        if verdict is Verdict.BROKEN:
            log.info("node %d: the connection was changed on its way while it was being sealed", self.rank)
        if self._seals.required:
            self._tell(state)
        return None

    def _tell(self, state: str) -> None:
        """Why a peer is not used, once until it changes."""
        if state != self.state:
            self.state = state
            log.warning("node %d is not used: require_sealed is set, and it %s", self.rank, _FAULTS[state])

    async def _serve(self, port: Port, decoder: UnsealingDecoder, *, extended: bool) -> None:
        """The link is up: take answers from it until it breaks; then wait, if it broke at once."""
        interpreter = self._interpreter
        began_s, was_of_use = trio.current_time(), port.is_sealed
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                self.state = "sealed" if port.is_sealed else "extension" if extended else "contract"
                interpreter.link_up(self.rank, port, extended)
                while data := await port.receive():
                    messages = decoder.feed(data)
                    if messages:
                        was_of_use = True
                        self._records.heard()
                        port.record_bytes = self._records.bound
                    for message in messages:
                        self._take(message)
                    interpreter.end_turn()
                    if decoder.broken:
                        log.info("node %d: its connection brings what was not sent, and is made anew", self.rank)
                        break
                nursery.cancel_scope.cancel()
        finally:
            if port.is_sealed:
                self._records.broke(port.largest_record)
                self._awaited_until_s = trio.current_time() + AWAIT_SEAL_S
            self.state = "down"
            interpreter.link_down(self.rank, port)
            port.close()
        pause_s = self._pauses.ended(trio.current_time() - began_s, was_of_use=was_of_use)
        if pause_s:
            await self._pause(pause_s)

    def _take(self, message: Message) -> None:
        """Only answers are for us here; a contract peer may also send them over its own connection."""
        if isinstance(message, (Value, Ack, Fenced, Receipt)):
            self._interpreter.message(None, message)
