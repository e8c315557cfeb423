"""Hostile messages to real nodes over TCP: none ends, none hangs, none grows, every register can still be used."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from dsreg.constants import MAX_REMEMBERED_UUIDS
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Side
from dsreg.protocol.messages import (
    Command,
    CommandKind,
    Hello,
    Message,
    Response,
    Status,
    StatusReport,
    StatusRequest,
    owner_of,
)
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from tests.fuzz import streams
from tests.fuzz.hostile import EDGES, Hostile
from tests.processes import raw
from tests.processes.cluster import TIMEOUT_S, Cluster

SECTORS = 64
MESSAGES = 4000
# What a node may grow by under the flood: caches that fill up once, the allocator's slack.
GROWTH_BYTES = 48 << 20


class Outsider:
    """One connection of somebody who knows both keys. `speak`: the extension, after a HELLO."""

    def __init__(self, cluster: Cluster, rank: int, speak: bool) -> None:
        keys = Keys(cluster.config.client_key, cluster.config.system_key)
        self._encoder = Encoder(keys)
        self._client = Decoder(keys, bounds=Bounds(SECTORS, frozenset(cluster.ranks)), side=Side.CLIENT, extended=True)
        self.sock = socket.create_connection(cluster.address(rank), TIMEOUT_S)
        self.cluster_id = cluster.config.cluster_id
        if speak:
            self.send(Hello(0, False, self.cluster_id, 1, SECTORS))
            self.wait_for(Hello)

    def send(self, *messages: Message) -> None:
        self.sock.sendall(b"".join(b"".join(self._encoder.encode(message)) for message in messages))

    def wait_for(self, kind: type, matches: Callable[[Message], bool] = lambda message: True) -> Message:
        """Reads, and drops everything else, until such an answer has come."""
        while data := self.sock.recv(1 << 16):
            for message in self._client.feed(data):
                if isinstance(message, kind) and matches(message):
                    return message
        raise ConnectionError("the node has closed the connection")

    def status(self) -> dict[str, object]:
        self.send(StatusRequest(77))
        report = self.wait_for(StatusReport)
        assert isinstance(report, StatusReport)
        found: dict[str, object] = json.loads(report.body)
        return found

    def command(self, command: Command) -> Response:
        self.send(command)
        answer = self.wait_for(Response, lambda found: isinstance(found, Response) and found.request == command.request)
        assert isinstance(answer, Response)
        return answer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("hostile") / "cluster", sectors=SECTORS)
    try:
        made.start()
        yield made
    finally:
        made.close()


def assert_usable(cluster: Cluster) -> None:
    """A client of the contract writes and reads every sector at every node. A read comes first everywhere, so that
    what the outsider told a minority is known to all."""
    for number in range(2):
        for rank in cluster.ranks:
            with raw.RawClient(cluster.address(rank), cluster.config.client_key) as client:
                data = bytes([rank + number]) * raw.SECTOR
                for sector in range(SECTORS):
                    client.send(client.read_frame(sector, sector))
                assert all(answer.status == raw.OK for answer in client.responses(SECTORS).values())
                for sector in range(SECTORS):
                    client.send(client.write_frame(sector, sector, data))
                assert all(answer.status == raw.OK for answer in client.responses(SECTORS).values())
                for sector in range(SECTORS):
                    client.send(client.read_frame(sector, sector))
                found = client.responses(SECTORS).values()
                assert number == 0 or all(answer.content == data for answer in found)


def assert_attachable(cluster: Cluster) -> None:
    """Whatever epochs the outsider has attached the disk in, the next one is somebody else's to use."""
    outsiders = [Outsider(cluster, rank, speak=True) for rank in cluster.ranks]
    owner = owner_of(bytes(16), "later")
    ask = Command.attach(1, 0, owner)
    epoch = 1 + max(outsider.command(ask).epoch for outsider in outsiders)
    tag = pack_tag(ts_of(epoch, 1), ATTACHED, 0, epoch)
    for outsider in outsiders:
        answer = outsider.command(ask._replace(request=2, epoch=epoch))
        assert (answer.status, answer.epoch, answer.owner, answer.alive) == (Status.OK, epoch, owner, True)
        put = Command(CommandKind.PUT, 3, 5, 1, tag, bytes([epoch % 256]) * raw.SECTOR, True, epoch)
        assert outsider.command(put).status is Status.OK
    for outsider in outsiders:
        answer = outsider.command(Command(CommandKind.GET, 4, 5, 1, b"", b"", True, epoch, True))
        assert (answer.status, answer.tags, answer.data) == (Status.OK, tag, bytes([epoch % 256]) * raw.SECTOR)
        outsider.sock.close()


def figure(cluster: Cluster, rank: int, name: str) -> int:
    """One number of a node's status."""
    outsider = Outsider(cluster, rank, speak=True)
    with outsider.sock:
        found = outsider.status()[name]
    assert isinstance(found, int)
    return found


def memory(cluster: Cluster, rank: int) -> int:
    return figure(cluster, rank, "rss_bytes")


def flood(cluster: Cluster, rank: int, rng: random.Random) -> None:
    """Over several connections, with damage between the messages; nothing is read until the end of each."""
    starts = [figure(cluster, other, "incarnation") << 40 for other in cluster.ranks]
    rids = [start + offset for start in starts for offset in range(1, 30)]
    for number in range(4):
        with Outsider(cluster, rank, speak=number % 2 == 0).sock as sock:
            keys = Keys(cluster.config.client_key, cluster.config.system_key)
            encoder, source = Encoder(keys), Hostile(rng, cluster.ranks, SECTORS)
            for _ in range(MESSAGES // 40):
                source.rids = rng.sample(rids, 10)
                frames = [b"".join(encoder.encode(source.message())) for _ in range(10)]
                frames.insert(rng.randrange(10), streams.mutated(rng, frames[0]))
                sock.settimeout(TIMEOUT_S)
                drain(sock)
                sock.sendall(b"".join(frames))


def drain(sock: socket.socket) -> None:
    """Take what has come, so that back-pressure does not stop the flood."""
    sock.setblocking(False)
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass
    finally:
        sock.settimeout(TIMEOUT_S)


def test_flood_of_hostile_messages(cluster: Cluster, rng: random.Random) -> None:
    flood(cluster, 1, rng)
    assert_usable(cluster)
    before = {rank: memory(cluster, rank) for rank in cluster.ranks}
    for rank in cluster.ranks:
        flood(cluster, rank, rng)
    assert_usable(cluster)
    assert_attachable(cluster)
    for rank in cluster.ranks:
        assert memory(cluster, rank) < before[rank] + GROWTH_BYTES


def test_uuids_without_end(cluster: Cluster, rng: random.Random) -> None:
    """More of them than a node remembers, then the first again: work is done twice, memory stays."""
    key = cluster.config.system_key
    frames = [
        raw.PeerMessage(raw.WRITE_PROC, 2, struct.pack(">QQ", 9, number), 7, 3, 1, 2, bytes(raw.SECTOR)).frame(key)
        for number in range(MAX_REMEMBERED_UUIDS + 500)
    ]
    with socket.create_connection(cluster.address(1), TIMEOUT_S) as sock:
        sock.sendall(b"".join(frames))
        before = memory(cluster, 1)
        for _ in range(2):
            sock.sendall(b"".join(frames))
    assert memory(cluster, 1) < before + GROWTH_BYTES


def test_greetings_of_all_kinds(cluster: Cluster) -> None:
    """Thousands on one connection, of other clusters, sizes, versions, and of this very node."""
    outsider = Outsider(cluster, 1, speak=True)
    with outsider.sock:
        for number in range(3000):
            wrong = bytes(16) if number % 2 else outsider.cluster_id
            outsider.send(Hello(number % 4, False, wrong, (1 << 64) - 1, (1 << 64) - 1, (1 << 32) - 1, 65535))
            if number % 50 == 0:
                drain(outsider.sock)
        assert outsider.status()["rank"] == 1
    assert_usable(cluster)


@pytest.mark.parametrize("ts", EDGES)
def test_one_bad_store_does_not_freeze_a_register(cluster: Cluster, ts: int) -> None:
    """The same by a client: STORE under a tag of its own making, at each node in turn."""
    sector = EDGES.index(ts)
    for rank in cluster.ranks:
        outsider = Outsider(cluster, rank, speak=True)
        with outsider.sock:
            tag = pack_tag(min(ts, (1 << 64) - 1), 1)
            answer = outsider.command(Command(CommandKind.STORE, 5, sector, 1, tag, bytes(raw.SECTOR), True))
            assert answer.status in (Status.OK, Status.INVALID_SECTOR_INDEX, Status.DISBELIEVED)
        for other in cluster.ranks:
            with raw.RawClient(cluster.address(other), cluster.config.client_key) as client:
                client.send(client.write_frame(1, sector, bytes([rank, other]) * (raw.SECTOR // 2)))
                assert client.response().status == raw.OK
                assert client.read(sector) == bytes([rank, other]) * (raw.SECTOR // 2)
