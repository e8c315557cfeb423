"""Greetings that seal, and what a decoder takes out of records: frames without HMAC, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from dsreg.protocol.codec import Bounds, Encoder, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Greeter, Sealed, Seals, Verdict
from dsreg.protocol.hello import hello_bytes
from dsreg.protocol.messages import (
    FEATURE_SEALED,
    Ack,
    Command,
    CommandKind,
    Hello,
    Message,
    ReadProc,
    Receipt,
    Response,
    Seal,
    Status,
    Value,
    WriteProc,
)
from dsreg.protocol.sealed import MAX_RECORD_BYTES, Sealer
from dsreg.protocol.wire import SEAL_CONTENT, Type, extension_header
from tests.protocol.values import data, tags

KEYS = Keys(bytes(range(32)), bytes(range(64)))
SECTORS, RANKS = 5000, frozenset({1, 2, 3})
SIGNED, BARE = Encoder(KEYS), Encoder(None)
CLIENT = Hello(0, False, bytes(16), 0, SECTORS, FEATURE_SEALED)
NODE = Hello(2, False, bytes(16), 7, SECTORS, FEATURE_SEALED)
READ = Command(CommandKind.READ, 1, 5, 3, extended=True)
STORE = Command(CommandKind.STORE, 2, 5, 2, tags((1, 1), (2, 1)), data(1, 2), extended=True)


def seals(seed: int = 0, *, keys: Keys = KEYS) -> Seals:
    rng = random.Random(seed)
    return Seals(keys, lambda: rng.randbytes(32))


def decoder_for(side: Side = Side.NODE) -> UnsealingDecoder:
    keys = KEYS if side is Side.NODE else KEYS._replace(system=b"")
    return UnsealingDecoder(keys, bounds=Bounds(SECTORS, RANKS), side=side, extended=True)


def signed(*messages: Message) -> bytes:
    return b"".join(piece for message in messages for piece in SIGNED.encode(message))


def bare(*messages: Message) -> bytes:
    return b"".join(piece for message in messages for piece in BARE.encode(message))


class Ends:
    """Both ends of a sealed connection that `hello` has opened: a node's decoder, and one to seal for it."""

    def __init__(self, hello: Hello = CLIENT) -> None:
        self.rank = 1 if hello.rank else 0
        self.greeter = Greeter(hello, self.rank, seals(1))
        self.decoder = decoder_for()
        said = self.decoder.feed(signed(*self.greeter.messages))
        assert [type(message) for message in said] == [Hello, Seal]
        self.answer = Hello(self.rank, True, bytes(16), 9, SECTORS, FEATURE_SEALED)
        sealed = seals(2).accept(hello, self.answer, said[1])  # type: ignore[arg-type]
        assert sealed is not None
        self.sealed: Sealed = sealed

    def seal(self) -> Sealer:
        assert self.decoder.unseal(self.sealed.opener, between_nodes=self.rank != 0) == []
        assert self.greeter.take(self.answer) is None
        assert self.greeter.take(self.sealed.reply) is Verdict.SEALED
        return self.greeter.sealer


def record(sealer: Sealer, *frames: bytes) -> bytes:
    return b"".join(sealer.seal(list(frames)))


# --- greetings -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("hello", [CLIENT, NODE], ids=["client", "node"])
def test_frames_between_those_who_greet(hello: Hello) -> None:
    ends = Ends(hello)
    sealer = ends.seal()
    said: list[Message] = [READ, STORE] if hello is CLIENT else [ReadProc(2, 1, 5, 3), Ack(2, 3, 4, 1)]
    assert ends.decoder.feed(record(sealer, bare(*said))) == said
    back = decoder_for(Side.CLIENT if hello is CLIENT else Side.NODE)
    assert back.unseal(ends.greeter.opener, between_nodes=hello is NODE) == []
    reply: Message = Ack(1, 3, 4, 1)
    if hello is CLIENT:
        reply = Response(Status.OK, CommandKind.READ, 1, b"", data(7), True)
    assert back.feed(record(ends.sealed.sealer, bare(reply))) == [reply]


def test_a_party_that_does_not_seal_answers_plainly() -> None:
    greeter = Greeter(CLIENT, 0, seals())
    assert greeter.take(Response(Status.INVALID_SECTOR_INDEX, CommandKind.READ, 0)) is None
    assert greeter.take(Hello(0, True, bytes(16), 1, SECTORS)) is Verdict.PLAIN
    silent = Greeter(CLIENT._replace(features=0), 0, seals())
    assert silent.messages == [CLIENT._replace(features=0)]
    assert silent.take(Hello(0, True, bytes(16), 1, SECTORS, FEATURE_SEALED)) is Verdict.PLAIN


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer._replace(incarnation=10),
        lambda answer: answer._replace(version=2),
        lambda answer: answer._replace(cluster=b"x" * 16),
        lambda answer: answer._replace(features=FEATURE_SEALED | 3),
        lambda answer: answer._replace(sectors=SECTORS + 1),
    ],
)
def test_an_answer_that_was_exchanged_is_noticed(change: Callable[[Hello], Hello]) -> None:
    ends = Ends()
    assert ends.greeter.take(change(ends.answer)) is None
    assert ends.greeter.take(ends.sealed.reply) is Verdict.BROKEN


def test_a_handshake_that_was_made_for_another_greeting_is_refused() -> None:
    _, handshake = Greeter(CLIENT, 0, seals(1)).messages
    assert isinstance(handshake, Seal)
    answer = Hello(0, True, bytes(16), 9, SECTORS, FEATURE_SEALED)
    assert seals(2).accept(CLIENT, answer, handshake) is not None
    assert seals(2).accept(CLIENT._replace(version=0), answer, handshake) is None
    assert seals(2).accept(NODE, answer, handshake) is None
    assert seals(2, keys=KEYS._replace(client=bytes(32))).accept(CLIENT, answer, handshake) is None
    assert seals(2).accept(CLIENT, answer, handshake._replace(content=b"")) is None


def test_frames_of_the_handshake_byte_for_byte() -> None:
    for message, type_ in (
        (Seal(0, False, bytes(48)), Type.SEAL_CLIENT),
        (Seal(0, True, bytes(80)), Type.SEAL_CLIENT_ANSWER),
        (Seal(3, False, bytes(48)), Type.SEAL_NODE),
        (Seal(3, True, bytes(80)), Type.SEAL_NODE_ANSWER),
    ):
        frame = signed(message)
        assert frame[7] == type_ and len(frame) == 40 + SEAL_CONTENT[type_] + 32
        assert frame[:40] == extension_header(type_, 0, rank=message.rank, length=SEAL_CONTENT[type_])
        side = Side.CLIENT if type_ is Type.SEAL_CLIENT_ANSWER else Side.NODE
        assert decoder_for(side).feed(frame) == [message]
    assert hello_bytes(CLIENT) == signed(CLIENT)[:-32]


# --- what comes behind a handshake -----------------------------------------------------------------------
def test_what_is_behind_the_handshake_is_not_read_in_clear_text() -> None:
    """Somebody has appended recorded frames to it, in one piece or not."""
    for parts in ((signed(*Greeter(CLIENT, 0, seals(1)).messages) + signed(STORE),),
                  (signed(*Greeter(CLIENT, 0, seals(1)).messages), signed(STORE))):
        ends = Ends()
        decoder = decoder_for()
        said = decoder.feed(parts[0])
        assert [type(message) for message in said] == [Hello, Seal]
        assert decoder.unseal(ends.sealed.opener, between_nodes=False) == []
        for part in parts[1:]:
            assert decoder.feed(part) == []
        assert decoder.broken and decoder.counters["bad_record"] == 1
        assert decoder.feed(signed(STORE)) == []


def test_records_that_came_with_the_handshake_are_read() -> None:
    ends = Ends()
    sealer = ends.greeter
    assert sealer.take(ends.answer) is None and sealer.take(ends.sealed.reply) is Verdict.SEALED
    # As if a node had more to say at once: the answer, and a record in one piece with it.
    back = decoder_for(Side.CLIENT)
    reply = Response(Status.OK, CommandKind.STORE, 4, extended=True)
    stream = signed(ends.answer, ends.sealed.reply) + record(ends.sealed.sealer, bare(reply))
    assert back.feed(stream) == [ends.answer, ends.sealed.reply]
    assert back.unseal(ends.greeter.opener, between_nodes=False) == [reply]


# --- what may be in a record ---------------------------------------------------------------------------------
def test_a_client_cannot_pass_for_a_node() -> None:
    """Its records hold what the client key signs; a WRITE_PROC needs the system key, whoever has sealed it."""
    for message in (
        WriteProc(1, 1, 5, 1, tags((9, 1)), data(9)),
        WriteProc(1, 1, 5, 1, tags((9, 1)), data(9), bytes(16)),
        ReadProc(1, 1, 5, 1),
        Receipt(1, 3, bytes(16)),
        Value(1, 1, 5, 1, tags((9, 1)), data(9)),
    ):
        ends = Ends(CLIENT)
        sealer = ends.seal()
        assert ends.decoder.feed(record(sealer, bare(READ), bare(message), bare(READ))) == [READ]
        assert ends.decoder.broken


def test_a_node_sends_no_commands() -> None:
    for message in (READ, STORE, Command(CommandKind.WRITE, 1, 5, 1, b"", data(1))):
        ends = Ends(NODE)
        sealer = ends.seal()
        assert ends.decoder.feed(record(sealer, bare(message))) == []
        assert ends.decoder.broken


def test_messages_of_the_contract_between_nodes() -> None:
    """To a node that has asked over a connection of the contract, while the way to it is sealed already."""
    said: list[Message] = [Value(2, 1, 5, 1, tags((9, 1)), data(9), bytes(16)), Ack(2, 1, 5, 1, bytes(16)),
                           Receipt(2, 3, bytes(16)), ReadProc(2, 4, 5, 1)]
    ends = Ends(NODE)
    sealer = ends.seal()
    assert ends.decoder.feed(record(sealer, bare(*said))) == said


@pytest.mark.parametrize("spoil", [
    lambda frame: frame[:-1], lambda frame: frame + b"a", lambda frame: frame[:7], lambda frame: b"x" + frame[1:],
    lambda frame: frame + bytes(32), lambda frame: frame[:7] + b"\x7f" + frame[8:],
    lambda frame: frame[:9] + b"z" * 40,
    lambda frame: signed(READ), lambda frame: signed(CLIENT), lambda frame: bare(CLIENT),
    lambda frame: bare(Seal(0, False, bytes(48))),
], ids=["short", "long", "no type", "no magic", "hmac", "type", "header", "signed", "greeting", "hello", "seal"])
def test_anything_but_whole_frames_ends_the_stream(spoil: Callable[[bytes], bytes]) -> None:
    ends = Ends()
    sealer = ends.seal()
    assert ends.decoder.feed(record(sealer, bare(READ))) == [READ]
    # What stood before it has been sealed by the other side, and counts.
    assert ends.decoder.feed(record(sealer, bare(READ), spoil(bare(STORE)))) in ([READ], [READ, STORE], [READ, READ])
    assert ends.decoder.broken and ends.decoder.counters["bad_record"] == 1
    assert ends.decoder.feed(record(sealer, bare(READ))) == []


def test_a_field_out_of_range_costs_its_frame_alone() -> None:
    ends = Ends(NODE)
    sealer = ends.seal()
    strange, good = ReadProc(9, 1, 5, 1), ReadProc(2, 1, 5, 1)
    assert ends.decoder.feed(record(sealer, bare(strange), bare(good))) == [good]
    assert not ends.decoder.broken and ends.decoder.counters["bad_field"] == 1


def test_a_command_beyond_the_end_is_refused_as_ever() -> None:
    ends = Ends()
    sealer = ends.seal()
    [refused] = ends.decoder.feed(record(sealer, bare(READ._replace(first=SECTORS))))
    assert (refused.status, refused.request) == (Status.INVALID_SECTOR_INDEX, 1)  # type: ignore[union-attr]


def test_the_largest_frames_in_any_pieces(rng: random.Random) -> None:
    ends = Ends()
    sealer = ends.seal()
    store = Command(CommandKind.STORE, 2, 0, 256, tags((1, 1)) * 256, rng.randbytes(256 * 4096), True)
    stream = record(sealer, bare(store)) + record(sealer, bare(READ), bare(READ))
    found: list[Message] = []
    position = 0
    while position < len(stream):
        size = rng.choice((1, 3, 50, 4096, 100_000, 1 << 20))
        found += ends.decoder.feed(stream[position : position + size])
        position += size
        assert ends.decoder.buffered <= MAX_RECORD_BYTES + 20
    assert found == [store, READ, READ]


@pytest.mark.parametrize("chunk", [1 << 21, 1000])
def test_large_data_is_not_copied_out_of_a_record_and_outlives_it(chunk: int) -> None:
    """In a stream that is not sealed the decoder uses its memory again: there it must be a copy, of any size."""
    rng = random.Random(chunk)
    large, small = rng.randbytes(256 * 4096), rng.randbytes(4096)
    commands = [Command(CommandKind.STORE, 9, 0, count, tags(*[(1, 1)] * count), value, True)
                for count, value in ((256, large), (1, small))]
    ends = Ends()
    sealer = ends.seal()
    sealed = b"".join(piece for command in commands for piece in sealer.seal(BARE.encode(command)))
    plain = decoder_for()
    for decoder, stream, shared in ((ends.decoder, sealed, memoryview), (plain, signed(*commands), bytes)):
        found: list[Message] = []
        for at in range(0, len(stream), chunk):
            found += decoder.feed(stream[at : at + chunk])
        decoder.feed(rng.randbytes(100))
        assert found == commands
        assert [type(command.data) for command in found if isinstance(command, Command)] == [shared, bytes]


def test_data_does_not_keep_the_memory_of_much_else() -> None:
    """Of a record that holds twice as much it is a copy: what is counted against a bound is what is held."""
    rng = random.Random(5)
    value = rng.randbytes(16 * 4096)
    store = Command(CommandKind.STORE, 9, 0, 16, tags(*[(1, 1)] * 16), value, True)
    for others, kind in ((0, memoryview), (1, bytes), (2, bytes)):
        ends = Ends()
        [record] = [b"".join(ends.seal().seal([bare(store, *[store] * others)]))]
        found = ends.decoder.feed(record)
        assert found == [store] * (1 + others)
        assert {type(command.data) for command in found if isinstance(command, Command)} == {kind}
