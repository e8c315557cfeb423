"""Runner: an engine under trio, with its connections, its clock and what tasks wait for."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Sequence
from typing import Final

import trio

from dsreg.client.admission import Admission
from dsreg.client.attachment import Claim
from dsreg.client.cluster import Cluster, NodeAddress
from dsreg.client.connection import Connection
from dsreg.client.core import ClientCore
from dsreg.client.engine import Engine
from dsreg.client.events import Attached, NotAttached, NotCounted, Waits
from dsreg.client.limits import MAX_OPERATION_BYTES, MAX_OPERATIONS, TICK_S
from dsreg.client.metering import Meter
from dsreg.config.keys import fingerprint
from dsreg.key_files import Followed, follow
from dsreg.lines import TcpLines
from dsreg.link.destinations import Destinations
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answer, Answered, ConfigurationReport, Proposed, Question
from dsreg.protocol.codec import Encodings, Keys
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import ScrubBegun, ScrubRequest, StatusReport, StatusRequest
from dsreg.register.assembly import client_hello

_log = logging.getLogger("dsreg.client")

# What one node has time for to take the connection again; a node that is down does not keep the others waiting longer.
MOVED_S: Final = 5.0


class _Call:
    """A question to one node, about itself or what follows."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.over = trio.Event()
        self.answer: StatusReport | ScrubBegun | Answered | None = None


class Runner:
    """Between `start` and `close`. A task that submits and does not end the turn calls `end_turn_soon`."""

    def __init__(
        self, config: Cluster, nodes: Sequence[NodeAddress], claim: Claim | None, timeout_s: float | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.settled = trio.Event()  # whether the disk is attached is known, or the client was closed
        self.lost = trio.Event()  # it is not attached, or not any more
        self.resized = trio.Event()  # replaced each time that a node has told another size of the disk, the first too
        self.ups = {node.rank: trio.Event() for node in nodes}  # of those that have left as well
        self._again: dict[int, trio.Event] = {}  # set when a connection is up that was to be made anew
        self._busy = trio.Event()
        self._turn = trio.Event()  # set by end_turn_soon
        self._calls: dict[int, _Call] = {}
        keys, rng = Keys(config.client_key, b""), random.Random()
        self._config = config
        required = getattr(config, "require_sealed", False)
        self._seals = seals = Seals(keys, lambda: secrets.token_bytes(32), required=required)
        self._encodings = encodings = Encodings(keys)
        self._learns = learns = getattr(config, "learn_addresses", True)
        self.destinations: dict[int, Destinations] = {}
        self._lines: dict[int, TcpLines] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        for node in nodes:
            self._locate(node.rank, Place(node.host, node.port))
        self.connections: dict[int, Connection] = {}

        def connect(rank: int, engine: Engine) -> Connection:
            self.connections[rank] = Connection(
                rank, self._lines[rank], self.destinations[rank], hello=client_hello(config.sectors), seals=seals,
                observer=engine, encodings=encodings, jitter=lambda: rng.uniform(0.5, 1.0),
                clock=trio.current_time,
            )
            if self._nursery is not None:
                self._nursery.start_soon(self._run, rank)
            return self.connections[rank]

        ranks = [node.rank for node in nodes]
        admission = Admission(MAX_OPERATIONS, MAX_OPERATION_BYTES)
        core = ClientCore(ranks, claim, learns=learns, meter=meter)
        self.engine = Engine(core, ranks, connect, self, _now_s, admission, timeout_s)

    def start(self, nursery: trio.Nursery) -> None:
        self.engine.open()
        nursery.start_soon(self._tick)
        nursery.start_soon(self._end_turns)
        if isinstance(self._config, Followed) and self._config.key_files:
            nursery.start_soon(follow, self._config, self._use_key, self._refuse_key)
        self._nursery = nursery
        for rank in self._lines:
            nursery.start_soon(self._run, rank)

    async def _run(self, rank: int) -> None:
        if rank in self._lines:  # else it has left since
            with self._scopes[rank]:
                await self._lines[rank].run(self.connections[rank].driver)

    def _locate(self, rank: int, place: Place) -> None:
        destinations = self.destinations[rank] = Destinations(place, learns=self._learns)
        self._lines[rank] = TcpLines(destinations)
        self._scopes[rank] = trio.CancelScope()

    def _refuse_key(self, why: str) -> None:
        _log.error("the key stays as it was: %s", why)

    async def _use_key(self, config: Followed) -> None:
        """Make one connection after the other anew under this key, so that a majority is always there."""
        keys = Keys(config.client_key, b"")
        if keys == self._seals.keys:
            return
        _log.info("the key of the clients has changed: %s", fingerprint(config.client_key))
        self._seals.change(keys)
        self._encodings.change(keys)
        for rank, connection in list(self.connections.items()):
            again = self._again[rank] = trio.Event()
            connection.driver.redial()
            with trio.move_on_after(MOVED_S):
                await again.wait()

    def close(self) -> None:
        """Every operation, and every wait, is over."""
        self.engine.close()
        self.settled.set()
        for call in self._calls.values():
            call.over.set()

    async def ask_status(self, rank: int) -> StatusReport | None:
        """As `_ask`."""
        answer = await self._ask(rank, StatusRequest(self.engine.core.new_request()))
        return answer if isinstance(answer, StatusReport) else None

    async def ask_scrub(self, rank: int) -> ScrubBegun | None:
        """As `_ask`. Only of a node whose status tells of its scrubbing: others do not know the question."""
        answer = await self._ask(rank, ScrubRequest(self.engine.core.new_request()))
        return answer if isinstance(answer, ScrubBegun) else None

    async def propose(self, rank: int, question: Question) -> Answer | None:
        """As `_ask`. Only of a node whose status tells of its configuration: others do not know the question."""
        answer = await self._ask(rank, Proposed(self.engine.core.new_request(), question))
        return answer.answer if isinstance(answer, Answered) else None

    def tell(self, configuration: Configuration) -> None:
        """All nodes that are connected: this one was chosen."""
        self.engine.tell(ConfigurationReport(0, False, configuration))
        self.end_turn_soon()

    async def _ask(
        self, rank: int, message: StatusRequest | ScrubRequest | Proposed
    ) -> StatusReport | ScrubBegun | Answered | None:
        """None: the connection broke first, perhaps in the very turn in which the caller was told that it is up."""
        if not self.ups[rank].is_set():
            return None
        call = self._calls[message.request] = _Call(rank)
        self.engine.send(rank, message)
        self.end_turn_soon()
        try:
            await call.over.wait()
        finally:
            del self._calls[message.request]
            if rank in self.connections:
                self.connections[rank].withdraw(message.request)
        return call.answer

    # --- tasks ----------------------------------------------------------------------------------
    def end_turn_soon(self) -> None:
        """When the other tasks that run in this pass of the scheduler have submitted what they have to."""
        self._turn.set()

    async def _end_turns(self) -> None:
        while True:
            await self._turn.wait()
            self._turn = trio.Event()
            self.engine.end_turn()

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            self._busy = trio.Event()
            is_due = True
            while is_due:
                await trio.sleep(TICK_S)
                is_due = self.engine.tick()

    # --- the engine's side (engine.Shell) ---------------------------------------------------------
    def busy(self) -> None:
        self._busy.set()

    def up(self, rank: int) -> None:
        self.ups[rank].set()
        if rank in self._again:
            self._again.pop(rank).set()

    def down(self, rank: int) -> None:
        if self.ups[rank].is_set():
            self.ups[rank] = trio.Event()
        for call in self._calls.values():
            if call.rank == rank:
                call.over.set()

    def found(self, rank: int, place: Place) -> None:
        _log.info("node %d has become a member, and is at %s", rank, place, extra={"node": rank, "peer": str(place)})
        self.ups.setdefault(rank, trio.Event())
        self._locate(rank, place)

    def gone(self, rank: int) -> None:
        _log.info("node %d has left", rank, extra={"node": rank})
        self.down(rank)
        self._scopes.pop(rank).cancel()
        del self.connections[rank], self.destinations[rank], self._lines[rank]

    def sized(self, sectors: int) -> None:
        _log.info("the disk has %d sectors", sectors)
        self.resized.set()
        self.resized = trio.Event()

    def reported(self, answer: StatusReport | ScrubBegun | Answered) -> None:
        call = self._calls.get(answer.request)
        if call is not None:
            call.answer = answer
            call.over.set()

    def told(self, effect: Attached | NotAttached | Waits | NotCounted) -> None:
        if isinstance(effect, Waits):
            level = logging.WARNING if effect.needs_help else logging.INFO
            _log.log(level, "the disk is not attached yet: %s", effect.text)
        elif isinstance(effect, NotCounted):
            _say_whether_counted(effect)
        else:
            self.settled.set()
            if isinstance(effect, NotAttached):
                self.lost.set()


def _say_whether_counted(effect: NotCounted) -> None:
    if effect.fault:
        _log.error(
            "node %d is neither asked nor counted: %s. Put its old directory back; if that is lost for good, "
            "follow the runbook, \"A node's directory is lost\", and then start this program again",
            effect.rank, effect.fault, extra={"node": effect.rank},
        )
    else:
        _log.warning("node %d is used again: its directory is the one that it is known by", effect.rank,
                     extra={"node": effect.rank})


def _now_s() -> float:
    """Seconds that also pass while the machine sleeps: the tags of an attachment must not fall behind others."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
