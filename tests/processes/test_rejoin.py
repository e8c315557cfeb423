"""A node whose directory was deleted rejoins under load, and the next one dies then: nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from dsreg.client import Attach, Client
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.history import stamp
from tests.processes.test_heal import in_sync, report
from tests.processes.test_lives import all_know_all, ended, spawn

SECTORS = 512


def lives_of(cluster: Cluster, rank: int) -> dict[str, Any]:
    lives = cluster.report(rank)["lives"]
    assert isinstance(lives, dict)
    return lives


def says(cluster: Cluster, rank: int, text: str) -> bool:
    return text in cluster.log(rank).read_text()


class Load:
    """Writes, one after the other, until `stop` is set. `acknowledged`: the last number of each sector that was."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self.acknowledged: dict[int, int] = {}
        self.stop = trio.Event()
        self._client = client
        self._rng = rng
        self._number = 0
        self._written = trio.Event()

    async def run(self) -> None:
        while not self.stop.is_set():
            self._number += 1
            sector = self._rng.randrange(SECTORS)
            await self._client.write(sector, stamp(self._number))
            self.acknowledged[sector] = self._number
            self._written.set()
            self._written = trio.Event()

    async def go_on(self, writes: int) -> None:
        """Until so many more are acknowledged."""
        with trio.fail_after(TIMEOUT_S):
            for _ in range(writes):
                await self._written.wait()


@pytest.mark.parametrize("attached", [False, True])
async def test_a_node_whose_directory_was_deleted_rejoins_under_load(
    make_cluster: Callable[..., Cluster], rng: random.Random, attached: bool
) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    async with Client(cluster.config, attach=Attach(name="test") if attached else None) as client:
        load = Load(client, rng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            for rank, other in ((3, 1), (1, 2)):
                await load.go_on(40)
                cluster.kill(rank)
                shutil.rmtree(cluster.storage(rank))
                spawn(cluster, rank)
                said = await trio.to_thread.run_sync(ended, cluster, rank)
                assert "--rejoin" in said and "this is not the directory" in said
                spawn(cluster, rank, "--rejoin")
                await trio.to_thread.run_sync(cluster.wait, rank)
                await in_sync(cluster, *cluster.ranks)
                lives = await trio.to_thread.run_sync(lives_of, cluster, rank)
                assert (lives["life"], lives["stage"]) == (2, "started")
                await trio.to_thread.run_sync(cluster.kill, other)
                await load.go_on(5)  # the one that has rejoined is half of the majority
                await trio.to_thread.run_sync(cluster.start, other)
                await in_sync(cluster, *cluster.ranks)
            load.stop.set()
        cluster.kill(3)
        for sector, number in load.acknowledged.items():
            assert await client.read(sector) == stamp(number), sector
    assert (await report(cluster, 1))["lives"]["known"]["3"]["life"] == 2


async def test_a_power_cut_takes_nothing_back_of_what_is_healed(make_cluster: Callable[..., Cluster]) -> None:
    """What is in sync counts as a copy, so another node may be lost from then on."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    async with Client(cluster.config) as client:
        for sector in range(0, SECTORS, 7):
            await client.write(sector, stamp(sector))
    cluster.kill(3)
    shutil.rmtree(cluster.storage(3))
    cluster.start(3, options=["--rejoin"])
    await in_sync(cluster, *cluster.ranks)
    cluster.kill()
    cluster.start(2, 3)
    async with Client(cluster.config) as client:
        with trio.fail_after(TIMEOUT_S):
            for sector in range(0, SECTORS, 7):
                assert await client.read(sector) == stamp(sector), sector


def test_it_waits_for_both_others_and_says_so(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    cluster.kill(2, 3)
    shutil.rmtree(cluster.storage(3))
    spawn(cluster, 3, "--rejoin")
    cluster.wait(3)  # it is bound, and says that it is ready
    until(partial(says, cluster, 3, "1 of the 2 other nodes tell what they know of it, 2 must"), "it says so")
    lives = lives_of(cluster, 3)
    assert lives["stage"] == "asking" and "2 must" in lives["waits_for"]
    cluster.start(2)
    until(lambda: lives_of(cluster, 3)["stage"] == "started", "it rejoins")
    cluster.kill(3)
    spawn(cluster, 3, "--rejoin")  # nothing follows from it now
    cluster.wait(3)
    assert (lives_of(cluster, 3)["life"], lives_of(cluster, 3)["stage"]) == (2, "started")


def test_a_claim_that_was_broken_off_goes_on_by_itself(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    cluster.kill(3)
    shutil.rmtree(cluster.storage(3))
    cluster.pause(2)
    spawn(cluster, 3, "--rejoin")
    cluster.wait(3)
    cluster.kill(3)
    cluster.resume(2)
    spawn(cluster, 3, "--rejoin")
    until(lambda: lives_of(cluster, 3)["stage"] == "started", "it rejoins")
    cluster.kill(3)
    cluster.start(3)
    assert lives_of(cluster, 3)["life"] == 2


def test_two_at_once_are_too_many_of_three(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    cluster.kill(2, 3)
    for rank in (2, 3):
        shutil.rmtree(cluster.storage(rank))
        spawn(cluster, rank, "--rejoin")
        cluster.wait(rank)
    for rank in (2, 3):
        until(partial(says, cluster, rank, "2 must"), "they wait for each other")
        assert lives_of(cluster, rank)["stage"] == "asking"


def test_one_node_alone_has_nobody_to_learn_from(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=1, sectors=SECTORS)
    spawn(cluster, 1, "--rejoin")
    cluster.wait(1)
    until(lambda: lives_of(cluster, 1)["stage"] == "started", "a first start")
    assert lives_of(cluster, 1)["life"] == 1
