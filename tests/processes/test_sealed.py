"""Sealed connections between real processes: what a line shows, what comes of meddling with it, who is refused."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trio

from dsreg.client import Client
from dsreg.config import ClusterConfig, load_config
from dsreg.errors import AuthenticationFailed, UnsealedNode
from dsreg.protocol.codec import Encoder, Keys
from dsreg.protocol.messages import Command, CommandKind
from dsreg.protocol.tags import pack_tag
from tests.client.fake_node import Config
from tests.client.fake_node import cluster as fake_cluster
from tests.processes import raw
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.proxy import Link, Network
from tests.processes.raw import AUTH, INVALID, READ_ANSWER, WRITE_ANSWER, RawClient, Response
from tests.processes.test_links import Lines

MARK = b"in clear text: "


@pytest.fixture
def lines(make_cluster: Callable[..., Cluster], seed: int) -> Iterator[Lines]:
    with Network(seed) as network:
        yield Lines(make_cluster(), network)


@dataclasses.dataclass(frozen=True)
class Demanding(Config):
    require_sealed: bool = True


def require_sealed(cluster: Cluster) -> ClusterConfig:
    """For its nodes, which must not run yet, and for clients."""
    text = cluster.path.read_text()
    cluster.path.write_text(text.replace("[cluster]\n", "[cluster]\nrequire_sealed = true\n"))
    cluster.config = load_config(cluster.path)
    assert cluster.config.require_sealed
    return cluster.config


async def all_sealed(cluster: Cluster) -> None:
    """Until every node has a sealed link to every other."""
    others = {rank: {str(other) for other in cluster.ranks if other != rank} for rank in cluster.ranks}
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        with trio.fail_after(TIMEOUT_S):
            for rank in cluster.ranks:
                links: dict[str, str] = {}
                while links != dict.fromkeys(others[rank], "sealed"):
                    links = (await client.status(rank, TIMEOUT_S))["peers"]


async def counter(cluster: Cluster, rank: int, name: str, least: int = 0) -> int:
    """Of that node, once it is `least`: what comes over a connection is counted when that is over."""
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        with trio.fail_after(TIMEOUT_S):
            while (found := (await client.status(rank, TIMEOUT_S))["counters"].get(name, 0)) < least:
                continue
        assert isinstance(found, int)
        return found


def secret(rng: random.Random, sectors: int) -> bytes:
    """Random data that cannot be taken for other: MARK is all over it."""
    return b"".join(MARK + rng.randbytes(64 - len(MARK)) for _ in range(sectors * 64))


def shows(link: Link) -> bool:
    return MARK in b"".join(link.recorded)


# --- what can be read ----------------------------------------------------------------------------------
async def test_nothing_can_be_read_from_the_lines(lines: Lines, rng: random.Random) -> None:
    await all_sealed(lines.cluster)
    every = [*lines.links.values(), *lines.doors.values()]
    for link in every:
        link.records = True
    data = secret(rng, 300)
    async with Client(lines.client_config(), timeout_s=TIMEOUT_S) as client:  # type: ignore[arg-type]
        await client.write(100, data)
        assert await client.read(100, 300) == data
    assert sum(len(chunk) for link in every for chunk in link.recorded) > 3 * len(data)
    assert not any(shows(link) for link in every)


async def test_what_is_not_sealed_can_be_read(lines: Lines, rng: random.Random) -> None:
    """The one before would find it."""
    door = lines.doors[1]
    door.records = True
    data = secret(rng, 1)
    with RawClient(door.address, lines.cluster.config.client_key) as client:
        client.write(7, data)
    assert shows(door)


async def test_a_node_that_starts_again_is_sealed_from_the_first_byte(lines: Lines, rng: random.Random) -> None:
    """By those who know it, with clients at work all the while: they wait until it answers their greeting."""
    cluster = lines.cluster
    await all_sealed(cluster)
    data = secret(rng, 8)
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client, trio.open_nursery() as nursery:

        async def work() -> None:
            while True:
                await client.write(40, data)

        nursery.start_soon(work)
        for rank in cluster.ranks:
            to_it = [link for (_, far), link in lines.links.items() if far == rank]
            for link in to_it:
                link.records = True
            await trio.to_thread.run_sync(cluster.kill, rank)
            await trio.to_thread.run_sync(cluster.start, rank)
            await all_sealed(cluster)
            # A node may take its old connection for sealed until it has seen the end of it.
            until(lambda links=to_it: all(link.recorded for link in links), "each has greeted it")
            await all_sealed(cluster)
            assert not any(shows(link) for link in to_it)
            for link in to_it:
                link.records = False
        nursery.cancel_scope.cancel()


# --- meddling ------------------------------------------------------------------------------------------
async def test_a_recorded_connection_has_no_effect_when_it_is_sent_again(lines: Lines) -> None:
    door, cluster = lines.doors[1], lines.cluster
    door.records = True
    config = dataclasses.replace(lines.client_config(), nodes=lines.client_config().nodes[:1])  # type: ignore
    async with Client(config, timeout_s=TIMEOUT_S) as client:
        await client.write(5, b"old".ljust(4096))
    recorded = b"".join(door.recorded_to_target)
    assert len(recorded) > 4096
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        await client.write(5, b"new".ljust(4096))
        before = await counter(cluster, 1, "bad_record")
        stream = await trio.open_tcp_stream(*cluster.address(1))
        async with stream:
            await stream.send_all(recorded)
            with trio.fail_after(TIMEOUT_S):
                while await stream.receive_some():
                    pass  # it answers the greeting, and hangs up at the first record
        assert await counter(cluster, 1, "bad_record", before + 1) == before + 1
        assert await client.read(5) == b"new".ljust(4096)
        # Records alone, in a connection that is made anew.
        async with Client(config, timeout_s=TIMEOUT_S) as again:
            await again.read(5)
            door.insert(recorded[-4000:])
            await again.write(5, b"newer".ljust(4096))
        assert await client.read(5) == b"newer".ljust(4096)
    assert "is disconnected" in cluster.log(1).read_text()


@pytest.mark.parametrize("to_target", [True, False], ids=["question", "answer"])
async def test_a_changed_byte_costs_the_connection_and_not_the_operation(
    lines: Lines, rng: random.Random, to_target: bool
) -> None:
    cluster = lines.cluster
    await all_sealed(cluster)
    data = rng.randbytes(8 * 4096)
    async with Client(lines.client_config(), timeout_s=TIMEOUT_S) as client:  # type: ignore[arg-type]
        await client.write(0, bytes(8 * 4096))
        for door in lines.doors.values():
            door.change_next(to_target)
        await client.write(0, data)
        assert await client.read(0, 8) == data
        with trio.fail_after(TIMEOUT_S):
            while not client.counters.reconnects:
                await client.read(0, 8)  # until a byte of each kind has come by, and the connection is a new one
    links = list(lines.links.values())
    for link in links:
        link.change_next(to_target)
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        with trio.fail_after(TIMEOUT_S):
            while not all(link.counts["corrupted"] for link in links):
                for chunk in range(0, 3 * 256, 256):  # each is at home at another node
                    data = rng.randbytes(8 * 4096)
                    await client.write(chunk, data)
                    assert await client.read(chunk, 8) == data
    await all_sealed(cluster)


async def test_a_greeting_that_was_changed_is_not_followed(lines: Lines, allow_logs: Callable[[str], None]) -> None:
    """Whoever takes the seal out of an answer has to forge its HMAC: it is dropped, and nothing goes in clear text."""
    allow_logs("node 1")
    door, cluster = lines.doors[1], lines.cluster
    door.records = True
    async with Client(lines.client_config(), timeout_s=TIMEOUT_S) as client:  # type: ignore[arg-type]
        door.change_next(False)
        door.break_all()
        await client.write(3, b"through another".ljust(4096))
        with trio.fail_after(TIMEOUT_S):
            await client.status(1, TIMEOUT_S)
        assert await client.read(3) == b"through another".ljust(4096)
    assert b"through another" not in b"".join(door.recorded)
    await all_sealed(cluster)


# --- keys ----------------------------------------------------------------------------------------------
async def test_another_key_is_a_clear_error(shared: Cluster, allow_logs: Callable[[str], None]) -> None:
    allow_logs("has another client key")
    for required in (False, True):
        config = dataclasses.replace(shared.config, client_key=os.urandom(32), require_sealed=required)
        async with Client(config, timeout_s=TIMEOUT_S) as client:
            with pytest.raises(AuthenticationFailed):
                await client.read(0)


# --- require_sealed ------------------------------------------------------------------------------------
async def test_require_sealed_refuses_what_is_not(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    config = require_sealed(cluster)
    cluster.start()
    key, system_key = config.client_key, config.system_key
    async with Client(config, timeout_s=TIMEOUT_S) as client:
        await client.write(1, b"sealed".ljust(4096))
        await all_sealed(cluster)
        with RawClient(cluster.address(1), key) as contract:
            contract.send(contract.read_frame(1, 1), contract.write_frame(2, 1, b"contract".ljust(4096)))
            assert contract.response() == Response(AUTH, READ_ANSWER, 1, b"")
            assert contract.response() == Response(AUTH, WRITE_ANSWER, 2, b"")
            # Other nodes as well: such a WRITE_PROC would win.
            forged = raw.PeerMessage(raw.WRITE_PROC, 2, os.urandom(16), 1, 1, 1 << 30, 2, b"x" * 4096)
            contract.send(forged.frame(system_key), contract.read_frame(3, 2048))
            assert contract.response() == Response(INVALID, READ_ANSWER, 3, b"")
        assert await client.read(1) == b"sealed".ljust(4096)
        assert await counter(cluster, 1, "unsealed", 3) == 3
    assert "require_sealed" in cluster.log(1).read_text()


# A client's HELLO, its question about the key, and the beginning of the handshake.
FIRST_BYTES = 112 + 56 + 120


async def test_what_is_appended_to_a_greeting_has_no_effect(
    make_cluster: Callable[..., Cluster], seed: int
) -> None:
    """Frames behind the handshake, in one piece with it: they came over the wire in clear text."""
    cluster = make_cluster()
    config = require_sealed(cluster)
    with Network(seed) as network:
        lines = Lines(cluster, network)
        door = lines.doors[1]
        door.records = True
        seen = lines.client_config()
        async with Client(dataclasses.replace(seen, nodes=seen.nodes[:1], require_sealed=True)) as client:
            await client.status(1, TIMEOUT_S)
        first = b"".join(door.recorded_to_target)[:FIRST_BYTES]
        assert first[7] == 0x80 and first[112 + 7] == raw.READ and first[112 + 56 + 7] == 0x8F
        with RawClient(cluster.address(1), config.client_key) as contract:
            contract.send(first + contract.write_frame(1, 0, b"appended".ljust(4096)))
            with pytest.raises(ConnectionError):
                while True:
                    contract.exactly(1)
        # A greeting that offers to seal does not open the door to what is not sealed either.
        store = Command(CommandKind.STORE, 9, 0, 1, pack_tag(1 << 20, 1), b"stored".ljust(4096), True)
        frame = b"".join(Encoder(Keys(config.client_key, b"")).encode(store))
        with RawClient(cluster.address(1), config.client_key) as contract:
            contract.send(first[:112])
            assert contract.exactly(112)[7] == 0xC0
            contract.send(frame)
            refusal = contract.exactly(72)
            assert (refusal[7], refusal[5]) == (0xC3, AUTH)
        async with Client(config, timeout_s=TIMEOUT_S) as client:
            assert await client.read(0) == bytes(4096)
            for name in ("bad_record", "unsealed"):
                assert await counter(cluster, 1, name, 1) == 1


async def test_a_client_that_requires_it_does_not_use_nodes_that_cannot(allow_logs: Callable[[str], None]) -> None:
    allow_logs("does not seal its connections")
    async with fake_cluster() as old:
        config = Demanding(old.config.sectors, old.config.client_key, old.config.nodes)
        async with Client(config, timeout_s=TIMEOUT_S) as client:
            with pytest.raises(UnsealedNode, match="require_sealed"):
                await client.write(0, b"x" * 4096)
        assert not any(node.log for node in old.nodes)
        async with Client(old.config) as client:
            await client.write(0, b"x" * 4096)


# --- together with the contract ------------------------------------------------------------------------
async def test_sealed_and_contract_clients_side_by_side(cluster: Cluster, rng: random.Random) -> None:
    await all_sealed(cluster)
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        with RawClient(cluster.address(2), cluster.config.client_key) as contract:
            for request in range(20):
                one, other = rng.randbytes(4096), rng.randbytes(4096)
                await client.write(9, one)
                assert contract.read(9, request) == one
                contract.write(9, other, request)
                assert await client.read(9) == other


def test_the_processes_import_nothing_of_it_before_they_listen() -> None:
    """A node binds its port first: see dsreg.listening."""
    code = "import sys, dsreg.cli, dsreg.cli.node; print([m for m in sys.modules if m.startswith('cryptography')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
