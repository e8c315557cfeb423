"""Sectors in a dict, as a store (dsreg.store.SectorStore) that answers at once, for tests of what sits on top of it."""

from __future__ import annotations

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
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
