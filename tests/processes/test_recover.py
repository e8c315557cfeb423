"""`dsreg recover` on real nodes: two of three directories are lost, and a new cluster is made of the third."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.config import ClusterConfig, format_address, load_config
from dsreg.config.edit import with_first_nodes, with_node
from dsreg.config.recovered import Recovered, is_staged, stage
from dsreg.errors import AuthenticationFailed, ClientError
from dsreg.protocol.tags import pack_tag
from dsreg.storage import OsFiles, StableStorage, Start
from dsreg.storage.new_cluster import move, recorded_in
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, dsreg, free_addresses, healed, until
from tests.processes.history import stamp, value_of
from tests.processes.raw import AUTH, OK, READ_ANSWER, RawClient, Response, read_frame

SECTORS = 200
FEW = 60
ACCEPTED = "--i-accept-data-loss"
FILES = ("client.key", "system.key", "cluster.toml")


def recover(cluster: Cluster, *arguments: object, code: int = 0) -> str:
    """What it printed. The cluster has the new configuration afterwards."""
    done = dsreg("recover", cluster.path, *arguments)
    assert done.returncode == code, done
    if not is_staged(cluster.path):
        cluster.config = load_config(cluster.path)
    return done.stdout + done.stderr


def files_of(cluster: Cluster) -> dict[str, bytes]:
    return {name: (cluster.directory / name).read_bytes() for name in FILES}


def lose(cluster: Cluster, *ranks: int) -> None:
    for rank in ranks:
        shutil.rmtree(cluster.storage(rank))


def copies_in(cluster: Cluster, rank: int, where: Path) -> list[int]:
    """What the directory of a node that is down has, by a copy of it."""
    shutil.copytree(cluster.storage(rank), where)
    storage = StableStorage.open(OsFiles(where), cluster.identity(rank))
    found = []
    for sector in range(SECTORS):
        loaded = storage.load(sector, 1, wait=True)
        assert loaded is not None and not loaded.missing
        found.append(value_of(bytes(loaded.data)))
    storage.close()
    return found


async def write_until_they_are_killed(cluster: Cluster, acknowledged: list[int]) -> None:
    """Attached, many at a time; all nodes are killed in the middle of it."""
    async def write(client: Client, worker: int) -> None:
        with contextlib.suppress(ClientError):
            for number in range(2, 1000):
                for sector in range(worker, SECTORS, 8):
                    await client.write(sector, stamp(number))
                    acknowledged[sector] = number

    async with Client(cluster.config, attach=Attach(name="the load"), timeout_s=2.0) as client:
        async with trio.open_nursery() as nursery:
            for worker in range(8):
                nursery.start_soon(write, client, worker)
            await trio.to_thread.run_sync(until, lambda: min(acknowledged) >= 4, "the load goes on")
            await trio.to_thread.run_sync(cluster.kill)


def have_all_that_was_written(cluster: Cluster) -> None:
    """All nodes. A write is done at a majority, and a node that was not reached in time has compared before that, and
    would do so again only after minutes. So one node starts anew: it compares with all, and all with it."""
    assert cluster.terminate(1) == 0
    cluster.start(1)
    healed(cluster)


async def read_all(client: Client) -> list[int]:
    return [value_of(await client.read(sector)) for sector in range(SECTORS)]


# --- all of it ------------------------------------------------------------------------------------
@pytest.mark.allow_logs("has another client key", "no connection|does not answer|lost|is back|Fenced|fenced")
async def test_two_directories_are_lost_under_load(cluster: Cluster, tmp_path: Path) -> None:
    acknowledged = [1] * SECTORS
    async with Client(cluster.config) as client:
        await client.write(0, stamp(1) * SECTORS)
    await trio.to_thread.run_sync(have_all_that_was_written, cluster)
    await write_until_they_are_killed(cluster, acknowledged)
    left = copies_in(cluster, 3, tmp_path / "copy")
    assert min(left) >= 1 and max(left) > 1
    shutil.copytree(cluster.storage(1), tmp_path / "old-1")
    for name in FILES:
        shutil.copy2(cluster.directory / name, tmp_path / name)
    old = load_config(tmp_path / "cluster.toml")
    lose(cluster, 1, 2)

    said = recover(cluster, "--from", 3, ACCEPTED)
    assert "attached last by the load (epoch 1)" in said and "Lost:" in said
    cluster.start()
    async with Client(cluster.config) as client:
        assert await read_all(client) == left, "not all that node 3 had"
    await trio.to_thread.run_sync(healed, cluster)
    await nothing_of_the_old_one_can_talk_to_it(cluster, old)

    # Any of them may be lost now.
    cluster.kill(3)
    async with Client(cluster.config, attach=Attach()) as client:
        assert await client.attached() > 1
        assert await read_all(client) == left
        for sector in range(0, SECTORS, 7):
            await client.write(sector, stamp(5000))
    cluster.start(3)
    await trio.to_thread.run_sync(healed, cluster)
    cluster.kill(1)
    async with Client(cluster.config) as client:
        assert await read_all(client) == [left[sector] if sector % 7 else 5000 for sector in range(SECTORS)]
        await an_old_node_cannot_take_the_place_of(1, cluster, tmp_path, client)


async def nothing_of_the_old_one_can_talk_to_it(cluster: Cluster, old: ClusterConfig) -> None:
    async with Client(old) as client:
        with pytest.raises(AuthenticationFailed):
            await client.read(0)
    with RawClient(cluster.address(2), cluster.config.client_key) as plain:
        plain.send(read_frame(old.client_key, 7, 0), plain.read_frame(8, 0))
        assert plain.response() == Response(AUTH, READ_ANSWER, 7, b"")
        assert plain.response().status == OK


@contextlib.contextmanager
def old_node(rank: int, cluster: Cluster, old: Path) -> Iterator[None]:
    """With the old files and the old directory, at the address that the others look for it."""
    command = [sys.executable, "-P", "-m", "dsreg", "node", "-c", str(old / "cluster.toml"), "--rank", str(rank),
               "--storage", str(old / "old-1")]
    with open(cluster.log(rank), "ab") as log, subprocess.Popen(command, stderr=log, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.kill()


async def an_old_node_cannot_take_the_place_of(rank: int, cluster: Cluster, old: Path, client: Client) -> None:
    with old_node(rank, cluster, old):
        async with Client(load_config(old / "cluster.toml"), timeout_s=2.0) as old_client:
            report = await answer_of(old_client, rank)
            # Nobody tells it whether its directory is the newest one: it does not even begin.
            assert report["lives"]["stage"] == "asking" and report["peers"].keys() == {"2", "3"}
            assert set(report["peers"].values()) <= {"down", "silent"}
            for other in (2, 3):
                assert (await client.status(other, TIMEOUT_S))["peers"][str(rank)] in ("down", "silent")
            before = await client.read(3)
            await client.write(3, stamp(6000))
            assert await client.read(3) == stamp(6000) != before
            with pytest.raises(ClientError):
                await old_client.read(3)


async def answer_of(client: Client, rank: int) -> dict[str, Any]:
    with trio.fail_after(TIMEOUT_S):
        while True:
            with contextlib.suppress(ClientError):
                return await client.status(rank, timeout_s=1.0)


def put(cluster: Cluster, rank: int, sector: int, number: int) -> None:
    """The node, which is down, has acknowledged this write."""
    storage = StableStorage.open(OsFiles(cluster.storage(rank)), cluster.identity(rank))
    storage.persist(sector, 1, pack_tag(1 << 40 | number, 1), stamp(number))
    storage.close()


async def test_two_of_five_are_left_and_the_newest_is_taken(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=5)
    cluster.start()
    async with Client(cluster.config) as client:
        await client.write(0, stamp(1) * FEW)
    await trio.to_thread.run_sync(have_all_that_was_written, cluster)
    cluster.kill()
    expected = [1] * FEW
    for sector in range(0, FEW, 5):  # with nodes that are gone
        rank, number = 4 + sector % 2, 2 + sector
        put(cluster, rank, sector, number)
        expected[sector] = number
    put(cluster, 4, 1, 2000)
    put(cluster, 5, 1, 2001)
    expected[1] = 2001
    lose(cluster, 1, 2, 3)
    recover(cluster, "--from", "4,5", ACCEPTED)
    assert "is to become" in recover(cluster, "--rank", 5, code=2)
    recover(cluster, "--rank", 5, ACCEPTED)
    cluster.start()
    await trio.to_thread.run_sync(healed, cluster)
    cluster.kill(4, 5)
    async with Client(cluster.config) as client:
        assert [value_of(await client.read(sector)) for sector in range(FEW)] == expected


async def test_a_node_that_lacks_the_section_does_not_take_part(cluster: Cluster) -> None:
    """It would begin with an empty directory, in which nothing was ever written."""
    async with Client(cluster.config) as client:
        await client.write(0, stamp(1))
    await trio.to_thread.run_sync(have_all_that_was_written, cluster)
    cluster.kill()
    lose(cluster, 1, 2)
    recover(cluster, "--from", 3, ACCEPTED)
    text = cluster.path.read_text()
    cluster.path.write_text(text[:text.index("[recovered]")])
    for rank in (1, 2):
        assert cluster.spawn(rank).wait(TIMEOUT_S) == 2
        assert "there is no section [recovered]" in cluster.log(rank).read_text()
    cluster.path.write_text(text)
    cluster.start()
    async with Client(cluster.config) as client:
        assert await client.read(0) == stamp(1)


async def test_one_that_was_left_rejoins_after_its_directory_was_lost(cluster: Cluster) -> None:
    async with Client(cluster.config) as client:
        await client.write(0, stamp(7) * SECTORS)
    await trio.to_thread.run_sync(have_all_that_was_written, cluster)
    cluster.kill()
    lose(cluster, 1, 2)
    recover(cluster, "--from", 3, ACCEPTED)
    cluster.start()
    await trio.to_thread.run_sync(healed, cluster)
    cluster.kill(3)
    lose(cluster, 3)
    assert cluster.spawn(3).wait(TIMEOUT_S) == 1
    assert "this cluster was recovered from node 3" in cluster.log(3).read_text()
    cluster.pause(1)  # one tells too little
    cluster.start(3, options=("--rejoin",))
    cluster.kill(3)
    cluster.resume(1)
    cluster.start(3, options=("--rejoin",))
    await trio.to_thread.run_sync(healed, cluster)
    cluster.kill(1)
    async with Client(cluster.config) as client:
        assert await read_all(client) == [7] * SECTORS
        assert (await client.status(3, TIMEOUT_S))["lives"]["life"] == 2


async def test_one_that_was_put_back_from_a_copy_is_recovered_from_once_more(cluster: Cluster) -> None:
    """It has given up its life, and those that could accept the next one are lost."""
    async with Client(cluster.config) as client:
        await client.write(0, stamp(7) * SECTORS)
    await trio.to_thread.run_sync(have_all_that_was_written, cluster)
    for _ in range(2):
        cluster.kill()
        lose(cluster, 1, 2)
        StableStorage.open(OsFiles(cluster.storage(3)), cluster.identity(3), start=Start(older=True)).close()
        recover(cluster, "--from", 3, ACCEPTED)
        cluster.start()
        await trio.to_thread.run_sync(healed, cluster)
    async with Client(cluster.config) as client:
        assert await read_all(client) == [7] * SECTORS


def test_a_node_that_waits_for_others_has_its_directory(cluster: Cluster) -> None:
    """With that of another one it is a majority, and nothing is lost."""
    until(lambda: dsreg("health", cluster.path).returncode == 0, "all nodes have begun")
    cluster.kill()
    cluster.start(1)
    assert cluster.report(1)["lives"]["waits_for"]
    found = recover(cluster, "--from", 3, ACCEPTED, code=2)
    assert "the directories of the nodes 1, 3 are a majority" in found


async def test_what_nobody_has_is_not_taken_for_zeros(cluster: Cluster) -> None:
    """The directory that was left is lost before anybody has met it."""
    async with Client(cluster.config) as client:
        await client.write(0, stamp(7))
    cluster.kill()
    lose(cluster, 1, 2)
    recover(cluster, "--from", 3, ACCEPTED)
    lose(cluster, 3)
    cluster.start(options=("--rejoin",))

    def begun() -> bool:
        return bool(cluster.report(3)["lives"]["stage"] == "started")

    await trio.to_thread.run_sync(until, begun, "it begins")
    lives = (await trio.to_thread.run_sync(cluster.report, 3))["lives"]
    assert lives["life"] > 1 and lives["learning"]
    async with Client(cluster.config, timeout_s=2.0) as client:
        with pytest.raises(ClientError):
            await client.read(0)


# --- when it is refused -----------------------------------------------------------------------------
def test_nothing_is_changed_without_the_option(cluster: Cluster) -> None:
    cluster.kill()
    lose(cluster, 1, 2)
    files, identity = files_of(cluster), (cluster.storage(3) / "identity.toml").read_bytes()
    said = recover(cluster, "--from", 3, code=2)
    assert "Nothing was changed" in said and "What only the nodes 1, 2 have acknowledged" in said
    assert files_of(cluster) == files and (cluster.storage(3) / "identity.toml").read_bytes() == identity
    assert sorted(path.name for path in cluster.directory.iterdir() if path.name.startswith(FILES)) == sorted(FILES)
    cluster.start(3)


@pytest.mark.parametrize(("running", "ranks", "said"), [
    ((1, 2), "3", "nothing is lost. Start these nodes"),
    ((1,), "3", "the directories of the nodes 1, 3 are a majority"),
    ((3,), "3", "node 3 answers: stop all nodes"),
    ((), "3,1", "are a majority: nothing is lost"),
    ((), "3,3", "names a node twice"), ((), "4", "rank 4: not in"), ((), "x", "is not a rank"),
])
def test_it_is_refused_where_it_is_not_needed_or_not_safe(
    cluster: Cluster, running: tuple[int, ...], ranks: str, said: str
) -> None:
    def all_serve() -> bool:
        return dsreg("health", cluster.path).returncode == 0

    until(all_serve, "all nodes have begun")
    cluster.kill(*(set(cluster.ranks) - set(running)))
    files = files_of(cluster)
    found = recover(cluster, "--from", ranks, ACCEPTED, code=2)
    assert said in found, found
    assert files_of(cluster) == files


def test_the_new_cluster_begins_with_the_nodes_that_the_old_one_began_with(cluster: Cluster) -> None:
    """Two more were to be added, and had not become members yet."""
    cluster.kill()
    text = with_first_nodes(cluster.path.read_text(), 3)
    for rank, address in zip((4, 5), free_addresses(2), strict=True):
        text = with_node(text, rank, format_address(*address))
    cluster.path.write_text(text)
    assert "are a majority: nothing is lost" in recover(cluster, "--from", "3,1", ACCEPTED, code=2)
    assert "has never become a member" in recover(cluster, "--from", "3,4", ACCEPTED, code=2)
    lose(cluster, 1, 2)
    recover(cluster, "--from", 3, ACCEPTED)
    cluster.start()
    assert recorded_in(OsFiles(cluster.storage(3))).identity.ranks == (1, 2, 3)
    healed(cluster)


def test_it_goes_on_where_it_was_interrupted(cluster: Cluster) -> None:
    def state() -> tuple[bytes, bytes]:
        return (cluster.storage(3) / "identity.toml").read_bytes(), cluster.path.read_bytes()

    cluster.kill()
    lose(cluster, 1, 2)
    stage(cluster.path, Recovered(cluster.config.cluster_id, (3,), 1))
    assert "was interrupted" in recover(cluster, "--from", 3, code=2)
    before = state()
    said = recover(cluster, "--from", 3, ACCEPTED)
    assert "Node 3 has been recovered" in said and state()[0] != before[0]
    done = state()
    assert "recovered already" in recover(cluster, "--from", 3, ACCEPTED)
    assert "recovered already" in recover(cluster)
    assert state() == done, "no new keys"
    cluster.start(3)


def test_a_directory_that_was_moved_and_not_begun(cluster: Cluster) -> None:
    cluster.kill()
    lose(cluster, 1, 2)
    recover(cluster, "--from", 3, ACCEPTED)
    first = recorded_in(OsFiles(cluster.storage(3)))
    # As if the last step had not come to the disk, nor the one before.
    move(OsFiles(cluster.storage(3)), cluster.config.cluster_id, cluster.identity(3), learns=False)
    assert recorded_in(OsFiles(cluster.storage(3))).store != first.store
    assert cluster.spawn(3).wait(TIMEOUT_S) == 1
    assert "was interrupted" in cluster.log(3).read_text()
    assert cluster.spawn(3, options=("--rejoin",)).wait(TIMEOUT_S) == 1, "nobody else has what is there"
    assert "Nothing was changed" in recover(cluster, code=2)
    recover(cluster, ACCEPTED)
    cluster.start(3)


def test_a_foreign_directory_is_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster, other = make_cluster(), make_cluster()
    for each in (cluster, other):
        each.start()
        each.kill()
    said = recover(cluster, "--from", 3, "--storage", other.storage(3), ACCEPTED, code=1)
    assert "not of node 3 of cluster" in said
    assert "is not a directory" in recover(cluster, "--from", 3, "--storage", "/nowhere", ACCEPTED, code=1)
    assert "name the nodes whose directories are left" in recover(cluster, ACCEPTED, code=2)
    assert "--rank 2 is not one of --from 1" in recover(cluster, "--from", 1, "--rank", 2, ACCEPTED, code=2)
