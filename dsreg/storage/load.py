"""Reading values: every sector is checked against the checksum that goes with its tag."""

from __future__ import annotations

from typing import NamedTuple

from dsreg.constants import CRC_SIZE, MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE, ZERO_SECTOR
from dsreg.protocol.zeros import zeros
from dsreg.storage.checksum import crc32
from dsreg.storage.files import Buffer, File, pread_or_zeros
from dsreg.storage.journal import checksums


class Loaded(NamedTuple):
    """`tags`: 16 bytes per sector. `data`: 4096 bytes per sector, which nobody changes any more, zeros for
    those never written, and those that are zeros without data. `missing`: sectors whose value is lost; their part of
    `data` means nothing."""

    tags: bytes
    data: Buffer
    missing: tuple[int, ...]


class LoadJob:
    """One read from home. Call `run` once, in any thread, then hand it to finish_load.

    `tags` and `crcs` are those at the start, `held` says of each sector whether home had its value (TagTable.held),
    `absent` are those already known to be missing.
    """

    __slots__ = ("absent", "bad", "count", "crcs", "data", "first", "held", "tags", "_home")

    def __init__(
        self, home: File, first: int, count: int, tags: bytes, crcs: bytes, held: bytes, absent: list[int]
    ) -> None:
        self._home = home
        self.held = held
        self.first = first
        self.count = count
        self.tags = tags
        self.crcs = crcs
        self.absent = absent
        self.data: Buffer = b""
        self.bad: list[int] = []  # sectors that are not what their checksum says

    def run(self) -> None:
        """Read, waiting for the disk. A sector that cannot be read is bad like one with a wrong checksum."""
        if not self._anything_held():
            return
        self.data = pread_or_zeros(self._home, self.count * SECTOR_SIZE, self.first * SECTOR_SIZE)
        self._verify()

    def run_from_disk(self) -> None:
        """As `run`, past the page cache. A chunk is dropped from that with its first sector, and with its last one
        again if that was not there before. In between it holds what was read from the disk since."""
        if not self._anything_held():
            return
        length, offset = self.count * SECTOR_SIZE, self.first * SECTOR_SIZE
        try:
            self._home.pread_nowait(SECTOR_SIZE, offset)  # the rest mostly as well, then
            was_there = True
        except BlockingIOError:
            was_there = False
        if not self.first % MAX_RUN_SECTORS:
            self._home.drop_cached(MAX_RUN_BYTES, offset)
        self.data = pread_or_zeros(self._home, length, offset)
        self._verify()
        if not was_there and not (self.first + self.count) % MAX_RUN_SECTORS:
            self._home.drop_cached(length, offset)

    def run_nowait(self) -> bool:
        """Read what is in memory; False if not all of it is."""
        if self._anything_held():
            try:
                self.data = self._home.pread_nowait(self.count * SECTOR_SIZE, self.first * SECTOR_SIZE)
            except BlockingIOError:
                return False
            self._verify()
        return True

    def loaded(self) -> Loaded:
        missing = tuple(sorted({*self.absent, *self.bad})) if self.absent or self.bad else ()
        return Loaded(self.tags, self.data, missing)

    def _anything_held(self) -> bool:
        if any(self.held):
            return True
        self.data = zeros(self.count)
        return False

    def _verify(self) -> None:
        """Find bad sectors, and put zeros where home has no value, whatever stands there."""
        held, crcs, data = self.held, self.crcs, self.data
        if checksums(data, self.count) == crcs and 0 not in held:
            return
        view = memoryview(data)
        without: list[int] = []
        for index in range(self.count):
            if not held[index]:
                without.append(index)
                continue
            actual = crc32(view[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE]).to_bytes(4)
            if actual != crcs[index * CRC_SIZE:(index + 1) * CRC_SIZE] and self.first + index not in self.absent:
                self.bad.append(self.first + index)
        if without:
            self.data = copy = bytearray(data)
            for index in without:
                copy[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE] = ZERO_SECTOR
