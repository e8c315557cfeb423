"""Sizes as people write them, in bytes or with a binary unit; and that of the disk."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from dsreg.constants import MAX_SECTORS, SECTOR_SIZE

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


def sectors_of(cluster: Mapping[str, Any], fault: Callable[[str], None]) -> int:
    """The size of the disk in sectors, by the section [cluster]; 0 with a fault noted."""
    if ("sectors" in cluster) == ("size" in cluster):
        both = "both sectors and size; keep one" if "size" in cluster else 'give sectors = N or size = "1GiB"'
        fault(f"[cluster] size of the disk: {both}")
        return 0
    if "sectors" in cluster:
        sectors, what = cluster["sectors"], "sectors"
        if not isinstance(sectors, int) or isinstance(sectors, bool):
            fault("[cluster] sectors must be a whole number, without quotes")
            return 0
    else:
        what = "size"
        try:
            size = parse_size(cluster["size"]) if isinstance(cluster["size"], str) else -1
        except ValueError as error:
            fault(f"[cluster] size: {error}")
            return 0
        if size < 0:
            fault('[cluster] size must be text like "1GiB"')
            return 0
        sectors, odd = divmod(size, SECTOR_SIZE)
        if odd:
            fault(f"[cluster] size of {size} bytes is not a multiple of 4096; the next smaller is "
                        f"{size - odd}, the next larger {size - odd + SECTOR_SIZE}")
            return 0
    if not 1 <= sectors <= MAX_SECTORS:
        fault(f"[cluster] {what}: {sectors} sectors are outside 1..{MAX_SECTORS}")
        return 0
    return int(sectors)


def first_sectors_of(cluster: Mapping[str, Any], sectors: int, fault: Callable[[str], None]) -> int:
    """The size that the cluster was created with; 0 if the file does not say: it is `sectors`, that of the disk."""
    if "first_sectors" not in cluster:
        return 0
    first = cluster["first_sectors"]
    if not isinstance(first, int) or isinstance(first, bool) or not 1 <= first <= MAX_SECTORS:
        fault(f"[cluster] first_sectors must be a whole number from 1 to {MAX_SECTORS}: the size that the cluster was "
              "created with, as `dsreg resize` has written it; copy the file from another host")
        return 0
    if first > sectors > 0:
        fault(f"[cluster] the disk has {sectors} sectors, fewer than first_sectors, {first}; a disk cannot shrink")
    return first
