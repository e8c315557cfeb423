"""The map of holes through the cache: what is buffered is data, until the store has it."""

from __future__ import annotations

from dsreg.cache.writeback import WritebackCache
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError, OutOfRange
from dsreg.store import Buffer
from dsreg.testing.memory_store import MemoryStore

CHUNKS = 4
VALUE = b"v" * SECTOR_SIZE


class Told:
    """What a call has come to."""

    def __init__(self) -> None:
        self.all: list[tuple[bytes, DsregError | None]] = []

    def __call__(self, content: Buffer, error: DsregError | None) -> None:
        self.all.append((bytes(content), error))


def holes(cache: WritebackCache, first: int = 0, chunks: int = CHUNKS) -> bytes:
    told = Told()
    cache.map(256 * first, 256 * chunks, told)
    cache.end_turn()
    [(content, error)] = told.all
    assert error is None
    return content


def put(cache: WritebackCache, sector: int, data: bytes) -> None:
    told = Told()
    cache.submit(sector, 1, data, told)
    assert told.all == [(b"", None)], "it is buffered"


def test_what_is_buffered_is_data() -> None:
    store = MemoryStore(CHUNKS * 256, holds=True)
    cache = WritebackCache(store, clock=lambda: 0.0)
    assert holes(cache) == b"\1\1\1\1"
    put(cache, 256, VALUE)
    put(cache, 1023, bytes(SECTOR_SIZE))
    assert not store.content and holes(cache) == b"\1\0\1\0", "zeros as well: nothing is looked at"
    assert holes(cache, 1, 2) == b"\0\1" and holes(cache, 2, 1) == b"\1"
    flushed = Told()
    cache.flush(flushed)
    assert holes(cache, 1, 1) == b"\0", "it is on its way"
    cache.end_turn()
    assert flushed.all == [(b"", None)] and store.content[256] == VALUE
    assert holes(cache) == b"\1\0\1\1"


def test_what_is_beyond_the_end() -> None:
    told = Told()
    WritebackCache(MemoryStore(CHUNKS * 256), clock=lambda: 0.0).map(256, CHUNKS * 256, told)
    [(_, error)] = told.all
    assert isinstance(error, OutOfRange)
