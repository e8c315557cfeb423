"""Sectors in a dict, as a store (dsreg.store.SectorStore) that answers at once, for tests of what sits on top of it."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE, ZERO_SECTOR
from dsreg.protocol.extents import can_be_mapped
from dsreg.protocol.zeros import are_chunks
from dsreg.store import SETTLED, Done, Submitted, out_of_range


class MemoryStore:
    """Runs end when they are submitted, or, with `holds`, at the end of the turn."""

    is_cached = False
    obstacle = ""

    def __init__(self, sectors: int, holds: bool = False) -> None:
        self.sectors = sectors
        self.holds = holds
        self.content: dict[int, bytes] = {}
        self._held: list[tuple[int, int, bytes | None, Done]] = []

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        if first < 0 or first + count > self.sectors:
            done(b"", out_of_range(first, count, self.sectors))
        elif self.holds:
            self._held.append((first, count, data, done))
        else:
            self._carry_out(first, count, data, done)
        return SETTLED

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        assert are_chunks(first, count)
        return self.submit(first, count, bytes(count * SECTOR_SIZE), done)

    def map(self, first: int, count: int, done: Done) -> Submitted:
        """Of all of them, at once."""
        assert can_be_mapped(first, count)
        if first < 0 or first + count > self.sectors:
            done(b"", out_of_range(first, count, self.sectors))
        else:
            chunks = range(first, first + count, MAX_RUN_SECTORS)
            done(bytes(self._is_hole(chunk) for chunk in chunks), None)
        return SETTLED

    def _is_hole(self, first: int) -> bool:
        sectors = range(first, first + MAX_RUN_SECTORS)
        return not any(any(self.content.get(sector, ZERO_SECTOR)) for sector in sectors)

    def flush(self, done: Done) -> None:
        done(b"", None)

    def end_turn(self) -> None:
        while self._held:  # what ends may submit more
            self._carry_out(*self._held.pop(0))

    def _carry_out(self, first: int, count: int, data: bytes | None, done: Done) -> None:
        if data is None:
            done(b"".join(self.content.get(first + index, ZERO_SECTOR) for index in range(count)), None)
            return
        for index in range(count):
            self.content[first + index] = data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]
        done(b"", None)
