"""A node's core put together: what differs from one incarnation to the next, and how nodes and clients greet."""

from __future__ import annotations

import pytest

from dsreg.protocol.messages import (
    FEATURE_ADDRESSES,
    FEATURE_CLAIMS,
    FEATURE_CONFIGURATIONS,
    FEATURE_DIGESTS,
    FEATURE_LIVES,
    FEATURE_MAP,
    FEATURE_SEALED,
    FEATURE_SUMS,
    FEATURE_ZERO_CHUNKS,
    FEATURE_ZEROS,
    Command,
    CommandKind,
    Hello,
    Value,
)
from dsreg.protocol.tags import highest_ts, pack_tag, ts_of, unpack_tag
from dsreg.register.assembly import OpenedStorage, client_hello, first_rid, is_of_heal, new_replica, node_hello
from dsreg.register.effects import Effect, Reserve
from dsreg.register.now import Now
from dsreg.register.quorum import majority_of
from dsreg.register.replica import Replica
from dsreg.testing.memory_storage import MemoryStorage

START = Now(0.0, 0.0)


def replica_on(storage: OpenedStorage, jitter: float = 1.0) -> Replica:
    replica = new_replica(
        1, majority_of((1, 2, 3)), storage, uuid_prefix=storage.incarnation, jitter=lambda: jitter
    )
    for rank in (2, 3):
        replica.link_up(rank, True, START)
    return replica


def storage_of(incarnation: int, epoch: int = 0, ts_reserved: int = 0) -> MemoryStorage:
    storage = MemoryStorage()
    storage.incarnation, storage.epoch, storage.ts_reserved = incarnation, epoch, ts_reserved
    return storage


def tag_named_on(storage: MemoryStorage, highest: bytes) -> tuple[bytes, int]:
    """The tag that a new incarnation names first, when a majority has told it `highest`, and the rid it asked under."""
    replica = replica_on(storage)
    asked = replica.command("client", Command(CommandKind.TAG, 1, 0, 1, extended=True), START)
    (rid,) = {effect.message.rid for effect in asked}  # type: ignore[union-attr]
    answers = [Value(rank, rid, 0, 1, highest, b"", epoch=storage.epoch) for rank in (2, 3)]
    effects: list[Effect] = [effect for answer in answers for effect in replica.message(None, answer, START)]
    (last,) = effects
    answer = last.then[0] if isinstance(last, Reserve) else last
    return answer.message.tags, rid  # type: ignore[union-attr]


def test_no_tag_is_named_by_two_lives_of_an_attached_disk() -> None:
    highest = pack_tag(ts_of(3, 5), 2, 0, 3)
    tags = [tag_named_on(storage_of(life, epoch=3), highest)[0] for life in (1, 2, 3)]
    assert len(set(tags)) == 3
    assert len({unpack_tag(tag).life for tag in tags}) == 3


def test_what_was_promised_before_is_not_named_again() -> None:
    first, _ = tag_named_on(storage_of(1), bytes(16))
    again, _ = tag_named_on(storage_of(2, ts_reserved=1 << 20), bytes(16))
    assert highest_ts(first) == 1
    assert highest_ts(again) == (1 << 20) + 1


@pytest.mark.parametrize("incarnation", [1, 2, (1 << 24) - 2])
def test_no_two_incarnations_use_the_same_read_identifiers(incarnation: int) -> None:
    _, rid = tag_named_on(storage_of(incarnation), bytes(16))
    assert rid == first_rid(incarnation)
    assert first_rid(incarnation + 1) - rid == 1 << 40, "an incarnation has so many operations"


def test_the_jitter_is_the_one_given() -> None:
    replica = replica_on(storage_of(1), jitter=3.0)
    replica.command("client", Command(CommandKind.READ, 1, 0, 1, extended=True), START)
    assert replica.next_due() == 3 * 0.5


def test_a_node_says_what_it_is() -> None:
    cluster = bytes(range(16))
    features = FEATURE_LIVES | FEATURE_DIGESTS | FEATURE_CLAIMS | FEATURE_ADDRESSES | FEATURE_CONFIGURATIONS
    features |= FEATURE_SUMS | FEATURE_ZEROS | FEATURE_ZERO_CHUNKS | FEATURE_MAP | 5
    assert node_hello(2, 5, cluster, 7, 64) == Hello(2, False, cluster, 7, 64, FEATURE_SEALED | features)
    assert node_hello(2, 5, cluster, 7, 64, seals=False).features == features


def test_questions_of_heal_have_read_identifiers_of_their_own() -> None:
    for incarnation in (1, 77, (1 << 24) - 1):
        first = first_rid(incarnation, b"abc" + bytes(13))
        assert not is_of_heal(first) and not is_of_heal(first + (1 << 39) - 2)
        assert is_of_heal(first + (1 << 39)) and is_of_heal(first + (1 << 40) - 2)


def test_a_client_says_only_what_it_can() -> None:
    features = FEATURE_SEALED | FEATURE_LIVES | FEATURE_ADDRESSES | FEATURE_CONFIGURATIONS | FEATURE_ZEROS
    assert client_hello(64) == Hello(0, False, bytes(16), 0, 64, features)
    assert client_hello(64, seals=False).features == features & ~FEATURE_SEALED


def test_each_directory_has_read_identifiers_of_its_own() -> None:
    """One in place of a lost one counts its incarnations from 1 again."""
    lost, new = first_rid(9, bytes(13) + b"old"), first_rid(1, bytes([0, 1, 0]) + bytes(13))
    assert lost == first_rid(9) and new == first_rid(257) and first_rid(2, b"\xff" * 16) == first_rid(1)
    assert 0 < first_rid((1 << 24) - 1, b"\xff" * 16) < 1 << 64
