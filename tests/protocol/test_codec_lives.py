"""The message that tells of lives, byte by byte."""

from __future__ import annotations

import struct
import zlib

import pytest

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.protocol.codec import Bounds, Encoder, Keys, Side, UnsealingDecoder
from dsreg.protocol.configuration import Ballot, Configuration, Record, Vote, pack_configuration
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Accepted, LivesReport
from dsreg.protocol.wire import Mac

KEYS = Keys(bytes(range(32)), bytes(range(64)))
OWN, OTHER = Life(1, b"a" * 16), Life(1 << 40, b"b" * 16)


def decoder(side: Side = Side.NODE) -> UnsealingDecoder:
    keys = KEYS if side is Side.NODE else Keys(KEYS.client, b"")
    ranks = frozenset((1, 2, 3)) if side is Side.NODE else frozenset()
    return UnsealingDecoder(keys, bounds=Bounds(9, ranks), side=side, extended=True)


def frame(type_: int, rank: int, count: int, content: bytes, key: bytes, status: int = 0, epoch: int = 0) -> bytes:
    header = struct.pack(">4sxBBBQQHHII", b"atdd", status, rank, type_, 0, 0, count, 0, len(content), epoch)
    body = header + struct.pack(">I", zlib.crc32(header)) + content
    return body + Mac(key).sign(body)


def entry(number: int, life: Life) -> bytes:
    return struct.pack(">B7xQ16s", number, *life)


@pytest.mark.parametrize(
    ("type_", "rank", "answer", "side"),
    [(0x93, 2, False, Side.NODE), (0xD3, 2, True, Side.NODE), (0xC8, 0, True, Side.CLIENT)],
)
@pytest.mark.parametrize("known", [{}, {3: OTHER}, {3: OTHER, 1: OWN}, {4: OTHER}])
def test_layout(type_: int, rank: int, answer: bool, side: Side, known: dict[int, Life]) -> None:
    report = LivesReport(rank, answer, Stage.CLAIMING, OWN, known)
    content = entry(1, OWN) + b"".join(entry(other, life) for other, life in sorted(known.items()))
    raw = b"".join(Encoder(KEYS).encode(report))
    assert raw == frame(type_, rank, len(known), content, KEYS.system if rank else KEYS.client)
    assert decoder(side).feed(raw) == [report]


@pytest.mark.parametrize(
    ("rank", "content"),
    [
        (4, entry(2, OWN)),  # no such rank
        (2, entry(3, OWN)),  # no such stage
        (2, entry(2, Life(0, b"a" * 16))),
        (2, entry(2, OWN) + entry(255, OTHER)),
        (2, entry(2, OWN) + entry(0, OTHER)),
        (2, entry(2, OWN) + entry(3, Life(0, b"a" * 16))),
        (2, entry(2, OWN) + entry(3, OTHER) + entry(3, OWN)),
    ],
)
def test_what_is_dropped(rank: int, content: bytes) -> None:
    listening = decoder()
    assert listening.feed(frame(0x93, rank, len(content) // 32 - 1, content, KEYS.system)) == []
    assert listening.counters["bad_field"] == 1


_MEMBERS = Configuration(4, 9, 0b1110, 0b110, 0b1110)
_VOTE = Vote(Ballot(7, b"v" * 16), _MEMBERS._replace(number=5, ranks=0b110, joining=0))


@pytest.mark.parametrize("voted", [None, _VOTE])
def test_an_acceptance_carries_what_the_acceptor_knows_and_has_voted_for(voted: Vote | None) -> None:
    record = Record(_MEMBERS, Ballot(9, b"p" * 16), voted)
    message = Accepted(2, 3, OTHER, OWN, 9, NO_OWNER, 4, record)
    vote = _of_ballot(voted.ballot) + pack_configuration(voted.configuration) if voted is not None else bytes(136)
    content = entry(3, OTHER) + entry(2, OWN) + NO_OWNER + struct.pack(">Q", 4)
    content += pack_configuration(_MEMBERS) + _of_ballot(record.promised) + vote
    assert len(content) == 136 + 272
    raw = b"".join(Encoder(KEYS).encode(message))
    assert raw == frame(0x99, 2, 1, content, KEYS.system, epoch=9)
    listening = decoder()
    assert listening.feed(raw) == [message]
    for at in (136, 136 + 112 + 24 + 24):  # numbers of configurations that none has
        bad = content[:at] + bytes(8) + content[at + 8:] if at == 136 or voted else content[:136] + bytes(272)
        assert listening.feed(frame(0x99, 2, 1, bad, KEYS.system, epoch=9)) == []
    assert listening.counters["bad_field"] == 2
    listening.feed(frame(0x99, 2, 0, content, KEYS.system, epoch=9))
    assert listening.counters["bad_header"] == 1


def _of_ballot(ballot: Ballot) -> bytes:
    return ballot.round.to_bytes(8) + ballot.proposer


@pytest.mark.parametrize("owner", [NO_OWNER, NO_OWNER_ANY_MORE, b"o" * 64])
def test_layout_of_an_acceptance(owner: bytes) -> None:
    message = Accepted(2, 3, OTHER, OWN, 9, owner, 1 << 40)
    raw = b"".join(Encoder(KEYS).encode(message))
    content = entry(3, OTHER) + entry(2, OWN) + owner + struct.pack(">Q", 1 << 40)
    assert len(content) == 136
    assert raw == frame(0x99, 2, 0, content, KEYS.system, epoch=9)
    assert decoder().feed(raw) == [message]
    assert decoder(Side.CLIENT).feed(raw) == [], "it is none of a client's business"


@pytest.mark.parametrize(
    ("rank", "content", "epoch"),
    [
        (4, entry(3, OTHER) + entry(4, OWN), 0),  # no such rank
        (2, entry(4, OTHER) + entry(2, OWN), 0),
        (2, entry(3, OTHER) + entry(1, OWN), 0),  # not the sender
        (2, entry(3, Life(0, b"a" * 16)) + entry(2, OWN), 0),
        (2, entry(3, OTHER) + entry(2, Life(0, b"a" * 16)), 0),
        (2, entry(3, OTHER) + entry(2, OWN), 1 << 24),
    ],
)
def test_what_is_no_acceptance(rank: int, content: bytes, epoch: int) -> None:
    listening = decoder()
    assert listening.feed(frame(0x99, rank, 0, content + bytes(72), KEYS.system, epoch=epoch)) == []
    assert listening.counters["bad_field"] == 1


def test_a_wrong_length_or_key() -> None:
    listening = decoder()
    assert listening.feed(frame(0x93, 2, 1, entry(2, OWN), KEYS.system)) == []
    assert listening.counters["bad_header"] == 1
    assert listening.feed(frame(0x93, 2, 0, entry(2, OWN), KEYS.client + KEYS.client)) == []
    assert listening.counters["bad_mac"] == 1
    assert decoder(Side.CLIENT).feed(frame(0xC8, 0, 0, b"", KEYS.client, status=4)) == []
