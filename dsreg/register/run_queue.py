"""RunQueue: work on runs of sectors, in order where runs overlap and side by side where they do not."""

from __future__ import annotations

from typing import Generic, TypeVar

from dsreg.chunks import chunks_of

T = TypeVar("T")


class _Entry(Generic[T]):
    __slots__ = ("blockers", "end", "first", "followers", "item")

    def __init__(self, item: T, first: int, count: int) -> None:
        self.item = item
        self.first = first
        self.end = first + count
        self.blockers = 0
        self.followers: list[_Entry[T]] = []


class RunQueue(Generic[T]):
    """Items (hashable) with a run each. An item may go when every earlier item that overlaps is gone.

    Entries are filed under the 256-sector chunks that they touch, so the cost of adding one is the
    number of others in its neighbourhood, not of all.
    """

    def __init__(self) -> None:
        self._entries: dict[T, _Entry[T]] = {}
        self._chunks: dict[int, list[_Entry[T]]] = {}

    def add(self, item: T, first: int, count: int) -> bool:
        """True: it may go at once. False: a `remove` will return it."""
        entry = _Entry(item, first, count)
        self._entries[item] = entry
        ahead: set[int] = set()
        for chunk in _chunks_of(entry):
            others = self._chunks.setdefault(chunk, [])
            for other in others:
                if other.first < entry.end and first < other.end and id(other) not in ahead:
                    ahead.add(id(other))
                    other.followers.append(entry)
            others.append(entry)
        entry.blockers = len(ahead)
        return not ahead

    def remove(self, item: T) -> list[T]:
        """`item` is done (or given up); what may go now because of it, in the order of arrival."""
        entry = self._entries.pop(item)
        for chunk in _chunks_of(entry):
            others = self._chunks[chunk]
            others.remove(entry)
            if not others:
                del self._chunks[chunk]
        ready = []
        for follower in entry.followers:
            follower.blockers -= 1
            if not follower.blockers and follower.item in self._entries:
                ready.append(follower.item)
        return ready

    def items(self) -> list[T]:
        """All that are in it, in the order of arrival."""
        return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: object) -> bool:
        return item in self._entries


def _chunks_of(entry: _Entry[T]) -> range:
    return chunks_of(entry.first, entry.end - entry.first)
