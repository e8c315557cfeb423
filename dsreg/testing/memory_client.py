"""Sectors in a dict, behind the interface of dsreg.client.Client, for tests of programs that use one."""

from __future__ import annotations

import trio.lowlevel

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
from dsreg.errors import Outcome, OutOfRange
from dsreg.protocol.messages import Buffer


class MemoryClient:
    """Each sector changes atomically, a run does not; other tasks run in between, as with the real one."""

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors
        self._content: dict[int, bytes] = {}

    async def read(self, sector: int, count: int = 1) -> bytes:
        if count < 1:
            raise ValueError("count must be at least 1")
        self._check(sector, count)
        parts = []
        for index in range(sector, sector + count):
            await trio.lowlevel.checkpoint()
            parts.append(self._content.get(index, ZERO_SECTOR))
        return b"".join(parts)

    async def write(self, sector: int, data: Buffer) -> None:
        content = bytes(data)
        if not content or len(content) % SECTOR_SIZE:
            raise ValueError(f"the data must be a positive multiple of {SECTOR_SIZE} bytes")
        count = len(content) // SECTOR_SIZE
        self._check(sector, count)
        for index in range(count):
            await trio.lowlevel.checkpoint()
            self._content[sector + index] = content[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]

    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or sector + count > self.sectors:
            raise OutOfRange(f"sectors {sector}..{sector + count - 1} of {self.sectors}", Outcome.DID_NOT_HAPPEN)
