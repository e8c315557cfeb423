"""Sealed connections: the two parties' handshake, and the records under every split and every damage.

Seeds: hypothesis prints how to reproduce a failure.
"""

from __future__ import annotations

import hashlib
import tracemalloc
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from dsreg.protocol import sealed
from dsreg.protocol.messages import Buffer
from dsreg.protocol.sealed import (
    FIRST_MESSAGE_SIZE,
    MAX_RECORD_BYTES,
    RECORD_OVERHEAD,
    RECORDS_PER_KEY,
    SECOND_MESSAGE_SIZE,
    STREAM_BYTES,
    Opener,
    Opening,
    Sealer,
    SealKey,
    accept,
    client_seal,
    node_seal,
)
from dsreg.protocol.wire import MAX_FRAME_SIZE

CHECKED = settings(max_examples=100, deadline=None)
KEY = bytes(range(32))
CLIENT, NODE = client_seal(bytes(range(32))), node_seal(bytes(range(64)))
HELLO, ANSWER = b"a greeting", b"its answer"
ONE, OTHER, THIRD = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32

# What one record is made of: mostly small, at times about where the way of encrypting changes.
pieces = st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=5)
long_pieces = st.integers(STREAM_BYTES - 30, STREAM_BYTES + 30).map(lambda size: [b"header", b"\x5a" * size])
records = st.lists(st.one_of(pieces, long_pieces), min_size=1, max_size=6)
cuts = st.lists(st.floats(0, 1), max_size=12)


def sealed_by(sealer: Sealer, *groups: list[bytes]) -> list[bytes]:
    return [b"".join(sealer.seal(group)) for group in groups]


def in_parts(stream: bytes, shares: list[float]) -> list[bytes]:
    places = sorted({0, len(stream), *(round(share * len(stream)) for share in shares)})
    return [stream[start:stop] for start, stop in pairwise(places)]


def opened_by(opener: Opener, *parts: bytes) -> list[bytes]:
    return [bytes(frames) for part in parts for frames in opener.feed(part)]


# --- the handshake -------------------------------------------------------------------------------------
def handshake(
    opening_key: SealKey = CLIENT, accepting_key: SealKey = CLIENT, *, hello: bytes = HELLO, answer: bytes = ANSWER
) -> tuple[Sealer, Opener, Sealer, Opener] | None:
    """The one who opens has said HELLO and understood ANSWER; the other has understood `hello` and said `answer`."""
    opening = Opening(opening_key, HELLO, ONE)
    assert len(opening.message) == FIRST_MESSAGE_SIZE
    accepted = accept(accepting_key, hello, answer, opening.message, OTHER)
    if accepted is None:
        return None
    reply, *theirs = accepted
    assert len(reply) == SECOND_MESSAGE_SIZE
    ours = opening.finish(reply, ANSWER)
    return None if ours is None else (*ours, *theirs)  # type: ignore[return-value]


@pytest.mark.parametrize("key", [CLIENT, NODE], ids=["client", "node"])
def test_both_sides_understand_each_other(key: SealKey) -> None:
    found = handshake(key, key)
    assert found is not None
    our_sealer, our_opener, their_sealer, their_opener = found
    assert opened_by(their_opener, *sealed_by(our_sealer, [b"question"])) == [b"question"]
    assert opened_by(our_opener, *sealed_by(their_sealer, [b"answer"])) == [b"answer"]


@pytest.mark.parametrize(
    ("key", "hello", "answer"),
    [
        (client_seal(bytes(32)), HELLO, ANSWER),
        (NODE, HELLO, ANSWER),
        (CLIENT._replace(role=NODE.role), HELLO, ANSWER),
        (CLIENT, b"a greeting without a feature", ANSWER),
        (CLIENT, HELLO, b"an answer that was changed on its way"),
    ],
    ids=["key", "kind of key", "role", "greeting", "answer"],
)
def test_nobody_is_deceived_about(key: SealKey, hello: bytes, answer: bytes) -> None:
    assert handshake(CLIENT, key, hello=hello, answer=answer) is None


def test_what_one_side_seals_the_same_side_does_not_open() -> None:
    found = handshake()
    assert found is not None
    our_sealer, our_opener, *_ = found
    assert opened_by(our_opener, *sealed_by(our_sealer, [b"reflected"])) == []
    assert our_opener.broken


def test_a_recorded_connection_does_not_open_again() -> None:
    opening = Opening(CLIENT, HELLO, ONE)
    first = accept(CLIENT, HELLO, ANSWER, opening.message, OTHER)
    again = accept(CLIENT, HELLO, ANSWER, opening.message, THIRD)
    assert first is not None and again is not None
    ours = opening.finish(first[0], ANSWER)
    assert ours is not None
    recorded = sealed_by(ours[0], [b"a write"])
    assert opened_by(first[2], *recorded) == [b"a write"]
    assert opened_by(again[2], *recorded) == [] and again[2].broken is True


def test_keys_are_derived_as_rfc_5869_says() -> None:
    for key, seal in ((bytes(range(32)), CLIENT), (bytes(range(64)), NODE)):
        assert seal.psk == HKDF(hashes.SHA256(), 32, None, seal.role).derive(key)
    assert CLIENT.role != NODE.role


# --- records -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 60, STREAM_BYTES - 1, STREAM_BYTES, STREAM_BYTES + 1, MAX_RECORD_BYTES])
def test_layout_of_a_record(size: int) -> None:
    frames = [b"x"] * min(size, 3) + ([b"y" * (size - 3)] if size > 3 else [])
    sealer = Sealer(KEY)
    for number in range(3):
        record = b"".join(sealer.seal(frames))
        length = size.to_bytes(4, "big")
        assert record[:4] == length and len(record) == size + RECORD_OVERHEAD
        nonce = bytes(4) + number.to_bytes(8, "big")
        assert AESGCM(KEY).decrypt(nonce, record[4:], length) == b"".join(frames)


def test_the_longest_frame_fits_into_a_record() -> None:
    assert MAX_FRAME_SIZE <= MAX_RECORD_BYTES
    for size in (0, MAX_RECORD_BYTES + 1):
        with pytest.raises(AssertionError):
            Sealer(KEY).seal([bytes(size)])


@CHECKED
@given(records, cuts)
def test_any_split_gives_the_same(groups: list[list[bytes]], shares: list[float]) -> None:
    stream = b"".join(sealed_by(Sealer(KEY), *groups))
    opener = Opener(KEY)
    assert opened_by(opener, *in_parts(stream, shares)) == [b"".join(group) for group in groups]
    assert not opener.broken and opener.buffered == 0


@CHECKED
@given(records, cuts, st.data())
def test_a_changed_byte_is_refused_and_all_behind_it(
    groups: list[list[bytes]], shares: list[float], data: st.DataObject
) -> None:
    sealer = Sealer(KEY)
    made = sealed_by(sealer, *groups)
    victim = data.draw(st.integers(0, len(made) - 1), label="record")
    place = data.draw(st.integers(0, len(made[victim]) - 1), label="byte")
    damaged = bytearray(made[victim])
    damaged[place] ^= data.draw(st.integers(1, 255), label="change")
    # A length that was made larger takes in what follows: enough of it, and it must be refused as well.
    behind = [b"".join(sealer.seal([bytes(MAX_RECORD_BYTES)])) for _ in range(2)]
    stream = b"".join([*made[:victim], damaged, *made[victim + 1 :], *behind])
    opener = Opener(KEY)
    assert opened_by(opener, *in_parts(stream, shares)) == [b"".join(group) for group in groups[:victim]]
    assert opener.broken
    assert opened_by(opener, b"".join(sealed_by(Sealer(KEY), [b"from the beginning"]))) == []


@pytest.mark.parametrize("size", [5, STREAM_BYTES], ids=["short", "long"])
@pytest.mark.parametrize("chunk", [7, 1 << 20], ids=["in parts", "whole"])
def test_every_byte_of_a_record_counts(size: int, chunk: int) -> None:
    record = b"".join(Sealer(KEY).seal([bytes(size)]))
    places = [*range(min(len(record), 30)), *range(len(record) - 20, len(record))]
    for place in places:
        damaged = bytearray(record)
        damaged[place] ^= 1
        stream = bytes(damaged) + bytes(MAX_RECORD_BYTES)
        opener = Opener(KEY)
        for start in range(0, len(stream), chunk):
            assert opener.feed(stream[start : start + chunk]) == []
            if opener.broken:
                break
        assert opener.broken


@CHECKED
@given(st.permutations([0, 1, 2, 3]), st.sampled_from([[b"short"], [b"\x07" * STREAM_BYTES]]))
def test_reordered_repeated_or_missing_records_are_refused(order: list[int], frames: list[bytes]) -> None:
    made = [b"".join(record) for record in map(Sealer(KEY).seal, [[bytes([n]), *frames] for n in range(4)])]
    in_order = next((n for n, index in enumerate(order) if n != index), 4)
    opener = Opener(KEY)
    assert len(opened_by(opener, *(made[index] for index in order))) == in_order
    assert opener.broken == (in_order < 4)
    again = Opener(KEY)
    assert len(opened_by(again, made[0], made[0], made[1])) == 1 and again.broken
    gap = Opener(KEY)
    assert opened_by(gap, made[1]) == [] and gap.broken


@CHECKED
@given(records, st.floats(0, 1))
def test_what_was_cut_off_does_not_come_out(groups: list[list[bytes]], share: float) -> None:
    made = sealed_by(Sealer(KEY), *groups)
    stream = b"".join(made)
    stop = round(share * (len(stream) - 1))
    complete, end = [], 0
    for record, group in zip(made, groups, strict=True):
        end += len(record)
        if end <= stop:
            complete.append(b"".join(group))
    opener = Opener(KEY)
    assert opened_by(opener, stream[:stop]) == complete
    assert not opener.broken
    assert opener.buffered == stop - sum(len(frames) + RECORD_OVERHEAD for frames in complete)


def test_a_length_that_no_record_has_is_refused_at_once() -> None:
    for length in (0, MAX_RECORD_BYTES + 1, 0xFFFFFFFF):
        opener = Opener(KEY)
        assert opener.feed(length.to_bytes(4, "big")) == []
        assert opener.broken


def test_memory_is_bounded_by_one_record() -> None:
    """However the bytes come; also those of a record that will turn out not to be authentic."""
    record = b"".join(Sealer(KEY).seal([bytes(MAX_RECORD_BYTES)]))
    opener = Opener(KEY)
    opener.feed(record[:-1][:4])
    tracemalloc.start()
    try:
        for start in range(4, len(record) - 1, 61):
            assert opener.feed(record[start : min(start + 61, len(record) - 1)]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opener.buffered == len(record) - 1
    assert peak < MAX_RECORD_BYTES + 64 * 1024
    assert list(map(bytes, opener.feed(record[-1:]))) == [bytes(MAX_RECORD_BYTES)]


@pytest.mark.pure
def test_keys_change_on_both_sides_and_the_numbers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "RECORDS_PER_KEY", 3)
    sealer, opener = Sealer(KEY), Opener(KEY)
    stream = [sealed_by(sealer, [bytes([number])])[0] for number in range(10)]
    stream += sealed_by(sealer, [b"\x0b" * STREAM_BYTES], [b"\x0c" * STREAM_BYTES], [b"\x0d" * STREAM_BYTES])
    frames = [frame for record in stream for start in range(0, len(record), 9999)
              for frame in opened_by(opener, record[start : start + 9999])]
    assert [frame[0] for frame in frames] == list(range(10)) + [11, 12, 13]
    # Each key has sealed only three of them.
    for number, record in enumerate(stream):
        key = KEY
        for _ in range(number // 3):
            key = sealed.rekeyed(key)
        nonce = number.to_bytes(12, "big")
        assert AESGCM(key).decrypt(nonce, record[4:], record[:4]) == frames[number]


def test_a_key_is_changed_long_before_it_is_worn() -> None:
    """2^32 blocks are far below where AES-GCM becomes weak (2^64 give an attacker even odds), and far below the
    2^32 records after which no key should be used whatever their length."""
    blocks = RECORDS_PER_KEY * (MAX_RECORD_BYTES // 16 + 2)
    assert blocks**2 < 2**66 and RECORDS_PER_KEY <= 2**32


@CHECKED
@given(pieces)
def test_kinds_of_buffers(group: list[bytes]) -> None:
    kinds: list[Buffer] = [bytearray(piece) if len(piece) % 2 else memoryview(piece) for piece in group]
    large: list[Buffer] = [*kinds, memoryview(bytes(STREAM_BYTES))]
    opener, sealer = Opener(KEY), Sealer(KEY)
    for frames in (kinds, large):
        record = b"".join(sealer.seal(frames))
        assert hashlib.sha256(opened_by(opener, record)[0]).digest() == hashlib.sha256(b"".join(frames)).digest()
