"""MAP_CHUNKS: byte by byte, and what cannot be. docs/protocol.md, Part 9."""

from __future__ import annotations

import struct

import pytest

from dsreg.constants import MAX_EXTENTS, MAX_MAP_CHUNKS, MAX_RUN_SECTORS, ZERO_TAG
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.extents import Extent, decode_extents, encode_extents, map_command
from dsreg.protocol.messages import CommandKind, RefusedCommand, Response, Status
from dsreg.protocol.wire import BARE_EXTENSION_SIZE
from tests.protocol.frames import A1, EPOCH, KEYS, RANKS, extension

MAP = CommandKind.MAP
CHUNKS = 40_000
SECTORS = CHUNKS * MAX_RUN_SECTORS + 7


def decoder(side: Side = Side.NODE) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=side, extended=True)


@pytest.mark.parametrize("epoch", [0, EPOCH])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (7, 3), (CHUNKS - MAX_MAP_CHUNKS, MAX_MAP_CHUNKS)])
def test_layout(first: int, count: int, epoch: int) -> None:
    command = map_command(9, first * MAX_RUN_SECTORS, count * MAX_RUN_SECTORS, epoch)
    frame = extension(0x8E, 9, first, count, epoch=epoch)
    assert b"".join(Encoder(KEYS).encode(command)) == frame and len(frame) == BARE_EXTENSION_SIZE
    listening = decoder()
    assert listening.feed(frame) == [command] and not listening.counters


def test_answer() -> None:
    extents = [Extent(5, ZERO_TAG), Extent(1, None), Extent(32762, A1)]
    content = struct.pack(">II16sII16sII16s", 5, 1, ZERO_TAG, 1, 0, ZERO_TAG, 32762, 1, A1)
    assert encode_extents(extents) == content and decode_extents(content, MAX_MAP_CHUNKS) == extents
    answer = Response(Status.OK, MAP, 9, b"", content, True, EPOCH)
    frame = b"".join(Encoder(KEYS, zeros=True).encode(answer))
    assert frame == extension(0xCE, 9, 0, 3, content, epoch=EPOCH)
    assert decoder(Side.CLIENT).feed(frame) == [answer]


def test_the_longest_answer() -> None:
    content = encode_extents([Extent(1, ZERO_TAG), Extent(1, None)] * (MAX_EXTENTS // 2))
    answer = Response(Status.OK, MAP, 9, b"", content, True)
    assert decoder(Side.CLIENT).feed(b"".join(Encoder(KEYS).encode(answer))) == [answer]
    more = encode_extents([Extent(1, None)] * (MAX_EXTENTS + 1))
    listening = decoder(Side.CLIENT)
    assert listening.feed(extension(0xCE, 9, 0, MAX_EXTENTS + 1, more)) == [] and listening.counters["bad_header"] == 1


@pytest.mark.parametrize("status", [Status.FENCED, Status.DISBELIEVED, Status.STOPPING])
def test_refusal(status: Status) -> None:
    answer = Response(status, MAP, 9, extended=True, epoch=EPOCH)
    frame = b"".join(Encoder(KEYS).encode(answer))
    assert frame == extension(0xCE, 9, status=status, epoch=EPOCH)
    assert decoder(Side.CLIENT).feed(frame) == [answer]


@pytest.mark.parametrize(
    ("first", "count", "epoch"),
    [(0, 0, 0), (0, MAX_MAP_CHUNKS + 1, 0), (CHUNKS, 1, 0), (CHUNKS - 1, 2, 0), (1 << 63, 1, 0), (0, 1, 1 << 24)],
)
def test_what_cannot_be_is_refused(first: int, count: int, epoch: int) -> None:
    """Also the end of the disk, which is no whole chunk."""
    refused = RefusedCommand(Status.INVALID_SECTOR_INDEX, MAP, 9, True)
    assert decoder().feed(extension(0x8E, 9, first, count, epoch=epoch)) == [refused]


def test_a_frame_with_a_content_is_none() -> None:
    listening = decoder()
    assert listening.feed(extension(0x8E, 9, 0, 2, A1)) == [] and listening.counters["bad_header"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 23, struct.pack(">II16s", 0, 0, ZERO_TAG), struct.pack(">II16s", 1, 2, ZERO_TAG),
        struct.pack(">II16s", 1, 0, A1), struct.pack(">II16s", 9, 1, A1), struct.pack(">II16s", 5, 1, A1) * 2,
    ],
)
def test_extents_that_cannot_be(content: bytes) -> None:
    """Of 8 chunks: nothing, half an extent, an empty one, one of no known kind, data with a tag, too many."""
    assert decode_extents(content, 8) is None
