"""A node whose directory began with every sector unknown answers nothing until it has learned it, and then all."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dsreg.client import Client
from dsreg.storage import OsFiles, StableStorage, Start, identity
from dsreg.storage.layout import IDENTITY, LEARNED, LIVES
from tests.processes.cluster import Cluster, until
from tests.processes.test_heal import in_sync, report

SECTORS = 4096


def emptied(path: Path) -> None:
    """A new directory, of the life of the one that is there: what a claim adds to that is tested elsewhere."""
    files = OsFiles(path)
    recorded, lives = identity.read(files), (path / LIVES).read_bytes()
    files.close()
    shutil.rmtree(path)
    files = OsFiles(path)
    StableStorage.open(
        files, recorded.identity, recorded.journal_bytes, lambda: recorded.store, Start(all_unknown=True)
    ).close()
    files.close()
    (path / LIVES).write_bytes(lives)


def kept(path: Path) -> None:
    """The directory that is there, which does not count."""
    files = OsFiles(path)
    recorded = identity.read(files)
    storage = StableStorage.open(files, recorded.identity, recorded.journal_bytes)
    storage.learning.begin()
    storage.close()
    files.close()


def is_marked(path: Path) -> bool:
    return "\nlearning = " in (path / IDENTITY).read_text()


@pytest.mark.parametrize("begin", [emptied, kept])
async def test_it_is_killed_while_it_learns_and_others_write(
    make_cluster: Callable[..., Cluster], rng: random.Random, begin: Callable[[Path], None]
) -> None:
    cluster = make_cluster(sectors=SECTORS, journal_mib=4)
    cluster.start()
    expected = bytearray(SECTORS * 4096)

    async def write(count: int) -> None:
        sector = rng.randrange(SECTORS // 2)
        data = rng.randbytes(count * 4096)
        await client.write(sector, data)
        expected[sector * 4096 : (sector + count) * 4096] = data

    async with Client(cluster.config) as client:
        for _ in range(30):
            await write(rng.randint(1, 100))
        cluster.kill(3)
        for _ in range(10):
            await write(rng.randint(1, 10))
        begin(cluster.storage(3))
        assert is_marked(cluster.storage(3))
        for _ in range(3):
            cluster.start(3)
            for _ in range(20):
                await write(1)
            cluster.kill(3)
        cluster.start(3)
        await write(3)
        await in_sync(cluster, *cluster.ranks)
        heal = (await report(cluster, 3))["heal"]
        assert heal["unknown_bytes"] == 0 and heal["known"] == 1.0
        cluster.kill(1)  # it is one of the two that have acknowledged all of this
        assert await client.read(0, SECTORS) == expected
    until(lambda: not is_marked(cluster.storage(3)), "the node says that it knows everything")
    assert not (cluster.storage(3) / LEARNED).exists()
    cluster.kill(3)
    cluster.start(3)
    async with Client(cluster.config) as client:
        assert await client.read(0, SECTORS) == expected


async def test_of_what_two_have_to_tell_one_is_not_enough(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=1 << 28)  # 1 TiB, and nearly all of it never written
    cluster.start()
    async with Client(cluster.config) as client:
        await client.write(1 << 27, b"w" * 4096)
        await in_sync(cluster, *cluster.ranks)
        cluster.kill(1, 3)
        emptied(cluster.storage(3))
        cluster.start(3)
        for _ in range(20):
            heal = (await report(cluster, 3))["heal"]
            assert heal["in_sync"] is False and heal["unknown_bytes"] == 1 << 40 and heal["known"] == 0.0
            await trio.sleep(0.05)
        with trio.move_on_after(0.5) as nothing_answered:
            await client.read(1 << 27, 1)
        assert nothing_answered.cancelled_caught
        cluster.start(1)
        await in_sync(cluster, *cluster.ranks)
        cluster.kill(1)
        assert await client.read(1 << 27, 1) == b"w" * 4096
