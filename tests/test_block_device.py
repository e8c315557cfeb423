"""The block device, and the contract of the stores beneath it: MemoryClient and Client alike."""

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

from dsreg.block_device import BlockDevice, SectorStore
from dsreg.cache import Limits, WritebackCache
from dsreg.client import Client
from dsreg.client.engine import Done
from dsreg.config import NodeConfig, create_cluster, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.core.messages import Buffer
from dsreg.errors import ClientError, Outcome, OutOfRange
from dsreg.listening import bind
from dsreg.node import run_register_process
from dsreg.testing.memory_client import MemoryClient
from tests.client.fake_node import cluster

SECTORS = 1024
JOURNAL_BYTES = 4 << 20
Opener = Callable[[], AbstractAsyncContextManager[SectorStore]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[SectorStore]:
    yield MemoryClient(SECTORS)


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
    async with WritebackCache(MemoryClient(SECTORS), bounds=bounds) as cache:
        yield cache


stores = pytest.mark.parametrize("opened", [in_memory, over_sockets, on_nodes, cached])


# --- the contract of a store ----------------------------------------------------------------------
@stores
async def test_store_reads_what_was_written_and_zeros_elsewhere(opened: Opener, rng: random.Random) -> None:
    async with opened() as store:
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
    async with opened() as store:
        for sector, count in ((-1, 1), (SECTORS, 1), (SECTORS - 1, 2)):
            with pytest.raises(OutOfRange) as caught:
                await store.read(sector, count)
            assert caught.value.outcome is Outcome.DID_NOT_HAPPEN
            with pytest.raises(OutOfRange):
                await store.write(sector, bytes(count * SECTOR_SIZE))
        for bad in (b"", bytes(SECTOR_SIZE - 1)):
            with pytest.raises(ValueError, match="multiple"):
                await store.write(0, bad)
        with pytest.raises(ValueError, match="count"):
            await store.read(0, 0)


@stores
async def test_store_sectors_are_atomic(opened: Opener) -> None:
    async with opened() as store, trio.open_nursery() as nursery:

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
        device = BlockDevice(store)
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
        device = BlockDevice(store)
        async with trio.open_nursery() as nursery:
            for begin, data in pieces:
                nursery.start_soon(device.write, begin, data)
        assert await device.read(0, 16 * SECTOR_SIZE) == b"".join(data for _, data in sorted(pieces))


@stores
async def test_an_aligned_write_is_not_undone_by_an_unaligned_one_next_to_it(opened: Opener) -> None:
    async with opened() as store:
        device = BlockDevice(store)
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
    device = BlockDevice(MemoryClient(4))
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
class Gated(MemoryClient):
    """Writes wait for the gate."""

    def __init__(self, sectors: int) -> None:
        super().__init__(sectors)
        self.gate = trio.Event()

    async def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        await self.gate.wait()
        await super().write(sector, data)


async def test_flush_waits_for_the_writes_before_it_and_for_no_other() -> None:
    store = Gated(8)
    device = BlockDevice(store)
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
        with trio.fail_after(1):
            await flushed.wait()
        assert await device.read(0, 1) == b"x" and await device.read(4096, 1) == b"\0"
        store.gate.set()


async def test_flush_does_not_wait_for_a_write_that_was_cancelled() -> None:
    device = BlockDevice(Gated(8))
    with trio.move_on_after(0.01):
        await device.write(0, b"x")
    with trio.fail_after(1):
        await device.flush()


# --- without waiting ------------------------------------------------------------------------------
class Reluctant(MemoryClient):
    """What is begun is over when `settle` says so; what tasks ask for waits until then, as in the real client."""

    def __init__(self) -> None:
        super().__init__(SECTORS)
        self.begun: list[tuple[int, bytes | None, Done]] = []
        self._settled = trio.Event()

    def begin(self, sector: int, count: int, data: bytes | None, done: Done) -> bool:
        self.begun.append((sector, data, done))
        return True

    def flush_turn(self) -> None:
        pass

    async def settle(self) -> None:
        for sector, data, done in self.begun:
            if data is not None:
                await super().write(sector, data)
            done(b"" if data is not None else await super().read(sector), None)
        self.begun = []
        self._settled.set()

    async def read(self, sector: int, count: int = 1) -> bytes:
        await self._settled.wait()
        return await super().read(sector, count)

    async def write(self, sector: int, data: Buffer) -> None:
        await self._settled.wait()
        await super().write(sector, data)


def nothing_told(data: Buffer, error: ClientError | None) -> None:
    assert error is None


async def test_only_whole_sectors_of_a_store_that_can_are_begun() -> None:
    device = BlockDevice(MemoryClient(SECTORS))
    assert not device.begin_read(0, SECTOR_SIZE, nothing_told)
    assert not device.begin_write(0, bytes(SECTOR_SIZE), nothing_told)
    device.flush_turn()
    store = Reluctant()
    device = BlockDevice(store)
    for offset, length in ((1, SECTOR_SIZE), (0, SECTOR_SIZE - 1), (0, 0), (512, 512)):
        assert not device.begin_read(offset, length, nothing_told)
        assert not device.begin_write(offset, bytes(length), nothing_told)
    assert not store.begun
    assert device.begin_read(SECTOR_SIZE, 2 * SECTOR_SIZE, nothing_told)
    assert device.begin_write(4 * SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)
    assert [(sector, data is None) for sector, data, _ in store.begun] == [(1, True), (4, False)]


async def test_what_cannot_be_begun_past_the_end_keeps_no_flush_waiting() -> None:
    device = BlockDevice(Reluctant())
    for offset in (device.size, device.size - SECTOR_SIZE, -SECTOR_SIZE):
        with pytest.raises(OutOfRange):
            device.begin_write(offset, bytes(2 * SECTOR_SIZE), nothing_told)
    assert device.is_flushed
    with trio.fail_after(5):
        await device.flush()


async def test_a_write_is_not_begun_where_a_part_of_a_sector_is_being_written() -> None:
    """It would be lost: the sector is read before it and written back, as it was then, behind it."""
    store = Reluctant()
    device = BlockDevice(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.write, 7 * SECTOR_SIZE + 100, b"part")
        await trio.testing.wait_all_tasks_blocked()
        assert not device.begin_write(7 * SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)
        assert not device.begin_write(6 * SECTOR_SIZE, bytes(3 * SECTOR_SIZE), nothing_told)
        assert device.begin_write(8 * SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)
        await store.settle()
    assert device.begin_write(7 * SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)


async def test_a_flush_waits_for_what_was_begun_before_it_and_for_nothing_else() -> None:
    store = Reluctant()
    device = BlockDevice(store)
    await device.flush()
    assert device.is_flushed and not BlockDevice(WritebackCache(MemoryClient(SECTORS))).is_flushed
    assert device.begin_write(0, bytes(SECTOR_SIZE), nothing_told)
    assert not device.is_flushed
    assert device.begin_write(SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)
    flushed = trio.Event()

    async def flush() -> None:
        await device.flush()
        flushed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        assert device.begin_write(2 * SECTOR_SIZE, bytes(SECTOR_SIZE), nothing_told)
        later = store.begun.pop()
        first = store.begun.pop(0)
        first[2](b"", None)
        await trio.testing.wait_all_tasks_blocked()
        assert not flushed.is_set(), "one of the two is under way"
        await store.settle()
        await flushed.wait()
    later[2](b"", None)
    await device.flush()
