"""Short names for the sectors and tags that the tests of the core talk about."""

from __future__ import annotations

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.tags import pack_tag


def data(*fills: int) -> bytes:
    """One sector for each fill (0..255)."""
    return b"".join(bytes([fill]) * SECTOR_SIZE for fill in fills)


def tags(*pairs: tuple[int, int]) -> bytes:
    """One tag for each (ts, wr)."""
    return b"".join(pack_tag(ts, wr) for ts, wr in pairs)
