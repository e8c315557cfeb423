"""The decoder on bytes that nobody honest sends: no exception, less than a frame kept, the same however split,
and time that grows with the length alone."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsreg.constants import MAGIC
from dsreg.protocol.codec import MAX_FRAME_SIZE, Side
from dsreg.protocol.messages import Command, CommandKind, Message, Response, Status
from tests.fuzz import streams

SIDES = [Side.NODE, Side.CLIENT]
GOOD: dict[Side, Message] = {
    Side.NODE: Command(CommandKind.GET, 5, 1, 3, extended=True, epoch=7),
    Side.CLIENT: Response(Status.OK, CommandKind.PUT, 5, extended=True, epoch=7),
}


def decode(side: Side, pieces: list[bytes], extended: bool = True) -> list[Message]:
    decoder = streams.decoder(side, extended)
    messages: list[Message] = []
    for piece in pieces:
        messages += decoder.feed(piece)
        assert decoder.buffered < MAX_FRAME_SIZE
    return messages


def check(side: Side, data: bytes, rng: random.Random) -> None:
    """What any bytes must do."""
    whole = decode(side, [data])
    assert decode(side, streams.split(rng, data)) == whole
    # Whatever came, a good frame after enough silence is found again: the longest frame that may be open, of zeros.
    good = GOOD[side]
    after = decode(side, [data, bytes(MAX_FRAME_SIZE), streams.frame(good)])
    assert after[-1:] == [good]


@pytest.mark.parametrize("side", SIDES)
@given(data=st.binary(max_size=3000), seed=st.integers(0, 1 << 32))
@settings(max_examples=100)
def test_arbitrary_bytes(side: Side, data: bytes, seed: int) -> None:
    check(side, data, random.Random(seed))


@pytest.mark.parametrize("side", SIDES)
@given(data=st.lists(st.sampled_from([MAGIC, b"\0\0\0", b"a", *(bytes([t]) for t in (1, 2, 4, 0x41, 0x83, 0xD1))])))
def test_bytes_made_of_beginnings(side: Side, data: list[bytes]) -> None:
    check(side, b"".join(data), random.Random(0))


@pytest.mark.parametrize("side", SIDES)
def test_damaged_streams(side: Side, rng: random.Random) -> None:
    for _ in range(60):
        check(side, streams.stream(rng, side), rng)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("unit", [MAGIC, MAGIC[:3], *(MAGIC + bytes([0, 0, 0, kind]) for kind in (1, 4, 0x92))])
def test_time_is_linear(side: Side, unit: bytes) -> None:
    """Four times the bytes, in small pieces, take less than twelve times as long (the machine may be busy)."""

    def seconds(length: int) -> float:
        data = (unit * (length // len(unit) + 1))[:length]
        pieces = [data[at:at + 512] for at in range(0, length, 512)]
        begun = time.process_time()
        decode(side, pieces)
        return time.process_time() - begun

    short = min(seconds(1 << 18) for _ in range(3))
    assert min(seconds(1 << 20) for _ in range(2)) < 12 * short + 0.05
