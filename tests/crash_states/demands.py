"""What a directory must hold at a point of a workload: told by events, each with the length of the log at its time."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from dsreg.constants import NO_OWNER, SECTOR_SIZE, ZERO_SECTOR, ZERO_TAG

NOTHING = 0  # the number of the value that a sector has before the first store, and of zeros that are written


class Given(NamedTuple):
    """A store was asked for: from now on the sector may have this tag, with the value of this number."""

    sector: int
    tag: bytes
    number: int


class Kept(NamedTuple):
    """A store was acknowledged: from now on the sector has at least this tag."""

    sector: int
    tag: bytes


class Reserved(NamedTuple):
    ts: int


class Fenced(NamedTuple):
    """A promise was acknowledged: no older epoch from now on, and this owner of it."""

    epoch: int
    owner: bytes


class Started(NamedTuple):
    """A recovery has returned, with these tags (sectors not named: never written). What it did not bring
    back is gone for good: its tag may be given to another value. `known`: sectors of which something may be said."""

    incarnation: int
    found: dict[int, bytes]
    known: frozenset[int]
    sectors: int  # of the disk


class Begins(NamedTuple):
    """It is asked that every sector be unknown: from now on it may be."""


class Begun(NamedTuple):
    """It is: until it is learned."""


class Learned(NamedTuple):
    """These sectors may be known from now on."""

    sectors: frozenset[int]


class Recorded(NamedTuple):
    """What was learned by the time of a checkpoint is known from now on."""

    known: frozenset[int]


class Grown(NamedTuple):
    """The disk has so many sectors, for good."""

    sectors: int


Event = Given | Kept | Reserved | Fenced | Started | Begins | Begun | Learned | Recorded | Grown


@dataclass(slots=True)
class Demands:
    given: dict[int, dict[bytes, int]] = field(default_factory=dict)  # sector -> tag -> number of the value
    low: dict[int, bytes] = field(default_factory=dict)  # sector -> the least tag that it may have
    ts_reserved: int = 0
    incarnation: int = 0
    fenced: tuple[int, bytes] = (0, NO_OWNER)
    sectors: int = 0  # of the disk, at least
    # Sectors of the windows that are known, and that may be.
    known: frozenset[int] = frozenset()
    may_know: frozenset[int] = frozenset()

    def take(self, event: Event) -> None:
        if isinstance(event, Given):
            known = self.given.setdefault(event.sector, {}).setdefault(event.tag, event.number)
            assert known == event.number, "one tag, one value"
        elif isinstance(event, Kept):
            self.low[event.sector] = max(self.low.get(event.sector, ZERO_TAG), event.tag)
        elif isinstance(event, Reserved):
            self.ts_reserved = max(self.ts_reserved, event.ts)
        elif isinstance(event, Fenced):
            self.fenced = max(self.fenced, event)
        elif isinstance(event, Begins):
            self.known = frozenset()
        elif isinstance(event, Begun):
            self.known = self.may_know = frozenset()
        elif isinstance(event, Learned):
            self.may_know |= event.sectors
        elif isinstance(event, Recorded):
            self.known |= event.known
        elif isinstance(event, Grown):
            self.sectors = event.sectors
        else:
            self.incarnation, self.sectors = event.incarnation, event.sectors
            self.known = self.may_know = event.known
            for sector, numbers in self.given.items():
                tag = event.found.get(sector, ZERO_TAG)
                self.low[sector] = tag
                self.given[sector] = {tag: numbers[tag]} if tag in numbers else {}

    def copy(self) -> Demands:
        given = {sector: dict(numbers) for sector, numbers in self.given.items()}
        return Demands(
            given, dict(self.low), self.ts_reserved, self.incarnation, self.fenced, self.sectors, self.known,
            self.may_know,
        )

    def value(self, sector: int, tag: bytes) -> bytes | None:
        """The one value that the sector may have with this tag; None if it must not have this tag."""
        if tag < self.low.get(sector, ZERO_TAG):
            return None
        if tag == ZERO_TAG:
            return ZERO_SECTOR
        number = self.given.get(sector, {}).get(tag)
        return None if number is None else value(sector, number)


def value(sector: int, number: int) -> bytes:
    """Zeros for NOTHING; else every 16 bytes of it say where it belongs."""
    if number == NOTHING:
        return ZERO_SECTOR
    return struct.pack(">QQ", sector, number) * (SECTOR_SIZE // 16)
