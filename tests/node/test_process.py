"""A whole node in this process: what is due is done, connections come and go, and stopping waits for what was begun."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dsreg.config.load import ClusterConfig, NodeAddress, NodeConfig
from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE
from dsreg.listening import bind
from dsreg.node import process, run_register_process
from dsreg.node.disk import LEAST_SYNCS
from dsreg.node.interpreter import Connection
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.messages import Command, CommandKind, Hello, Response, Status, StatusReport, StatusRequest, owner_of
from dsreg.storage import Identity, OsFiles, StableStorage
from dsreg.testing.memory_files import MemoryFiles
from dsreg.transport import Transport
from tests.node.scene import KEYS, PATIENCE_S, SECTORS, WatchedFiles, connected, store
from tests.storage.support import commit_all, open_storage, tag

CLUSTER = bytes(range(16))
ENCODER = Encoder(KEYS)


def config_of(storage: Path, nodes: int = 1) -> NodeConfig:
    addresses = tuple(NodeAddress(rank, "127.0.0.1", 1, storage) for rank in range(1, nodes + 1))
    cluster = ClusterConfig(SECTORS, KEYS.client, KEYS.system, addresses, CLUSTER, storage / "cluster.toml")
    return NodeConfig(cluster, 1, storage, MIN_JOURNAL_BYTES)


def identity(nodes: int = 1) -> Identity:
    return Identity(CLUSTER, 1, tuple(range(1, nodes + 1)), SECTORS)


class Client:
    """A connection to the node, greeted."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._decoder = Decoder(KEYS, bounds=Bounds(SECTORS, frozenset()), side=Side.CLIENT, extended=True)
        self._messages: list[object] = []

    async def send(self, message: Command | ConfigurationReport | Hello | StatusRequest) -> None:
        await self.stream.send_all(b"".join(ENCODER.encode(message)))

    async def message(self) -> object:
        while not self._messages:
            data = bytes(await self.stream.receive_some())
            assert data, "the connection is over"
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    async def ask(self, command: Command) -> Response:
        await self.send(command)
        answer = await self.message()
        assert isinstance(answer, Response)
        return answer


class Served:
    """A node on files that wait where they are told to. `stop` it; `ended` tells that its run is over."""

    def __init__(self, config: NodeConfig) -> None:
        self.files = WatchedFiles()
        self.node = process.Node(config, StableStorage.open(self.files, identity(), MIN_JOURNAL_BYTES))
        self.listeners = bind("127.0.0.1", 0)
        self.port = self.listeners[0].getsockname()[1]
        self.stop, self.ended = trio.Event(), trio.Event()

    async def run(self) -> None:
        await self.node.run(self.listeners, self.stop)
        self.node.storage.close()
        self.ended.set()

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        await client.send(Hello(0, False, bytes(16), 0, SECTORS))
        assert isinstance(await client.message(), Hello)
        return client


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            made = Served(config_of(tmp_path))
            nursery.start_soon(made.run)
            yield made
            made.stop.set()


@pytest.fixture
def one_slot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(process, "max_connections", lambda: 1)
    yield


@pytest.mark.allow_logs("has an empty directory")  # one of three nodes, and the others are not there
async def test_what_becomes_due_is_done_in_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Nothing was due before; then a question goes out, and nobody answers it."""
    node = process.Node(config_of(tmp_path, 3), StableStorage.open(WatchedFiles(), identity(3), MIN_JOURNAL_BYTES))
    node.interpreter.started = True
    ticks: list[float] = []
    tick = node.replica.tick
    node.replica.tick = lambda now: ticks.append(now.s) or tick(now)  # type: ignore[func-returns-value,method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node._tick)
        await trio.sleep(100)
        assert ticks == [], "nothing is due, and nothing wakes up"
        started_s = trio.current_time()
        mine, its = connected()
        connection = Connection(Transport(mine, "127.0.0.1:1"))
        node.interpreter.command(connection, Command(CommandKind.READ, 1, 0, 1, extended=True))
        node.interpreter.end_turn()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    connection.transport.close()
    its.close()
    waits = [later - earlier for earlier, later in zip([started_s, *ticks], ticks, strict=False)]
    assert len(ticks) >= 3 and 0.3 < waits[0] < 0.7 and waits[1] > waits[0], "again and again, at growing intervals"
    node.storage.close()


async def test_stopping_waits_for_what_was_begun(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        client = await node.connect()
        node.files.shut("sync", "journal.1")
        await client.send(store(1, 0, 1, 1))
        await node.files.somebody_waits()
        node.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not node.ended.is_set(), "a write is under way"
        node.files.open_gate("sync", "journal.1")
        answer = await client.message()
        assert isinstance(answer, Response) and answer.status is Status.OK
        await node.ended.wait()


async def test_stopping_waits_until_the_answers_are_sent(tmp_path: Path) -> None:
    """Large ones, to a client that reads them late."""
    async with served(tmp_path) as node:
        client = await node.connect()
        asked = [Command(CommandKind.READ, request, 0, 256, extended=True) for request in range(16)]
        await client.stream.send_all(b"".join(b"".join(ENCODER.encode(command)) for command in asked))
        [connection] = node.node.server.connections
        while not connection.transport.outgoing_bytes or node.node.replica.unfinished():
            await trio.lowlevel.checkpoint()
        answered = node.node.replica.counters["read"]
        node.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(answered):
            answer = await client.message()
            assert isinstance(answer, Response) and len(answer.data) == 256 * SECTOR_SIZE
        await node.ended.wait()


async def test_the_slot_of_a_connection_that_is_over_is_free_again(tmp_path: Path, one_slot: None) -> None:
    async with served(tmp_path) as node:
        for _ in range(3):
            client = await node.connect()
            await client.stream.aclose()
            while node.node.server.connections:
                await trio.lowlevel.checkpoint()


async def test_status_tells_who_has_the_disk_while_that_one_is_connected(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        owner, observer = await node.connect(), await node.connect()
        who = owner_of(bytes(range(16)), "somebody")
        claim = Command.attach(1, 1, who)
        assert (await owner.ask(claim)).status is Status.OK

        async def attached_by() -> str:
            await observer.send(StatusRequest(1))
            report = await observer.message()
            assert isinstance(report, StatusReport)
            return str(json.loads(report.body)["attached_by"])

        assert await attached_by() == "somebody"
        await owner.stream.aclose()
        while await attached_by():
            await trio.lowlevel.checkpoint()


async def test_status_tells_of_its_machine_and_of_who_writes_beside_an_attachment(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        owner, plain = await node.connect(), await node.connect()

        async def status() -> dict[str, Any]:
            await plain.send(StatusRequest(1))
            report = await plain.message()
            assert isinstance(report, StatusReport)
            told: dict[str, Any] = json.loads(report.body)
            return told

        data = bytes(range(256)) * (SECTOR_SIZE // 256)
        assert (await plain.ask(Command.write(1, 0, data))).status is Status.OK
        before = await status()
        assert before["plain_write_s"] is None, "nobody has attached the disk"
        assert abs(before["unix_s"] - time.time()) < PATIENCE_S
        assert 0 < before["storage"]["available_bytes"] <= before["storage"]["size_bytes"]
        assert before["storage"]["values_bytes"] == SECTOR_SIZE
        assert before["syncs"]["count"] >= 1 and before["syncs"]["median_s"] is None, "too few to say"
        assert (await owner.ask(Command.attach(1, 1, owner_of(bytes(range(16)), "somebody")))).status is Status.OK
        for number in range(LEAST_SYNCS):
            assert (await plain.ask(Command.write(2 + number, 0, data))).status is Status.OK
        after = await status()
        assert 0 <= after["plain_write_s"] < PATIENCE_S
        assert after["syncs"]["count"] >= LEAST_SYNCS and 0 < after["syncs"]["median_s"] < PATIENCE_S


async def test_a_node_that_stops_leaves_its_directory(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    listeners = bind("127.0.0.1", 0)
    stop = trio.Event()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                await run_register_process(config, task_status=task_status, stop=stop, listeners=listeners)

            await nursery.start(run)
            stop.set()
    storage = StableStorage.open(OsFiles(tmp_path), identity(), MIN_JOURNAL_BYTES)
    assert storage.incarnation == 2
    storage.close()


@pytest.mark.parametrize("fill", [0, 1])
def test_a_directory_that_was_left_begins_only_if_nothing_was_ever_stored_in_it(fill: int) -> None:
    """Zeros are something, too: perhaps nobody else knows that the value from before is gone."""
    files = MemoryFiles()
    storage = open_storage(files, all_unknown=True)
    assert process.may_begin(storage, rejoins=True) and not process.may_begin(storage, rejoins=False)
    for _ in range(2):
        storage.persist(512, 256, tag(3) * 256, bytes([fill]) * 256 * SECTOR_SIZE)
        commit_all(storage)
        assert not process.may_begin(storage, rejoins=True)
        storage.close()
        storage = open_storage(files)
    storage.close()


# --- a larger disk ------------------------------------------------------------------------------------
async def test_a_disk_that_grows_is_there_over_connections_of_before(tmp_path: Path) -> None:
    """Of clients that know of no sizes, too; who greets from then on is told the new one."""
    async with served(tmp_path) as node:
        client = await node.connect()
        beyond = Command(CommandKind.READ, 1, SECTORS, 1)
        assert (await client.ask(beyond)).status is Status.INVALID_SECTOR_INDEX
        first = node.node.storage.configuration.record.current
        await client.send(ConfigurationReport(0, False, first._replace(number=2, sectors=SECTORS + 1)))
        with trio.fail_after(30):
            while node.node.storage.sectors == SECTORS:  # noqa: ASYNC110 - it is recorded first, in a thread
                await trio.sleep(0.01)
        assert (await client.ask(beyond._replace(request=2))).status is Status.OK
        assert (await client.ask(Command(CommandKind.READ, 3, SECTORS + 1, 1))).status is Status.INVALID_SECTOR_INDEX
        later = Client(await trio.open_tcp_stream("127.0.0.1", node.port))
        await later.send(Hello(0, False, bytes(16), 0, SECTORS))
        answer = await later.message()
        assert isinstance(answer, Hello) and answer.sectors == SECTORS + 1
