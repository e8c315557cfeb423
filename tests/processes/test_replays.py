"""Somebody who has recorded how a node greets and has no key: neither places, nor memory, nor time are to be had."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from dsreg.client import Client
from dsreg.link.accepted_line import HANDSHAKE_S
from dsreg.protocol.codec import Encoder, Keys
from dsreg.protocol.greeting import Greeter, Seals
from dsreg.protocol.messages import Command, CommandKind
from dsreg.protocol.tags import pack_tag
from dsreg.register.assembly import client_hello, node_hello
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.history import stamp
from tests.processes.raw import RawClient
from tests.processes.test_sealed import all_sealed

MIB = 1 << 20
SECTORS = 2048
REPLAYS = 740  # more than a node has places
UNFINISHED = 300
PIECE = 64 * 1024


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def recorded_greeting(cluster: Cluster, *, rank: int, seal: bool = True) -> bytes:
    """What the node `rank` (0: a client) has once said to another, as anybody on the way could read it."""
    keys = Keys(cluster.config.client_key, cluster.config.system_key)
    hello = client_hello(SECTORS) if not rank else node_hello(rank, 3, cluster.config.cluster_id, 1, SECTORS)
    greeter = Greeter(hello, 0, Seals(keys, lambda: bytes(range(32))))
    messages = greeter.messages if seal else greeter.messages[:1]
    return b"".join(b"".join(Encoder(keys).encode(message)) for message in messages)


def replay(stack: contextlib.ExitStack, cluster: Cluster, rank: int, data: bytes) -> socket.socket:
    sock = stack.enter_context(socket.create_connection(cluster.address(rank), TIMEOUT_S))
    sock.sendall(data)
    return sock


def is_over(sock: socket.socket) -> bool:
    """Whether the node has closed the connection; what has come before is read."""
    sock.setblocking(False)
    try:
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("seal", [False, True])
async def test_a_recorded_greeting_takes_no_places(cluster: Cluster, many_descriptors: None, seal: bool) -> None:
    """740 of them at each node, in the name of another node: those that serve go on, and new ones come in."""
    await all_sealed(cluster)
    async with Client(cluster.config) as before:
        await before.write(1, stamp(1))
        with contextlib.ExitStack() as stack:
            for target in cluster.ranks:
                data = recorded_greeting(cluster, rank=target % 3 + 1, seal=seal)
                for number in range(REPLAYS):
                    replay(stack, cluster, target, data)
                    if number % 100 == 0:
                        with trio.fail_after(TIMEOUT_S):
                            await before.write(2, stamp(number + 1))
            with trio.fail_after(TIMEOUT_S):
                assert await before.read(1) == stamp(1)
                async with Client(cluster.config) as late:
                    await late.write(1, stamp(2))
                    assert await late.read(1) == stamp(2)
                    for rank in cluster.ranks:
                        report = await late.status(rank, TIMEOUT_S)
                        others = {str(other): "sealed" for other in cluster.ranks if other != rank}
                        assert report["peers"] == others
            with RawClient(cluster.address(1), cluster.config.client_key) as contract:
                assert contract.read(1) == stamp(2)


def test_unfinished_frames_behind_recorded_greetings_cost_little(cluster: Cluster, many_descriptors: None) -> None:
    """A run of a megabyte on each of hundreds of connections, none of them ever finished; some within a record."""
    keys = Keys(cluster.config.client_key, cluster.config.system_key)
    data = bytes(256 * 4096)
    store = Command(CommandKind.STORE, 1, 0, 256, pack_tag(1, 1) * 256, data, True)
    frame = b"".join(Encoder(keys).encode(store))
    record = struct.pack(">I", MIB) + data
    before = resident_bytes(cluster, 1)
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(RawClient(cluster.address(1), cluster.config.client_key))
        idle.write(3, stamp(3))
        plain, sealed = (recorded_greeting(cluster, rank=0, seal=seal) for seal in (False, True))
        largest = 0
        for number in range(UNFINISHED):
            sock = replay(stack, cluster, 1, plain if number % 2 else sealed)
            with contextlib.suppress(ConnectionError):
                sock.sendall((frame if number % 2 else record)[:-100])
            if number % 10 == 0:
                idle.send(idle.read_frame(1, 3))
                assert idle.response().content == stamp(3)
                largest = max(largest, resident_bytes(cluster, 1))
        grown = max(largest, resident_bytes(cluster, 1)) - before
        print(f"{UNFINISHED} unfinished frames: {grown / MIB:.1f} MiB")
        assert grown < 64 * MIB


def resident_bytes(cluster: Cluster, rank: int) -> int:
    return int(Path(f"/proc/{cluster.pid(rank)}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_handshake_that_does_not_end_is_cut_off_and_who_idles_is_not(cluster: Cluster) -> None:
    """For a client of the contract, and for one that has been sealed, there is no deadline."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        contract = stack.enter_context(RawClient(cluster.address(1), cluster.config.client_key))
        contract.write(4, stamp(4))
        silent = stack.enter_context(RawClient(cluster.address(1), cluster.config.client_key))
        replayed = [
            replay(stack, cluster, 1, recorded_greeting(cluster, rank=rank, seal=seal))
            for rank in (0, 2) for seal in (False, True)
        ]
        until(lambda: all(map(is_over, replayed)), "they are cut off", HANDSHAKE_S + TIMEOUT_S)
        assert time.monotonic() - began > HANDSHAKE_S / 2
        assert contract.read(4) == stamp(4)
        assert silent.read(4) == stamp(4)
    trio.run(_use, cluster)


async def _use(cluster: Cluster) -> None:
    """The links between the nodes are the same that they were."""
    async with Client(cluster.config) as client:
        await client.write(4, stamp(5))
        for rank in cluster.ranks:
            report = await client.status(rank, TIMEOUT_S)
            assert set(report["peers"].values()) == {"sealed"}


async def test_idle_links_and_clients_outlive_the_deadline_of_handshakes(cluster: Cluster) -> None:
    async with Client(cluster.config) as client:
        await client.write(5, stamp(5))
        await trio.to_thread.run_sync(until, lambda: client.connected_ranks == cluster.ranks, "all connected")
        reconnects = client.counters.reconnects
        await trio.sleep(HANDSHAKE_S * 1.2)
        assert client.connected_ranks == cluster.ranks
        assert client.counters.reconnects == reconnects
        assert await client.read(5) == stamp(5)
