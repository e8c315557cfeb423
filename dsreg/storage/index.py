"""Which slot of the file `tags` each key has: in memory 6 bytes a key and some hundred for each region of 8192 keys.

A dict takes 100 bytes an entry. Here the keys of a region stand in one sorted array, their slots in another: to insert
moves 48 KiB at most, to look up is a bisection.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

# Keys of a region differ in their last so many bits, which fit the array's 16.
REGION_BITS = 13
_LOW = (1 << REGION_BITS) - 1

Region = tuple["array[int]", "array[int]"]  # low bits of the keys, ascending; slots


class SlotIndex:
    """A key is never taken out, and keeps its slot."""

    def __init__(self) -> None:
        self.regions: dict[int, Region] = {}
        self._count = 0
        self._numbers: list[int] = []  # of the regions, ascending, as far as there were any when it was asked

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> int | None:
        region = self.regions.get(key >> REGION_BITS)
        if region is None:
            return None
        lows, slots = region
        low = key & _LOW
        at = bisect_left(lows, low)
        return slots[at] if at < len(lows) and lows[at] == low else None

    def add(self, key: int, slot: int) -> None:
        """`key` is new."""
        region = self.regions.get(key >> REGION_BITS)
        if region is None:
            region = self.regions[key >> REGION_BITS] = array("H"), array("I")
        lows, slots = region
        low = key & _LOW
        if not lows or lows[-1] < low:
            lows.append(low)
            slots.append(slot)
        else:
            at = bisect_left(lows, low)
            lows.insert(at, low)
            slots.insert(at, slot)
        self._count += 1

    def following(self, key: int) -> int | None:
        """The first key from `key` on."""
        number = key >> REGION_BITS
        if (region := self.regions.get(number)) is not None:
            at = bisect_left(region[0], key & _LOW)
            if at < len(region[0]):
                return number << REGION_BITS | region[0][at]
        if len(self._numbers) != len(self.regions):
            self._numbers = sorted(self.regions)
        at = bisect_left(self._numbers, number + 1)
        if at == len(self._numbers):
            return None
        number = self._numbers[at]
        return number << REGION_BITS | self.regions[number][0][0]

    def put_region(self, number: int, lows: array[int], slots: array[int]) -> None:
        """A whole region that was not there."""
        self.regions[number] = lows, slots
        self._count += len(lows)

    def items(self) -> Iterator[tuple[int, int]]:
        for number in sorted(self.regions):
            lows, slots = self.regions[number]
            for low, slot in zip(lows, slots, strict=True):
                yield number << REGION_BITS | low, slot
