"""Tags as bytes, against the same over tuples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.constants import TAG_SIZE, ZERO_TAG
from dsreg.protocol.tags import (
    ATTACHED,
    MAX_EPOCH,
    Tag,
    counter_of,
    epoch_of,
    highest,
    highest_epoch,
    highest_ts,
    is_restamped,
    is_uniform,
    iter_tags,
    pack_tag,
    restamped,
    successors,
    tag_at,
    ts_of,
    unpack_tag,
)

Fields = tuple[int, int, int, int]  # epoch, ts, life, wr: in the order in which they count
MAX_TS = (1 << 80) - 1
# Few values, so that equal ones and ties are common.
EPOCHS = st.sampled_from([0, 1, 2, MAX_EPOCH]) | st.integers(0, MAX_EPOCH)
TSS = st.sampled_from([0, 1, 2, 255, 256, ts_of(1, 0), ts_of(1, 1), MAX_TS]) | st.integers(0, MAX_TS)
LIVES = st.sampled_from([0, 1, 65535]) | st.integers(0, 65535)
TAGS = st.tuples(EPOCHS, TSS, LIVES, st.integers(0, 255))
RUNS = st.lists(TAGS, min_size=1, max_size=8) | st.tuples(TAGS, st.integers(1, 8)).map(lambda some: [some[0]] * some[1])


def vectors(max_vectors: int = 5) -> st.SearchStrategy[list[list[Fields]]]:
    """Vectors of one length."""
    return st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(TAGS, min_size=n, max_size=n), min_size=1, max_size=max_vectors)
    )


def bytes_of(fields: Fields) -> bytes:
    epoch, ts, life, wr = fields
    return pack_tag(ts, wr, life, epoch)


def fields_of(tag: bytes) -> Fields:
    ts, wr, life, epoch = unpack_tag(tag)
    return epoch, ts, life, wr


def packed(tags: list[Fields]) -> bytes:
    return b"".join(map(bytes_of, tags))


def unpacked(vector: bytes) -> list[Fields]:
    return [fields_of(tag) for tag in iter_tags(vector)]


def test_layout() -> None:
    tag = pack_tag(0x11223344556677889900, 0xFE, 0xABCD, 0x010203)
    assert tag == bytes.fromhex("010203" "11223344556677889900" "abcd" "fe")
    assert pack_tag(0, 0) == ZERO_TAG and len(ZERO_TAG) == TAG_SIZE
    # ts = epoch of the write u24 | counter u56
    assert pack_tag(ts_of(0x010203, 0x05060708090A0B), ATTACHED, 0, 0x040506) == bytes.fromhex(
        "040506" "010203" "05060708090a0b" "0000" "ff"
    )


@given(TAGS)
def test_unpack_undoes_pack(fields: Fields) -> None:
    epoch, ts, life, wr = fields
    assert unpack_tag(bytes_of(fields)) == Tag(ts, wr, life, epoch)


@given(TAGS, TAGS)
def test_bytes_sort_by_epoch_then_ts_then_life_then_wr(a: Fields, b: Fields) -> None:
    assert (bytes_of(a) < bytes_of(b)) == (a < b)
    assert (bytes_of(a) == bytes_of(b)) == (a == b)


@given(EPOCHS, st.integers(0, (1 << 56) - 1))
def test_a_ts_is_an_epoch_and_a_counter(epoch: int, counter: int) -> None:
    ts = ts_of(epoch, counter)
    assert (epoch_of(ts), counter_of(ts)) == (epoch, counter)
    assert ts == epoch * (1 << 56) + counter


@given(st.integers(0, (1 << 56) - 1), st.integers(1, 254))
def test_without_attachments_a_tag_is_the_ts_and_rank_of_the_contract(ts: int, wr: int) -> None:
    assert unpack_tag(pack_tag(ts, wr)) == (ts, wr, 0, 0)
    assert epoch_of(ts) == 0


@given(RUNS)
def test_pieces_of_a_vector(tags: list[Fields]) -> None:
    vector = packed(tags)
    assert unpacked(vector) == tags
    assert [fields_of(tag_at(vector, index)) for index in range(len(tags))] == tags
    assert is_uniform(vector) == (len(set(tags)) == 1)


@given(vectors())
def test_highest_is_the_elementwise_maximum(runs: list[list[Fields]]) -> None:
    expected = [max(column) for column in zip(*runs, strict=True)]
    assert highest([packed(run) for run in runs]) == packed(expected)


def test_highest_compares_wr_where_ts_ties() -> None:
    assert highest([pack_tag(3, 1), pack_tag(3, 2)]) == pack_tag(3, 2)
    assert highest([pack_tag(4, 1), pack_tag(3, 2)]) == pack_tag(4, 1)


def test_a_copy_of_a_newer_epoch_is_above_any_of_an_older_one() -> None:
    assert pack_tag(ts_of(1, 1), 1, epoch=2) > pack_tag(ts_of(1, 1 << 50), ATTACHED, 65535, epoch=1)


def test_highest_refuses_vectors_of_different_lengths() -> None:
    one, two = (0, 1, 0, 1), (0, 2, 0, 2)
    with pytest.raises(ValueError):
        highest([packed([one, two]), packed([one, two, two])])


@given(RUNS)
def test_highest_ts_and_epoch(tags: list[Fields]) -> None:
    assert highest_ts(packed(tags)) == max(ts for _, ts, _, _ in tags)
    assert highest_epoch(packed(tags)) == max(epoch for epoch, *_ in tags)


@given(TAGS, st.integers(1, 256))
def test_the_same_of_one_tag_for_all(tag: Fields, count: int) -> None:
    assert highest_ts(packed([tag] * count)) == tag[1]
    assert highest_epoch(packed([tag] * count)) == tag[0]


# --- names of writes, and epochs of copies ----------------------------------------------------------
@given(RUNS, EPOCHS)
def test_raised_changes_the_epoch_and_keeps_the_name(tags: list[Fields], epoch: int) -> None:
    assert unpacked(restamped(packed(tags), epoch)) == [(epoch, *name) for _, *name in tags]


@given(RUNS, EPOCHS)
def test_is_raised(tags: list[Fields], epoch: int) -> None:
    assert is_restamped(packed(tags), epoch) == all(under == epoch for under, *_ in tags)
    assert is_restamped(restamped(packed(tags), epoch), epoch)


@given(st.lists(TAGS, min_size=2, max_size=2), EPOCHS)
def test_what_is_raised_is_in_the_order_of_the_names(tags: list[Fields], epoch: int) -> None:
    a, b = (bytes_of(tag) for tag in tags)
    assert (restamped(a, epoch) < restamped(b, epoch)) == (tags[0][1:] < tags[1][1:])


@given(st.lists(st.tuples(EPOCHS, st.integers(0, 1 << 60), LIVES, st.integers(0, 255)), min_size=1, max_size=8),
       st.integers(1, 254), st.integers(0, 1 << 60), st.sampled_from([0, 1, 16, 17, MAX_EPOCH]))
def test_successors_are_above_tag_floor_and_older_epochs(tags: list[Fields], wr: int, floor: int, epoch: int) -> None:
    following = unpacked(successors(packed(tags), wr, floor, epoch))
    assert following == [(epoch, max(ts, floor, epoch * (1 << 56)) + 1, 0, wr) for _, ts, _, _ in tags]
    for new, old in zip(following, tags, strict=True):
        assert new[1:] > old[1:] and new[1] > floor and epoch_of(new[1]) >= epoch
