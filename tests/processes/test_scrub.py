"""Damage on the disks of running and of stopped nodes: found by a scrub, told, and repaired."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from dsreg.client import Client
from dsreg.storage import OsFiles, StableStorage
from dsreg.storage.checksum import crc32
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, until
from tests.processes.test_heal import in_sync, report, run

SECTORS = 2048  # 8 chunks
SLOT = 256
GROUPS = SECTORS // 8


def scrub(cluster: Cluster, *options: str) -> subprocess.CompletedProcess[str]:
    return run(cluster, "scrub", *options)


async def written(cluster: Cluster, rng: random.Random) -> bytes:
    """All sectors, at all nodes, and at rest there.

    A write is done at a majority, and a node that was not reached in time has compared before that and would do so
    again only after minutes. So one node starts anew: it compares with all, and all with it. What one of them lacks the
    two others have.
    """
    data = rng.randbytes(SECTORS * 4096)
    async with Client(cluster.config) as client:
        await client.write(0, data)
    assert cluster.terminate(1) == 0
    cluster.start(1)
    await in_sync(cluster, *cluster.ranks)
    until(lambda: all(slots_of(cluster, rank) == GROUPS for rank in cluster.ranks), "all tags are at rest")
    return data


def slots_of(cluster: Cluster, rank: int) -> int:
    raw = (cluster.storage(rank) / "tags").read_bytes()
    return sum(raw[at:at + 4] == b"dsTG" for at in range(0, len(raw), SLOT))


def flip(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 0x40]), at)


def damage_value(cluster: Cluster, rank: int, sector: int) -> None:
    flip(cluster.storage(rank) / "sectors", sector * 4096 + 1234)


def damage_slot(cluster: Cluster, rank: int, slot: int) -> None:
    flip(cluster.storage(rank) / "tags", slot * SLOT + 50)


async def all_are(cluster: Cluster, data: bytes) -> None:
    """Each node alone has the data, and nothing is damaged any more."""
    for rank in cluster.ranks:
        said = await report(cluster, rank)
        assert said["damaged"] == 0 and said["damage"]["open"] == 0, said
    for rank in cluster.ranks:
        assert cluster.terminate(rank) == 0
    for rank in cluster.ranks:
        assert (cluster.storage(rank) / "sectors").read_bytes() == data, rank


async def test_a_clean_disk(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await written(cluster, rng)
    done = scrub(cluster)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"node {rank}: 8.0 MiB verified, nothing is damaged" for rank in cluster.ranks]


async def test_values_and_tags_of_running_nodes(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    """Of different sectors at two nodes of three; the tags of node 2 are whole in its memory."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    data = await written(cluster, rng)
    tags = (cluster.storage(2) / "tags").read_bytes()
    damage_value(cluster, 1, 7)
    damage_value(cluster, 3, 300)
    damage_value(cluster, 3, SECTORS - 1)
    damage_slot(cluster, 2, 5)
    done = scrub(cluster)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        "node 1: 8.0 MiB verified, 1 damaged sector found, repaired",
        "node 2: 8.0 MiB verified, 8 damaged sectors found, repaired",
        "node 3: 8.0 MiB verified, 2 damaged sectors found, repaired",
    ]
    said = await report(cluster, 3)
    assert {"value": 2, "tag": 0, "contradiction": 0, "repaired": 2}.items() <= said["damage"].items()
    assert (await report(cluster, 2))["damage"]["tag"] == 8
    until(lambda: (cluster.storage(2) / "tags").read_bytes() == tags, "the slot is written anew")
    for rank, sectors in ((1, [7]), (3, [300, SECTORS - 1])):
        for sector in sectors:
            line = f"sector {sector}: the value does not match its checksum"
            assert cluster.log(rank).read_text().count(line) == 1
    await all_are(cluster, data)


async def test_values_and_tags_of_a_stopped_node(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    data = await written(cluster, rng)
    assert cluster.terminate(3) == 0
    damage_value(cluster, 3, 0)
    damage_slot(cluster, 3, 40)
    cluster.start(3)
    await in_sync(cluster, *cluster.ranks)
    assert scrub(cluster).returncode == 0
    said = (await report(cluster, 3))["damage"]
    assert {"value": 1, "tag": 8, "repaired": 9, "open": 0}.items() <= said.items()
    await all_are(cluster, data)


async def test_the_same_sector_at_two_of_three(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    """The tags are whole: whoever has a value under the same tag has this one. One good copy is enough."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    data = await written(cluster, rng)
    damage_value(cluster, 1, 777)
    damage_value(cluster, 2, 777)
    done = scrub(cluster)
    assert done.returncode == 0, done
    await all_are(cluster, data)


def verdicts(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Without what another node did not answer in time, on a machine with a lot to do."""
    return re.sub("; [0-9]+ MiB could not be compared with another node", "", done.stdout).splitlines()


async def test_what_no_other_has_remains(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    """All three values are lost: nothing is put in their place, and it is said."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await written(cluster, rng)
    for rank in cluster.ranks:
        damage_value(cluster, rank, 777)
    done = scrub(cluster)
    assert done.returncode == 1, done
    assert verdicts(done) == [
        f"node {rank}: 8.0 MiB verified, 1 damaged sector found, 1 not repaired: 777" for rank in cluster.ranks
    ]
    assert re.search(r"node 2 \(.*\): 1 damaged sector found, 1 not repaired: 777\n", run(cluster, "status").stdout)
    async with Client(cluster.config) as client:  # whoever overwrites it mends it
        await client.write(777, bytes(4096))
    done = scrub(cluster)
    assert done.returncode == 0, done


def give_another_value(cluster: Cluster, rank: int, sector: int, value: bytes) -> None:
    """At a stopped node: under the tag that it has, with the checksum of this value, as a bug would do it."""
    storage = StableStorage.open(OsFiles(cluster.storage(rank)), cluster.identity(rank))
    storage._table.put(sector, 1, storage.tags(sector, 1), crc32(value).to_bytes(4))
    storage._directory.home.pwritev([value], sector * 4096)
    storage.close()


async def test_two_values_under_one_tag_are_told_and_left(
    make_cluster: Callable[..., Cluster], rng: random.Random
) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    data = await written(cluster, rng)
    other = rng.randbytes(4096)
    assert cluster.terminate(3) == 0
    give_another_value(cluster, 3, 777, other)
    cluster.start(3, options=("--scrub-days", "0"))  # else a pass of its own may begin right there, and find it first
    await in_sync(cluster, *cluster.ranks)  # tags are all that heal compares
    done = scrub(cluster)
    assert done.returncode == 1, done
    said = "1 damaged sector found, 1 not repaired: 777; 1 with two values under one tag"
    assert verdicts(done) == [f"node {rank}: 8.0 MiB verified, {said}" for rank in cluster.ranks]
    for rank in cluster.ranks:
        assert cluster.log(rank).read_text().count("ERROR") == 1
    assert "two values have the same tag, at 1 sectors" in run(cluster, "health").stdout
    for rank in cluster.ranks:
        there = (cluster.storage(rank) / "sectors").read_bytes()[777 * 4096:778 * 4096]
        assert there == (other if rank == 3 else data[777 * 4096:778 * 4096])
    damage_value(cluster, 3, 777)  # and then the disk loses the one: the other does not take its place
    done = scrub(cluster, "--rank", "3")
    assert done.returncode == 1
    assert {"value": 1, "open": 2}.items() <= (await report(cluster, 3))["damage"].items()
    assert (cluster.storage(3) / "sectors").read_bytes()[777 * 4096:778 * 4096] != data[777 * 4096:778 * 4096]
    async with Client(cluster.config) as client:
        await client.write(777, bytes(4096))
    await in_sync(cluster, *cluster.ranks)
    assert scrub(cluster).returncode == 0


async def test_one_node_and_one_that_is_away(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await written(cluster, rng)
    damage_value(cluster, 1, 5)
    done = scrub(cluster, "--rank", "2")
    assert (done.returncode, done.stdout) == (0, "node 2: 8.0 MiB verified, nothing is damaged\n")
    assert (await report(cluster, 1))["damage"]["value"] == 0
    cluster.kill(3)
    done = scrub(cluster)
    assert done.returncode == 1
    assert done.stderr == "node 3: not verified: it does not answer: connection refused\n"
    assert "node 1: 8.0 MiB verified, 1 damaged sector found, repaired\n" in done.stdout
    assert scrub(cluster, "--rank", "4").returncode == 2


async def scrubbed(cluster: Cluster, rank: int) -> dict[str, Any]:
    """Until the node has gone over all of it once."""
    with trio.fail_after(TIMEOUT_S):
        while not (said := await report(cluster, rank))["scrub"]["passes"]:  # noqa: ASYNC110
            await trio.sleep(0.05)
    return said


async def test_of_its_own_accord(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    data = await written(cluster, rng)
    assert cluster.terminate(3) == 0
    damage_value(cluster, 3, SECTORS - 1)
    cluster.start(3, options=("--scrub-days", "0.00001"))
    said = await scrubbed(cluster, 3)
    assert said["damage"]["value"] == 1
    assert (await report(cluster, 1))["scrub"]["passes"] == 0
    await in_sync(cluster, *cluster.ranks)
    await all_are(cluster, data)


async def test_ctrl_c_ends_the_waiting(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    """While it waits for a repair that cannot be."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await written(cluster, rng)
    for rank in cluster.ranks:
        damage_value(cluster, rank, 777)
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-P", "-m", "dsreg", "scrub", str(cluster.path)], text=True, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with trio.fail_after(TIMEOUT_S):
        while (await report(cluster, 1))["damage"]["open"] == 0:  # noqa: ASYNC110
            await trio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130 and "the nodes go on" in said
