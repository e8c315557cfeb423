"""An older directory is put back while the cluster is in use: its node notices it, and nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.client import Attach, BlockingClient, Client
from tests.processes.cluster import TIMEOUT_S, Cluster, until
from tests.processes.history import stamp
from tests.processes.test_heal import in_sync
from tests.processes.test_lives import all_know_all
from tests.processes.test_rejoin import SECTORS, Load, lives_of, says

NOTICED = "this directory is an older state of itself"


def mark_of(cluster: Cluster, rank: int) -> int:
    return int(lives_of(cluster, rank)["mark"])


def heard_by(cluster: Cluster, rank: int) -> dict[str, Any]:
    """What it has heard of the marks of the others."""
    marks = lives_of(cluster, rank)["marks"]
    assert isinstance(marks, dict)
    return marks


@pytest.mark.parametrize("attached", [False, True])
async def test_an_older_directory_that_is_put_back_is_noticed_under_load(
    make_cluster: Callable[..., Cluster], rng: random.Random, tmp_path: Path, attached: bool
) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    copy = tmp_path / "copy"
    async with Client(cluster.config, attach=Attach(name="test") if attached else None) as client:
        load = Load(client, rng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await load.go_on(40)
            cluster.kill(3)
            shutil.copytree(cluster.storage(3), copy)
            await trio.to_thread.run_sync(cluster.start, 3)
            await in_sync(cluster, *cluster.ranks)
            await load.go_on(40)
            # Its start has raised its mark, which the others have heard.
            mark = await trio.to_thread.run_sync(mark_of, cluster, 3)
            assert mark > 0
            for rank in (1, 2):
                await trio.to_thread.run_sync(
                    until, lambda rank=rank: heard_by(cluster, rank).get("3", 0) >= mark, "the others hear of the mark"
                )
            cluster.kill(3)
            shutil.rmtree(cluster.storage(3))
            shutil.copytree(copy, cluster.storage(3))
            await trio.to_thread.run_sync(cluster.start, 3)
            await in_sync(cluster, *cluster.ranks)
            assert says(cluster, 3, NOTICED)
            lives = await trio.to_thread.run_sync(lives_of, cluster, 3)
            assert (lives["life"], lives["stage"]) == (2, "started")
            await trio.to_thread.run_sync(cluster.kill, 1)
            await load.go_on(5)  # the one that has rejoined is half of the majority
            await trio.to_thread.run_sync(cluster.start, 1)
            await in_sync(cluster, *cluster.ranks)
            load.stop.set()
        cluster.kill(2)
        for sector, number in load.acknowledged.items():
            assert await client.read(sector) == stamp(number), sector


def serve(cluster: Cluster, *ranks: int) -> None:
    until(lambda: all(lives_of(cluster, rank)["stage"] == "started" for rank in ranks), "they serve")
    assert not any(says(cluster, rank, NOTICED) for rank in cluster.ranks)


def test_a_node_waits_for_one_other_and_says_so(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    cluster.kill(1, 2, 3)
    cluster.start(3)  # it is bound, and says that it is ready
    until(partial(says, cluster, 3, "0 of them have, 1 must"), "it says so")
    lives = lives_of(cluster, 3)
    assert lives["stage"] == "asking" and "1 must" in lives["waits_for"]
    cluster.start(2)  # which waits itself, and tells all the same
    serve(cluster, 2, 3)


def test_a_node_that_waits_ends_when_it_is_told_to_and_goes_on_afterwards(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    cluster.kill(1, 2, 3)
    for _ in range(3):  # started in vain, it is not older for that
        cluster.start(3)
        began = time.monotonic()
        assert cluster.terminate(3) == 0
        assert time.monotonic() - began < 5
    cluster.start(1, 2, 3)
    serve(cluster, 1, 2, 3)
    assert lives_of(cluster, 3)["life"] == 1


@pytest.mark.parametrize("down", [(), (1,)])
def test_after_a_power_cut_all_that_a_majority_needs_start_at_once_and_have_everything(
    make_cluster: Callable[..., Cluster], down: tuple[int, ...]
) -> None:
    """Also while one is down: what it lacks are the others."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    with BlockingClient(cluster.config) as client:
        for sector in range(SECTORS):
            client.write(sector, stamp(sector + 1))
    up = [rank for rank in cluster.ranks if rank not in down]
    for _ in range(3):
        cluster.kill(*cluster.processes)
        cluster.start(*up)
        serve(cluster, *up)
    with BlockingClient(cluster.only(*up)) as client:
        assert all(client.read(sector) == stamp(sector + 1) for sector in range(SECTORS))


def test_nodes_that_are_killed_in_any_order_and_restarted_take_nobody_for_an_older_one(
    make_cluster: Callable[..., Cluster], rng: random.Random
) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    all_know_all(cluster)
    for _ in range(12):
        for rank in rng.sample(sorted(cluster.processes), rng.randint(0, len(cluster.processes))):
            cluster.kill(rank)
        for rank in rng.sample(cluster.ranks, 3):
            if rank not in cluster.processes:
                cluster.processes[rank] = cluster.spawn(rank)
                if rng.random() < 0.5:  # it is killed while it starts, somewhere
                    time.sleep(rng.uniform(0.1, 0.6))
                    cluster.kill(rank)
    for rank in cluster.ranks:
        if rank not in cluster.processes:
            cluster.start(rank)
    serve(cluster, *cluster.ranks)
    assert [lives_of(cluster, rank)["life"] for rank in cluster.ranks] == [1, 1, 1]


async def test_an_older_directory_is_noticed_after_all_others_were_restarted(
    make_cluster: Callable[..., Cluster], rng: random.Random, tmp_path: Path
) -> None:
    """What they have heard is told among them again, by whoever was up."""
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    await trio.to_thread.run_sync(all_know_all, cluster)
    cluster.kill(3)
    shutil.copytree(cluster.storage(3), tmp_path / "copy")
    await trio.to_thread.run_sync(cluster.start, 3)
    await in_sync(cluster, *cluster.ranks)
    mark = await trio.to_thread.run_sync(mark_of, cluster, 3)
    assert mark
    for rank in (1, 2):
        await trio.to_thread.run_sync(
            until, lambda rank=rank: heard_by(cluster, rank).get("3", 0) >= mark, "the others hear of the mark"
        )
    cluster.kill(3)
    for rank in (1, 2):
        await trio.to_thread.run_sync(cluster.kill, rank)
        await trio.to_thread.run_sync(cluster.start, rank)
        await trio.to_thread.run_sync(
            until, lambda rank=rank: heard_by(cluster, rank).get("3", 0) >= mark, "it is told by the other one"
        )
    shutil.rmtree(cluster.storage(3))
    shutil.copytree(tmp_path / "copy", cluster.storage(3))
    await trio.to_thread.run_sync(cluster.start, 3)
    with trio.fail_after(TIMEOUT_S):
        await in_sync(cluster, *cluster.ranks)
    assert says(cluster, 3, NOTICED)
    assert (await trio.to_thread.run_sync(lives_of, cluster, 3))["life"] == 2
