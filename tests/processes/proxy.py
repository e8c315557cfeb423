"""Links that misbehave: TCP proxies in a thread of their own, each with its faults, cut and mended on command."""

from __future__ import annotations

import dataclasses
import functools
import queue
import random
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import trio

from tests.processes.cluster import TIMEOUT_S, Address, free_addresses

_CHUNK_BYTES = 65536
_NODE_HELLO = 0x90


@dataclasses.dataclass(slots=True)
class Faults:
    """Probabilities are per chunk, which is what one recv returns (up to `chunk_bytes`); they may be changed any
    time."""

    lose: float = 0.0  # the whole chunk
    corrupt: float = 0.0  # one byte of it
    repeat: float = 0.0  # the whole chunk, once more
    delay_s: float = 0.0  # up to this long, before each chunk
    bytes_per_s: float = 0.0  # 0: as fast as it goes
    chunk_bytes: int = _CHUNK_BYTES


class Link:
    """The way to `target`. `address` is where the proxy listens. `counts`: chunks by what became of them.

    With `records` set, what passes is kept: `recorded` in both directions, `recorded_to_target` in one. With
    `contract_only`, nothing passes of a connection that begins with the greeting of a node: so the nodes at both ends
    speak only the contract with each other.
    """

    def __init__(self, network: Network, target: Address, faults: Faults, rng: random.Random) -> None:
        self.target = target
        self.faults = faults
        self.counts = {"passed": 0, "lost": 0, "corrupted": 0, "repeated": 0}
        self.connections = 0  # ever made
        self.records = False
        self.contract_only = False
        self.recorded: list[bytes] = []
        self.recorded_to_target: list[bytes] = []
        self._to_change: set[bool] = set()
        self._to_insert = b""
        self._network = network
        self._rng = rng
        self._cut = False
        self._scopes: set[trio.CancelScope] = set()
        [self.address] = free_addresses(1)
        self._listener = socket.create_server(self.address)

    def cut(self) -> None:
        """Break all connections, and every new one at once, until `mend`."""
        self._network.call(self._cut_now)

    def change_next(self, to_target: bool) -> None:
        """Change one byte of the next chunk in this direction."""
        self._to_change.add(to_target)

    def insert(self, data: bytes) -> None:
        """Send this to the target, before the next chunk that goes there."""
        self._to_insert = data

    def break_all(self) -> None:
        """Break all connections; new ones are made."""
        self.cut()
        self.mend()

    def mend(self) -> None:
        self._cut = False

    def _cut_now(self) -> None:
        self._cut = True
        for scope in self._scopes:
            scope.cancel()

    async def run(self) -> None:
        self._listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, near: trio.SocketStream) -> None:
        if self._cut:
            return
        self.connections += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with await trio.open_tcp_stream(*self.target) as far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, nursery, True)
                    nursery.start_soon(self._pump, far, near, nursery, False)
            except (OSError, trio.BrokenResourceError):
                pass  # the target is down: so is the connection
            finally:
                self._scopes.discard(scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, nursery: trio.Nursery, to_target: bool
    ) -> None:
        try:
            swallows = None if to_target and self.contract_only else False
            while chunk := await source.receive_some(self.faults.chunk_bytes):
                if swallows is None:
                    swallows = chunk[7:8] == bytes([_NODE_HELLO])
                if swallows:
                    continue
                for piece in await self._through(chunk, to_target):
                    await sink.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # either side is gone, which ends both directions
        nursery.cancel_scope.cancel()

    async def _through(self, chunk: bytes, to_target: bool) -> list[bytes]:
        """What comes out for what went in."""
        faults, rng = self.faults, self._rng
        if self.records:
            self.recorded.append(chunk)
            if to_target:
                self.recorded_to_target.append(chunk)
        if to_target and self._to_insert:
            inserted, self._to_insert = self._to_insert, b""
            return [inserted, chunk]
        if to_target in self._to_change:
            self._to_change.discard(to_target)
            return [self._damaged(chunk)]
        if faults.delay_s:
            await trio.sleep(rng.uniform(0, faults.delay_s))
        if faults.bytes_per_s:
            await trio.sleep(len(chunk) / faults.bytes_per_s)
        if rng.random() < faults.lose:
            self.counts["lost"] += 1
            return []
        if rng.random() < faults.corrupt:
            return [self._damaged(chunk)]
        if rng.random() < faults.repeat:
            self.counts["repeated"] += 1
            return [chunk, chunk]
        self.counts["passed"] += 1
        return [chunk]

    def _damaged(self, chunk: bytes) -> bytes:
        self.counts["corrupted"] += 1
        damaged = bytearray(chunk)
        damaged[self._rng.randrange(len(chunk))] ^= self._rng.randrange(1, 256)
        return bytes(damaged)


class Network:
    """All links of a test. Their randomness follows from `seed` and the order in which they are made."""

    def __init__(self, seed: int) -> None:
        self._seeds = random.Random(seed)
        self._nursery: trio.Nursery
        self._token: trio.lowlevel.TrioToken
        started: queue.Queue[None] = queue.Queue()
        run = functools.partial(trio.run, self._run, started.put)
        self._thread = threading.Thread(target=run, name="proxies", daemon=True)
        self._thread.start()
        started.get()

    async def _run(self, started: Callable[[None], None]) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            started(None)
            await trio.sleep_forever()

    def call(self, function: Callable[..., Any], *arguments: object) -> None:
        """Run it in the proxies' thread and wait for it, in whichever thread this is."""
        done = threading.Event()

        def run() -> None:
            function(*arguments)
            done.set()

        self._token.run_sync_soon(run)
        assert done.wait(TIMEOUT_S)

    def link(self, target: Address, faults: Faults | None = None) -> Link:
        link = Link(self, target, Faults() if faults is None else faults, random.Random(self._seeds.getrandbits(64)))
        self.call(self._nursery.start_soon, link.run)
        return link

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._nursery.cancel_scope.cancel)
        self._thread.join()
