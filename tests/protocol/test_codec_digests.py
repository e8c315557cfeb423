"""Digests and the question for them, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.constants import MAX_DIGESTS
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.messages import DigestQuery, Digests
from dsreg.protocol.wire import MAX_FRAME_SIZE
from tests.protocol.frames import KEYS, RANKS, SECTORS, extension, spoiled

CHUNKS = 4  # of SECTORS, the last one of 232
LARGE = 256 * 5000 - 3  # sectors of a disk of 5000 chunks
ONE, OTHER = bytes(range(16)), b"\xff" * 16


def decoder(sectors: int = SECTORS) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(sectors, RANKS), side=Side.NODE, extended=True)


def question(first: int, count: int, rank: int = 2, **fields: int) -> bytes:
    return extension(0x98, 77, first, count, rank=rank, key=KEYS.system, **fields)  # type: ignore[arg-type]


def answer(first: int, count: int, content: bytes, rank: int = 2, **fields: int) -> bytes:
    return extension(0xD8, 77, first, count, content, rank=rank, key=KEYS.system, **fields)  # type: ignore[arg-type]


def content(following: int, bitmap: int, *digests: bytes) -> bytes:
    return struct.pack(">QB", following, bitmap) + b"".join(digests)


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (DigestQuery(2, 77, 0, 1), question(0, 1)),
        (DigestQuery(2, 77, 3, 1), question(3, 1)),
        (DigestQuery(2, 77, 0, CHUNKS), question(0, CHUNKS)),
        (Digests(2, 77, 0, 1, 4, {}), answer(0, 1, content(4, 0))),
        (Digests(2, 77, 0, 1, 1, {0: ONE}), answer(0, 1, content(1, 0x80, ONE))),
        (Digests(2, 77, 1, 3, 4, {1: ONE, 3: OTHER}), answer(1, 3, content(4, 0xA0, ONE, OTHER))),
        (Digests(2, 77, 0, 4, 4, {1: ONE, 2: OTHER}), answer(0, 4, content(4, 0x60, ONE, OTHER))),
    ],
)
def test_layout(message: DigestQuery | Digests, frame: bytes) -> None:
    assert b"".join(Encoder(KEYS).encode(message)) == frame
    listening = decoder()
    assert listening.feed(frame) == [message]
    assert not listening.counters


def test_pads_of_the_bitmap_are_ignored() -> None:
    assert decoder().feed(answer(1, 3, content(4, 0xBF, ONE, OTHER))) == [Digests(2, 77, 1, 3, 4, {1: ONE, 3: OTHER})]


@given(st.data())
def test_there_and_back(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 4999))
    count = data.draw(st.integers(1, min(MAX_DIGESTS, 5000 - first)))
    chunks = data.draw(st.sets(st.integers(first, first + count - 1), max_size=20))
    digests = {chunk: chunk.to_bytes(16) for chunk in chunks}
    following = data.draw(st.integers(first + count, 5000))
    message = Digests(data.draw(st.sampled_from(sorted(RANKS))), data.draw(st.integers(0, 2**64 - 1)), first, count,
                      following, digests)
    frame = b"".join(Encoder(KEYS).encode(message))
    listening = decoder(LARGE)
    cut = data.draw(st.integers(0, len(frame)))
    assert listening.feed(frame[:cut]) + listening.feed(frame[cut:]) == [message]


def test_the_longest_is_no_longer_than_other_frames() -> None:
    message = Digests(1, 5, 0, MAX_DIGESTS, MAX_DIGESTS, {chunk: ONE for chunk in range(MAX_DIGESTS)})
    frame = b"".join(Encoder(KEYS).encode(message))
    assert len(frame) <= MAX_FRAME_SIZE
    assert decoder(LARGE).feed(frame) == [message]


@pytest.mark.parametrize(
    "frame",
    [
        question(0, 0),
        question(4, 1),
        question(0, 5),
        question(0, 1, rank=4),
        question(0, 1, rank=0),
        answer(0, 1, content(0, 0)),  # follows what it is about
        answer(0, 1, content(5, 0)),
        answer(3, 2, content(5, 0)),
        answer(0, 1, content(4, 0), rank=4),
        answer(0, 1, content(4, 0, ONE)),
        answer(0, 1, content(4, 0x80)),
        answer(0, 3, content(4, 0xE0, ONE)),
        answer(0, 3, content(4, 0x80, ONE, OTHER)),
        answer(0, 0, struct.pack(">Q", 4)),
    ],
)
def test_what_is_dropped(frame: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame + question(1, 2)) == [DigestQuery(2, 77, 1, 2)]
    assert listening.counters == {"bad_field": 1}


def test_a_wrong_key() -> None:
    listening = decoder()
    assert listening.feed(spoiled(question(0, 1)) + spoiled(answer(0, 1, content(4, 0x80, ONE)))) == []
    assert listening.counters == {"bad_mac": 2}


@pytest.mark.parametrize(
    "frame",
    [
        question(0, 1, length=16),
        answer(0, 1, content(4, 0)[:-1]),
        answer(0, 1, content(4, 0x80, ONE[:-1])),
        answer(0, 1, content(4, 0x80, ONE, OTHER)),
        answer(0, 9, content(9, 0)),
        answer(0, 4097, bytes(521)),
        answer(0, 1, content(4, 0), status=4),
    ],
)
def test_a_length_that_cannot_be_costs_eight_bytes(frame: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame[:40] + question(1, 2)) == [DigestQuery(2, 77, 1, 2)]
    assert listening.counters == {"bad_header": 1, "skipped_bytes": 40}


def test_of_a_connection_that_was_not_greeted_they_are_unknown() -> None:
    listening = Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=Side.NODE, extended=False)
    assert listening.feed(question(0, 1)) == []
    assert listening.counters["unknown_type"] == 1
