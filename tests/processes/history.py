"""Sectors whose content names the write they come from, and who wrote and read which when."""

from __future__ import annotations

import itertools
import time

from tests.simulation.checker import INITIAL, Operation, check


def stamp(value: int) -> bytes:
    """A sector that says `value` (1..2^64-1) all through, so that a mixed one is recognized."""
    return value.to_bytes(8) * 512


def value_of(sector: bytes) -> int:
    """What `stamp` was given; INITIAL for zeros. AssertionError for anything mixed."""
    assert len(sector) == 4096 and sector == sector[:8] * 512, "a mixed sector"
    return int.from_bytes(sector[:8])


class History:
    """Append-only; threads and tasks may use it at once."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._values = itertools.count(1)

    def new_value(self) -> int:
        return next(self._values)

    def wrote(self, sector: int, value: int, start: float, end: float, label: str = "") -> None:
        self.operations.append(Operation(sector, True, value, start, end, label=label))

    def read(self, sector: int, value: int, start: float, end: float, label: str = "") -> None:
        self.operations.append(Operation(sector, False, value, start, end, label=label))

    def check(self) -> None:
        """Raises AssertionError, with the operations, if no order of them explains what was read."""
        violations = check(self.operations)
        assert not violations, "\n".join(map(str, violations))


now = time.monotonic
__all__ = ["INITIAL", "History", "now", "stamp", "value_of"]
