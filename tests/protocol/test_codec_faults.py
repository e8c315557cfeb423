"""What becomes of a frame with one fault, and what a receiver ignores."""

from __future__ import annotations

import pytest

from dsreg.protocol.messages import (
    Ack,
    Command,
    CommandKind,
    Hello,
    Message,
    Receipt,
    RefusedCommand,
    Response,
    Status,
    Value,
    WriteProc,
)
from tests.protocol.frames import (
    A1,
    ATTACH,
    CLUSTER,
    DATA,
    EPOCH,
    GET,
    GOOD_T2,
    KEYS,
    OWNER,
    PUT,
    READ,
    STORE,
    TAG,
    TOP,
    UUID,
    WRITE,
    client,
    command,
    extension,
    full,
    greeting,
    node,
    peer,
    receipt,
    response,
    signed,
    spoiled,
    tag,
)
from tests.protocol.test_codec_frames import TO_NODE


# --- what a receiver ignores ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (command(1, 258, 999, pad=b"\1\2\3"), Command(READ, 258, 999, 1)),
        (peer(2, 6, 77, 5, pad=b"\1\2"), Ack(2, 77, 5, 1, UUID)),
        (peer(1, 5, 7, 9, tag(9, 1, b"garbage") + DATA), WriteProc(1, 7, 9, 1, full(9, 1), DATA, UUID)),
        (peer(1, 4, 7, 9, tag(0, 0, b"garbage") + DATA), Value(1, 7, 9, 1, full(0, 0), DATA, UUID)),
        (receipt(2, 0x44, pad=b"\xff\xff"), Receipt(2, 4, UUID)),
        (extension(0x81, 4, 5, 6, pad=9, status=4, rank=200, flags=0xFFFF), Command(READ, 4, 5, 6, extended=True)),
        (extension(0x80, 8, 0, 3, greeting(zero=b"reserved")), Hello(0, False, CLUSTER, 0, 0)),
    ],
)
def test_pads_are_ignored(frame: bytes, message: Message) -> None:
    assert node().feed(frame) == [message]


def test_a_client_ignores_pads() -> None:
    assert client().feed(response(0, 0x42, 5, pad=b"xy")) == [Response(Status.OK, WRITE, 5)]
    fenced = extension(0xC1, 4, status=5, flags=0xFFFF, epoch=7)  # a failure has no content, whatever the flags
    assert client().feed(fenced) == [Response(Status.FENCED, READ, 4, b"", b"", True, 7)]
    unknown = extension(0xC1, 4, 0, 1, DATA, flags=0xFFFC)
    assert client().feed(unknown) == [Response(Status.OK, READ, 4, b"", DATA, True)]


# --- one fault --------------------------------------------------------------------------------
NEXT = command(1, 31337, 1)
NEXT_MESSAGE = Command(READ, 31337, 1, 1)


def refused(status: int, kind: CommandKind, request: int, extended: bool = False) -> RefusedCommand:
    return RefusedCommand(Status(status), kind, request, extended)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (spoiled(command(1, 8, 1)), refused(1, READ, 8)),
        (spoiled(command(2, 8, 1, DATA)), refused(1, WRITE, 8)),
        (spoiled(command(2, 8, 1, DATA), 100), refused(1, WRITE, 8)),
        (spoiled(command(1, 8, 1, pad=b"abc"), 5), refused(1, READ, 8)),  # the pad is signed
        (command(1, 8, 1000), refused(2, READ, 8)),
        (command(2, 8, TOP, DATA), refused(2, WRITE, 8)),
        (spoiled(command(2, 8, TOP, DATA)), refused(1, WRITE, 8)),  # AuthFailure comes first
        (spoiled(extension(0x81, 8, 1, 1)), refused(1, READ, 8, True)),
        (spoiled(extension(0x82, 8, 1000, 1)), refused(1, TAG, 8, True)),
        (spoiled(extension(0x83, 8, 1, 1, full(1, 1) + DATA), 60), refused(1, STORE, 8, True)),
        (extension(0x81, 8, 0, 0), refused(2, READ, 8, True)),
        (extension(0x81, 8, 0, 257), refused(2, READ, 8, True)),
        (extension(0x82, 8, 999, 2), refused(2, TAG, 8, True)),
        (extension(0x82, 8, TOP, 1), refused(2, TAG, 8, True)),
        (extension(0x83, 8, 0, 0), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 999, 2, GOOD_T2 + DATA * 2), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, full(0, 0) + DATA), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, full(1, 4) + DATA), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, full(1, 255) + DATA), refused(2, STORE, 8, True)),  # an attachment's, and of none
        (extension(0x83, 8, 0, 1, full(0, 1) + DATA), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, full(0, 0, 0, 1) + DATA), refused(2, STORE, 8, True)),
        (extension(0x81, 8, 0, 1, epoch=1 << 24), refused(2, READ, 8, True)),
        (spoiled(extension(0x85, 8, 1, 1)), refused(1, GET, 8, True)),
        (extension(0x85, 8, 999, 2, flags=1), refused(2, GET, 8, True)),
        (extension(0x85, 8, 0, 257), refused(2, GET, 8, True)),
        (spoiled(extension(0x86, 8, 1, 1, A1 + DATA, epoch=EPOCH)), refused(1, PUT, 8, True)),
        (extension(0x86, 8, 0, 0, A1, epoch=EPOCH), refused(2, PUT, 8, True)),
        (extension(0x86, 8, 999, 2, A1 + DATA * 2, epoch=EPOCH), refused(2, PUT, 8, True)),
        (extension(0x86, 8, 1, 1, A1 + DATA), refused(2, PUT, 8, True)),  # of another epoch than the command
        (extension(0x86, 8, 1, 1, A1 + DATA, epoch=EPOCH + 1), refused(2, PUT, 8, True)),
        (extension(0x86, 8, 1, 1, full(5, 1) + DATA), refused(2, PUT, 8, True)),  # of no attachment
        (extension(0x86, 8, 1, 1, full(5, 4, 0, EPOCH) + DATA, epoch=EPOCH), refused(2, PUT, 8, True)),
        (extension(0x86, 8, 1, 1, full(0, 1, 0, EPOCH) + DATA, epoch=EPOCH), refused(2, PUT, 8, True)),
        (extension(0x83, 8, 0, 1, full(0, 0, 0, EPOCH) + DATA, epoch=EPOCH + 1), refused(2, STORE, 8, True)),
        (spoiled(extension(0x87, 8, 0, 0, OWNER)), refused(1, ATTACH, 8, True)),
        (extension(0x87, 8, 0, 0, OWNER, epoch=1 << 24), refused(2, ATTACH, 8, True)),
    ],
)
def test_a_bad_command_is_refused(frame: bytes, message: RefusedCommand) -> None:
    assert node().feed(frame + NEXT) == [message, NEXT_MESSAGE]


BAD_MAC: list[bytes] = [
    *(spoiled(frame) for message, frame, _ in TO_NODE if not isinstance(message, Command)),
    signed(KEYS.client, peer(2, 6, 77, 5)[:-32]),  # the other key
    extension(0x91, 5, 6, 7, rank=1, key=KEYS.client),
]
BAD_FIELD: list[bytes] = [
    peer(0, 3, 1, 1),
    peer(4, 3, 1, 1),
    peer(255, 6, 1, 1),
    peer(1, 3, 1, 1000),
    peer(1, 6, 1, TOP),
    peer(1, 4, 1, 1000, tag(1, 1) + DATA),
    peer(1, 4, 1, 1, tag(1, 4) + DATA),
    peer(1, 4, 1, 1, tag(0, 1) + DATA),
    peer(1, 5, 1, 1, tag(1, 0) + DATA),
    receipt(4, 0x43),
    extension(0x90, 0, 5, 0, greeting(), rank=0),
    extension(0x90, 0, 5, 0, greeting(), rank=255),
    extension(0xD0, 0, rank=1, status=1),
    extension(0x91, 5, 6, 7, rank=0),
    extension(0x91, 5, 6, 0, rank=1),
    extension(0x91, 5, 6, 257, rank=1),
    extension(0xD2, 5, 999, 2, rank=1),
    extension(0xD2, 5, 6, 2, rank=1, status=1),
    extension(0xD1, 5, 6, 2, rank=1, status=1),
    extension(0xD1, 5, 6, 2, full(7, 2) + full(0, 1), rank=1),
    extension(0xD1, 5, 6, 2, full(7, 2) + full(1, 0), rank=1),
    extension(0xD1, 5, 6, 2, full(7, 2) + full(7, 4), rank=1),
    extension(0xD1, 5, 6, 1, full(7, 255), rank=1),
    extension(0x92, 5, 6, 1, full(0, 2) + DATA, rank=1),
    extension(0xD1, 5, 6, 1, full(0, 0, 1), rank=1),
    extension(0x91, 5, 6, 1, rank=1, epoch=1 << 24),
    extension(0xD1, 5, 6, 1, full(7, 2), rank=1, epoch=1 << 24),
    extension(0xD2, 5, 6, 1, rank=1, status=5, epoch=1 << 24),
    extension(0xD2, 5, 6, 1, rank=1, status=6),
    extension(0x92, 5, 6, 1, full(7, 2) + DATA, rank=1, epoch=1),  # the tags are of another epoch
    extension(0x92, 5, 6, 1, full(7, 2, 0, 1) + DATA, rank=1),
    extension(0x92, 5, 6, 2, full(7, 2, 0, 1) + full(7, 2) + DATA * 2, rank=1, epoch=1),
    peer(1, 5, 1, 1, tag(1, 255) + DATA),
]


@pytest.mark.parametrize(
    ("frame", "counter"), [(frame, "bad_mac") for frame in BAD_MAC] + [(frame, "bad_field") for frame in BAD_FIELD]
)
def test_a_bad_node_message_is_dropped_whole_and_counted(frame: bytes, counter: str) -> None:
    decoder = node()
    assert decoder.feed(frame + NEXT) == [NEXT_MESSAGE]
    assert decoder.counters == {counter: 1}


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (spoiled(response(0, 0x41, 1, DATA)), "bad_mac"),
        (spoiled(extension(0xC1, 4, 0, 3, DATA * 3)), "bad_mac"),
        (spoiled(extension(0xC0, 0, 5, 0, greeting())), "bad_mac"),
        (response(3, 0x42, 1), "bad_field"),
        (response(4, 0x41, 1), "bad_field"),
        (extension(0xC1, 4, status=99), "bad_field"),
        (extension(0xC1, 4), "bad_field"),  # ok, and nothing read
        (extension(0xC1, 4, flags=1), "bad_field"),
        (spoiled(extension(0xC1, 4, 0, 1, A1 + DATA, flags=1), 45), "bad_mac"),
        (extension(0xC2, 4), "bad_field"),
        (extension(0xC5, 4), "bad_field"),
        (extension(0xC6, 4, status=3), "bad_field"),
        (extension(0xC4, 4, status=1), "bad_field"),
    ],
)
def test_a_bad_response_is_dropped_whole_and_counted(frame: bytes, counter: str) -> None:
    decoder = client()
    assert decoder.feed(frame + response(0, 0x42, 5)) == [Response(Status.OK, WRITE, 5)]
    assert decoder.counters == {counter: 1}


@pytest.mark.parametrize(
    "frame",
    [
        spoiled(extension(0x81, 4, 5, 6), 39),  # check
        spoiled(extension(0x81, 4, 5, 6), 35),  # the epoch that it is of
        spoiled(extension(0x81, 4, 5, 6), 20),  # what it is of
        extension(0x81, 4, 5, 6, length=1),
        extension(0x83, 4, 5, 1, full(1, 1) + DATA, length=4096),
        extension(0x83, 4, 5, 257, length=257 * 4112),
        extension(0xD1, 4, 5, 1, rank=1, flags=1, length=16),
        extension(0xD2, 4, 5, 1, rank=1, status=1, length=16),
        extension(0x80, 0, content=bytes(39)),
        extension(0x85, 4, 5, 1, content=bytes(16)),
        extension(0x86, 4, 5, 1, epoch=1, content=bytes(16)),
        extension(0x86, 4, 5, 2, epoch=1, content=bytes(2 * 4112)),
        extension(0x86, 4, 5, 257, epoch=1, length=16 + 257 * 4096),
        extension(0x87, 4, epoch=1),
        extension(0x87, 4, epoch=1, content=bytes(63)),
    ],
)
def test_a_bad_extension_header_costs_eight_bytes(frame: bytes) -> None:
    decoder = node()
    # The rest of the frame is garbage to slide over, and a frame inside it is found.
    assert decoder.feed(frame[:40] + NEXT) == [NEXT_MESSAGE]
    assert decoder.counters == {"bad_header": 1, "skipped_bytes": 40}


@pytest.mark.parametrize(
    "frame",
    [
        extension(0xC1, 4, 0, 1, A1 + DATA),  # tags, and no flag that says so
        extension(0xC1, 4, 0, 1, DATA, flags=1),  # the flag, and no tags
        extension(0xC1, 4, 0, 1, A1, flags=1),  # tags, and no data
        extension(0xC1, 4, 0, 2, A1 + DATA * 2, flags=1),
        extension(0xC1, 4, 0, 1, A1 + DATA, flags=1, status=5),
        extension(0xC1, 4, 0, 1, A1 + DATA, flags=1, length=4111),
        extension(0xC1, 4, 0, 257, flags=1, length=257 * 4112),
    ],
)
def test_an_answer_to_a_read_of_a_wrong_length_costs_eight_bytes(frame: bytes) -> None:
    decoder = client()
    assert decoder.feed(frame[:40] + response(0, 0x42, 5)) == [Response(Status.OK, WRITE, 5)]
    assert decoder.counters == {"bad_header": 1, "skipped_bytes": 40}


@pytest.mark.parametrize("type_", [0x00, 0x07, 0x40, 0x41, 0x42, 0x47, 0x7F, 0x81, 0x83, 0x92, 0xC0, 0xD1, 0xFF])
def test_an_unknown_type_costs_eight_bytes(type_: int) -> None:
    decoder = node(extended=False)
    assert decoder.feed(b"atdd\0\0\1" + bytes([type_]) + NEXT) == [NEXT_MESSAGE]
    assert decoder.counters == {"unknown_type": 1, "skipped_bytes": 8}


def test_a_magic_within_the_eight_bytes_is_not_looked_at() -> None:
    decoder = node()
    assert decoder.feed(b"atdd" + NEXT) == []  # type byte 'd', unknown: the second magic goes with it
    assert decoder.counters["unknown_type"] == 1


def test_greetings_need_no_extension_and_the_rest_does() -> None:
    decoder = node(extended=False)
    hello, run = extension(0x80, 0, content=greeting()), extension(0x81, 4, 5, 6)
    assert decoder.feed(run + hello) == [Hello(0, False, CLUSTER, 0, 0)]
    decoder.extended = True
    assert decoder.extended
    assert decoder.feed(run) == [Command(READ, 4, 5, 6, extended=True)]
    decoder.extended = False
    assert decoder.feed(run) == []
