"""The contract on the wire: clients of any make, and what comes over a bad line."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
from collections.abc import Iterator

import pytest

from tests.processes import raw
from tests.processes.cluster import Cluster
from tests.processes.raw import AUTH, INVALID, OK, READ_ANSWER, WRITE_ANSWER, RawClient, Response

BEYOND = 2048


@pytest.fixture
def client(shared: Cluster) -> Iterator[RawClient]:
    with RawClient(shared.address(1), shared.config.client_key) as connected:
        yield connected
        connected.nothing_more()


@pytest.fixture
def key(shared: Cluster) -> bytes:
    return shared.config.client_key


def test_frames_byte_for_byte(shared: Cluster, key: bytes) -> None:
    """Spelled out, without even the helpers of `raw`."""

    def sign(body: bytes) -> bytes:
        return body + hmac.new(key, body, hashlib.sha256).digest()

    data = os.urandom(4096)
    request, sector = bytes.fromhex("0102030405060708"), bytes.fromhex("0000000000000005")
    write = sign(bytes.fromhex("61746464 000000 02") + request + sector + data)
    read = sign(bytes.fromhex("61746464 000000 01") + request + sector)
    assert (len(write), len(read)) == (4152, 56)
    with RawClient(shared.address(2), key) as client:
        client.send(write)
        assert client.exactly(48) == sign(bytes.fromhex("61746464 0000 00 42") + request)
        client.send(read)
        assert client.exactly(4144) == sign(bytes.fromhex("61746464 0000 00 41") + request + data)
        client.send(sign(bytes.fromhex("61746464 000000 01") + request + bytes.fromhex("0000000000000800")))
        assert client.exactly(48) == sign(bytes.fromhex("61746464 0000 02 41") + request)
        client.send(sign(bytes.fromhex("61746464 000000 02") + request + bytes.fromhex("ffffffffffffffff") + data))
        assert client.exactly(48) == sign(bytes.fromhex("61746464 0000 02 42") + request)
        client.send(read[:-1] + bytes([read[-1] ^ 1]))
        assert client.exactly(48) == sign(bytes.fromhex("61746464 0000 01 41") + request)


def test_a_hundred_commands_in_one_send(client: RawClient, rng: random.Random) -> None:
    data = {request: rng.randbytes(4096) for request in range(100)}
    client.send(*(client.write_frame(request, 100 + request, data[request]) for request in data))
    assert set(client.responses(100).values()) == {Response(OK, WRITE_ANSWER, request, b"") for request in data}
    client.send(*(client.read_frame(request, 100 + request) for request in data))
    assert {request: answer.content for request, answer in client.responses(100).items()} == data


def test_one_byte_at_a_time(client: RawClient, rng: random.Random) -> None:
    data = rng.randbytes(4096)
    for byte in client.write_frame(7, 200, data) + client.read_frame(8, 201):
        client.sock.send(bytes([byte]))
    answers = client.responses(2)
    assert answers == {7: Response(OK, WRITE_ANSWER, 7, b""), 8: Response(OK, READ_ANSWER, 8, bytes(4096))}
    assert client.read(200) == data


def test_one_request_number_for_many(client: RawClient, shared: Cluster, key: bytes) -> None:
    """From two connections, and twice on one: each command is answered, where it came from."""
    with RawClient(shared.address(1), key) as other:
        client.write(210, b"a" * 4096)
        other.write(211, b"b" * 4096)
        for _ in range(20):
            client.send(client.read_frame(5, 210), client.read_frame(5, 210))
            other.send(other.read_frame(5, 211))
            for _ in range(2):
                assert client.response() == Response(OK, READ_ANSWER, 5, b"a" * 4096)
            assert other.response() == Response(OK, READ_ANSWER, 5, b"b" * 4096)
        other.nothing_more()


def test_garbage_before_and_between(client: RawClient, rng: random.Random) -> None:
    def garbage(size: int) -> bytes:
        return rng.randbytes(size).replace(raw.MAGIC, bytes(4))

    for size in (1, 3, 4, 55, 5000, 300_000):
        client.send(garbage(size), b"\0atd", client.read_frame(size, 220), b"\0", garbage(size))
        assert client.response() == Response(OK, READ_ANSWER, size, bytes(4096))


def test_a_magic_number_inside_content_is_content(client: RawClient) -> None:
    inner = client.write_frame(2, 231, b"w" * 4096)
    data = (inner[:2000] + client.read_frame(3, 232) * 10 + raw.MAGIC * 2000)[:4096]
    client.write(230, data)
    client.nothing_more()
    assert client.read(230) == data and client.read(231) == bytes(4096)


def test_a_frame_that_lost_bytes_costs_what_it_swallows(client: RawClient) -> None:
    """The length follows from the type: a frame cut short takes bytes of the next one, and is refused whole."""
    whole = client.read_frame(1, 235)
    client.send(whole[:50], client.read_frame(2, 236), client.read_frame(3, 237))
    assert client.response() == Response(AUTH, READ_ANSWER, 1, b"")
    assert client.response() == Response(OK, READ_ANSWER, 3, bytes(4096))


@pytest.mark.parametrize("frame_type", [0x00, 0x07, 0x41, 0x42, 0x47, 0x7F, 0x81, 0x92, 0xC0, 0xFF])
def test_unknown_types_cost_eight_bytes(client: RawClient, frame_type: int) -> None:
    client.send(raw.MAGIC + bytes(3) + bytes([frame_type]), client.read_frame(1, 240))
    assert client.response() == Response(OK, READ_ANSWER, 1, bytes(4096))
    # The pad may hold the beginning of what is taken for a magic number: the 8 bytes are dropped all the same.
    client.send(raw.MAGIC + b"atd" + bytes([frame_type]) + b"d", client.read_frame(2, 240))
    assert client.response() == Response(OK, READ_ANSWER, 2, bytes(4096))


def test_a_wrong_hmac_does_nothing(client: RawClient, rng: random.Random) -> None:
    good = client.write_frame(9, 250, b"x" * 4096)
    client.write(250, b"before".ljust(4096))
    # From the request number on: other bytes decide what the frame is.
    places = [16, 23, 24, 4119, 4120, 4151, *(rng.randrange(16, 4152) for _ in range(20))]
    for at in places:
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        client.send(bytes(bad))
        assert client.response() == Response(AUTH, WRITE_ANSWER, 9, b"")
    other = os.urandom(32)
    client.send(raw.write_frame(other, 10, 250, b"x" * 4096), raw.read_frame(other, 11, 250))
    assert client.responses(2) == {10: Response(AUTH, WRITE_ANSWER, 10, b""), 11: Response(AUTH, READ_ANSWER, 11, b"")}
    assert client.read(250) == b"before".ljust(4096)


@pytest.mark.parametrize("sector", [BEYOND, BEYOND + 1, 1 << 63, (1 << 64) - 1])
def test_a_sector_beyond_the_end(client: RawClient, sector: int) -> None:
    client.send(client.read_frame(1, sector), client.write_frame(2, sector, b"y" * 4096))
    answers = {1: Response(INVALID, READ_ANSWER, 1, b""), 2: Response(INVALID, WRITE_ANSWER, 2, b"")}
    assert client.responses(2) == answers
    wrong = bytes(32)
    client.send(raw.read_frame(wrong, 3, sector), raw.write_frame(wrong, 4, sector, b"y" * 4096))
    answers = {3: Response(AUTH, READ_ANSWER, 3, b""), 4: Response(AUTH, WRITE_ANSWER, 4, b"")}
    assert client.responses(2) == answers


def test_a_pad_may_hold_anything(client: RawClient, rng: random.Random) -> None:
    client.send(client.write_frame(1, 260, b"z" * 4096, pad=b"\xff\x01\x80"))
    assert client.response() == Response(OK, WRITE_ANSWER, 1, b"")
    client.send(client.read_frame(2, 260, pad=b"dat"))
    assert client.response() == Response(OK, READ_ANSWER, 2, b"z" * 4096)


def test_bad_node_messages_are_dropped_and_the_connection_kept(client: RawClient, shared: Cluster) -> None:
    """As a fault of each kind: nothing is stored, nothing comes back, and exactly the frame is consumed."""
    key = shared.config.system_key
    good = raw.PeerMessage(raw.WRITE_PROC, 3, os.urandom(16), 77, 270, 9, 3, b"q" * 4096)
    bad = [good._replace(rank=rank).frame(key) for rank in (0, 4, 254, 255)]  # no such node
    bad += [good._replace(sector=sector).frame(key) for sector in (BEYOND, (1 << 64) - 1)]
    bad += [good._replace(wr=wr).frame(key) for wr in (0, 4, 255)] + [good._replace(ts=0).frame(key)]
    bad += [good.frame(os.urandom(64)), good.frame(shared.config.client_key)]
    bad += [message.frame(os.urandom(64)) for message in (
        good._replace(type=raw.READ_PROC), good._replace(type=raw.VALUE), good._replace(type=raw.ACK),
        raw.Receipt(raw.WRITE_PROC, 3, good.uuid),
    )]
    for frame in bad:
        client.send(frame, client.read_frame(1, 270))
        assert client.response() == Response(OK, READ_ANSWER, 1, bytes(4096))
    client.send(*bad, client.read_frame(2, 270))
    assert client.response() == Response(OK, READ_ANSWER, 2, bytes(4096))
