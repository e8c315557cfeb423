"""Every frame against bytes put together by hand; the MAC."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from dsreg.protocol.codec import MAX_FRAME_SIZE, Bounds, Decoder, Encoder, Mac, Side
from dsreg.protocol.messages import (
    Ack,
    Command,
    Fenced,
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
from tests.protocol.frames import (
    A1,
    ATTACH,
    CLUSTER,
    DATA,
    E2,
    EPOCH,
    GET,
    GOOD_T2,
    KEYS,
    OWNER,
    PUT,
    RANKS,
    READ,
    SECTORS,
    STORE,
    T2,
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
    spoiled,
    tag,
)

TO_NODE: list[tuple[Message, bytes, int]] = [  # message, frame, length by the contract or by Part 2
    (Command(READ, 258, 999, 1), command(1, 258, 999), 56),
    (Command(WRITE, TOP, 0, 1, b"", DATA), command(2, TOP, 0, DATA), 4152),
    (ReadProc(2, 77, 5, 1, True, UUID), peer(2, 3, 77, 5), 72),
    (Value(3, TOP, 5, 1, full(TOP, 3), DATA, UUID), peer(3, 4, TOP, 5, tag(TOP, 3) + DATA), 4184),
    (Value(3, 1, 5, 1, full(0, 0), DATA, UUID), peer(3, 4, 1, 5, tag(0, 0) + DATA), 4184),
    (WriteProc(1, 77, 999, 1, full(9, 1), DATA, UUID), peer(1, 5, 77, 999, tag(9, 1) + DATA), 4184),
    (Ack(2, 77, 5, 1, UUID), peer(2, 6, 77, 5), 72),
    (Receipt(2, 3, UUID), receipt(2, 0x43), 56),
    (Receipt(2, 4, UUID), receipt(2, 0x44), 56),
    (Receipt(3, 5, UUID), receipt(3, 0x45), 56),
    (Receipt(1, 6, UUID), receipt(1, 0x46), 56),
    (Hello(0, False, CLUSTER, 5, 0, 6), extension(0x80, 0, 0, 0, greeting(1, 6, 5)), 112),
    (Hello(2, False, CLUSTER, 5, SECTORS, 6, 2), extension(0x90, 0, SECTORS, 0, greeting(2, 6, 5), rank=2), 112),
    # Of a node that is no member, or not yet.
    (Hello(9, False, CLUSTER, 5, SECTORS, 6, 2), extension(0x90, 0, SECTORS, 0, greeting(2, 6, 5), rank=9), 112),
    (Hello(2, True, CLUSTER, 5, SECTORS), extension(0xD0, 0, SECTORS, 0, greeting(1, 0, 5), rank=2), 112),
    (Command(READ, 4, 744, 256, extended=True), extension(0x81, 4, 744, 256), 72),
    (Command(TAG, 4, 0, 1, extended=True), extension(0x82, 4, 0, 1), 72),
    (Command(STORE, 4, 1, 2, GOOD_T2, DATA * 2, True), extension(0x83, 4, 1, 2, GOOD_T2 + DATA * 2), 8296),
    (StatusRequest(12), extension(0x84, 12), 72),
    (Command(READ, 4, 5, 6, extended=True, epoch=EPOCH), extension(0x81, 4, 5, 6, epoch=EPOCH), 72),
    (Command(STORE, 4, 1, 1, A1, DATA, True, EPOCH), extension(0x83, 4, 1, 1, A1 + DATA, epoch=EPOCH), 4184),
    (Command(GET, 4, 5, 6, extended=True), extension(0x85, 4, 5, 6), 72),
    (Command(GET, 4, 5, 6, b"", b"", True, 7, True), extension(0x85, 4, 5, 6, flags=1, epoch=7), 72),
    (Command(PUT, 4, 1, 2, A1 * 2, DATA * 2, True, EPOCH), extension(0x86, 4, 1, 2, A1 + DATA * 2, epoch=EPOCH), 8280),
    (Command(STORE, 4, 1, 2, E2, DATA * 2, True, EPOCH), extension(0x83, 4, 1, 2, E2 + DATA * 2, epoch=EPOCH), 8296),
    (Command.attach(4, EPOCH, OWNER), extension(0x87, 4, 0, 0, OWNER, epoch=EPOCH), 136),
    (Command.attach(4, 0, bytes(64)), extension(0x87, 4, 0, 0, bytes(64)), 136),
    (ReadProc(1, 5, 6, 7, False), extension(0x91, 5, 6, 7, rank=1), 72),
    (ReadProc(1, 5, 6, 7, True), extension(0x91, 5, 6, 7, rank=1, flags=1), 72),
    (Value(1, 5, 6, 2, T2, None), extension(0xD1, 5, 6, 2, T2, rank=1), 104),
    (Value(1, 5, 6, 2, T2, DATA * 2), extension(0xD1, 5, 6, 2, T2 + DATA * 2, rank=1, flags=1), 8296),
    (WriteProc(3, 5, 6, 2, T2, DATA * 2), extension(0x92, 5, 6, 2, T2 + DATA * 2, rank=3), 8296),
    (Ack(3, 5, 6, 2), extension(0xD2, 5, 6, 2, rank=3), 72),
    (Ack(3, 5, 6, 2, b"", True), extension(0xD2, 5, 6, 2, rank=3, status=9), 72),
    (Fenced(3, 5, 6, 2, EPOCH), extension(0xD2, 5, 6, 2, rank=3, status=5, epoch=EPOCH), 72),
    (ReadProc(1, 5, 6, 7, True, b"", 9), extension(0x91, 5, 6, 7, rank=1, flags=1, epoch=9), 72),
    (Value(1, 5, 6, 2, T2, None, b"", 9), extension(0xD1, 5, 6, 2, T2, rank=1, epoch=9), 104),
    (Value(1, 5, 6, 1, A1, DATA, b"", EPOCH), extension(0xD1, 5, 6, 1, A1 + DATA, rank=1, flags=1, epoch=EPOCH), 4184),
    (WriteProc(3, 5, 6, 2, E2, DATA * 2), extension(0x92, 5, 6, 2, E2 + DATA * 2, rank=3, epoch=EPOCH), 8296),
]
TO_CLIENT: list[tuple[Message, bytes, int]] = [
    (Response(Status.OK, READ, 258, b"", DATA), response(0, 0x41, 258, DATA), 4144),
    (Response(Status.AUTH_FAILURE, READ, 1), response(1, 0x41, 1), 48),
    (Response(Status.INVALID_SECTOR_INDEX, READ, 1), response(2, 0x41, 1), 48),
    (Response(Status.OK, WRITE, TOP), response(0, 0x42, TOP), 48),
    (Response(Status.INVALID_SECTOR_INDEX, WRITE, 1), response(2, 0x42, 1), 48),
    (Hello(0, True, CLUSTER, 5, SECTORS), extension(0xC0, 0, SECTORS, 0, greeting(1, 0, 5)), 112),
    (Response(Status.OK, READ, 4, b"", DATA * 3, True), extension(0xC1, 4, 0, 3, DATA * 3), 12360),
    (Response(Status.STOPPING, READ, 4, extended=True), extension(0xC1, 4, status=4), 72),
    (Response(Status.OK, TAG, 4, T2, b"", True), extension(0xC2, 4, 0, 2, T2), 104),
    (Response(Status.OK, STORE, 4, extended=True), extension(0xC3, 4), 72),
    (Response(Status.AUTH_FAILURE, STORE, 4, extended=True), extension(0xC3, 4, status=1), 72),
    (Response(Status.OK, READ, 4, b"", DATA, True, EPOCH), extension(0xC1, 4, 0, 1, DATA, epoch=EPOCH), 4168),
    (Response(Status.OK, READ, 4, T2, DATA * 2, True), extension(0xC1, 4, 0, 2, T2 + DATA * 2, flags=1), 8296),
    (Response(Status.OK, READ, 4, A1, DATA, True, 7), extension(0xC1, 4, 0, 1, A1 + DATA, flags=1, epoch=7), 4184),
    (Response(Status.FENCED, READ, 4, b"", b"", True, 7), extension(0xC1, 4, status=5, epoch=7), 72),
    (Response(Status.FENCED, PUT, 4, b"", b"", True, EPOCH), extension(0xC6, 4, status=5, epoch=EPOCH), 72),
    (Response(Status.REFUSED, GET, 4, b"", b"", True, 2), extension(0xC5, 4, status=6, epoch=2), 72),
    (Response(Status.UNSUPPORTED, ATTACH, 4, extended=True), extension(0xC7, 4, status=7), 72),
    (Response(Status.OK, GET, 4, T2, b"", True, 2), extension(0xC5, 4, 0, 2, T2, epoch=2), 104),
    (Response(Status.OK, GET, 4, T2, DATA * 2, True), extension(0xC5, 4, 0, 2, T2 + DATA * 2, flags=1), 8296),
    (Response(Status.OK, PUT, 4, extended=True), extension(0xC6, 4), 72),
    (Response(Status.DISBELIEVED, PUT, 4, b"", b"", True, 3), extension(0xC6, 4, status=8, epoch=3), 72),
    (Response(Status.OVERTAKEN, STORE, 4, b"", b"", True, 3), extension(0xC3, 4, status=9, epoch=3), 72),
    (Response(Status.OK, ATTACH, 4, b"", b"", True, 3, True, owner=OWNER),
     extension(0xC7, 4, 0, 0, OWNER + bytes(16), flags=1, epoch=3), 152),
    (Response(Status.OK, ATTACH, 4, b"", b"", True, 3, False, True, True, TOP, 0x10203, OWNER),
     extension(0xC7, 4, 0, 0, OWNER + b"\xff" * 8 + bytes([0, 1, 2, 3]) + bytes(4), flags=6, epoch=3), 152),
    (StatusReport(4, b'{"rank": 1}'), extension(0xC4, 4, content=b'{"rank": 1}'), 83),
    (StatusReport(4, b"x" * 65536), extension(0xC4, 4, content=b"x" * 65536), 65608),
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
    assert any(part is data for part in Encoder(KEYS).encode(WriteProc(1, 2, 3, 1, full(1, 1), data, UUID)))


def test_the_largest_frame() -> None:
    message = Command(STORE, 1, 0, 256, full(1, 1) * 256, DATA * 256, True)
    frame = b"".join(Encoder(KEYS).encode(message))
    assert len(frame) == MAX_FRAME_SIZE
    decoder = node()
    assert decoder.feed(frame[:-1]) == [] and decoder.buffered == MAX_FRAME_SIZE - 1
    assert decoder.feed(frame[-1:]) == [message]


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
        Decoder(KEYS._replace(system=b""), bounds=Bounds(1, RANKS), side=Side.NODE)
    with pytest.raises(AssertionError):
        Mac(b"")


@pytest.mark.parametrize(
    "message",
    [
        Command(READ, 1, 1, 2),
        Command(WRITE, 1, 1, 1, b"", DATA[1:]),
        Command(STORE, 1, 1, 1, b"", DATA, True),
        Command(READ, 1, 1, 257, extended=True),
        Command(GET, 1, 1, 1, A1, b"", True),
        Command(PUT, 1, 1, 2, A1, DATA * 2, True, EPOCH),
        Command.attach(1, 1, OWNER[1:]),
        Command.attach(1, 1, OWNER)._replace(first=1, count=1),
        Response(Status.FENCED, GET, 1, T2, b"", True),
        Response(Status.OK, READ, 1, T2, b"", True),  # the tags of a READ are those of what it has read
        Response(Status.OK, READ, 1, T2, DATA, True),
        Response(Status.OK, READ, 1, A1, DATA * 2, True),
        Response(Status.OK, READ, 1, A1[1:], DATA, True),
        Response(Status.OK, READ, 1, A1, DATA),  # the contract knows no such answer
        Response(Status.FENCED, READ, 1, A1, DATA, True),
        WriteProc(1, 1, 1, 1, A1, DATA, UUID),  # the contract knows no epochs
        Value(1, 1, 1, 1, full(5, 1, 7), DATA, UUID),
        Response(Status.OK, READ, 1),
        Response(Status.STOPPING, READ, 1),
        Response(Status.INVALID_SECTOR_INDEX, READ, 1, b"", DATA),
        ReadProc(1, 1, 1, 1, False, UUID),
        ReadProc(1, 1, 1, 2, True, UUID),
        Value(1, 1, 1, 1, full(1, 1), None, UUID),
        Value(1, 1, 1, 2, full(1, 1), None),
        WriteProc(0, 1, 1, 1, full(1, 1), DATA),
        Ack(1, 1, 1, 1, UUID[1:]),
        Receipt(1, 0x43, UUID),
        Hello(0, False, b"short", 1, 1),
        StatusReport(1, bytes(65537)),
    ],
)
def test_a_message_without_a_layout_is_a_bug(message: Message) -> None:
    with pytest.raises(AssertionError):
        Encoder(KEYS).encode(message)
