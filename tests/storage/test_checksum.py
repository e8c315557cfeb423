"""The checksum is the one of the formats, whatever computes it here."""

from __future__ import annotations

import random
import zlib

from dsreg.storage.checksum import crc32


def test_it_is_that_of_zlib(rng: random.Random) -> None:
    assert crc32(b"123456789") == 0xCBF43926, "the check value of CRC-32"
    for length in (0, 1, 7, 63, 64, 4096, 70_000):
        data, start = rng.randbytes(length), rng.getrandbits(32)
        assert crc32(data) == zlib.crc32(data)
        assert crc32(memoryview(data), start) == zlib.crc32(data, start)
