"""Data that is all zeros, and is not there: byte by byte, in every message that has data of sectors."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Encodings, Side
from dsreg.protocol.messages import FEATURE_ZEROS, Buffer, Command, Message, Response, Status, Value, WriteProc
from dsreg.protocol.wire import BARE_EXTENSION_SIZE
from dsreg.protocol.zeros import zeros
from tests.protocol.frames import A1, DATA, E2, EPOCH, GET, KEYS, PUT, RANKS, READ, SECTORS, STORE, T2, TAG, extension

OK = Status.OK
ZEROS = bytes(SECTOR_SIZE)
# message, frame without data
LEFT_OUT: list[tuple[Message, bytes, Side]] = [
    (
        Command(PUT, 4, 1, 2, A1 * 2, ZEROS * 2, True, EPOCH),
        extension(0x86, 4, 1, 2, A1, flags=2, epoch=EPOCH), Side.NODE,
    ),
    (
        Command(STORE, 4, 1, 2, E2, ZEROS * 2, True, EPOCH),
        extension(0x83, 4, 1, 2, E2, flags=2, epoch=EPOCH), Side.NODE,
    ),
    (Value(1, 5, 6, 2, T2, ZEROS * 2), extension(0xD1, 5, 6, 2, T2, rank=1, flags=3), Side.NODE),
    (WriteProc(3, 5, 6, 2, E2, ZEROS * 2), extension(0x92, 5, 6, 2, E2, rank=3, flags=2, epoch=EPOCH), Side.NODE),
    (Response(OK, READ, 4, b"", ZEROS * 3, True), extension(0xC1, 4, 0, 3, flags=2), Side.CLIENT),
    (Response(OK, READ, 4, T2, ZEROS * 2, True), extension(0xC1, 4, 0, 2, T2, flags=3), Side.CLIENT),
    (Response(OK, GET, 4, T2, ZEROS * 2, True, 7), extension(0xC5, 4, 0, 2, T2, flags=3, epoch=7), Side.CLIENT),
]


def decoder(side: Side = Side.NODE) -> Decoder:
    return Decoder(KEYS, bounds=Bounds(SECTORS, RANKS), side=side, extended=True)


@pytest.mark.parametrize(("message", "frame", "side"), LEFT_OUT)
def test_layout(message: Message, frame: bytes, side: Side) -> None:
    assert b"".join(Encoder(KEYS, zeros=True).encode(message)) == frame
    listening = decoder(side)
    assert listening.feed(frame) == [message] and not listening.counters
    whole = b"".join(Encoder(KEYS).encode(message))
    assert len(whole) > SECTOR_SIZE and decoder(side).feed(whole) == [message], "who does not understand it gets all"


@pytest.mark.parametrize(("message", "frame", "side"), LEFT_OUT)
def test_anything_but_zeros_is_sent(message: Message, frame: bytes, side: Side, rng: random.Random) -> None:
    size = len(message.data)  # type: ignore[union-attr,arg-type]
    data = bytearray(size)
    data[rng.choice((0, size - 1, rng.randrange(size)))] = 1
    changed = message._replace(data=bytes(data))  # type: ignore[union-attr]
    sent = b"".join(Encoder(KEYS, zeros=True).encode(changed))
    assert len(sent) == len(frame) + size and sent == b"".join(Encoder(KEYS).encode(changed))
    assert decoder(side).feed(sent) == [changed]


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 255, 256])
def test_a_run_of_any_length_costs_its_tags(count: int, make: type[Buffer]) -> None:
    message = WriteProc(3, 5, 6, count, T2[:16] * count, make(bytes(count * SECTOR_SIZE)))
    frame = b"".join(Encoder(KEYS, zeros=True).encode(message))
    assert len(frame) == BARE_EXTENSION_SIZE + 16 * count
    (decoded,) = decoder().feed(frame)
    assert isinstance(decoded, WriteProc) and decoded == message
    assert decoded.data == zeros(count) and len(decoded.data) == count * SECTOR_SIZE
    again = b"".join(Encoder(KEYS, zeros=True).encode(decoded))
    assert again == frame, "what has come without data goes on without"


@pytest.mark.parametrize(
    ("frame", "side", "counter"),
    [
        # A run beyond the disk, or beyond 256 sectors: not 65,535 sectors of zeros from a frame of 88 bytes.
        (extension(0x86, 4, 1, 65535, A1, flags=2, epoch=EPOCH), Side.NODE, "bad_header"),
        (extension(0x83, 4, 0, 257, A1 * 257, flags=2, epoch=EPOCH), Side.NODE, "bad_header"),
        (extension(0x92, 5, 0, 257, A1 * 257, rank=3, flags=2, epoch=EPOCH), Side.NODE, "bad_header"),
        (extension(0xD1, 5, 0, 257, A1 * 257, rank=3, flags=3, epoch=EPOCH), Side.NODE, "bad_header"),
        (extension(0xC1, 4, 0, 65535, flags=2), Side.CLIENT, "bad_header"),
        (extension(0xC5, 4, 0, 257, A1 * 257, flags=3), Side.CLIENT, "bad_header"),
        # Data that is there all the same.
        (extension(0x86, 4, 1, 1, A1 + DATA, flags=2, epoch=EPOCH), Side.NODE, "bad_header"),
        (extension(0xC1, 4, 0, 1, DATA, flags=2), Side.CLIENT, "bad_header"),
        (extension(0xC1, 4, 0, 0, flags=2), Side.CLIENT, "bad_field"),
        (extension(0x92, 5, SECTORS - 1, 2, E2, rank=3, flags=2, epoch=EPOCH), Side.NODE, "bad_field"),
    ],
)
def test_what_cannot_be(frame: bytes, side: Side, counter: str) -> None:
    listening = decoder(side)
    assert listening.feed(frame) == [] and listening.counters[counter] == 1


def test_the_flag_means_nothing_where_there_is_no_data() -> None:
    listening = decoder(Side.CLIENT)
    assert listening.feed(extension(0xC5, 4, 0, 2, T2, flags=2, epoch=7)) == [Response(OK, GET, 4, T2, b"", True, 7)]
    assert listening.feed(extension(0xC2, 4, 0, 2, T2, flags=2)) == [Response(OK, TAG, 4, T2, b"", True)]
    assert listening.feed(extension(0xC1, 4, status=6, flags=2)) == [Response(Status.REFUSED, READ, 4, extended=True)]
    assert listening.feed(extension(0xC6, 4, flags=2)) == [Response(OK, PUT, 4, extended=True)]
    assert decoder().feed(extension(0xD1, 5, 6, 2, T2, rank=1, flags=2)) == [Value(1, 5, 6, 2, T2, None)]
    assert not listening.counters


def test_each_connection_gets_what_its_other_side_understands() -> None:
    encodings = Encodings(KEYS)
    message = Command(PUT, 4, 1, 2, A1 * 2, ZEROS * 2, True, EPOCH)
    features = (0, FEATURE_ZEROS, ~FEATURE_ZEROS)
    sizes = [len(b"".join(encodings.encode(message, False, each))) for each in features]
    assert sizes == [8280, 88, 8280]
    for sealed in (False, True):
        plain, left_out = encodings.once(sealed, 0), encodings.once(sealed, FEATURE_ZEROS | 3)
        assert plain(message) is plain(message) and len(left_out(message)) == len(plain(message)) - 1
        assert plain is encodings.once(sealed, 0) is not left_out


def test_they_share_one_piece_of_memory() -> None:
    assert zeros(MAX_RUN_SECTORS) is zeros(MAX_RUN_SECTORS)
    part = zeros(MAX_RUN_SECTORS - 1)
    assert isinstance(part, memoryview) and part.readonly and part.obj is zeros(MAX_RUN_SECTORS)
