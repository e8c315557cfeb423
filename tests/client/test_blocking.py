"""BlockingClient: from threads, against nodes that run under trio in this one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from dsreg.client import BlockingClient
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientClosed, OperationTimeout, Outcome, OutOfRange
from dsreg.protocol.messages import CommandKind
from tests.client.fake_node import FakeCluster, cluster


@pytest.fixture
def nodes() -> Iterator[FakeCluster]:
    """A cluster in a thread of its own."""
    ready = threading.Event()
    made: list[FakeCluster] = []
    stop = trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        async with cluster() as nodes:
            made.append(nodes)
            tokens.append(trio.lowlevel.current_trio_token())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield made[0]
    tokens[0].run_sync_soon(stop.set)
    thread.join(10)
    assert not thread.is_alive()


def test_many_threads(nodes: FakeCluster) -> None:
    with BlockingClient(nodes.config, timeout_s=10) as client, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: client.write(n, bytes([n]) * SECTOR_SIZE), range(64)))
        content = client.read(0, 64)
        assert client.sectors == 4096 and len(client.nodes) == 3
        assert client.status(1, timeout_s=5)["rank"] == 1
    assert content == b"".join(bytes([n]) * SECTOR_SIZE for n in range(64))


def test_errors_come_through(nodes: FakeCluster) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.GET, CommandKind.READ})
    with BlockingClient(nodes.config, timeout_s=0.1) as client:
        with pytest.raises(OperationTimeout):
            client.read(0)
        with pytest.raises(OutOfRange):
            client.read(5000)


def test_closing_ends_calls_in_other_threads(nodes: FakeCluster) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({CommandKind.GET, CommandKind.READ})
    with ThreadPoolExecutor(4) as pool:
        with BlockingClient(nodes.config) as client:
            calls = [pool.submit(client.read, sector) for sector in range(4)]
            with pytest.raises(OperationTimeout):
                client.status(1, timeout_s=0.0)
        for call in calls:
            error = call.exception(timeout=10)
            assert isinstance(error, ClientClosed) and error.outcome is Outcome.DID_NOT_HAPPEN
    client.close()
    with pytest.raises(ClientClosed):
        client.read(0)
