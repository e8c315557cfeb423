"""Now: what the clocks say at an event. Whoever brings the event reads them, once; the register has no clock."""

from __future__ import annotations

from typing import NamedTuple


class Now(NamedTuple):
    """`s`: seconds on any clock that does not go backwards. `unix_s`: seconds since 1970; it may be wrong, and jump."""

    s: float
    unix_s: float
