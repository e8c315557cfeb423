"""Which records of a commit are ordered: their data goes home first, the journal gets only their tags and checksums.

So no byte is stored twice, at the price of one more sync in the commit. docs/storage.md, "Ordered records".
"""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.storage.commit import Commit, Record

# A shorter run costs more to sync where it lies than to be written to the journal as well.
MIN_SECTORS = 16
# What the ordered records of one commit have in all, at least: to write so much takes as long as the sync that they
# cost.
MIN_BYTES = 256 * 1024


class Ordering:
    """Of one storage. `spoken`: bytes of data that the records of the active segment speak of and do not have."""

    __slots__ = ("spoken", "_unsynced")

    def __init__(self) -> None:
        self.spoken = 0
        self._unsynced = 0  # bytes that commits have written to homes since these were synced

    def choose(self, records: Sequence[Record]) -> None:
        """Say of the placed records of a commit which are ordered.

        They are those of long runs, whose homes hold nothing of value, and which are the only ones of the commit for
        their sectors. The sync brings along what earlier commits have written to homes: no more of that than of theirs.
        """
        some = [record for record in records if record.count >= MIN_SECTORS and _is_all_first(record)]
        if sum(len(record.data) for record in some) < max(MIN_BYTES, self._unsynced):
            return
        alone = _alone(records)
        for record in some:
            record.ordered = record in alone

    def committed(self, commit: Commit) -> None:
        if commit.ordered_bytes:
            self.spoken += commit.ordered_bytes
            self._unsynced = 0
        self._unsynced += sum(len(record.data) for record in commit.records if not record.ordered)

    def checkpoint(self) -> None:
        """One begins: it syncs the homes."""
        self._unsynced = 0


def _is_all_first(record: Record) -> bool:
    return len(record.home_first) == 1 and record.home_first[0] == (0, record.count)


def _alone(records: Sequence[Record]) -> set[Record]:
    """Those that share no sector with another one."""
    alone: set[Record] = set()
    end, last = 0, None  # the furthest end so far, and whose it is
    for record in sorted(records, key=lambda record: record.first):
        if record.first >= end:
            alone.add(record)
        elif last is not None:
            alone.discard(last)
        if record.first + record.count > end:
            end, last = record.first + record.count, record
    return alone
