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
from dsreg.core.greeting import Greeter, Seals, Verdict
from dsreg.core.messages import Ack, Fenced, Hello, Message, Receipt, Value
from dsreg.node.interpreter import Interpreter
from dsreg.port import UNACKED_MS, Port, dial

# A greeting that takes longer is from a peer that does not know it, or is too slow to be worth it.
GREETING_S = 2.0
# How often a peer that speaks only the contract is greeted again: it may have been upgraded. And for how long one that
# has sealed and is silent now is greeted again: it is starting, rather than another one that cannot.
GREET_AGAIN_S = 30.0
# Seconds between attempts to connect: short, as a restarted node should be in use at once, with an upper
# end that costs nothing while a machine is away.
RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 1.0
CONNECT_S = 5.0
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
        self._greets = False  # the peer has answered a greeting before
        self._hopeful = True  # it may, as far as is known
        self._awaited_until_s = -math.inf  # it has sealed, and is not spoken to in clear text before this

    async def run(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            try:
                with trio.fail_after(CONNECT_S):
                    port = await dial(*self._address, UNACKED_MS)
            except (OSError, trio.TooSlowError):
                self.state = "down"
                await trio.sleep(pause_s * random.uniform(0.8, 1.2))  # back-off, not a wait for something
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)
                continue
            pause_s = RECONNECT_FIRST_S
            await self._use(port)

    async def _use(self, port: Port) -> None:
        if self._seals.required or self._greets:
            decoder = await self._greet(port)
            if decoder is not None:
                await self._serve(port, decoder, extended=True)
                return
            port.close()
            if self._seals.required:
                await trio.sleep(RECONNECT_MAX_S)  # nothing tells when the peer is set right
            elif trio.current_time() < self._awaited_until_s:
                await trio.sleep(RECONNECT_FIRST_S)  # nor when it has recovered
            else:
                self._greets = False
            return
        greeted = await self._serve_contract(port)
        if greeted is not None:
            self._greets = True
            await self._serve(*greeted, extended=True)

    async def _serve_contract(self, port: Port) -> tuple[Port, UnsealingDecoder] | None:
        """Use `port` until it breaks, or until the peer has answered a greeting on another connection."""
        greeted: tuple[Port, UnsealingDecoder] | None = None
        tried = trio.Event()

        async def greet_until_answered() -> None:
            nonlocal greeted
            while True:
                greeted = await self._try_greeting()
                self._hopeful = greeted is not None
                tried.set()
                if greeted is not None:
                    nursery.cancel_scope.cancel()
                    return
                await trio.sleep(GREET_AGAIN_S)  # nothing tells when a peer is upgraded

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(greet_until_answered)
                if self._hopeful:
                    # What goes over the contract's connection can be read by anybody.
                    with trio.move_on_after(CONTRACT_AFTER_S):
                        await tried.wait()
                await self._serve(port, self._new_decoder(False), extended=False)
                nursery.cancel_scope.cancel()
        finally:
            port.close()
        return greeted

    async def _try_greeting(self) -> tuple[Port, UnsealingDecoder] | None:
        try:
            with trio.fail_after(CONNECT_S):
                port = await dial(*self._address, UNACKED_MS)
        except (OSError, trio.TooSlowError):
            return None
        decoder = None
        try:
            decoder = await self._greet(port)
        finally:
            if decoder is None:
                port.close()
        return None if decoder is None else (port, decoder)

    async def _greet(self, port: Port) -> UnsealingDecoder | None:
        """Say HELLO, wait for the answer, and seal the connection if the peer can; None if it is not to be used.
        Nothing else is sent by either side before."""
        decoder = self._new_decoder(True)
        greeter = Greeter(self._greeting, self.rank, self._seals)
        for greeting in greeter.messages:
            port.put(self._interpreter.encoder.encode(greeting))
        port.flush()
        state = "silent"
        with trio.move_on_after(GREETING_S):
            while greeter.verdict is None and (data := await port.receive()):
                for message in decoder.feed(data):
                    greeter.take(message)
        verdict = greeter.verdict
        if verdict is Verdict.SEALED:
            port.seal(greeter.sealer)
            decoder.unseal(greeter.opener, between_nodes=True)
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
        """The link is up: take answers from it until it breaks."""
        interpreter = self._interpreter
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                self.state = "sealed" if port.is_sealed else "extension" if extended else "contract"
                interpreter.link_up(self.rank, port, extended)
                while data := await port.receive():
                    for message in decoder.feed(data):
                        self._take(message)
                    interpreter.end_turn()
                    if decoder.broken:
                        log.info("node %d: its connection brings what was not sent, and is made anew", self.rank)
                        break
                nursery.cancel_scope.cancel()
        finally:
            if port.is_sealed:
                self._awaited_until_s = trio.current_time() + GREET_AGAIN_S
            self.state = "down"
            interpreter.link_down(self.rank, port)
            port.close()

    def _take(self, message: Message) -> None:
        """Only answers are for us here; a contract peer may also send them over its own connection."""
        if isinstance(message, (Value, Ack, Fenced, Receipt)):
            self._interpreter.message(None, message)
