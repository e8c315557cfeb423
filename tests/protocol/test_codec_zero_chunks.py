"""ZERO_CHUNKS: byte by byte, and what cannot be. docs/protocol.md, Part 9."""

from __future__ import annotations

import pytest

from dsreg.constants import MAX_RUN_SECTORS, MAX_ZERO_CHUNKS
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Side
from dsreg.protocol.messages import CommandKind, RefusedCommand, Response, Status
from dsreg.protocol.tags import pack_tag
from dsreg.protocol.wire import BARE_EXTENSION_SIZE, MAX_FRAME_SIZE
from dsreg.protocol.zeros import are_chunks, zero_command
from tests.protocol.frames import A1, EPOCH, KEYS, RANKS, extension

ZERO = CommandKind.ZERO
CHUNKS = 2000
SECTORS = CHUNKS * MAX_RUN_SECTORS + 7


def decoder(side: Side = Side.NODE) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=side, extended=True)


@pytest.mark.parametrize(("first", "count"), [(0, 2), (7, 3), (CHUNKS - MAX_ZERO_CHUNKS, MAX_ZERO_CHUNKS)])
def test_layout(first: int, count: int) -> None:
    command = zero_command(9, first * MAX_RUN_SECTORS, count * MAX_RUN_SECTORS, A1, EPOCH)
    frame = extension(0x8D, 9, first, count, A1, epoch=EPOCH)
    assert b"".join(Encoder(KEYS).encode(command)) == frame and len(frame) == BARE_EXTENSION_SIZE + 16
    listening = decoder()
    assert listening.feed(frame) == [command] and not listening.counters
    assert len(frame) < MAX_FRAME_SIZE


@pytest.mark.parametrize("status", [Status.OK, Status.FENCED, Status.OVERTAKEN, Status.NO_SPACE])
def test_answer(status: Status) -> None:
    answer = Response(status, ZERO, 9, extended=True, epoch=EPOCH)
    frame = b"".join(Encoder(KEYS).encode(answer))
    assert frame == extension(0xCD, 9, status=status, epoch=EPOCH)
    assert decoder(Side.CLIENT).feed(frame) == [answer]


@pytest.mark.parametrize(
    ("first", "count", "tag", "epoch"),
    [
        (0, 0, A1, EPOCH), (0, 1, A1, EPOCH), (0, MAX_ZERO_CHUNKS + 1, A1, EPOCH), (CHUNKS - 1, 2, A1, EPOCH),
        (1 << 63, 2, A1, EPOCH), (0, 65535, A1, EPOCH), (0, 2, A1, EPOCH + 1), (0, 2, A1, 0),
        (0, 2, pack_tag(0, 0, 0, EPOCH), EPOCH), (0, 2, pack_tag(9, 77, 0, EPOCH), EPOCH),
    ],
)
def test_what_cannot_be_is_refused(first: int, count: int, tag: bytes, epoch: int) -> None:
    """Also the end of the disk, which is no whole chunk: it may be larger where the client does not know it yet."""
    refused = RefusedCommand(Status.INVALID_SECTOR_INDEX, ZERO, 9, True)
    assert decoder().feed(extension(0x8D, 9, first, count, tag, epoch=epoch)) == [refused]


def test_a_frame_of_another_length_is_none() -> None:
    listening = decoder()
    assert listening.feed(extension(0x8D, 9, 0, 2, A1 * 2, epoch=EPOCH)) == [] and listening.counters["bad_header"] == 1


@pytest.mark.parametrize(
    ("first", "count", "good"),
    [(0, 512, True), (256, 512, True), (0, 256, False), (1, 512, False), (0, 513, False), (0, 1024 * 256, True),
     (0, 1025 * 256, False), (0, 0, False)],
)
def test_chunks(first: int, count: int, good: bool) -> None:
    assert are_chunks(first, count) == good
