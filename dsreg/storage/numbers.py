"""Arrays of unsigned numbers as files have them."""

from __future__ import annotations

import sys
from array import array
from typing import Literal

from dsreg.storage.files import Buffer


def to_bytes(numbers: array[int], order: Literal["big", "little"]) -> bytes:
    if sys.byteorder == order:
        return numbers.tobytes()
    swapped = numbers[:]
    swapped.byteswap()
    return swapped.tobytes()


def from_bytes(kind: str, raw: Buffer, order: Literal["big", "little"]) -> array[int]:
    """`kind`: the type code of the array."""
    numbers: array[int] = array(kind)
    numbers.frombytes(raw)
    if sys.byteorder != order:
        numbers.byteswap()
    return numbers
