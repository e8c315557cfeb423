"""The messages that tell of configurations and choose them, byte by byte."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from dsreg.protocol.choosing import (
    MAX_REASON_BYTES,
    Answer,
    Answered,
    Ask,
    ConfigurationReport,
    Elect,
    Later,
    Objection,
    Outbid,
    Promised,
    Proposed,
    Question,
    Voted,
    pack_answer,
    pack_question,
    unpack_answer,
    unpack_question,
)
from dsreg.protocol.codec import Encoder, Side
from dsreg.protocol.configuration import Ballot, Configuration, Vote
from dsreg.protocol.tags import MAX_EPOCH
from dsreg.protocol.wire import Mac
from tests.protocol.test_codec_lives import KEYS, decoder

FIRST = Configuration(1, 9, 0b1110, 0, 0b1110)
JOINT = Configuration(1 << 40, 9, 0b1110, 1 << 254 | 2, 1 << 254 | 0b1110)
OWNER = b"o" * 64
BALLOT = Ballot(1 << 33, b"p" * 16)
REQUEST = 1 << 50


def frame(
    type_: int, content: bytes, key: bytes, *, rank: int = 0, request: int = 0, count: int = 0, status: int = 0,
    epoch: int = 0,
) -> bytes:
    header = struct.pack(">4sxBBBQQHHII", b"atdd", status, rank, type_, request, 0, count, 0, len(content), epoch)
    body = header + struct.pack(">I", zlib.crc32(header)) + content
    return body + Mac(key).sign(body)


def layout(configuration: Configuration) -> bytes:
    number, sectors, *sets = configuration
    masks = b"".join(bytes(sum((ranks >> 8 * at + bit & 1) << bit for bit in range(8)) for at in reversed(range(32)))
                     for ranks in sets)
    return number.to_bytes(8) + sectors.to_bytes(8) + masks


def of_ballot(ballot: Ballot) -> bytes:
    return ballot.round.to_bytes(8) + ballot.proposer


@pytest.mark.parametrize(
    ("type_", "rank", "answer", "side"),
    [
        (0x9B, 2, False, Side.NODE), (0xDB, 2, True, Side.NODE), (0x8B, 0, False, Side.NODE),
        (0xCB, 0, True, Side.CLIENT),
    ],
)
@pytest.mark.parametrize("configuration", [FIRST, JOINT])
def test_layout_of_a_report(type_: int, rank: int, answer: bool, side: Side, configuration: Configuration) -> None:
    report = ConfigurationReport(rank, answer, configuration, *((9, OWNER) if rank else ()))
    raw = b"".join(Encoder(KEYS).encode(report))
    key, epoch = (KEYS.system, 9) if rank else (KEYS.client, 0)
    assert raw == frame(type_, layout(configuration) + OWNER * bool(rank), key, rank=rank, epoch=epoch)
    assert len(raw) == 40 + 112 + 64 * bool(rank) + 32 and decoder(side).feed(raw) == [report]


@pytest.mark.parametrize(
    ("rank", "content"),
    [
        (4, layout(FIRST)),  # no such rank
        (2, layout(FIRST._replace(number=0))),
        (2, layout(FIRST._replace(sectors=0))),
        (2, layout(FIRST._replace(ranks=0))),
        (2, layout(FIRST._replace(used=0b110))),
        (2, layout(JOINT._replace(joining=JOINT.ranks))),
        (2, layout(FIRST._replace(ranks=0b1111, used=0b1111))),
    ],
)
def test_what_no_report_can_be(rank: int, content: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame(0x9B, content + OWNER, KEYS.system, rank=rank)) == []
    good = ConfigurationReport(2, False, FIRST, 0, OWNER)
    assert listening.feed(frame(0x9B, layout(FIRST) + OWNER, KEYS.system, rank=2)) == [good]
    assert listening.counters["bad_field"] == 1
    assert listening.feed(frame(0x9B, layout(FIRST) + OWNER, KEYS.system, rank=2, epoch=MAX_EPOCH + 1)) == []
    assert listening.counters["bad_field"] == 2
    assert listening.feed(frame(0x9B, layout(FIRST), KEYS.system, rank=2)) == []
    assert listening.counters["bad_header"] == 1


@pytest.mark.parametrize(
    ("question", "content", "count"),
    [
        (Ask(FIRST, BALLOT), of_ballot(BALLOT) + layout(FIRST), 0),
        (Elect(FIRST, BALLOT, JOINT), of_ballot(BALLOT) + layout(FIRST) + layout(JOINT), 1),
    ],
)
def test_layout_of_a_question(question: Question, content: bytes, count: int) -> None:
    message = Proposed(REQUEST, question)
    raw = b"".join(Encoder(KEYS).encode(message))
    assert raw == frame(0x8C, content, KEYS.client, request=REQUEST, count=count)
    assert decoder().feed(raw) == [message] and decoder(Side.CLIENT).feed(raw) == []


def test_what_no_question_can_be() -> None:
    listening = decoder()
    good = of_ballot(BALLOT) + layout(FIRST)
    for bad, count in (
        (of_ballot(Ballot(0, BALLOT.proposer)) + layout(FIRST), 0),
        (of_ballot(BALLOT) + layout(FIRST._replace(number=0)), 0),
        (good + layout(JOINT._replace(number=0)), 1),
        (good + layout(JOINT) + layout(JOINT), 2),
    ):
        assert listening.feed(frame(0x8C, bad, KEYS.client, count=count)) == []
    assert listening.counters["bad_field"] == 4 and not listening.counters["bad_header"]
    for wrong, count in ((good[:-1], 0), (good, 1), (good + layout(JOINT), 0)):
        listening.feed(frame(0x8C, wrong, KEYS.client, count=count))
    assert listening.counters["bad_header"] == 3


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (Later(JOINT), b"\1" + bytes(7) + layout(JOINT)),
        (Outbid(BALLOT), b"\2" + bytes(7) + of_ballot(BALLOT)),
        (Objection("not yet \u00fc"), b"\3" + bytes(7) + b"not yet \xc3\xbc"),
        (Promised(None), b"\4" + bytes(7)),
        (Promised(Vote(BALLOT, JOINT)), b"\4" + bytes(7) + of_ballot(BALLOT) + layout(JOINT)),
        (Voted(), b"\5" + bytes(7)),
    ],
)
def test_layout_of_an_answer(answer: Answer, content: bytes) -> None:
    message = Answered(REQUEST, answer)
    raw = b"".join(Encoder(KEYS).encode(message))
    assert raw == frame(0xCC, content, KEYS.client, request=REQUEST)
    assert decoder(Side.CLIENT).feed(raw) == [message] and decoder().feed(raw) == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\5" + bytes(6), b"\0" + bytes(7), b"\6" + bytes(7), b"\5" + bytes(8), b"\4" + bytes(8),
        b"\1" + bytes(7) + layout(JOINT)[:-1], b"\1" + bytes(7) + layout(JOINT._replace(number=0)),
        b"\2" + bytes(7) + of_ballot(BALLOT)[:-1], b"\4" + bytes(7) + of_ballot(BALLOT) + bytes(112),
    ],
)
def test_what_no_answer_can_be(content: bytes) -> None:
    listening = decoder(Side.CLIENT)
    assert listening.feed(frame(0xCC, content, KEYS.client)) == []
    assert listening.counters["bad_field"] == 1


def test_a_reason_is_cut_off_between_two_characters() -> None:
    raw = b"".join(Encoder(KEYS).encode(Answered(1, Objection("x" + "\u00fc" * MAX_REASON_BYTES))))
    [message] = decoder(Side.CLIENT).feed(raw)
    assert message == Answered(1, Objection("x" + "\u00fc" * ((MAX_REASON_BYTES - 1) // 2)))
    listening = decoder(Side.CLIENT)
    listening.feed(frame(0xCC, b"\3" + bytes(7 + MAX_REASON_BYTES + 1), KEYS.client))
    assert listening.counters["bad_header"] == 1


def test_any_bytes_are_read_or_refused(rng: random.Random) -> None:
    questions = [pack_question(question) for question in (Ask(FIRST, BALLOT), Elect(FIRST, BALLOT, JOINT))]
    answers = [pack_answer(answer) for answer in (Later(FIRST), Outbid(BALLOT), Promised(Vote(BALLOT, JOINT)), Voted())]
    for _ in range(3000):
        question, answer = bytearray(rng.choice(questions)), bytearray(rng.choice(answers))
        for raw in (question, answer):
            for _ in range(rng.randrange(1, 4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        asked = unpack_question(bytes(question))
        assert asked is None or pack_question(asked) == bytes(question)
        answered = unpack_answer(bytes(answer[: rng.randrange(len(answer) + 1)]))
        assert answered is None or unpack_answer(pack_answer(answered)) == answered
