"""The block device, and the contract of the stores beneath it: memory, client and cache alike."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from dsreg.block_device import BlockDevice
from dsreg.cache import Limits, WritebackCache
from dsreg.client import Client
from dsreg.config import NodeConfig, create_cluster, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError, OperationTimeout, Outcome, OutOfRange
from dsreg.listening import bind
from dsreg.node import run_register_process
from dsreg.store import SETTLED, Done, Flush, Read, Request, SectorStore, Submitted, Trim, Write, Zero
from dsreg.testing.memory_store import MemoryStore
from tests.client.fake_node import cluster
from tests.stores import Bytes, OfTasks, Tasks

SECTORS = 1024
JOURNAL_BYTES = 4 << 20
Opener = Callable[[], AbstractAsyncContextManager[SectorStore]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[SectorStore]:
    yield MemoryStore(SECTORS, holds=True)


@asynccontextmanager
async def over_sockets() -> AsyncIterator[SectorStore]:
    async with cluster(sectors=SECTORS) as nodes, Client(nodes.config, timeout_s=20) as client:
        yield client


@asynccontextmanager
async def on_nodes() -> AsyncIterator[SectorStore]:
    """Three nodes with their storage, in this process."""
    listeners = [bind("127.0.0.1", 0) for _ in range(3)]
    addresses = [f"127.0.0.1:{sockets[0].getsockname()[1]}" for sockets in listeners]
    with tempfile.TemporaryDirectory() as directory:
        config = load_config(create_cluster(Path(directory) / "cluster", SECTORS * SECTOR_SIZE, addresses))
        async with trio.open_nursery() as nursery:
            for node, sockets in zip(config.nodes, listeners, strict=True):
                storage = Path(directory) / str(node.rank)
                own = NodeConfig(config, node.rank, storage, JOURNAL_BYTES)
                await nursery.start(partial(run_register_process, own, listeners=sockets))
            async with Client(config, timeout_s=20) as client:
                yield client
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def cached() -> AsyncIterator[SectorStore]:
    """A cache that is often full."""
    bounds = Limits(buffered=300 * SECTOR_SIZE, low_water=100 * SECTOR_SIZE, age_s=0.01)
    async with WritebackCache(MemoryStore(SECTORS, holds=True), bounds=bounds) as cache:
        yield cache


stores = pytest.mark.parametrize("opened", [in_memory, over_sockets, on_nodes, cached])


# --- the contract of a store ----------------------------------------------------------------------
@stores
async def test_store_reads_what_was_written_and_zeros_elsewhere(opened: Opener, rng: random.Random) -> None:
    async with opened() as below:
        store = Tasks(below)
        assert store.sectors == SECTORS
        data = rng.randbytes(600 * SECTOR_SIZE)
        await store.write(3, data)
        assert await store.read(2, 602) == bytes(SECTOR_SIZE) + data + bytes(SECTOR_SIZE)
        await store.write(4, memoryview(bytearray(SECTOR_SIZE)))
        content = await store.read(3, 3)
        assert isinstance(content, bytes)
        assert content == data[:SECTOR_SIZE] + bytes(SECTOR_SIZE) + data[2 * SECTOR_SIZE : 3 * SECTOR_SIZE]


@stores
async def test_store_refuses_what_is_not_there(opened: Opener) -> None:
    """By itself, or as the nodes do."""
    async with opened() as below:
        store = Tasks(below)
        for sector in (-1, SECTORS):
            for call in (partial(store.read, sector, 1), partial(store.write, sector, bytes(SECTOR_SIZE))):
                with pytest.raises(OutOfRange) as refused:
                    await call()
                assert refused.value.outcome is Outcome.DID_NOT_HAPPEN


@stores
async def test_store_sectors_are_atomic(opened: Opener) -> None:
    async with opened() as below, trio.open_nursery() as nursery:
        store = Tasks(below)

        async def write(fill: int) -> None:
            for _ in range(10):
                await store.write(0, bytes([fill]) * (4 * SECTOR_SIZE))

        for fill in (1, 2, 3):
            nursery.start_soon(write, fill)
        for _ in range(20):
            content = await store.read(0, 4)
            for begin in range(0, len(content), SECTOR_SIZE):
                assert len(set(content[begin : begin + SECTOR_SIZE])) == 1


# --- bytes --------------------------------------------------------------------------------------
@stores
async def test_random_io_is_that_of_a_plain_buffer(opened: Opener, rng: random.Random) -> None:
    model = bytearray(SECTORS * SECTOR_SIZE)
    async with opened() as store:
        device = Bytes(BlockDevice(store))
        assert device.size == len(model)
        for _ in range(150):
            length = rng.choice([0, 1, 511, 512, 4096, 8192, 12288, rng.randrange(20_000)])
            offset = rng.randrange(device.size - length + 1)
            if rng.random() < 0.5:
                offset -= offset % rng.choice([512, 4096])
            if rng.random() < 0.6:
                data = rng.randbytes(length)
                await device.write(offset, rng.choice([bytes, bytearray, memoryview])(data))
                model[offset : offset + length] = data
            else:
                assert await device.read(offset, length) == model[offset : offset + length]
        assert await device.read(0, device.size) == model


@stores
async def test_unaligned_writes_at_once_lose_nothing(opened: Opener, rng: random.Random) -> None:
    pieces = [(begin, rng.randbytes(512)) for begin in range(0, 16 * SECTOR_SIZE, 512)]
    rng.shuffle(pieces)
    async with opened() as store:
        device = Bytes(BlockDevice(store))
        async with trio.open_nursery() as nursery:
            for begin, data in pieces:
                nursery.start_soon(device.write, begin, data)
        assert await device.read(0, 16 * SECTOR_SIZE) == b"".join(data for _, data in sorted(pieces))


@stores
async def test_an_aligned_write_is_not_undone_by_an_unaligned_one_next_to_it(opened: Opener) -> None:
    async with opened() as store:
        device = Bytes(BlockDevice(store))
        for turn in range(1, 20):
            async with trio.open_nursery() as nursery:
                # It has a part of sectors 1 and 3, which the second one covers whole.
                nursery.start_soon(device.write, 2 * SECTOR_SIZE - 10, bytes([turn]) * (SECTOR_SIZE + 20))
                for _ in range(turn % 7):
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(device.write, 0, bytes([100 + turn]) * (8 * SECTOR_SIZE))
            content = await device.read(0, 8 * SECTOR_SIZE)
            assert set(content) in ({100 + turn}, {turn, 100 + turn})
            assert content.count(turn) in (0, SECTOR_SIZE + 20)


async def test_the_end_of_the_disk() -> None:
    device = Bytes(BlockDevice(MemoryStore(4)))
    await device.write(device.size - 1, b"x")
    assert await device.read(device.size - 2, 2) == b"\0x"
    assert await device.read(device.size, 0) == b""
    for offset, length in ((device.size, 1), (device.size - 1, 2), (-1, 1)):
        with pytest.raises(OutOfRange):
            await device.read(offset, length)
        with pytest.raises(OutOfRange):
            await device.write(offset, bytes(length))
    with pytest.raises(ValueError, match="negative"):
        await device.read(0, -1)


# --- flush --------------------------------------------------------------------------------------
class Gated:
    """Writes wait for the gate."""

    def __init__(self, sectors: int) -> None:
        self.gate = trio.Event()
        self.sectors = sectors
        self._memory = Tasks(MemoryStore(sectors))

    async def read(self, sector: int, count: int = 1) -> bytes:
        return await self._memory.read(sector, count)

    async def write(self, sector: int, data: bytes) -> None:
        await self.gate.wait()
        await self._memory.write(sector, data)


async def test_flush_waits_for_the_writes_before_it_and_for_no_other() -> None:
    store = Gated(8)
    device = Bytes(BlockDevice(OfTasks(store)))
    flushed = trio.Event()

    async def flush() -> None:
        await device.flush()
        flushed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.write, 0, b"x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        assert not flushed.is_set()
        old, store.gate = store.gate, trio.Event()
        nursery.start_soon(device.write, 4096, b"y")
        await trio.testing.wait_all_tasks_blocked()
        old.set()
        with trio.fail_after(20):
            await flushed.wait()
        assert await device.read(0, 1) == b"x" and await device.read(4096, 1) == b"\0"
        store.gate.set()


# --- requests -------------------------------------------------------------------------------------
class Calls:
    """What requests came to, by name."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.told: list[tuple[str, bytes, DsregError | None]] = []

    def submit(self, name: str, request: Request) -> None:
        self.device.submit(request, lambda data, error: self.told.append((name, bytes(data), error)))

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]


def test_a_request_that_needs_nothing_is_over_at_once_and_one_past_the_end_keeps_no_flush_waiting() -> None:
    calls = Calls(BlockDevice(MemoryStore(8, holds=True)))
    size = calls.device.size
    calls.submit("empty read", Read(0, 0))
    calls.submit("empty write", Write(size, b""))
    for offset in (size, size - SECTOR_SIZE, -SECTOR_SIZE):
        calls.submit("read", Read(offset, 2 * SECTOR_SIZE))
        calls.submit("write", Write(offset, bytes(2 * SECTOR_SIZE)))
        calls.submit("zero", Zero(offset, 2 * SECTOR_SIZE))
        calls.submit("trim", Trim(offset, 2 * SECTOR_SIZE))
    calls.submit("flush", Flush())
    assert [error is None for _, _, error in calls.told] == [True, True, *[False] * 12, True]
    assert all(isinstance(error, OutOfRange) for _, _, error in calls.told if error is not None)


def test_a_write_waits_where_a_part_of_a_sector_is_being_written() -> None:
    """It would be lost: the sector is read before it and written back, as it was then, behind it."""
    store = MemoryStore(8, holds=True)
    calls = Calls(BlockDevice(store))
    calls.submit("part", Write(7 * SECTOR_SIZE + 100, b"part"))
    calls.submit("whole", Write(7 * SECTOR_SIZE, b"w" * SECTOR_SIZE))
    calls.submit("beside", Write(5 * SECTOR_SIZE, bytes(SECTOR_SIZE)))
    assert calls.names == []
    calls.device.end_turn()
    assert calls.names == ["beside", "part", "whole"] and store.content[7] == b"w" * SECTOR_SIZE
    assert len(calls.device.lock) == 0 and len(calls.device.writes) == 0


def test_a_flush_waits_for_what_was_submitted_before_it_and_for_nothing_else() -> None:
    calls = Calls(BlockDevice(MemoryStore(8, holds=True)))
    calls.submit("idle", Flush())
    calls.submit("part", Write(1, b"x"))
    calls.submit("flush", Flush())
    calls.submit("later", Write(4 * SECTOR_SIZE, b"yy"))
    assert calls.names == ["idle"]
    calls.device.end_turn()
    calls.submit("last", Write(6 * SECTOR_SIZE, bytes(SECTOR_SIZE)))
    calls.device.end_turn()
    assert calls.names == ["idle", "part", "flush", "later", "last"]


def test_zeros_are_zeros_whatever_is_around_them(rng: random.Random) -> None:
    store = MemoryStore(1024)
    calls = Calls(BlockDevice(store))
    content = bytearray(rng.randbytes(calls.device.size))
    calls.submit("fill", Write(0, bytes(content)))
    for request in (Zero(5, 3 << 20), Trim((3 << 20) + 4096, 8192), Zero(calls.device.size - 1, 1, fua=True)):
        calls.submit("zero", request)
        content[request.offset : request.offset + request.length] = bytes(request.length)
    calls.submit("read", Read(0, calls.device.size))
    assert calls.told[-1][1] == content and not [error for _, _, error in calls.told if error is not None]


def test_zeros_over_gigabytes_of_a_store_that_answers_at_once() -> None:
    """Each run ends within the submitting of it: thousands of them must not be thousands of calls deep."""
    class Sink(MemoryStore):
        zeroed = 0

        def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
            assert first == self.zeroed and data == bytes(count * SECTOR_SIZE)
            self.zeroed += count
            done(b"", None)
            return SETTLED

    store = Sink(1 << 20)
    calls = Calls(BlockDevice(store))
    calls.submit("zero", Trim(0, calls.device.size))
    assert calls.told == [("zero", b"", None)] and store.zeroed == store.sectors


def test_fua_is_flushed_through_a_cache() -> None:
    class Cached(MemoryStore):
        is_cached = True
        flushes = 0

        def flush(self, done: Done) -> None:
            self.flushes += 1
            done(b"", None)

    store = Cached(8)
    calls = Calls(BlockDevice(store))
    calls.submit("write", Write(0, bytes(SECTOR_SIZE)))
    assert store.flushes == 0
    calls.submit("fua", Write(0, bytes(SECTOR_SIZE), fua=True))
    calls.submit("zero", Zero(0, 2, fua=True))
    assert store.flushes == 2 and len(calls.told) == 3


@pytest.mark.parametrize("failing", ["the read of an edge", "the write"])
def test_a_part_of_a_write_that_fails_releases_what_it_held(failing: str) -> None:
    class Failing(MemoryStore):
        def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
            if (data is None) == (failing == "the read of an edge"):
                done(b"", OperationTimeout("no majority", Outcome.DID_NOT_HAPPEN))
                return SETTLED
            return super().submit(first, count, data, done)

    calls = Calls(BlockDevice(Failing(2048)))
    for length in (10, 3 * SECTOR_SIZE, 2 << 20):
        calls.submit("part", Write(100, bytes(length)))
    assert [type(error) for _, _, error in calls.told] == [OperationTimeout] * 3
    assert len(calls.device.lock) == 0 and len(calls.device.writes) == 0


class ByHand(MemoryStore):
    """With a cache. Runs end when the test says so: `waiting`, in the order in which they were submitted."""

    is_cached = True

    def __init__(self) -> None:
        super().__init__(1024)
        self.waiting: list[Done] = []
        self.flushes = 0

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        self.waiting.append(done)
        return SETTLED

    def flush(self, done: Done) -> None:
        self.flushes += 1
        done(b"", None)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_flush_begins_only_when_all_writes_before_it_have_ended(order: tuple[int, ...]) -> None:
    store = ByHand()
    calls = Calls(BlockDevice(store))
    for number in range(3):
        calls.submit(str(number), Write(number * SECTOR_SIZE, bytes(SECTOR_SIZE)))
    calls.submit("flush", Flush())
    calls.submit("later", Write(9 * SECTOR_SIZE, bytes(SECTOR_SIZE)))
    writes = list(store.waiting)
    for number in order:
        assert store.flushes == 0 and "flush" not in calls.names
        writes[number](b"", None)
    assert store.flushes == 1 and calls.names == [*map(str, order), "flush"]


def test_a_write_with_fua_that_fails_is_not_made_good_by_a_flush() -> None:
    store = ByHand()
    calls = Calls(BlockDevice(store))
    calls.submit("write", Write(0, bytes(SECTOR_SIZE), fua=True))
    calls.submit("zero", Zero(SECTOR_SIZE, SECTOR_SIZE, fua=True))
    for done in store.waiting:
        done(b"", OperationTimeout("no room", Outcome.DID_NOT_HAPPEN))
    assert [type(error) for _, _, error in calls.told] == [OperationTimeout] * 2 and store.flushes == 0
