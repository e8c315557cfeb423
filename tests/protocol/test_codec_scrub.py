"""Checksums and the question for them, and the request for a scrub, byte by byte."""

from __future__ import annotations

import struct

import pytest

from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.messages import Message, ScrubBegun, ScrubRequest, Sums, SumsQuery
from dsreg.protocol.tags import pack_tag
from tests.protocol.frames import KEYS, RANKS, SECTORS, extension, spoiled

TAGS = pack_tag(5, 2) + bytes(16)
CRCS = bytes.fromhex("01020304 00000000")


def decoder(side: Side = Side.NODE, extended: bool = True) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=side, extended=extended)


def question(first: int, count: int, rank: int = 2, **fields: int) -> bytes:
    return extension(0x9D, 77, first, count, rank=rank, key=KEYS.system, **fields)  # type: ignore[arg-type]


def answer(first: int, count: int, content: bytes, rank: int = 2, **fields: int) -> bytes:
    return extension(0xDD, 77, first, count, content, rank=rank, key=KEYS.system, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "frame", "side"),
    [
        (SumsQuery(2, 77, 0, 256), question(0, 256), Side.NODE),
        (SumsQuery(2, 77, SECTORS - 1, 1), question(SECTORS - 1, 1), Side.NODE),
        (Sums(2, 77, 3, 2, TAGS, CRCS), answer(3, 2, TAGS + CRCS), Side.NODE),
        (ScrubRequest(9), extension(0x89, 9), Side.NODE),
        (ScrubBegun(9, 3), extension(0xC9, 9, content=struct.pack(">Q", 3)), Side.CLIENT),
    ],
)
def test_layout(message: Message, frame: bytes, side: Side) -> None:
    assert b"".join(Encoder(KEYS).encode(message)) == frame
    listening = decoder(side)
    assert listening.feed(frame) == [message]
    assert not listening.counters
    assert listening.feed(spoiled(frame)) == [] and listening.counters["bad_mac"] == 1
    assert decoder(side, extended=False).feed(frame) == []


@pytest.mark.parametrize(
    "frame",
    [
        question(0, 0),
        question(0, 257),
        question(SECTORS, 1),
        question(0, 1, rank=9),
        answer(SECTORS - 1, 2, TAGS + CRCS),
        answer(0, 2, TAGS + CRCS, rank=9),
        answer(0, 2, pack_tag(5, 9) + bytes(16) + CRCS),
    ],
)
def test_a_field_out_of_range(frame: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame) == [] and listening.counters["bad_field"] == 1


@pytest.mark.parametrize("content", [TAGS, TAGS + CRCS + b"\0", TAGS + CRCS[:4]])
def test_a_length_that_cannot_be(content: bytes) -> None:
    listening = decoder()
    assert listening.feed(answer(0, 2, content)) == [] and listening.counters["bad_header"] == 1
