"""Streaming: in order, whole, with a bound on what is in flight."""

from __future__ import annotations

import os
import random

import pytest
import trio
import trio.testing

from dsreg.cli.holes import sink_of, source_of
from dsreg.cli.transfer import ASKED_AGAIN, HOLE_RUNS, RUNS_IN_FLIGHT, OddLength, copy_in, copy_out
from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.extents import can_be_mapped
from dsreg.protocol.zeros import is_zeros
from dsreg.store import SETTLED, Done, Submitted


class SlowDisk:
    """Sectors in memory; requests end in random order, and the most that were under way at once is kept."""

    def __init__(self, rng: random.Random, sectors: int) -> None:
        self.data = bytearray(sectors * SECTOR_SIZE)
        self.under_way = 0
        self.most_under_way = 0
        self.reads: list[tuple[int, int]] = []
        self._rng = rng

    def map(self, first: int, count: int, done: Done) -> Submitted:
        """Of three chunks at a time."""
        assert can_be_mapped(first, count) and (first + count) * SECTOR_SIZE <= len(self.data)
        chunks = range(first, first + min(count, 3 * MAX_RUN_SECTORS), MAX_RUN_SECTORS)
        starts = (chunk * SECTOR_SIZE for chunk in chunks)
        done(bytes([is_zeros(bytes(self.data[start : start + MAX_RUN_BYTES])) for start in starts]), None)
        return SETTLED

    def end_turn(self) -> None:
        """Nothing waits for it."""

    async def _take_time(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        for _ in range(self._rng.randrange(20)):
            await trio.lowlevel.checkpoint()
        self.under_way -= 1

    async def read(self, sector: int, count: int = 1) -> bytes:
        self.reads.append((sector, count))
        await self._take_time()
        return bytes(self.data[sector * SECTOR_SIZE : (sector + count) * SECTOR_SIZE])

    async def write(self, sector: int, data: bytes) -> None:
        assert data and len(data) % SECTOR_SIZE == 0
        await self._take_time()
        self.data[sector * SECTOR_SIZE : sector * SECTOR_SIZE + len(data)] = data


class Input:
    """A source that gives what it has."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    async def __call__(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def ignore(amount: float) -> None:
    """Nobody watches."""


@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 5000), (256, 256 * 20), (255, 258)])
async def test_in_and_out_again(rng: random.Random, first: int, count: int) -> None:
    disk = SlowDisk(rng, first + count + 1)
    data = rng.randbytes(count * SECTOR_SIZE)
    done: list[float] = []
    assert await copy_in(disk, first, Input(data), done.append) == count
    assert sum(done) == len(data)
    assert disk.data == bytes(first * SECTOR_SIZE) + data + bytes(SECTOR_SIZE)
    out = bytearray()

    async def sink(part: bytes, times: int = 1) -> None:
        await trio.lowlevel.checkpoint()
        out.extend(part * times)

    await copy_out(disk, first, count, sink, ignore)
    assert out == data
    assert disk.most_under_way <= RUNS_IN_FLIGHT
    if count > RUNS_IN_FLIGHT * MAX_RUN_SECTORS:
        assert disk.most_under_way > 1


async def test_holes_are_not_read(rng: random.Random) -> None:
    """Of 10 chunks from the middle of the first one to that of the last, two have data."""
    disk = SlowDisk(rng, 10 * MAX_RUN_SECTORS)
    for chunk in (3, 7):
        disk.data[chunk * MAX_RUN_BYTES + 77] = 1
    out, pieces = bytearray(), []

    async def sink(part: bytes, times: int = 1) -> None:
        out.extend(part * times)
        pieces.append(times)

    done: list[float] = []
    first, count = 100, 10 * MAX_RUN_SECTORS - 200
    await copy_out(disk, first, count, sink, done.append)
    assert out == disk.data[first * SECTOR_SIZE : (first + count) * SECTOR_SIZE] and sum(done) == len(out)
    assert sorted(disk.reads) == [(100, 156), (3 * 256, 256), (7 * 256, 256), (9 * 256, 156)]
    assert pieces == [1, 2, 1, 3, 1, 1, 1]


async def test_a_large_hole_is_given_away_in_pieces(rng: random.Random) -> None:
    """Of a bounded size, and in order with what comes behind it."""
    disk, runs = SlowDisk(rng, 201 * MAX_RUN_SECTORS), 2 * HOLE_RUNS + 5
    disk.data[runs * MAX_RUN_BYTES] = 1
    pieces: list[tuple[bool, int]] = []

    async def sink(part: bytes, times: int = 1) -> None:
        pieces.append((is_zeros(part), times))

    await copy_out(disk, 0, (runs + 1) * MAX_RUN_SECTORS, sink, ignore)
    assert pieces == [(True, HOLE_RUNS), (True, HOLE_RUNS), (True, 5), (False, 1)]


async def test_what_may_be_data_is_asked_for_again(rng: random.Random) -> None:
    """As no node had answered the first time."""
    disk, maps = SlowDisk(rng, 200 * MAX_RUN_SECTORS), []

    def map_(first: int, count: int, done: Done) -> Submitted:
        maps.append(first // MAX_RUN_SECTORS)
        done(bytes([first > 0]) * (count // MAX_RUN_SECTORS), None)
        return SETTLED

    disk.map = map_  # type: ignore[method-assign]

    async def sink(part: bytes, times: int = 1) -> None:
        assert is_zeros(part)

    await copy_out(disk, 0, 200 * MAX_RUN_SECTORS, sink, ignore)
    assert len(disk.reads) == ASKED_AGAIN and maps == [0, ASKED_AGAIN]


async def test_nothing_is_read_ahead_of_a_sink_that_is_full(rng: random.Random) -> None:
    disk, full = SlowDisk(rng, 40 * MAX_RUN_SECTORS), trio.Event()
    disk.data[::MAX_RUN_BYTES] = b"x" * 40
    reads = 0
    read = disk.read

    async def counted_read(sector: int, count: int = 1) -> bytes:
        nonlocal reads
        reads += 1
        return await read(sector, count)

    disk.read = counted_read  # type: ignore[method-assign]

    async def sink(part: bytes, times: int = 1) -> None:
        full.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy_out, disk, 0, 40 * MAX_RUN_SECTORS, sink, ignore)
        await full.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert reads == RUNS_IN_FLIGHT
        nursery.cancel_scope.cancel()


async def test_an_odd_length_is_refused_not_padded(rng: random.Random) -> None:
    disk = SlowDisk(rng, 600)
    data = rng.randbytes(300 * SECTOR_SIZE + 17)
    with pytest.raises(OddLength) as raised:
        await copy_in(disk, 0, Input(data), ignore)
    assert (raised.value.sectors, raised.value.odd) == (300, 17)
    assert disk.data == data[:-17] + bytes(300 * SECTOR_SIZE)


async def test_descriptors(rng: random.Random) -> None:
    reader, writer = os.pipe()
    data = rng.randbytes(300_000)  # more than a pipe holds
    received = b""

    async def send() -> None:
        await sink_of(writer, "stdout")(data)
        os.close(writer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        source = source_of(reader, "stdin")
        while part := await source(100_001):
            assert len(part) == 100_001 or len(received) == 200_002
            received += part
    os.close(reader)
    assert received == data


async def test_errors_of_a_descriptor_have_its_name() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    directory = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="No space left on device: 'stdout'"):
            await sink_of(full, "stdout")(b"x")
        with pytest.raises(IsADirectoryError, match="stdin"):
            await source_of(directory, "stdin")(1)
    finally:
        os.close(full)
        os.close(directory)


async def test_a_closed_pipe_stays_one() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            await sink_of(writer, "stdout")(b"x")
    finally:
        os.close(writer)
