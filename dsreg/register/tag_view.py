"""TagView: what the register sees of stable storage without I/O."""

from __future__ import annotations

from typing import Protocol

from dsreg.protocol.extents import Extent


class TagView(Protocol):
    """What the replica sees of stable storage without I/O (see StableStorage)."""

    @property
    def epoch(self) -> int: ...

    @property
    def owner(self) -> bytes: ...

    @property
    def attached_counter(self) -> int:
        """The highest counter of a write of the attachment in force, as of the start."""

    def tags(self, first: int, count: int) -> bytes: ...

    def latest_tags(self, first: int, count: int) -> bytes:
        """With what is accepted and not durable yet."""

    def extents(self, first: int, count: int) -> list[Extent]:
        """Of the whole chunks from `first` on, at most `count` and at least one, what is durable of them."""

    def missing(self, first: int, count: int) -> list[int]: ...

    def unknown(self, first: int, count: int) -> list[int]: ...

    def damaged_of(self, first: int, count: int) -> list[int]:
        """Those of `missing` that were here and are lost, not those that are to be learned."""
