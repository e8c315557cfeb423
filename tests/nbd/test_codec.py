"""The codec: what is encoded is decoded, however it is split; and no bytes do any harm."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbd_frontend import codec, numbers
from nbd_frontend.codec import (
    MAX_DROPPED_OPTION_BYTES,
    MAX_OPTION_BYTES,
    MAX_PAYLOAD_BYTES,
    Broken,
    Option,
    OptionDecoder,
    Request,
    RequestDecoder,
)
from nbd_frontend.numbers import CommandType, HandshakeFlag, OptionType, Reply
from tests.nbd import client

FLAGS = struct.pack(">I", 3)
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
NAMES = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40)
OPTIONS = st.builds(Option, U32, st.binary(max_size=200))
PAYLOADS = st.binary(min_size=1, max_size=200)
REQUESTS = st.one_of(
    st.builds(Request, U16, U16.filter(lambda kind: kind != CommandType.WRITE), U64, U64, U32, st.just(b"")),
    st.builds(lambda flags, cookie, offset, data: Request(flags, CommandType.WRITE, cookie, offset, len(data), data),
              U16, U64, U64, PAYLOADS),
)


def option_bytes(option: Option) -> bytes:
    assert option.data is not None
    return client.option(option.number, option.data)


def request_bytes(request: Request) -> bytes:
    flags, kind, cookie, offset, length, data = request
    return client.request(kind, offset, length, cookie=cookie, flags=flags, data=data or b"")


def split(data: bytes, rng: random.Random) -> list[bytes]:
    """In pieces of every size from 1 byte on."""
    pieces = []
    while data:
        size = min(len(data), rng.choice((1, 2, 7, 16, 28, 300, 1 << 20)))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def decoded(decoder: OptionDecoder | RequestDecoder, pieces: Sequence[bytes]) -> list[object]:
    """All that comes out, up to something broken."""
    found: list[object] = []
    for piece in pieces:
        decoder.feed(piece)
        while (item := decoder.next()) is not None:
            found.append(item)
            if isinstance(item, Broken):
                return found
    return found


# --- round trips ----------------------------------------------------------------------------------
@given(st.lists(OPTIONS, max_size=5), st.randoms(use_true_random=False))
def test_options_come_out_as_they_went_in(options: list[Option], rng: random.Random) -> None:
    decoder = OptionDecoder()
    stream = FLAGS + b"".join(map(option_bytes, options))
    assert decoded(decoder, split(stream, rng)) == options
    assert decoder.flags == HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    assert decoder.kept == 0


@given(st.lists(REQUESTS, max_size=8), st.randoms(use_true_random=False))
def test_requests_come_out_as_they_went_in(requests: list[Request], rng: random.Random) -> None:
    decoder = RequestDecoder()
    assert decoded(decoder, split(b"".join(map(request_bytes, requests)), rng)) == requests
    assert decoder.kept == 0


@given(st.lists(OPTIONS, min_size=1, max_size=3), st.binary(max_size=100))
def test_what_comes_behind_an_option_is_kept_for_whoever_reads_on(options: list[Option], rest: bytes) -> None:
    decoder = OptionDecoder(HandshakeFlag.FIXED_NEWSTYLE)
    decoder.feed(b"".join(map(option_bytes, options)) + rest)
    assert [decoder.next() for _ in options] == options
    assert decoder.rest() == rest and decoder.rest() == b""


@given(NAMES, st.lists(U16, max_size=20))
def test_data_of_go(name: str, infos: list[int]) -> None:
    assert codec.go_in(client.go_data(name, infos)) == codec.GoData(name, frozenset(infos))


@given(NAMES, st.lists(NAMES, max_size=20))
def test_data_of_contexts(name: str, queries: list[str]) -> None:
    assert codec.contexts_in(client.contexts_data(name, *queries)) == codec.ContextData(name, tuple(queries))


@given(U32, st.sampled_from(Reply), st.binary(max_size=100))
def test_option_replies(option: int, kind: Reply, data: bytes) -> None:
    assert client.option_replies(codec.option_reply(option, kind, data)) == [client.OptionReply(option, kind, data)]


@given(U64, st.sampled_from(numbers.Error), U64, st.binary(min_size=1, max_size=100), U32)
def test_replies(cookie: int, error: numbers.Error, offset: int, data: bytes, length: int) -> None:
    stream = b"".join((
        codec.simple_reply(cookie), data, codec.simple_reply(cookie, error), codec.error_chunk(cookie, error, "why"),
        codec.data_chunk(cookie, offset, len(data)), data, codec.empty_chunk(cookie),
        codec.status_chunk(cookie, 1, [(length, 0), (8, 3)]),
    ))
    message = struct.pack(">IH", error, 3) + b"why"
    assert client.answers(stream, {cookie: len(data)}) == [
        client.Answer(cookie, 0, data),
        client.Answer(cookie, error, b""),
        client.Answer(cookie, error, message, numbers.Chunk.ERROR),
        client.Answer(cookie, 0, data, numbers.Chunk.OFFSET_DATA),
        client.Answer(cookie, 0, b"", numbers.Chunk.NONE),
        client.Answer(cookie, 0, struct.pack(">IIIII", 1, length, 0, 8, 3), numbers.Chunk.BLOCK_STATUS),
    ]


def test_exact_bytes() -> None:
    """As the document has them: the round trips above would not notice a mistake that both sides make."""
    assert codec.greeting() == b"NBDMAGICIHAVEOPT\0\3"
    assert codec.option_reply(7, Reply.ACK) == bytes.fromhex("0003e889045565a9 00000007 00000001 00000000")
    assert codec.option_reply(3, Reply.ERR_UNSUP, b"no")[12:] == bytes.fromhex("80000001 00000002") + b"no"
    assert codec.export_data(1 << 30, numbers.ExportFlag(0x0D)) == bytes.fromhex("0000 0000000040000000 000d")
    assert codec.block_size_data(512, 4096, 1 << 25) == bytes.fromhex("0003 00000200 00001000 02000000")
    answer = codec.export_name_answer(4096, numbers.ExportFlag(1), no_zeroes=True)
    assert answer == bytes.fromhex("0000000000001000 0001")
    assert codec.export_name_answer(4096, numbers.ExportFlag(1), no_zeroes=False) == answer + bytes(124)
    assert codec.simple_reply(5, numbers.Error.EIO) == bytes.fromhex("67446698 00000005 0000000000000005")
    assert codec.data_chunk(5, 6, 7) == bytes.fromhex("668e33ef 0001 0001 0000000000000005 0000000f 0000000000000006")
    decoder = RequestDecoder()
    decoder.feed(bytes.fromhex("25609513 0001 0001 0000000000000005 0000000000001000 00000002") + b"ab")
    assert decoder.next() == Request(1, 1, 5, 4096, 2, b"ab")
    options = OptionDecoder()
    options.feed(bytes.fromhex("00000001 49484156454f5054 00000005 00000000"))
    assert options.next() == Option(OptionType.STARTTLS, b"")


# --- bytes that nobody honest sends -----------------------------------------------------------------
@pytest.mark.parametrize("parse", [codec.go_in, codec.contexts_in, codec.name_in])
@given(data=st.binary(max_size=200))
def test_data_of_options_may_be_anything(parse: Callable[[bytes], object], data: bytes) -> None:
    parse(data)


@given(NAMES, st.lists(U16, max_size=5), st.data())
def test_data_that_is_cut_off_or_too_long_is_malformed(name: str, infos: list[int], data: st.DataObject) -> None:
    go, contexts = client.go_data(name, infos), client.contexts_data(name, "a")
    for whole, parse in ((go, codec.go_in), (contexts, codec.contexts_in)):
        assert parse(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
        assert parse(whole + b"\0") is None


def test_strings_have_bounds() -> None:
    assert codec.name_in(b"x" * numbers.MAX_STRING_BYTES) is not None
    for bad in (b"x" * (numbers.MAX_STRING_BYTES + 1), b"a\0b", b"\xff"):
        assert codec.name_in(bad) is None
        assert codec.go_in(struct.pack(">I", len(bad)) + bad + b"\0\0") is None
    assert codec.contexts_in(client.contexts_data("", *["q"] * codec.MAX_QUERIES)) is not None
    assert codec.contexts_in(client.contexts_data("", *["q"] * (codec.MAX_QUERIES + 1))) is None


@given(st.binary(max_size=400), st.randoms(use_true_random=False))
def test_any_bytes_are_a_stream(data: bytes, rng: random.Random) -> None:
    """No error, and the same whichever way they are split."""
    for new in (OptionDecoder, RequestDecoder):
        assert decoded(new(), split(data, rng)) == decoded(new(), [data] if data else [])


def test_damaged_streams_keep_nothing(rng: random.Random) -> None:
    """Valid streams with changed bytes: what is kept stays below one payload, whatever is made of the rest."""
    for _ in range(300):
        if rng.random() < 0.5:
            decoder: OptionDecoder | RequestDecoder = OptionDecoder()
            stream = bytearray(FLAGS + b"".join(client.option(rng.randrange(12), rng.randbytes(rng.randrange(60)))
                                                for _ in range(10)))
            limit = MAX_OPTION_BYTES
        else:
            decoder = RequestDecoder()
            stream = bytearray(b"".join(client.request(rng.randrange(9), data=rng.randbytes(rng.randrange(60)))
                                        for _ in range(10)))
            limit = MAX_PAYLOAD_BYTES
        for _ in range(rng.randrange(4)):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        decoded(decoder, split(bytes(stream) * 3, rng))
        assert decoder.kept <= min(limit, 3 * len(stream))


@pytest.mark.parametrize("flags", [4, 1 << 31, 0xFFFF])
def test_unknown_client_flags_end_it(flags: int) -> None:
    decoder = OptionDecoder()
    decoder.feed(struct.pack(">I", flags) + client.option(OptionType.LIST))
    assert isinstance(decoder.next(), Broken) and isinstance(decoder.next(), Broken)


def test_wrong_magic_ends_it_for_ever() -> None:
    option, request = OptionDecoder(), RequestDecoder()
    option.feed(FLAGS + client.option(3, magic=1))
    request.feed(client.request(0, magic=numbers.SIMPLE_REPLY_MAGIC))
    for decoder in (option, request):
        assert isinstance(decoder.next(), Broken)
        decoder.feed(bytes(1 << 20))
        assert isinstance(decoder.next(), Broken) and decoder.kept < 100


def test_a_long_option_is_dropped_as_it_comes_and_the_next_one_is_read() -> None:
    decoder = OptionDecoder(HandshakeFlag.FIXED_NEWSTYLE)
    decoder.feed(client.option(OptionType.INFO, length=MAX_OPTION_BYTES + 1))
    for _ in range(MAX_OPTION_BYTES // 1024):
        decoder.feed(bytes(1024))
        assert decoder.next() is None and decoder.kept == 0
    decoder.feed(b"\0" + client.option(OptionType.ABORT))
    assert decoder.next() == Option(OptionType.INFO, None)
    assert decoder.next() == Option(OptionType.ABORT, b"")


def test_the_longest_option_is_whole() -> None:
    decoder = OptionDecoder(HandshakeFlag.FIXED_NEWSTYLE)
    decoder.feed(client.option(OptionType.INFO, b"x" * MAX_OPTION_BYTES))
    assert decoder.next() == Option(OptionType.INFO, b"x" * MAX_OPTION_BYTES)


def test_an_absurd_option_ends_it() -> None:
    decoder = OptionDecoder(HandshakeFlag.FIXED_NEWSTYLE)
    decoder.feed(client.option(OptionType.INFO, length=MAX_DROPPED_OPTION_BYTES + 1))
    assert isinstance(decoder.next(), Broken)


def test_a_payload_that_is_too_long_is_dropped_as_it_comes() -> None:
    decoder = RequestDecoder()
    length = MAX_PAYLOAD_BYTES + 5
    decoder.feed(client.request(CommandType.WRITE, 0, length, cookie=7))
    left, piece = length, bytes(1 << 20)
    while left > len(piece):
        decoder.feed(piece)
        left -= len(piece)
        assert decoder.next() is None and decoder.kept == 0
    decoder.feed(piece[:left] + client.request(CommandType.FLUSH, cookie=8))
    assert decoder.next() == Request(0, CommandType.WRITE, 7, 0, length, None)
    assert decoder.next() == Request(0, CommandType.FLUSH, 8, 0, 0, b"")


def test_the_largest_payload_is_whole() -> None:
    decoder = RequestDecoder()
    data = random.Random(1).randbytes(MAX_PAYLOAD_BYTES)
    stream = client.request(CommandType.WRITE, data=data)
    for at in range(0, len(stream), 1 << 20):
        assert decoder.next() is None and decoder.kept <= MAX_PAYLOAD_BYTES
        decoder.feed(stream[at : at + (1 << 20)])
    assert decoder.next() == Request(0, CommandType.WRITE, 1, 0, len(data), data)
