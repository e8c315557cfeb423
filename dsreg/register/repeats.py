"""Repeats: tells a contract message that comes again from a new one, in bounded memory."""

from __future__ import annotations

import enum

from dsreg.constants import MAX_REMEMBERED_UUIDS
from dsreg.register.effects import RepeatKey


class Seen(enum.Enum):
    NEW = enum.auto()
    IN_PROGRESS = enum.auto()  # its answer is on the way
    DONE = enum.auto()  # answered: answer again, without the work


class Repeats:
    """Remembers, per peer, the last `limit` messages that change something.

    A uuid alone would do for correct peers; the rest of the key keeps one that uses a uuid for two
    messages from losing the second.
    """

    def __init__(self, limit: int = MAX_REMEMBERED_UUIDS) -> None:
        self._limit = limit
        self._peers: dict[int, dict[RepeatKey, bool]] = {}

    def see(self, key: RepeatKey) -> Seen:
        peer = self._peers.setdefault(key.rank, {})
        done = peer.get(key)
        if done is None:
            if len(peer) >= self._limit:
                del peer[next(iter(peer))]  # dicts keep the order of insertion: this is the oldest
            peer[key] = False
            return Seen.NEW
        return Seen.DONE if done else Seen.IN_PROGRESS

    def done(self, key: RepeatKey) -> None:
        peer = self._peers.get(key.rank, {})
        if key in peer:
            peer[key] = True

    def forget(self, key: RepeatKey) -> None:
        """The work was refused: let a repeat try again."""
        self._peers.get(key.rank, {}).pop(key, None)
