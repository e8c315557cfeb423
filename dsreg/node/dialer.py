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
from typing import NamedTuple

import trio

from dsreg.node.interpreter import Interpreter
from dsreg.node.members import Members
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.dialing import GREETING_S, RECONNECT_FIRST_S, GreetingTimes, Patience, Pauses
from dsreg.protocol.greeting import Greeter, Seals, Verdict
from dsreg.protocol.messages import FEATURE_LIVES, Ack, Fenced, Hello, LivesReport, Message, Receipt, Value
from dsreg.protocol.record_bound import RecordBound
from dsreg.transport import UNACKED_MS, Transport, dial

CONNECT_S = 5.0
# For how long a peer that has sealed and is silent now is only greeted, again and again: it is starting, rather than
# another one that cannot.
AWAIT_SEAL_S = 30.0
# How long a peer that may greet has time to do so before it gets contract messages, in clear text. A greeting takes
# some milliseconds; a peer that speaks only the contract is made to wait this long once.
CONTRACT_AFTER_S = 0.05

# How often what is known of lives is said again.
LIVES_AGAIN_S = 5.0

log = logging.getLogger("dsreg.node")

_FAULTS = {
    "silent": "does not answer the greeting: it has other keys, is stuck, or speaks only the contract",
    "unsealed": "does not seal its connections: it is of an older version",
}


class _Greeted(NamedTuple):
    """A connection that may be used. `messages`: what came right behind the greeting. `shows_lives`: the peer tells
    which directory it has, and does not count before."""

    decoder: UnsealingDecoder
    messages: list[Message]
    shows_lives: bool


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
        members: Members,
    ) -> None:
        self.rank = rank
        # For STATUS: "down", "contract", "extension", "sealed"; "waiting" for one that has not started, or has not
        # shown its directory yet; "directory changed"; or, if only what is sealed is good enough, "silent"
        # for a peer that does not answer the greeting and "unsealed" for one that does not seal.
        self.state = "down"
        self._address = address
        self._interpreter = interpreter
        self._greeting = greeting
        self._new_decoder = new_decoder
        self._seals = seals
        self._members = members
        self._link: tuple[Transport, bool] | None = None  # the connection in use, and whether the link is up over it
        self._speaks = self._shows = False  # the extension, over that; and tells of lives
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

    async def _connect(self) -> Transport:
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

    async def _use(self, port: Transport) -> None:
        if self._seals.required or self._greets or self._keeps_lives:
            greeted = await self._greet(port, self._patience.seconds if self._greets else GREETING_S)
            if greeted is not None:
                self._greets = True
                await self._serve(port, greeted, extended=True)
                return
            port.close()
            if self._seals.required:
                await self._pause(self._pauses.failed())  # nothing tells when the peer is set right
            elif trio.current_time() < self._awaited_until_s:
                await trio.sleep(RECONNECT_FIRST_S)  # nor when it has recovered
            elif self._keeps_lives:
                await self._pause(self._pauses.failed())  # it has to show its directory, so the contract will not do
            else:
                self._greets = False
            return
        port, greeted = await self._speak_contract(port)
        self._greets = True
        await self._serve(port, greeted, extended=True)

    async def _speak_contract(self, port: Transport) -> tuple[Transport, _Greeted]:
        """Use `port`, and after that others, until the peer has answered a greeting on one of its own: gives that."""
        greeted: tuple[Transport, _Greeted] | None = None
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
                    if self._keeps_lives:
                        await self._pause(self._pauses.failed())
                        continue
                    with trio.move_on_at(self._greetings.next_s(relinked=False)):
                        await self._relinked.wait()
                        await trio.sleep_until(self._greetings.next_s(relinked=True))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet_until_answered)
            await self._stay_linked(port, tried)
        assert greeted is not None
        return greeted

    async def _stay_linked(self, port: Transport, tried: trio.Event) -> None:
        """By the contract, until cancelled. `tried`: set when a greeting has been answered, or not been answered."""
        try:
            if self._hopeful:
                # What goes over the contract's connection can be read by anybody.
                with trio.move_on_after(CONTRACT_AFTER_S):
                    await tried.wait()
            while True:
                await self._serve(port, _Greeted(self._new_decoder(False), [], False), extended=False)
                port = await self._connect()
                self._relinked.set()
        finally:
            port.close()

    async def _try_greeting(self) -> tuple[Transport, _Greeted] | None:
        """On a connection of its own, which it gives if the peer has answered."""
        try:
            with trio.fail_after(CONNECT_S):
                port = await dial(*self._address, UNACKED_MS)
        except (OSError, trio.TooSlowError):
            self._greetings.failed(trio.current_time())
            return None
        greeted = None
        greeted_s = trio.current_time()
        try:
            greeted = await self._greet(port, GREETING_S)
        finally:
            if greeted is None:
                port.close()
        if greeted is None:
            now = trio.current_time()
            if now - greeted_s >= GREETING_S:
                heard_s = self._interpreter.heard.get(self.rank, -math.inf)
                self._greetings.unanswered(now, speaks_contract=heard_s > greeted_s)
            else:
                self._greetings.failed(now)
            return None
        self._greetings = GreetingTimes()
        return port, greeted

    async def _greet(self, port: Transport, patience_s: float) -> _Greeted | None:
        """Say HELLO, wait for the answer, and seal the connection if the peer can; None if it is not to be used.
        Nothing else is sent by either side before."""
        decoder = self._new_decoder(True)
        greeter = Greeter(self._greeting, self.rank, self._seals)
        for greeting in greeter.messages:
            port.put(self._interpreter.encoder.encode(greeting))
        port.flush()
        state = "silent"
        self._members.greeting(self.rank)
        behind: list[Message] = []  # what has come after the greeting's answer
        with trio.move_on_after(patience_s) as limit:
            is_over = False
            while not is_over and (data := await port.receive()):
                for message in decoder.feed(data):
                    if is_over:
                        behind.append(message)
                    else:
                        is_over = greeter.take(message) is not None
                if not is_over and decoder.counters:
                    greeter.damaged()
                    is_over = greeter.verdict is not None
        if limit.cancelled_caught:
            self._patience.silent()
        verdict = greeter.verdict
        if greeter.answer is None:
            self._members.unanswered(self.rank, hung_up=not limit.cancelled_caught)
        else:
            self._members.greets(self.rank)
        shows = greeter.answer is not None and bool(greeter.answer.features & FEATURE_LIVES)
        if verdict is Verdict.SEALED:
            port.seal(greeter.sealer)
            if not shows:
                # An answer to nothing. What the peer has had so far may have been recorded, and a record cannot.
                self._interpreter.tell(port, Ack(self._greeting.rank, 0, 0, 1))
                port.flush()
            self._patience.answered()
            self._records.opened()
            port.record_bytes = self._records.bound
            return _Greeted(decoder, decoder.unseal(greeter.opener, between_nodes=True), shows)
        if verdict is Verdict.PLAIN:
            if not self._seals.required:
                return _Greeted(decoder, behind, shows)
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

    async def _serve(self, port: Transport, greeted: _Greeted, *, extended: bool) -> None:
        """Use the connection until it breaks; then wait, if it broke at once."""
        interpreter, members = self._interpreter, self._members
        began_s, was_of_use = trio.current_time(), port.is_sealed
        self._link, self._speaks, self._shows = (port, False), extended, greeted.shows_lives
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                self.state = "waiting"
                if greeted.shows_lives:
                    members.listens(port, node=True, answer=False)
                    nursery.start_soon(self._ask_lives, port)
                was_of_use |= await self._receive(port, greeted)
                nursery.cancel_scope.cancel()
        finally:
            self._link = None
            members.left(port)
            if port.is_sealed:
                self._records.broke(port.largest_record)
                self._awaited_until_s = trio.current_time() + AWAIT_SEAL_S
            is_good = not members.lives.fault(self.rank)
            self.state = "down" if is_good else "directory changed"
            interpreter.link_down(self.rank, port)
            port.close()
        pause_s = self._pauses.ended(trio.current_time() - began_s, was_of_use=was_of_use and is_good)
        if pause_s:
            await self._pause(pause_s)

    async def _receive(self, port: Transport, greeted: _Greeted) -> bool:
        """Take answers until the connection breaks; whether any came."""
        was_of_use, messages = False, greeted.messages
        while True:
            for message in messages:
                self._take(message)
            self.review()
            self._interpreter.end_turn()
            if greeted.decoder.broken:
                log.info("node %d: its connection brings what was not sent, and is made anew", self.rank)
                return was_of_use
            if not (data := await port.receive()):
                return was_of_use
            messages = greeted.decoder.feed(data)
            if messages:
                was_of_use = True
                self._records.heard()
                port.record_bytes = self._records.bound

    def _take(self, message: Message) -> None:
        """Only answers are for us here; a contract peer may also send them over its own connection."""
        if isinstance(message, LivesReport):
            if message.rank == self.rank:
                self._members.told(message)
        elif self._link is not None and self._link[1] and isinstance(message, (Value, Ack, Fenced, Receipt)):
            self._interpreter.message(None, message)

    # --- lives ------------------------------------------------------------------------------------
    @property
    def _keeps_lives(self) -> bool:
        return self._members.lives.keeps_lives(self.rank)

    async def _ask_lives(self, port: Transport) -> None:
        """Say again what this node knows of lives, so that nothing that was lost on the way is missing for long."""
        while True:
            await trio.sleep(LIVES_AGAIN_S)
            self._members.tell_again(port)
            port.flush()

    def greet_soon(self) -> None:
        """If the peer is spoken to by the contract: greet it now."""
        self._greetings = GreetingTimes()
        self._relinked.set()

    def review(self) -> None:
        """Use the link, or do not, by what is known of the directory behind the rank."""
        if self._link is None:
            return
        (port, is_up), lives = self._link, self._members.lives
        good = lives.counts(self.rank) if self._shows else not self._keeps_lives
        if lives.fault(self.rank):
            port.close()
        elif is_up and not good:
            self._interpreter.link_down(self.rank, port)
            port.close()
            self.greet_soon()
        elif good and not is_up and not port.closed:
            self._link = port, True
            self.state = "sealed" if port.is_sealed else "extension" if self._speaks else "contract"
            self._interpreter.link_up(self.rank, port, self._speaks)
