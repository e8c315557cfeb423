"""Nodes become members and leave while clients that have the list of before run: who finds whom, and what a node does
that waits, was restarted, or has left. The configurations are told, as if they had been chosen: how they are, and
when that is safe, is for test_members.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.config import format_address, load_config
from dsreg.config.edit import with_first_nodes, with_node
from dsreg.protocol.configuration import Configuration
from dsreg.register.quorum import mask, ranks_in
from tests.processes.cluster import TIMEOUT_S, Cluster, free_addresses, healed, until
from tests.processes.test_addresses import Load, connected, in_thread
from tests.processes.test_lives import all_know_all, ended, spawn

SECTORS = 64
OLD, ALL, LATE = mask((1, 2, 3)), mask((1, 2, 3, 4, 5)), mask((3, 4, 5))
DISK = 2048  # sectors
FIRST = Configuration(1, DISK, OLD, 0, OLD)
JOINT = Configuration(2, DISK, OLD, ALL, ALL)
GROWN = Configuration(3, DISK, ALL, 0, ALL)
SHRINKS = Configuration(4, DISK, ALL, LATE, ALL)
SHRUNK = Configuration(5, DISK, LATE, 0, ALL)


def lists_five(cluster: Cluster) -> Path:
    """A copy of the file with two nodes more, which the cluster has from now on; where the old one is."""
    old = cluster.path
    text = with_first_nodes(old.read_text(), 3)
    for rank, address in zip((4, 5), free_addresses(2), strict=True):
        text = with_node(text, rank, format_address(*address))
    cluster.path = old.with_name("five.toml")
    cluster.path.write_text(text)
    cluster.config = load_config(cluster.path)
    cluster.ranks = cluster.config.ranks
    for rank in (1, 2, 3):
        cluster.files[rank] = old  # on their machines nobody has changed it
    return old


async def tell(cluster: Cluster, configuration: Configuration, *ranks: int) -> None:
    """It was chosen: one of these nodes is told, and the others, all members and those who leave, hear of it."""
    async with Client(cluster.only(*ranks)) as client:
        await connected(client, ranks[0])
        client.tell(configuration)
        await in_thread(until, lambda: knows(cluster, configuration, ranks[0]), f"node {ranks[0]} knows")
    others = [rank for rank in ranks_in(configuration.members) if rank in cluster.processes]
    await in_thread(until, lambda: knows(cluster, configuration, *others), f"all know {configuration.number}")


def knows(cluster: Cluster, configuration: Configuration, *ranks: int) -> bool:
    return all(cluster.report(rank)["configuration"]["number"] == configuration.number for rank in ranks)


def wait_to_be_members(cluster: Cluster, *ranks: int) -> None:
    """They have heard who decides, and do not serve."""
    for rank in ranks:
        until(lambda rank=rank: knows(cluster, FIRST, rank), f"node {rank} is told")  # type: ignore[misc]
        lives = cluster.report(rank)["lives"]
        assert lives["stage"] == "asking"
        assert lives["waits_for"].endswith("waits until it is made a member of the cluster; there are nodes 1 2 3")


def serve(cluster: Cluster, *ranks: int) -> bool:
    return all(cluster.report(rank)["lives"]["stage"] == "started" for rank in ranks)


def linked(cluster: Cluster, rank: int, *others: int) -> bool:
    """To these, and to no other."""
    peers = cluster.report(rank)["peers"]
    return peers == {str(other): "sealed" for other in others}


@pytest.mark.allow_logs("out of reach", "is in reach again")
@pytest.mark.parametrize("attach", [None, Attach()], ids=["shared", "attached"])
async def test_whoever_runs_follows_from_three_to_five_to_three_others(
    make_cluster: Callable[..., Cluster], attach: Attach | None
) -> None:
    cluster = make_cluster()
    before = cluster.config
    cluster.start()
    await in_thread(all_know_all, cluster)
    old = lists_five(cluster)
    cluster.start(4, 5, options=("--join",))
    await in_thread(wait_to_be_members, cluster, 4, 5)
    cluster.kill(5)
    cluster.start(5)  # the directory keeps it in mind, and the file says it as well
    await in_thread(wait_to_be_members, cluster, 4, 5)
    async with Client(before, attach=attach) as client, trio.open_nursery() as nursery:
        load = Load(client)
        nursery.start_soon(load.run)
        await load.goes_on()
        await tell(cluster, JOINT, 1)
        await in_thread(until, lambda: serve(cluster, 4, 5), "the new ones serve")
        await in_thread(until, lambda: linked(cluster, 1, 2, 3, 4, 5), "node 1 has links to all")
        await connected(client, 4, 5)
        await load.goes_on()
        await in_thread(healed, cluster)
        await tell(cluster, GROWN, 4)
        await load.goes_on()
        print(f"longest write and read while members changed: {1000 * load.longest_s:.1f} ms of {load.done}")
        await in_thread(cluster.kill, 1, 2)
        await load.goes_on()  # with 3 4 5
        cluster.start(1, 2)
        assert old == cluster.files[1]
        await in_thread(until, lambda: linked(cluster, 1, 2, 3, 4, 5), "node 1 finds those that its file does not have")
        await in_thread(cluster.kill, 4)
        await load.goes_on()  # with 1 2 3 5
        cluster.start(4)
        await in_thread(healed, cluster)
        await tell(cluster, SHRINKS, 2)
        await in_thread(healed, cluster)
        await tell(cluster, SHRUNK, 3)
        await in_thread(until, lambda: knows(cluster, SHRUNK, 1, 2), "those that have left hear of it")
        left = await trio.to_thread.run_sync(cluster.report, 1)
        assert left["configuration"]["is_member"] is False
        await in_thread(until, lambda: linked(cluster, 4, 3, 5), "nobody has links to them")
        await load.goes_on()
        assert "node 1 is no member any more: configuration 5 has nodes 3 4 5" in cluster.log(1).read_text()
        async with Client(before, timeout_s=TIMEOUT_S) as late:  # its file has one that is left
            assert await late.read(0)
            await connected(late, 3, 4, 5)
            assert late.ranks == (3, 4, 5)
        await in_thread(cluster.kill, 1, 2, 3)
        await load.goes_on()  # with 4 5, neither of which it was configured with
        nursery.cancel_scope.cancel()


def test_an_empty_directory_of_a_member_does_not_join(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    lists_five(cluster)
    cluster.start(4, 5, options=("--join",))
    trio.run(tell, cluster, JOINT, 1)
    until(lambda: serve(cluster, 4, 5), "the new ones serve")
    all_know_all(cluster)
    cluster.kill(4)
    shutil.rmtree(cluster.storage(4))
    spawn(cluster, 4, "--join")
    assert "start this node with --rejoin" in ended(cluster, 4)


def test_a_new_node_without_the_option_does_not_take_its_list_for_the_first(
    make_cluster: Callable[..., Cluster]
) -> None:
    """The file does not say with how many the cluster was made, as one that a person has edited."""
    cluster = make_cluster(nodes=1)
    cluster.start()
    text = cluster.path.read_text()
    for rank, address in zip((2, 3), free_addresses(2), strict=True):
        text = with_node(text, rank, format_address(*address))
    cluster.path.write_text(text)
    cluster.config = load_config(cluster.path)
    cluster.ranks = (1, 2, 3)
    cluster.kill(1)
    cluster.start(1)  # as it was: its directory says who decides
    assert cluster.report(1)["configuration"]["members"] == [1]
    spawn(cluster, 2)
    assert "start it with --join" in ended(cluster, 2)
