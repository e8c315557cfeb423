"""Clients that ask and do not listen, that come in thousands, that never finish a frame."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.client import Client
from dsreg.constants import MAX_COMMANDS_PER_CONNECTION
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.history import stamp
from tests.processes.raw import OK, READ_ANSWER, WRITE_ANSWER, RawClient, Response, read_frame, write_frame
from tests.processes.test_sealed import all_sealed

MIB = 1 << 20
# A connection that takes no byte for so long is held back.
STUCK_S = 0.5


def resident_bytes(cluster: Cluster, rank: int) -> int:
    return int(Path(f"/proc/{cluster.pid(rank)}/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors(cluster: Cluster, rank: int) -> int:
    return len(os.listdir(f"/proc/{cluster.pid(rank)}/fd"))


def send_until_held_back(client: RawClient, frame: bytes, limit: int) -> bytes:
    """Send this frame again and again and read nothing, until the connection takes no more for STUCK_S. What is
    left of the last one, to be sent when there is room. Fails at `limit` bytes."""
    client.sock.setblocking(False)
    many = memoryview(frame * (MIB // len(frame)))
    sent = 0
    while sent < limit:
        try:
            sent += client.sock.send(many[sent % len(many):])
        except BlockingIOError:
            poll = select.poll()  # unlike select(2) it knows descriptors above 1023
            poll.register(client.sock, select.POLLOUT)
            if not poll.poll(STUCK_S * 1000):
                client.sock.setblocking(True)
                return bytes(many[sent % len(frame):len(frame)]) if sent % len(frame) else b""
    raise AssertionError(f"the node has taken {sent} bytes from a client that does not listen")


@pytest.fixture(autouse=True, scope="module")
def linked(shared: Cluster) -> None:
    """A node that is still making its links has other connections, and other things to do."""
    trio.run(all_sealed, shared)


@pytest.fixture
def open_client(shared: Cluster) -> Iterator[Callable[..., RawClient]]:
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(
            RawClient(shared.address(1), shared.config.client_key, *options))


def test_some_that_ask_and_never_listen(shared: Cluster, open_client: Callable[..., RawClient]) -> None:
    other = open_client()
    other.write(5, stamp(5))
    before = resident_bytes(shared, 1)
    for _ in range(6):
        deaf = open_client(16384)
        send_until_held_back(deaf, deaf.read_frame(1, 5), 16 * MIB)
    grown = resident_bytes(shared, 1) - before
    assert grown < 64 * MIB, f"the deaf have cost {grown // MIB} MiB"
    for request in range(50):
        other.write(6, stamp(request + 1), request)
        assert other.read(6, request) == stamp(request + 1)


async def test_one_that_leaves_takes_its_commands_with_it(
    shared: Cluster, open_client: Callable[..., RawClient]
) -> None:
    """Of thousands that it has sent, no more are carried out than were under way."""
    async with Client(shared.only(1)) as client:
        idle = await until_idle(client)
        deaf = open_client(16384)
        send_until_held_back(deaf, deaf.read_frame(1, 5), 16 * MIB)
        before = await until_held_back(client)
        assert before["connections"] == idle["connections"] + 1
        deaf.close()
        after = await until_idle(client)
    assert after["connections"] == idle["connections"]
    assert after["counters"]["read"] - before["counters"]["read"] <= MAX_COMMANDS_PER_CONNECTION


async def until_idle(client: Client) -> dict[str, Any]:
    """The status of node 1 once it has nothing to do, and its connections are this client's and those of two nodes."""
    with trio.fail_after(TIMEOUT_S):
        while (report := await client.status(1, TIMEOUT_S))["unfinished"] or report["connections"] != 3:
            await trio.lowlevel.checkpoint()
    return report


async def until_held_back(client: Client) -> dict[str, Any]:
    """The status of node 1 once it takes no more from a client that has sent more: between two answers to this client
    it has begun nothing for that one, and nothing is under way. Until then it carries out some thousands of reads."""
    report = await client.status(1, TIMEOUT_S)
    with trio.fail_after(8 * TIMEOUT_S):
        while True:
            earlier, report = report, await client.status(1, TIMEOUT_S)
            if not report["unfinished"] and report["counters"]["read"] == earlier["counters"]["read"]:
                return report


def test_one_that_listens_at_last(shared: Cluster, open_client: Callable[..., RawClient]) -> None:
    """It has asked for more than the node keeps, and gets all of it."""
    client = open_client()
    client.send(*(client.read_frame(request, 7 + request % 512) for request in range(4000)))
    other = open_client()
    other.nothing_more()
    answers = client.responses(4000)
    assert {answer[:2] for answer in answers.values()} == {(OK, READ_ANSWER)}
    client.nothing_more()


def test_one_that_writes_while_there_is_no_majority(shared: Cluster, open_client: Callable[..., RawClient]) -> None:
    """No write is finished: the node takes some, and then no more; who needs no majority is served."""
    other, waiting = open_client(), open_client()
    for rank in (2, 3):
        shared.pause(rank)
    try:
        before = resident_bytes(shared, 1)
        rest = send_until_held_back(waiting, waiting.write_frame(9, 600, stamp(9)), 64 * MIB)
        assert resident_bytes(shared, 1) - before < 64 * MIB
        other.nothing_more()
    finally:
        for rank in (2, 3):
            shared.resume(rank)
    assert waiting.response() == Response(OK, WRITE_ANSWER, 9, b"")
    waiting.send(rest)


def test_thousands_of_connections_come_and_go(shared: Cluster, rng: random.Random) -> None:
    key, address = shared.config.client_key, shared.address(1)
    with RawClient(address, key) as client:
        client.nothing_more()
        before = descriptors(shared, 1)
        frame = write_frame(key, 1, 10, stamp(1))
        for number in range(1500):
            with socket.create_connection(address) as connection:
                if number % 3 == 0:
                    connection.sendall(frame[:rng.randrange(len(frame))])
                elif number % 3 == 1:
                    connection.sendall(read_frame(key, 1, 10))  # and gone before the answer
        until(lambda: descriptors(shared, 1) <= before, "the descriptors are given back")
        client.nothing_more()


def test_more_connections_than_descriptors(shared: Cluster) -> None:
    """The node stays below 1024; idle clients make room for new ones, and the other nodes keep their links."""
    key, address = shared.config.client_key, shared.address(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1100):
                stack.enter_context(RawClient(address, key))
            late = stack.enter_context(RawClient(address, key))
            late.write(11, stamp(11))
            assert descriptors(shared, 1) < 1024
            other = stack.enter_context(RawClient(shared.address(2), key))
            assert other.read(11) == stamp(11)
            assert late.read(11) == stamp(11)
        until(lambda: descriptors(shared, 1) < 100, "the descriptors are given back")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_has_said_all_is_still_answered(shared: Cluster, open_client: Callable[..., RawClient]) -> None:
    """As from a shell pipe: the sending half is closed, the answers are read."""
    client = open_client()
    for request in range(1, 41):
        client.send(client.write_frame(request, 12, stamp(request)))
    client.sock.shutdown(socket.SHUT_WR)
    assert sorted(client.response().request for _ in range(40)) == list(range(1, 41))


def test_frames_that_take_for_ever(shared: Cluster, open_client: Callable[..., RawClient]) -> None:
    before = resident_bytes(shared, 1)
    slow = [open_client() for _ in range(200)]
    for number, client in enumerate(slow):
        client.send(client.write_frame(number, 1600 + number, stamp(number + 1))[:4000])
    other = open_client()
    for _ in range(50):
        other.write(12, stamp(12))
    assert resident_bytes(shared, 1) - before < 64 * MIB
    for number, client in enumerate(slow):
        client.send(client.write_frame(number, 1600 + number, stamp(number + 1))[4000:])
        assert client.response() == Response(OK, WRITE_ANSWER, number, b"")
        assert other.read(1600 + number) == stamp(number + 1)


def test_garbage_costs_no_memory(shared: Cluster, open_client: Callable[..., RawClient], rng: random.Random) -> None:
    before = resident_bytes(shared, 1)
    noisy, other = open_client(), open_client()
    for _ in range(64):
        noisy.send(rng.randbytes(MIB).replace(b"atdd", b"...."))
    noisy.nothing_more()
    other.nothing_more()
    assert resident_bytes(shared, 1) - before < 16 * MIB
