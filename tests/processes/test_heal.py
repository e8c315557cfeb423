"""A node that was away has what it missed soon after it is back, and nobody has read it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from typing import Any

import trio

from dsreg.client import Client
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg

SECTORS = 2048


async def report(cluster: Cluster, rank: int) -> dict[str, Any]:
    async with Client(cluster.config) as client:
        return await client.status(rank, timeout_s=TIMEOUT_S)


async def in_sync(cluster: Cluster, *ranks: int) -> None:
    """Until these say that they have all that each other node has."""
    said: dict[int, object] = {}
    with trio.move_on_after(TIMEOUT_S):
        async with Client(cluster.config) as client:
            for rank in ranks:
                while True:
                    status = await client.status(rank, timeout_s=TIMEOUT_S)
                    heal = status["heal"]
                    said[rank] = (heal, status["peers"], status["lives"], status["counters"])
                    if heal["in_sync"] and len(heal["peers"]) == len(cluster.ranks) - 1:
                        break
                    await trio.sleep(0.01)
            return
    raise AssertionError(f"the nodes {ranks} are not in sync within {TIMEOUT_S} s; what they said last: {said}")


async def test_what_was_written_while_it_was_down(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    expected = bytearray(rng.randbytes(64 * 4096) + bytes((SECTORS - 64) * 4096))
    async with Client(cluster.config) as client:
        await client.write(0, bytes(expected[: 64 * 4096]))
        await in_sync(cluster, *cluster.ranks)
        before = await report(cluster, 1)  # the first write may have been done at the others
        cluster.kill(3)
        for _ in range(100):
            sector = rng.randrange(SECTORS)
            data = rng.randbytes(rng.randint(1, min(9, SECTORS - sector)) * 4096)
            await client.write(sector, data)
            expected[sector * 4096 : sector * 4096 + len(data)] = data
    assert on_node_3(cluster, "wait", "--healed", "--timeout", "3") == (1, "node 3 does not answer: connection refused")
    cluster.start(3)
    assert on_node_3(cluster, "wait", "--healed", "--timeout", str(TIMEOUT_S)) == (0, "")
    one, three = await report(cluster, 1), await report(cluster, 3)
    assert three["sectors_written"] == one["sectors_written"]
    assert three["counters"]["healed"] > 0 and one["counters"].get("healed") == before["counters"].get("healed")
    cluster.kill(1)  # it is one of the two that have acknowledged all of this
    async with Client(cluster.config) as client:
        assert await client.read(0, SECTORS) == expected
    assert (await report(cluster, 3))["counters"]["healed"] == three["counters"]["healed"]


async def test_while_it_heals_it_is_killed_and_others_write(
    make_cluster: Callable[..., Cluster], rng: random.Random
) -> None:
    cluster = make_cluster(sectors=SECTORS, journal_mib=4)
    cluster.start()
    expected = bytearray(SECTORS * 4096)
    async with Client(cluster.config) as client:
        cluster.kill(3)
        for sector in range(0, SECTORS, 64):
            data = rng.randbytes(64 * 4096)
            await client.write(sector, data)
            expected[sector * 4096 : (sector + 64) * 4096] = data
        for _ in range(3):
            cluster.start(3)
            for _ in range(20):
                sector = rng.randrange(SECTORS)
                data = rng.randbytes(4096)
                await client.write(sector, data)
                expected[sector * 4096 : (sector + 1) * 4096] = data
            cluster.kill(3)
    cluster.start(3)
    await in_sync(cluster, *cluster.ranks)
    cluster.kill(1)
    async with Client(cluster.config) as client:
        assert await client.read(0, SECTORS) == expected


async def test_it_heals_no_faster_than_it_may_and_to_the_end(
    make_cluster: Callable[..., Cluster], rng: random.Random
) -> None:
    """Values that lie apart, so that each has to be waited for."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    cluster.kill(3)
    async with Client(cluster.config) as client:
        for sector in range(0, SECTORS, 64):
            await client.write(sector, rng.randbytes(4096))
    began = trio.current_time()
    cluster.start(3, options=("--heal-rate", "64KiB"))
    await in_sync(cluster, *cluster.ranks)
    assert trio.current_time() - began > 31 * 4096 / (64 << 10)


def run(cluster: Cluster, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return dsreg(command, cluster.path, *options)


def on_node_3(cluster: Cluster, command: str, *options: str) -> tuple[int, str]:
    """Exit code, and what it said of node 3."""
    done = run(cluster, command, *options)
    return done.returncode, "".join(line for line in done.stderr.splitlines() if line.startswith("node 3"))


async def test_status_says_how_many_may_be_lost(cluster: Cluster) -> None:
    await in_sync(cluster, *cluster.ranks)

    def shown() -> str:
        return run(cluster, "status", "--timeout", "5").stdout

    assert "can lose 1 more node now" in shown() and shown().count("in sync") == 3
    cluster.kill(3)
    assert "can lose 0 more nodes now" in shown() and shown().count("in sync") == 2


async def test_a_cluster_of_one_is_in_sync(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=1)
    cluster.start()
    assert (await report(cluster, 1))["heal"]["in_sync"] is True
