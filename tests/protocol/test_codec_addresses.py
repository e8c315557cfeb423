"""The message that tells of addresses, byte by byte."""

from __future__ import annotations

import random
import struct

import pytest

from dsreg.config.address import parse_address
from dsreg.constants import MAX_HOST_BYTES, MAX_RANK
from dsreg.protocol.address import Address, Place, pack_addresses, unpack_addresses
from dsreg.protocol.codec import Bounds, Encoder, Side, UnsealingDecoder
from dsreg.protocol.life import Life
from dsreg.protocol.messages import AddressReport
from tests.protocol.test_codec_lives import KEYS, OTHER, OWN, decoder, frame

HERE = Address(OWN, 1, Place("10.0.0.1", 7001))
THERE = Address(OTHER, 1 << 60, Place("fe80::1%br-lan", 65535))
NAMED = Address(OWN, 2, Place("\u00fcber.example", 1))


def entry(rank: int, address: Address) -> bytes:
    host = address.place.host.encode()
    return struct.pack(">BBH4xQ16sQ", rank, len(host), address.place.port, *address.life, address.sequence) + host


@pytest.mark.parametrize(
    ("type_", "rank", "answer", "side"),
    [(0x9A, 2, False, Side.NODE), (0xDA, 2, True, Side.NODE), (0xCA, 0, True, Side.CLIENT)],
)
@pytest.mark.parametrize("addresses", [{}, {2: HERE}, {3: THERE, 2: HERE, 1: NAMED}])
def test_layout(type_: int, rank: int, answer: bool, side: Side, addresses: dict[int, Address]) -> None:
    report = AddressReport(rank, answer, addresses)
    content = b"".join(entry(other, address) for other, address in sorted(addresses.items()))
    raw = b"".join(Encoder(KEYS).encode(report))
    assert raw == frame(type_, rank, len(addresses), content, KEYS.system if rank else KEYS.client)
    assert decoder(side).feed(raw) == [report]


def test_a_node_may_tell_of_one_that_this_one_is_yet_to_hear_of() -> None:
    [report] = decoder().feed(frame(0x9A, 2, 1, entry(4, HERE), KEYS.system))
    assert report == AddressReport(2, False, {4: HERE})


@pytest.mark.parametrize(
    ("rank", "count", "content"),
    [
        (4, 1, entry(2, HERE)),  # no such rank
        (2, 1, entry(255, HERE)),
        (2, 1, entry(0, HERE)),
        (2, 2, entry(2, HERE)),
        (2, 0, entry(2, HERE)),
        (2, 2, entry(2, HERE) + entry(2, THERE)),
        (2, 1, entry(2, HERE)[:-1]),
        (2, 1, entry(2, HERE)[:39]),
        (2, 1, entry(2, HERE) + b"x"),
        (2, 1, entry(2, HERE._replace(sequence=0))),
        (2, 1, entry(2, HERE._replace(life=Life(0, bytes(16))))),
        (2, 1, entry(2, HERE._replace(place=Place("a", 0)))),
        (2, 1, entry(2, HERE._replace(place=Place("", 1)))),
        (2, 1, entry(2, HERE._replace(place=Place("ab", 1)))[:-2] + b"\xff\xff"),
    ],
)
def test_what_is_dropped(rank: int, count: int, content: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame(0x9A, rank, count, content, KEYS.system)) == []
    assert listening.counters["bad_field"] == 1
    assert decoder(Side.CLIENT).feed(frame(0xCA, 0, 1, entry(2, HERE), KEYS.client, status=4)) == []


def test_a_length_that_cannot_be() -> None:
    listening = decoder()
    assert listening.feed(frame(0x9A, 2, 1, bytes(MAX_RANK * (40 + 255) + 1), KEYS.system)) == []
    assert listening.counters["bad_header"] == 1


def test_the_longest_there_is() -> None:
    ranks = range(1, MAX_RANK + 1)
    listening = UnsealingDecoder(KEYS, bounds=Bounds(9, frozenset(ranks)), side=Side.NODE, extended=True)
    report = AddressReport(1, True, {rank: Address(OTHER, 1, Place("x" * MAX_HOST_BYTES, 1)) for rank in ranks})
    assert listening.feed(b"".join(Encoder(KEYS).encode(report))) == [report]


def is_sayable(place: Place) -> bool:
    return 0 < len(place.host.encode()) <= 255 and 0 < place.port <= 0xFFFF


@pytest.mark.parametrize("host", ["x" * 255, "\u00fc" * 127 + "x", f"[fe80::1%{'x' * 247}]", "10.0.0.1"])
def test_what_a_configuration_names_can_be_told(host: str) -> None:
    place = Place(*parse_address(f"{host}:65535"))
    assert is_sayable(place)
    address = Address(OWN, 1, place)
    assert unpack_addresses(pack_addresses({1: address})) == {1: address}


@pytest.mark.parametrize("host", ["x" * 256, "\u00fc" * 128, f"[fe80::1%{'x' * 248}]"])
def test_what_cannot_be_told_is_no_address_of_a_configuration(host: str) -> None:
    with pytest.raises(ValueError, match="255 bytes at most"):
        parse_address(f"{host}:7001")


def test_how_a_place_reads() -> None:
    assert str(Place("::1", 7)) == "[::1]:7" and str(Place("a", 7)) == "a:7"


def test_any_bytes_are_read_or_refused(rng: random.Random) -> None:
    good = pack_addresses({1: HERE, 3: THERE})
    for _ in range(2000):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        found = unpack_addresses(bytes(raw[: rng.randrange(len(raw) + 1)]))
        assert found is None or all(is_sayable(address.place) for address in found.values())
