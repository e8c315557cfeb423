"""BlockingClient: the client for code without trio; a thread runs a Client."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

import trio
import trio.lowlevel

from dsreg.client.client import Client
from dsreg.client.cluster import Attach, Cluster, NodeAddress
from dsreg.client.metering import Counters, Meter, Moment
from dsreg.errors import ClientClosed, Outcome
from dsreg.protocol.messages import Buffer

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class BlockingClient:
    """Client, with methods that block the calling thread; any number of threads may call at once.

        with BlockingClient(load_config(path)) as client:
            client.write(7, bytes(4096))

    An interrupt (KeyboardInterrupt) ends the waiting, not the operation.
    """

    def __init__(
        self, config: Cluster, timeout_s: float | None = None, attach: Attach | None = None, force: bool = False,
        meter: Meter | None = None,
    ) -> None:
        self._client = Client(config, timeout_s, attach, force, meter)
        self._started: queue.SimpleQueue[trio.lowlevel.TrioToken] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="dsreg-client", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._calls = 0
        self._stop = trio.Event()
        self._idle = trio.Event()

    # --- as in Client -------------------------------------------------------------------------
    def read(self, sector: int, count: int = 1) -> bytes:
        return self._run(self._client.read, sector, count)

    def write(self, sector: int, data: Buffer, force: bool = False) -> None:
        self._run(self._client.write, sector, data, force)

    def attached(self) -> int:
        return self._run(self._client.attached)

    def status(self, rank: int, timeout_s: float) -> dict[str, Any]:
        return self._run(self._client.status, rank, timeout_s)

    @property
    def sectors(self) -> int:
        return self._client.sectors

    @property
    def nodes(self) -> tuple[NodeAddress, ...]:
        return self._client.nodes

    @property
    def counters(self) -> Counters:
        return self._client.counters

    @property
    def meter(self) -> Meter | None:
        return self._client.meter

    def moment(self) -> Moment:
        return self._client.moment()

    @property
    def connected_ranks(self) -> tuple[int, ...]:
        return self._client.connected_ranks

    def close(self) -> None:
        """End all calls that are under way, with ClientClosed, and the thread. May be called twice."""
        token, self._token = self._token, None
        if token is not None:
            token.run_sync_soon(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        assert not self._thread.ident, "a BlockingClient is opened once"
        self._thread.start()
        self._token = self._started.get()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the thread ---------------------------------------------------------------------------
    def _work(self) -> None:
        trio.run(self._main)

    async def _main(self) -> None:
        async with self._client:
            self._started.put(trio.lowlevel.current_trio_token())
            await self._stop.wait()
        # The calls have failed by now; each still has to tell its thread.
        while self._calls:
            self._idle = trio.Event()
            await self._idle.wait()

    def _run(self, method: Callable[[*_Ts], Awaitable[_T]], *arguments: *_Ts) -> _T:
        token = self._token
        if token is None:
            raise _closed()
        try:
            return trio.from_thread.run(self._counted, method, *arguments, trio_token=token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            # Cancelled: close() came between the call and its beginning.
            raise _closed() from error

    async def _counted(self, method: Callable[[*_Ts], Awaitable[_T]], *arguments: *_Ts) -> _T:
        self._calls += 1
        try:
            return await method(*arguments)
        finally:
            self._calls -= 1
            self._idle.set()


def _closed() -> ClientClosed:
    return ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN)
