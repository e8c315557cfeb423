"""Sizes as people write them: in bytes, or with a binary unit."""

from __future__ import annotations

import difflib
import re

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes in "4096", "64KiB", "1GiB", ...; raises ValueError with a hint. Any number of bytes >= 0 passes."""
    match = re.fullmatch(r"\s*(\d{1,20})\s*([A-Za-z]*)\s*", text, re.ASCII)
    unit = match.group(2) if match else ""
    if match is None or (unit and unit not in _UNITS):
        close = difflib.get_close_matches(unit, _UNITS, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{text!r} is not a size: write a whole number and KiB, MiB, GiB or TiB, like 1GiB{hint}")
    return int(match.group(1)) * _UNITS.get(unit, 1)


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that expresses it exactly; parse_size reads it back."""
    for unit, factor in reversed(_UNITS.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
