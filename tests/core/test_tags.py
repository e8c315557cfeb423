"""Tags as bytes, against the same over tuples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.constants import TAG_SIZE, ZERO_TAG
from dsreg.core.tags import highest, highest_ts, iter_tags, pack_tag, successors, tag_at, unpack_tag

Tag = tuple[int, int]
MAX_TS = (1 << 64) - 1
# Few values, so that equal ones and ties of ts are common.
TAGS = st.tuples(st.sampled_from([0, 1, 2, 255, 256, MAX_TS]) | st.integers(0, MAX_TS), st.integers(0, 255))
RUNS = st.lists(TAGS, min_size=1, max_size=8)


def vectors(max_vectors: int = 5) -> st.SearchStrategy[list[list[Tag]]]:
    """Vectors of one length."""
    return st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(TAGS, min_size=n, max_size=n), min_size=1, max_size=max_vectors)
    )


def packed(tags: list[Tag]) -> bytes:
    return b"".join(pack_tag(ts, wr) for ts, wr in tags)


def test_layout_is_that_of_the_contract() -> None:
    assert pack_tag(0x0102030405060708, 0xFE) == bytes([1, 2, 3, 4, 5, 6, 7, 8]) + bytes(7) + b"\xfe"
    assert pack_tag(0, 0) == ZERO_TAG
    assert len(ZERO_TAG) == TAG_SIZE


@given(TAGS)
def test_unpack_undoes_pack(tag: Tag) -> None:
    assert unpack_tag(pack_tag(*tag)) == tag


@given(TAGS, TAGS)
def test_bytes_sort_like_pairs(a: Tag, b: Tag) -> None:
    assert (pack_tag(*a) < pack_tag(*b)) == (a < b)
    assert (pack_tag(*a) == pack_tag(*b)) == (a == b)


@given(RUNS)
def test_pieces_of_a_vector(tags: list[Tag]) -> None:
    vector = packed(tags)
    assert [unpack_tag(tag) for tag in iter_tags(vector)] == tags
    assert [unpack_tag(tag_at(vector, index)) for index in range(len(tags))] == tags


@given(vectors())
def test_highest_is_the_elementwise_maximum(runs: list[list[Tag]]) -> None:
    expected = [max(column) for column in zip(*runs, strict=True)]
    assert highest([packed(run) for run in runs]) == packed(expected)


def test_highest_compares_wr_where_ts_ties() -> None:
    assert highest([pack_tag(3, 1), pack_tag(3, 2)]) == pack_tag(3, 2)
    assert highest([pack_tag(4, 1), pack_tag(3, 2)]) == pack_tag(4, 1)


def test_highest_refuses_vectors_of_different_lengths() -> None:
    with pytest.raises(ValueError):
        highest([packed([(1, 1), (2, 2)]), packed([(1, 1), (2, 2), (3, 3)])])


@given(RUNS)
def test_highest_ts(tags: list[Tag]) -> None:
    assert highest_ts(packed(tags)) == max(ts for ts, _ in tags)


@given(TAGS, st.integers(1, 256))
def test_highest_ts_of_one_tag_for_all(tag: Tag, count: int) -> None:
    assert highest_ts(packed([tag] * count)) == tag[0]


@given(st.lists(st.tuples(st.integers(0, 1 << 60), st.integers(0, 255)), min_size=1), st.integers(1, 254),
       st.integers(0, 1 << 60))
def test_successors_are_above_tag_and_floor(tags: list[Tag], wr: int, floor: int) -> None:
    following = [unpack_tag(tag) for tag in iter_tags(successors(packed(tags), wr, floor))]
    assert following == [(max(ts, floor) + 1, wr) for ts, _ in tags]
    assert all(new > old and new[0] > floor for new, old in zip(following, tags, strict=True))
