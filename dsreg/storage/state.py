"""The file `state`: the few numbers that change seldom and must never go back.

    slot = magic[8] | seq u64 | incarnation u64 | ts_reserved u64 | generation u64 | slots u64 | epoch u64 |
           owner[64] | 0... | crc32 u32

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
_FIELDS = struct.Struct(f">8sQQQQQQ{OWNER_SIZE}s")
_CHECKED = ATOMIC_BYTES - CRC_SIZE


class State(NamedTuple):
    """`seq`: counts writes. `incarnation`: counts starts. `ts_reserved`: no tag this node has named or
    chosen is above it. `generation`: the newest journal segment that certainly has a header. `slots`: how many
    slots of `tags` were certainly written when it was opened. `epoch`: what is of an older one is refused.
    `owner`: who has attached the disk in it, NO_OWNER if this node has not been told.
    """

    seq: int = 0
    incarnation: int = 0
    ts_reserved: int = 0
    generation: int = 0
    slots: int = 0
    epoch: int = 0
    owner: bytes = NO_OWNER

    def encode(self, salt: int = 0) -> bytes:
        body = _FIELDS.pack(MAGIC, *self).ljust(_CHECKED, b"\0")
        return body + salted_crc(body, salt)


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
