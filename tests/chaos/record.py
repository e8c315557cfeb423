"""What a client saw, in a file that grows by whole lines: a killed client leaves all but what it was at.

    w NUMBER FIRST COUNT VALUE START     a write of VALUE, VALUE+1, ... begins
    r NUMBER FIRST COUNT START           a read begins
    d NUMBER END VALUES...               it is done; what was read
    n NUMBER                             it certainly did not happen
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.simulation.checker import Operation

# Values are unique in a round: the number of the client stands above the number of the write.
VALUES_PER_CLIENT = 1 << 32


@dataclasses.dataclass
class Begun:
    """`values`: what it writes; empty for a read."""

    number: int
    first: int
    count: int
    values: Sequence[int]
    start: float


class Recorder:
    """Moments are those of CLOCK_MONOTONIC, which all processes of a machine share."""

    def __init__(self, path: Path, client: int) -> None:
        assert client > 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._next_value = client * VALUES_PER_CLIENT
        self._number = 0

    def began(self, is_write: bool, first: int, count: int) -> Begun:
        self._number += 1
        values: Sequence[int] = ()
        if is_write:
            values = range(self._next_value, self._next_value + count)
            self._next_value += count
        begun = Begun(self._number, first, count, values, time.monotonic())
        what = f"w {begun.number} {first} {count} {values[0]}" if values else f"r {begun.number} {first} {count}"
        self._line(f"{what} {begun.start!r}")
        return begun

    def ended(self, begun: Begun, read: Sequence[int] = ()) -> None:
        self._line(" ".join(["d", str(begun.number), repr(time.monotonic()), *map(str, read)]))

    def not_done(self, begun: Begun) -> None:
        self._line(f"n {begun.number}")

    def close(self) -> None:
        os.close(self._fd)

    def _line(self, text: str) -> None:
        os.write(self._fd, f"{text}\n".encode())


def operations(path: Path) -> Iterator[Operation]:
    """What the checker wants to know: reads that were answered, and all writes but those that did not happen."""
    begun: dict[int, Begun] = {}
    label = path.name
    for line in path.read_text().splitlines():
        kind, number, *rest = line.split()
        if kind == "w":
            first, count, value = map(int, rest[:3])
            begun[int(number)] = Begun(int(number), first, count, range(value, value + count), float(rest[3]))
        elif kind == "r":
            begun[int(number)] = Begun(int(number), int(rest[0]), int(rest[1]), (), float(rest[2]))
        else:
            operation = begun.pop(int(number))
            if kind == "d":
                values = operation.values or tuple(map(int, rest[1:]))
                assert len(values) == operation.count
                for index, value in enumerate(values):
                    yield Operation(operation.first + index, bool(operation.values), value, operation.start,
                                    float(rest[0]), label=label)
    for operation in begun.values():
        for index, value in enumerate(operation.values):
            yield Operation(operation.first + index, True, value, operation.start, label=label)
