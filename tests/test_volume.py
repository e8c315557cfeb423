"""A disk as every edge uses it, on real nodes: attached, with a cache or without, errors with an errno."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from dsreg.block_device import BlockDevice
from dsreg.client import Attach
from dsreg.config import ClusterConfig, NodeConfig, create_cluster, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import AlreadyAttached
from dsreg.listening import bind
from dsreg.node import run_register_process
from dsreg.store import Buffer, Flush, Read, Request, Write
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume, VolumeOptions, open_volume

SECTORS = 1024
NEVER_S = 30


@asynccontextmanager
async def nodes(sectors: int = SECTORS, within_s: float = NEVER_S) -> AsyncIterator[ClusterConfig]:
    """Three nodes with their storage, in this process."""
    listeners = [bind("127.0.0.1", 0) for _ in range(3)]
    addresses = [f"127.0.0.1:{sockets[0].getsockname()[1]}" for sockets in listeners]
    with tempfile.TemporaryDirectory() as directory, trio.fail_after(within_s):
        config = load_config(create_cluster(Path(directory) / "cluster", sectors * SECTOR_SIZE, addresses))
        async with trio.open_nursery() as nursery:
            for node, sockets in zip(config.nodes, listeners, strict=True):
                own = NodeConfig(config, node.rank, Path(directory) / str(node.rank), 4 << 20)
                nursery.start_soon(partial(run_register_process, own, listeners=sockets))
            yield config
            nursery.cancel_scope.cancel()


async def ask(volume: Volume, request: Request) -> tuple[bytes, int]:
    told: list[tuple[bytes, int]] = []
    over = trio.Event()

    def answer(data: Buffer, code: int) -> None:
        told.append((bytes(data), code))
        over.set()

    volume.submit(request, answer)
    volume.end_turn()
    await over.wait()
    return told[0]


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.allow_logs("read: OutOfRange")
async def test_an_edge_reads_and_writes_it(is_cached: bool) -> None:
    async with nodes() as config:
        options = VolumeOptions(config, attach=Attach(name="edge"), is_cached=is_cached)
        async with open_volume(options) as opening:
            await opening.attached()
            async with opening.volume() as (volume, cache):
                assert (cache is not None) == volume.is_cached == is_cached and volume.size == SECTORS * SECTOR_SIZE
                assert await ask(volume, Write(5000, b"hello")) == (b"", 0)
                assert await ask(volume, Flush()) == (b"", 0)
                assert await ask(volume, Read(4999, 7)) == (b"\0hello\0", 0)
                assert await ask(volume, Read(volume.size, 1)) == (b"", errno.EINVAL)
                assert await ask(volume, Write(0, b"kept by the last flush")) == (b"", 0)
                assert not volume.stall_watch.started
        async with open_volume(VolumeOptions(config)) as opening:
            await opening.attached()
            async with opening.volume() as (volume, _):
                assert await ask(volume, Read(0, 22)) == (b"kept by the last flush", 0)


@pytest.mark.allow_logs("read: OutOfRange")
async def test_what_is_abandoned_is_neither_answered_nor_logged() -> None:
    """What a dead client has left may still fail, which is nothing that anybody could do something about."""
    store = MemoryStore(4, holds=True)
    volume = Volume(BlockDevice(store))
    told: list[int] = []
    volume.submit(Write(0, bytes(SECTOR_SIZE)), lambda data, code: told.append(code))
    volume.submit(Read(0, SECTOR_SIZE), lambda data, code: told.append(code))
    volume.abandon()
    volume.end_turn()
    assert told == [] and not volume.stall_watch.started
    volume.submit(Read(4 * SECTOR_SIZE, 1), lambda data, code: told.append(code))
    assert told == [errno.EINVAL]


async def test_a_second_one_is_refused() -> None:
    async with nodes() as config:
        async with open_volume(VolumeOptions(config, attach=Attach(name="first"))) as first:
            await first.attached()
            async with open_volume(VolumeOptions(config, attach=Attach(name="second"))) as second:
                with pytest.raises(AlreadyAttached, match="attached by first, process"):
                    await second.attached()
