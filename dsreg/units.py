"""Amounts as people read them, in binary units and few digits; nodes; and text that comes from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size: float) -> str:
    """"512 B", "4.0 KiB", "12.3 MiB", "1023 GiB"; from 0 on."""
    if size < 1024:
        return f"{size:.0f} B"
    exponent = min(int(math.log2(size)) // 10, len(_UNITS))
    amount = size / 1024**exponent
    return f"{amount:.{0 if amount >= 99.95 else 1}f} {_UNITS[exponent - 1]}"


def rate_text(bytes_per_s: float) -> str:
    return f"{size_text(bytes_per_s)}/s"


def count_text(number: float) -> str:
    """Of things, or of things a second: "0", "0.4", "7.5", "12", "1,234", "123k", "12.3M"."""
    if number < 9.95:
        return f"{number:.1f}".removesuffix(".0")
    if number < 99_999.5:
        return f"{number:,.0f}"
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.1f}M"


def latency_text(seconds: float) -> str:
    """"0.12 ms", "1.5 ms", "25 ms", "1.5 s", "12 s"."""
    amount, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1000, "ms")
    digits = 2 if amount < 0.995 else 1 if amount < 9.95 else 0
    return f"{amount:.{digits}f} {unit}"


def share_text(share: float) -> str:
    """Of 0..1. What is not whole is never said to be: "99.9%", not "100%"."""
    if share >= 1:
        return "100%"
    thousandths = math.floor(share * 1000)
    return f"{thousandths / 10:.1f}%" if thousandths >= 990 else f"{thousandths // 10}%"


def duration_text(seconds: float) -> str:
    """In the two largest units that it has: "3 s", "5 min 12 s", "2 d 3 h"."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 1:
        return f"{days:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min {seconds % 60:.0f} s" if minutes >= 1 else f"{seconds:.0f} s"


def nodes_text(ranks: Sequence[int]) -> str:
    """At least one: "node 3", "nodes 1, 2"."""
    return f"node{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def printable(text: str) -> str:
    """What others have chosen, without what a terminal would take for an order, or a page for another direction."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
