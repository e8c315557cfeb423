"""The link to one other node: connects, greets, and keeps a way to send to it for as long as the node runs.

A peer that has not been heard greeting gets a plain contract connection first, with not a byte on it that
the contract does not know; the greeting goes over a second one. If it is answered the extension takes
over and the first is closed. A peer that did greet before is greeted at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from dsreg.core.codec import Decoder
from dsreg.core.messages import Ack, Fenced, Hello, Message, Receipt, Value
from dsreg.node.interpreter import Interpreter
from dsreg.node.port import Port, dial

# A greeting that takes longer is from a peer that does not know it, or is too slow to be worth it.
GREETING_S = 2.0
# How often a peer that speaks only the contract is greeted again: it may have been upgraded.
GREET_AGAIN_S = 30.0
# Seconds between attempts to connect: short, as a restarted node should be in use at once, with an upper
# end that costs nothing while a machine is away.
RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 1.0
CONNECT_S = 5.0


class Dialer:
    """`greeting`: this node's own HELLO. `new_decoder(extended)`: a decoder for what the peer sends."""

    def __init__(
        self,
        rank: int,
        address: tuple[str, int],
        interpreter: Interpreter,
        greeting: Hello,
        new_decoder: Callable[[bool], Decoder],
    ) -> None:
        self.rank = rank
        self.state = "down"  # "down", "contract" or "extension", for STATUS
        self._address = address
        self._interpreter = interpreter
        self._greeting = greeting
        self._new_decoder = new_decoder
        self._greets = False  # the peer has answered a greeting before

    async def run(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            try:
                with trio.fail_after(CONNECT_S):
                    port = await dial(*self._address)
            except (OSError, trio.TooSlowError):
                await trio.sleep(pause_s * random.uniform(0.8, 1.2))  # back-off, not a wait for something
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)
                continue
            pause_s = RECONNECT_FIRST_S
            await self._use(port)

    async def _use(self, port: Port) -> None:
        if self._greets:
            decoder = await self._greet(port)
            if decoder is None:
                self._greets = False
                port.close()
            else:
                await self._serve(port, decoder, extended=True)
            return
        greeted = await self._serve_contract(port)
        if greeted is not None:
            self._greets = True
            await self._serve(*greeted, extended=True)

    async def _serve_contract(self, port: Port) -> tuple[Port, Decoder] | None:
        """Use `port` until it breaks, or until the peer has answered a greeting on another connection."""
        greeted: tuple[Port, Decoder] | None = None

        async def greet_until_answered() -> None:
            nonlocal greeted
            while True:
                greeted = await self._try_greeting()
                if greeted is not None:
                    nursery.cancel_scope.cancel()
                    return
                await trio.sleep(GREET_AGAIN_S)  # nothing tells when a peer is upgraded

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet_until_answered)
            await self._serve(port, self._new_decoder(False), extended=False)
            nursery.cancel_scope.cancel()
        return greeted

    async def _try_greeting(self) -> tuple[Port, Decoder] | None:
        try:
            with trio.fail_after(CONNECT_S):
                port = await dial(*self._address)
        except (OSError, trio.TooSlowError):
            return None
        decoder = None
        try:
            decoder = await self._greet(port)
        finally:
            if decoder is None:
                port.close()
        return None if decoder is None else (port, decoder)

    async def _greet(self, port: Port) -> Decoder | None:
        """Say HELLO and wait for the answer; None if none came. Nothing else is sent by either side before."""
        decoder = self._new_decoder(True)
        port.put(self._interpreter.encoder.encode(self._greeting))
        port.flush()
        with trio.move_on_after(GREETING_S):
            while data := await port.receive():
                for message in decoder.feed(data):
                    if isinstance(message, Hello) and message.answer and message.rank == self.rank:
                        return decoder
        return None

    async def _serve(self, port: Port, decoder: Decoder, *, extended: bool) -> None:
        """The link is up: take answers from it until it breaks."""
        interpreter = self._interpreter
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                self.state = "extension" if extended else "contract"
                interpreter.link_up(self.rank, port, extended)
                while data := await port.receive():
                    for message in decoder.feed(data):
                        self._take(message)
                    interpreter.end_turn()
                nursery.cancel_scope.cancel()
        finally:
            self.state = "down"
            interpreter.link_down(self.rank, port)
            port.close()

    def _take(self, message: Message) -> None:
        """Only answers are for us here; a contract peer may also send them over its own connection."""
        if isinstance(message, Value | Ack | Fenced | Receipt):
            self._interpreter.message(None, message)
