"""The file `state`: the few numbers that change seldom and must never go back.

    slot = magic[8] | seq u64 | incarnation u64 | ts_reserved u64 | generation u64 | slots u64 | epoch u64 |
           owner[64] | mark u64 | 0... | crc32 u32

The checksum is of the node's salt (Identity.salt) and the slot: the file of another node is no valid one.

Two slots of 512 bytes, each with a page to itself. A write goes to one, is synced, goes to the other and is synced: a
crash tears at most one of them, or leaves its page with garbage or unreadable, and once a write has returned both hold
it, so that damage to either one takes nothing back. The newest valid slot counts. The next write begins with the other
one, or, after a crash, with the one that the crash has hit: the one that counts is left alone until the other is good.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dsreg.constants import CRC_SIZE, NO_OWNER, OWNER_SIZE
from dsreg.errors import DamagedStorage
from dsreg.storage.checksum import salted_crc
from dsreg.storage.files import File, pread_or_zeros, write_copy
from dsreg.storage.layout import ATOMIC_BYTES, COPY_DISTANCE

MAGIC = b"dsregSTA"
_FIELDS = struct.Struct(f">8sQQQQQQ{OWNER_SIZE}sQ")
_CHECKED = ATOMIC_BYTES - CRC_SIZE
# A mark has 56 bits: which start of the node, and a count of those within it, which takes 85 years to run over.
_MARK_BITS = 28
_MAX_START = (1 << 28) - 1


class State(NamedTuple):
    """`seq`: counts writes. `incarnation`: counts starts. `ts_reserved`: no tag this node has named or
    chosen is above it. `generation`: the newest journal segment that certainly has a header. `slots`: how many
    slots of `tags` were certainly written when it was opened. `epoch`: what is of an older one is refused.
    `owner`: who has attached the disk in it, NO_OWNER if this node has not been told. `mark`: raised now and then while
    the node serves, and told to others, so that an older state of the directory can be noticed (docs/lives.md, rule
    18). A version that keeps none writes 0: see `own_mark`.
    """

    seq: int = 0
    incarnation: int = 0
    ts_reserved: int = 0
    generation: int = 0
    slots: int = 0
    epoch: int = 0
    owner: bytes = NO_OWNER
    mark: int = 0

    @property
    def own_mark(self) -> int:
        """The mark, or what stands for it if there is none: a version that keeps none has started the node last. That
        is above all marks of the starts before it."""
        return self.mark or first_mark(self.incarnation)

    def encode(self, salt: int = 0) -> bytes:
        body = _FIELDS.pack(MAGIC, *self).ljust(_CHECKED, b"\0")
        return body + salted_crc(body, salt)


def first_mark(incarnation: int) -> int:
    """Below all marks of this start of a node, and above those of the starts before it."""
    return min(incarnation, _MAX_START) << _MARK_BITS


def decode(raw: bytes, salt: int = 0) -> State | None:
    """None if this is no valid slot."""
    if len(raw) != ATOMIC_BYTES or raw[_CHECKED:] != salted_crc(raw[:_CHECKED], salt):
        return None
    magic, *fields = _FIELDS.unpack_from(raw)
    return State(*fields) if magic == MAGIC else None


def read(file: File, salt: int = 0) -> State:
    slots = [decode(pread_or_zeros(file, ATOMIC_BYTES, index * COPY_DISTANCE), salt) for index in (0, 1)]
    valid = [slot for slot in slots if slot is not None]
    if not valid:
        raise DamagedStorage(
            "both copies in the file `state` are damaged: which tags the node has used is unknown. Recover the "
            'file from its disk, or follow the runbook, "A node\'s directory is lost"; do not start this rank with an '
            "empty directory"
        )
    return max(valid)


def write(file: File, state: State, salt: int = 0) -> None:
    raw = state.encode(salt)
    first = state.seq % 2
    for index in (first, 1 - first):
        write_copy(file, raw, index * COPY_DISTANCE)
