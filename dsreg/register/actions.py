"""What an operation of the register wants done: what `AtomicRegister` returns, and the coordinator carries out."""

from __future__ import annotations

from typing import NamedTuple

from dsreg.protocol.messages import Buffer


class Copy(NamedTuple):
    """What a node has of the run, or is to have: a tag for each sector, and the values, or None where only tags were
    sent."""

    tags: bytes
    data: Buffer | None


class AskAll(NamedTuple):
    """Broadcast READ_PROC(rid), to this node as well.

    `values`: the others shall send values, not only tags. `own_values`: this node shall.
    """

    rid: int
    values: bool
    own_values: bool


class StoreOwn(NamedTuple):
    """WRITE_PROC(rid, tags, data) to this node alone; its ACK comes once it is durable here.

    `repair`: the values come from, or are newer than those of, a majority that does not count this node.
    """

    rid: int
    tags: bytes
    data: Buffer
    repair: bool = False


class StoreAll(NamedTuple):
    """Broadcast WRITE_PROC(rid, tags, data) to the other nodes."""

    rid: int
    tags: bytes
    data: Buffer


class Return(NamedTuple):
    """The operation is complete: `tags` for TAG, `data` for READ; both for a strict READ that is to be restamped."""

    tags: bytes
    data: Buffer


Action = AskAll | StoreOwn | StoreAll | Return
