"""Tags as 16 bytes that sort as they rank, and vectors of them for runs of sectors.

    tag = epoch u24 | ts u80 | life u16 | wr u8         ts = epoch of the write u24 | counter u56

(ts, life, wr) names a write and never changes: `wr` is the rank of the node that chose the tag, or ATTACHED. `life`
is 0, or tells apart what one node chose before and after a restart. The leading `epoch` says under which epoch
this copy was last stored at a majority: what is restamped to a newer epoch keeps its name, and with it its
order among what was restamped, and stands above every copy that was left behind in an older one
(docs/attachments.md). Without attachments all epochs are 0, and a tag is the contract's (ts, wr).

A vector for `count` sectors is `count * 16` bytes. Working on the bytes keeps the usual case, where all
nodes report the same vector, one comparison whatever the length of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dsreg.constants import EPOCH_SIZE as EPOCH_SIZE
from dsreg.constants import MAX_EPOCH as MAX_EPOCH
from dsreg.constants import TAG_SIZE

# The `wr` of tags that an attachment chose: no node has this rank.
ATTACHED: Final = 255
COUNTER_BITS: Final = 56
_COUNTER_MASK: Final = (1 << COUNTER_BITS) - 1
_LIFE_MASK: Final = (1 << 16) - 1
_LIFE_SHIFT, _TS_SHIFT, _EPOCH_SHIFT = 8, 24, 104
_TS_MASK: Final = (1 << 80) - 1
_WRITE_EPOCH_SHIFT: Final = _TS_SHIFT + COUNTER_BITS


class Tag(NamedTuple):
    ts: int
    wr: int
    life: int = 0
    epoch: int = 0


def pack_tag(ts: int, wr: int, life: int = 0, epoch: int = 0) -> bytes:
    return (epoch << _EPOCH_SHIFT | ts << _TS_SHIFT | life << _LIFE_SHIFT | wr).to_bytes(TAG_SIZE)


def unpack_tag(tag: bytes) -> Tag:
    number = int.from_bytes(tag)
    return Tag(
        number >> _TS_SHIFT & _TS_MASK, number & 0xFF, number >> _LIFE_SHIFT & _LIFE_MASK, number >> _EPOCH_SHIFT
    )


def rank_of(tag: bytes) -> tuple[int, int, int]:
    """(epoch of the copy, epoch of the write, counter of the write)."""
    number = int.from_bytes(tag)
    return number >> _EPOCH_SHIFT, number >> _WRITE_EPOCH_SHIFT & MAX_EPOCH, number >> _TS_SHIFT & _COUNTER_MASK


def ts_of(epoch: int, counter: int) -> int:
    """The ts of a write in `epoch`; its first one has counter 1."""
    return epoch << COUNTER_BITS | counter


def epoch_of(ts: int) -> int:
    """The epoch in which the write with this ts was made."""
    return ts >> COUNTER_BITS


def counter_of(ts: int) -> int:
    return ts & _COUNTER_MASK


def tag_at(tags: bytes, index: int) -> bytes:
    return tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]


def iter_tags(tags: bytes) -> list[bytes]:
    return [tags[at : at + TAG_SIZE] for at in range(0, len(tags), TAG_SIZE)]


def is_uniform(tags: bytes) -> bool:
    """Whether all these tags are the same, as those of a run mostly are."""
    return len(tags) == TAG_SIZE or tags == tags[:TAG_SIZE] * (len(tags) // TAG_SIZE)


def writers(tags: bytes) -> bytes:
    """Of each tag its `wr`; 0: of no write at all, whether restamped or not."""
    return tags[TAG_SIZE - 1 :: TAG_SIZE]


def is_bare(tags: bytes) -> bool:
    """Whether all these tags are one and the same of no write: sectors never written, which have no data."""
    return not tags[TAG_SIZE - 1] and is_uniform(tags)


def fit_contract(tags: bytes) -> bool:
    """Whether the contract has a place for all of these tags: it knows no epochs, and no lives."""
    return all(not epoch and not life for _, _, life, epoch in map(unpack_tag, iter_tags(tags)))


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
    if is_uniform(tags):
        return unpack_tag(tags[:TAG_SIZE]).ts
    return max(unpack_tag(tag).ts for tag in iter_tags(tags))


def successors(tags: bytes, wr: int, floor: int = 0, epoch: int = 0, life: int = 0) -> bytes:
    """Per sector a tag of `epoch` whose ts is one more than the tag's, than `floor`, and than all of older epochs."""
    floor = max(floor, ts_of(epoch, 0))
    return b"".join(pack_tag(max(unpack_tag(tag).ts, floor) + 1, wr, life, epoch) for tag in iter_tags(tags))


def is_restamped(tags: bytes, epoch: int) -> bool:
    """Whether all these copies were stored under `epoch`."""
    prefix = epoch.to_bytes(EPOCH_SIZE)
    if is_uniform(tags):
        return tags[:EPOCH_SIZE] == prefix
    return all(tags[at : at + EPOCH_SIZE] == prefix for at in range(0, len(tags), TAG_SIZE))


def restamped(tags: bytes, epoch: int) -> bytes:
    """The same writes, stored under `epoch`."""
    if is_restamped(tags, epoch):
        return tags
    prefix = epoch.to_bytes(EPOCH_SIZE)
    return b"".join(prefix + tags[at + EPOCH_SIZE : at + TAG_SIZE] for at in range(0, len(tags), TAG_SIZE))


def attached_counter(tags: bytes, epoch: int) -> int:
    """The highest counter among the writes of the attachment of `epoch`; 0 if none of these tags is of one."""
    some = (tags[:TAG_SIZE],) if is_uniform(tags) else iter_tags(tags)
    mine = epoch.to_bytes(EPOCH_SIZE) * 2
    return max([rank_of(tag)[2] for tag in some if tag[-1] == ATTACHED and tag.startswith(mine)], default=0)


def is_overtaken(tags: bytes, there: bytes) -> bool:
    """Whether one of these writes, of an attachment in its own epoch, meets a later one of the same attachment."""
    if ATTACHED not in there[TAG_SIZE - 1 :: TAG_SIZE]:
        return False
    if len(tags) == TAG_SIZE and tags >= there:  # the usual case by far
        return False
    own = 2 * EPOCH_SIZE  # epoch of the copy, and of the write
    return any(
        late > tag and late[-1] == tag[-1] == ATTACHED and late[:own] == tag[:own]
        and tag[:EPOCH_SIZE] == tag[EPOCH_SIZE:own]
        for tag, late in zip(iter_tags(tags), iter_tags(there), strict=True)
    )


def highest_epoch(tags: bytes) -> int:
    """The newest epoch under which one of these copies was stored."""
    if is_uniform(tags):
        return int.from_bytes(tags[:EPOCH_SIZE])
    return max(int.from_bytes(tags[at : at + EPOCH_SIZE]) for at in range(0, len(tags), TAG_SIZE))
