"""Tags (ts, wr) as 16 bytes that sort like the pair, and vectors of them for runs of sectors.

A vector for `count` sectors is `count * 16` bytes. Working on the bytes keeps the usual case, where all
nodes report the same vector, one comparison whatever the length of the run.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dsreg.constants import TAG_SIZE

_TAG = struct.Struct(">Q7xB")


def pack_tag(ts: int, wr: int) -> bytes:
    return _TAG.pack(ts, wr)


def unpack_tag(tag: bytes) -> tuple[int, int]:
    """(ts, wr)"""
    ts, wr = _TAG.unpack(tag)
    return ts, wr


def tag_at(tags: bytes, index: int) -> bytes:
    return tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]


def iter_tags(tags: bytes) -> list[bytes]:
    return [tags[at : at + TAG_SIZE] for at in range(0, len(tags), TAG_SIZE)]


def highest(vectors: Sequence[bytes]) -> bytes:
    """The elementwise maximum of vectors of one length."""
    head = vectors[0]
    if all(vector == head for vector in vectors):
        return head
    if len(head) == TAG_SIZE:
        return max(vectors)
    return b"".join(max(column) for column in zip(*map(iter_tags, vectors), strict=True))


def highest_ts(tags: bytes) -> int:
    """The largest ts in a vector."""
    if len(tags) == TAG_SIZE or tags == tags[:TAG_SIZE] * (len(tags) // TAG_SIZE):
        return unpack_tag(tags[:TAG_SIZE])[0]
    return unpack_tag(max(iter_tags(tags)))[0]


def successors(tags: bytes, wr: int, floor: int = 0) -> bytes:
    """Per sector (max(ts, floor) + 1, wr)."""
    return b"".join(pack_tag(max(unpack_tag(tag)[0], floor) + 1, wr) for tag in iter_tags(tags))
