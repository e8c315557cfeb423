"""Every frame against bytes put together by hand, and what becomes of a frame with one fault."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

import pytest

from dsreg.core.codec import MAX_FRAME_SIZE, Decoder, Encoder, Keys, Mac, Side
from dsreg.core.messages import (
    Ack,
    Command,
    CommandKind,
    Hello,
    Message,
    ReadProc,
    Receipt,
    RefusedCommand,
    Response,
    Status,
    StatusReport,
    StatusRequest,
    Value,
    WriteProc,
)

READ, WRITE, TAG, STORE = CommandKind.READ, CommandKind.WRITE, CommandKind.TAG, CommandKind.STORE
KEYS = Keys(client=bytes(range(32)), system=bytes(range(100, 164)))
SECTORS = 1000
RANKS = frozenset({1, 2, 3})
UUID = bytes(range(200, 216))
DATA = bytes(range(256)) * 16
CLUSTER = b"0123456789abcdef"


def signed(key: bytes, body: bytes) -> bytes:
    return body + hmac.new(key, body, hashlib.sha256).digest()


def command(type_: int, request: int, sector: int, content: bytes = b"", pad: bytes = bytes(3)) -> bytes:
    return signed(KEYS.client, b"atdd" + pad + struct.pack(">BQQ", type_, request, sector) + content)


def response(status: int, type_: int, request: int, content: bytes = b"", pad: bytes = bytes(2)) -> bytes:
    return signed(KEYS.client, b"atdd" + pad + struct.pack(">BBQ", status, type_, request) + content)


def peer(rank: int, type_: int, rid: int, sector: int, content: bytes = b"", pad: bytes = bytes(2)) -> bytes:
    head = b"atdd" + pad + bytes([rank, type_]) + UUID + struct.pack(">QQ", rid, sector)
    return signed(KEYS.system, head + content)


def receipt(rank: int, type_: int, pad: bytes = bytes(2)) -> bytes:
    return signed(KEYS.system, b"atdd" + pad + bytes([rank, type_]) + UUID)


def tag(ts: int, wr: int, pad: bytes = bytes(7)) -> bytes:
    return struct.pack(">Q", ts) + pad + bytes([wr])


def extension(
    type_: int, id_: int, first: int = 0, count: int = 0, content: bytes = b"", *, status: int = 0, rank: int = 0,
    flags: int = 0, pad: int = 0, length: int | None = None, key: bytes | None = None,
) -> bytes:
    head = b"atdd" + bytes([pad, status, rank, type_]) + struct.pack(
        ">QQHHI", id_, first, count, flags, len(content) if length is None else length
    )
    if key is None:
        key = KEYS.system if type_ in (0x90, 0x91, 0x92, 0xD0, 0xD1, 0xD2) else KEYS.client
    return signed(key, head + struct.pack(">I", zlib.crc32(head)) + content)


def greeting(version: int = 1, features: int = 0, incarnation: int = 0, zero: bytes = bytes(8)) -> bytes:
    return struct.pack(">HHI", version, 0, features) + CLUSTER + struct.pack(">Q", incarnation) + zero


def node(extended: bool = True) -> Decoder:
    return Decoder(KEYS, sectors=SECTORS, ranks=RANKS, side=Side.NODE, extended=extended)


def client() -> Decoder:
    return Decoder(KEYS._replace(system=b""), sectors=0, ranks=frozenset(), side=Side.CLIENT, extended=True)


T2 = tag(7, 2) + tag(0, 0)
GOOD_T2 = tag(7, 2) + tag(8, 3)
TOP = 2**64 - 1

TO_NODE: list[tuple[Message, bytes, int]] = [  # message, frame, length by the contract or by Part 2
    (Command(READ, 258, 999, 1), command(1, 258, 999), 56),
    (Command(WRITE, TOP, 0, 1, b"", DATA), command(2, TOP, 0, DATA), 4152),
    (ReadProc(2, 77, 5, 1, True, UUID), peer(2, 3, 77, 5), 72),
    (Value(3, TOP, 5, 1, tag(TOP, 3), DATA, UUID), peer(3, 4, TOP, 5, tag(TOP, 3) + DATA), 4184),
    (Value(3, 1, 5, 1, tag(0, 0), DATA, UUID), peer(3, 4, 1, 5, tag(0, 0) + DATA), 4184),
    (WriteProc(1, 77, 999, 1, tag(9, 1), DATA, UUID), peer(1, 5, 77, 999, tag(9, 1) + DATA), 4184),
    (Ack(2, 77, 5, 1, UUID), peer(2, 6, 77, 5), 72),
    (Receipt(2, 3, UUID), receipt(2, 0x43), 56),
    (Receipt(2, 4, UUID), receipt(2, 0x44), 56),
    (Receipt(3, 5, UUID), receipt(3, 0x45), 56),
    (Receipt(1, 6, UUID), receipt(1, 0x46), 56),
    (Hello(0, False, CLUSTER, 5, 0, 6), extension(0x80, 0, 0, 0, greeting(1, 6, 5)), 108),
    (Hello(2, False, CLUSTER, 5, SECTORS, 6, 2), extension(0x90, 0, SECTORS, 0, greeting(2, 6, 5), rank=2), 108),
    (Hello(2, True, CLUSTER, 5, SECTORS), extension(0xD0, 0, SECTORS, 0, greeting(1, 0, 5), rank=2), 108),
    (Command(READ, 4, 744, 256, extended=True), extension(0x81, 4, 744, 256), 68),
    (Command(TAG, 4, 0, 1, extended=True), extension(0x82, 4, 0, 1), 68),
    (Command(STORE, 4, 1, 2, GOOD_T2, DATA * 2, True), extension(0x83, 4, 1, 2, GOOD_T2 + DATA * 2), 8292),
    (StatusRequest(12), extension(0x84, 12), 68),
    (ReadProc(1, 5, 6, 7, False), extension(0x91, 5, 6, 7, rank=1), 68),
    (ReadProc(1, 5, 6, 7, True), extension(0x91, 5, 6, 7, rank=1, flags=1), 68),
    (Value(1, 5, 6, 2, T2, None), extension(0xD1, 5, 6, 2, T2, rank=1), 100),
    (Value(1, 5, 6, 2, T2, DATA * 2), extension(0xD1, 5, 6, 2, T2 + DATA * 2, rank=1, flags=1), 8292),
    (WriteProc(3, 5, 6, 2, T2, DATA * 2), extension(0x92, 5, 6, 2, T2 + DATA * 2, rank=3), 8292),
    (Ack(3, 5, 6, 2), extension(0xD2, 5, 6, 2, rank=3), 68),
]
TO_CLIENT: list[tuple[Message, bytes, int]] = [
    (Response(Status.OK, READ, 258, b"", DATA), response(0, 0x41, 258, DATA), 4144),
    (Response(Status.AUTH_FAILURE, READ, 1), response(1, 0x41, 1), 48),
    (Response(Status.INVALID_SECTOR_INDEX, READ, 1), response(2, 0x41, 1), 48),
    (Response(Status.OK, WRITE, TOP), response(0, 0x42, TOP), 48),
    (Response(Status.INVALID_SECTOR_INDEX, WRITE, 1), response(2, 0x42, 1), 48),
    (Hello(0, True, CLUSTER, 5, SECTORS), extension(0xC0, 0, SECTORS, 0, greeting(1, 0, 5)), 108),
    (Response(Status.OK, READ, 4, b"", DATA * 3, True), extension(0xC1, 4, 0, 3, DATA * 3), 12356),
    (Response(Status.STOPPING, READ, 4, extended=True), extension(0xC1, 4, status=4), 68),
    (Response(Status.OK, TAG, 4, T2, b"", True), extension(0xC2, 4, 0, 2, T2), 100),
    (Response(Status.OK, STORE, 4, extended=True), extension(0xC3, 4), 68),
    (Response(Status.AUTH_FAILURE, STORE, 4, extended=True), extension(0xC3, 4, status=1), 68),
    (StatusReport(4, b'{"rank": 1}'), extension(0xC4, 4, content=b'{"rank": 1}'), 79),
    (StatusReport(4, b"x" * 65536), extension(0xC4, 4, content=b"x" * 65536), 65604),
]


@pytest.mark.parametrize(("message", "frame", "size"), TO_NODE + TO_CLIENT)
def test_encoding_gives_the_bytes_of_the_contract(message: Message, frame: bytes, size: int) -> None:
    assert b"".join(Encoder(KEYS).encode(message)) == frame
    assert len(frame) == size


@pytest.mark.parametrize(("message", "frame"), [case[:2] for case in TO_NODE])
def test_a_node_decodes_them(message: Message, frame: bytes) -> None:
    decoder = node()
    decoded = decoder.feed(frame)
    assert decoded == [message]
    assert type(decoded[0]) is type(message)
    assert decoder.buffered == 0 and not decoder.counters


@pytest.mark.parametrize(("message", "frame"), [case[:2] for case in TO_CLIENT])
def test_a_client_decodes_them(message: Message, frame: bytes) -> None:
    decoder = client()
    assert decoder.feed(frame) == [message]
    assert decoder.buffered == 0 and not decoder.counters


def test_refusing_a_command_is_a_response_without_content() -> None:
    encoder = Encoder(KEYS)
    refused = RefusedCommand(Status.AUTH_FAILURE, WRITE, 9)
    assert b"".join(encoder.encode(refused)) == response(1, 0x42, 9)
    assert b"".join(encoder.encode(refused._replace(kind=STORE, extended=True))) == extension(0xC3, 9, status=1)


def test_payloads_are_not_copied() -> None:
    data = memoryview(bytearray(DATA))
    assert any(part is data for part in Encoder(KEYS).encode(WriteProc(1, 2, 3, 1, tag(1, 1), data, UUID)))


def test_the_largest_frame() -> None:
    message = Command(STORE, 1, 0, 256, tag(1, 1) * 256, DATA * 256, True)
    frame = b"".join(Encoder(KEYS).encode(message))
    assert len(frame) == MAX_FRAME_SIZE
    decoder = node()
    assert decoder.feed(frame[:-1]) == [] and decoder.buffered == MAX_FRAME_SIZE - 1
    assert decoder.feed(frame[-1:]) == [message]


# --- what a receiver ignores ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (command(1, 258, 999, pad=b"\1\2\3"), Command(READ, 258, 999, 1)),
        (peer(2, 6, 77, 5, pad=b"\1\2"), Ack(2, 77, 5, 1, UUID)),
        (peer(1, 5, 7, 9, tag(9, 1, b"garbage") + DATA), WriteProc(1, 7, 9, 1, tag(9, 1), DATA, UUID)),
        (peer(1, 4, 7, 9, tag(0, 0, b"garbage") + DATA), Value(1, 7, 9, 1, tag(0, 0), DATA, UUID)),
        (receipt(2, 0x44, pad=b"\xff\xff"), Receipt(2, 4, UUID)),
        (extension(0x81, 4, 5, 6, pad=9, status=4, rank=200, flags=0xFFFF), Command(READ, 4, 5, 6, extended=True)),
        (extension(0x80, 8, 0, 3, greeting(zero=b"reserved")), Hello(0, False, CLUSTER, 0, 0)),
    ],
)
def test_pads_are_ignored(frame: bytes, message: Message) -> None:
    assert node().feed(frame) == [message]


def test_a_client_ignores_pads() -> None:
    assert client().feed(response(0, 0x42, 5, pad=b"xy")) == [Response(Status.OK, WRITE, 5)]


# --- one fault --------------------------------------------------------------------------------
NEXT = command(1, 31337, 1)
NEXT_MESSAGE = Command(READ, 31337, 1, 1)


def spoiled(frame: bytes, at: int = -1) -> bytes:
    changed = bytearray(frame)
    changed[at] ^= 1
    return bytes(changed)


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
        (spoiled(extension(0x83, 8, 1, 1, tag(1, 1) + DATA), 60), refused(1, STORE, 8, True)),
        (extension(0x81, 8, 0, 0), refused(2, READ, 8, True)),
        (extension(0x81, 8, 0, 257), refused(2, READ, 8, True)),
        (extension(0x82, 8, 999, 2), refused(2, TAG, 8, True)),
        (extension(0x82, 8, TOP, 1), refused(2, TAG, 8, True)),
        (extension(0x83, 8, 0, 0), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 999, 2, GOOD_T2 + DATA * 2), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, tag(0, 0) + DATA), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, tag(1, 4) + DATA), refused(2, STORE, 8, True)),
        (extension(0x83, 8, 0, 1, tag(1, 1, b"padding") + DATA), refused(2, STORE, 8, True)),
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
    extension(0x90, 0, 5, 0, greeting(), rank=4),
    extension(0xD0, 0, rank=1, status=1),
    extension(0x91, 5, 6, 7, rank=0),
    extension(0x91, 5, 6, 0, rank=1),
    extension(0x91, 5, 6, 257, rank=1),
    extension(0xD2, 5, 999, 2, rank=1),
    extension(0xD2, 5, 6, 2, rank=1, status=1),
    extension(0xD1, 5, 6, 2, rank=1, status=1),
    extension(0xD1, 5, 6, 2, tag(7, 2) + tag(0, 1), rank=1),
    extension(0xD1, 5, 6, 2, tag(7, 2) + tag(1, 0), rank=1),
    extension(0xD1, 5, 6, 2, tag(7, 2) + tag(7, 4), rank=1),
    extension(0xD1, 5, 6, 1, tag(7, 2, b"\1" + bytes(6)), rank=1),
    extension(0x92, 5, 6, 1, tag(0, 2) + DATA, rank=1),
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
        (extension(0xC1, 4, status=9), "bad_field"),
        (extension(0xC1, 4), "bad_field"),  # ok, and nothing read
        (extension(0xC2, 4), "bad_field"),
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
        spoiled(extension(0x81, 4, 5, 6), 35),  # check
        spoiled(extension(0x81, 4, 5, 6), 20),  # what it is of
        extension(0x81, 4, 5, 6, length=1),
        extension(0x83, 4, 5, 1, tag(1, 1) + DATA, length=4096),
        extension(0x83, 4, 5, 257, length=257 * 4112),
        extension(0xD1, 4, 5, 1, rank=1, flags=1, length=16),
        extension(0xD2, 4, 5, 1, rank=1, status=1, length=16),
        extension(0x80, 0, content=bytes(39)),
    ],
)
def test_a_bad_extension_header_costs_eight_bytes(frame: bytes) -> None:
    decoder = node()
    # The rest of the frame is garbage to slide over, and a frame inside it is found.
    assert decoder.feed(frame[:36] + NEXT) == [NEXT_MESSAGE]
    assert decoder.counters == {"bad_header": 1, "skipped_bytes": 36}


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


# --- the MAC and the keys ---------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 4096])
@pytest.mark.parametrize("key", [b"k", KEYS.client, KEYS.system])
def test_mac_is_hmac_sha256(key: bytes, size: int) -> None:
    text, mac = bytes(size), Mac(key)
    expected = hmac.new(key, text, hashlib.sha256).digest()
    assert mac.sign(text) == mac.sign(text[:7], memoryview(text)[7:]) == expected
    assert mac.verify(memoryview(expected), text)
    assert not mac.verify(spoiled(expected), text)


def test_without_a_system_key_nothing_is_signed_with_an_empty_one() -> None:
    encoder = Encoder(KEYS._replace(system=b""))
    with pytest.raises(AssertionError):
        encoder.encode(Ack(1, 1, 1, 1, UUID))
    with pytest.raises(AssertionError):
        Decoder(KEYS._replace(system=b""), sectors=1, ranks=RANKS, side=Side.NODE)
    with pytest.raises(AssertionError):
        Mac(b"")


@pytest.mark.parametrize(
    "message",
    [
        Command(READ, 1, 1, 2),
        Command(WRITE, 1, 1, 1, b"", DATA[1:]),
        Command(STORE, 1, 1, 1, b"", DATA, True),
        Command(READ, 1, 1, 257, extended=True),
        Response(Status.OK, READ, 1),
        Response(Status.STOPPING, READ, 1),
        Response(Status.INVALID_SECTOR_INDEX, READ, 1, b"", DATA),
        ReadProc(1, 1, 1, 1, False, UUID),
        ReadProc(1, 1, 1, 2, True, UUID),
        Value(1, 1, 1, 1, tag(1, 1), None, UUID),
        Value(1, 1, 1, 2, tag(1, 1), None),
        WriteProc(0, 1, 1, 1, tag(1, 1), DATA),
        Ack(1, 1, 1, 1, UUID[1:]),
        Receipt(1, 0x43, UUID),
        Hello(0, False, b"short", 1, 1),
        StatusReport(1, bytes(65537)),
    ],
)
def test_a_message_without_a_layout_is_a_bug(message: Message) -> None:
    with pytest.raises(AssertionError):
        Encoder(KEYS).encode(message)
