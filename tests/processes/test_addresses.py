"""A node moves to another machine, or address, while everything else runs: docs/addresses.md."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.config import format_address, load_config
from tests.processes.cluster import TIMEOUT_S, Address, Cluster, dsreg, free_addresses, healed, until
from tests.processes.history import stamp
from tests.processes.raw import RawClient
from tests.processes.test_lives import all_know_all, ended, status

SECTORS = 64


def told(cluster: Cluster, teller: int) -> dict[str, str]:
    """Where that node knows each to be, itself among them."""
    return {rank: known["address"] for rank, known in cluster.report(teller)["lives"].get("addresses", {}).items()}


def all_are_known(cluster: Cluster, *tellers: int) -> None:
    everybody = {str(rank): format_address(*cluster.address(rank)) for rank in cluster.ranks}
    until(lambda: all(told(cluster, rank) == everybody for rank in tellers or cluster.ranks), "all know where all are")


def move(cluster: Cluster, rank: int) -> None:
    """The stopped node, with its directory, gets another machine, which has a new file, and it starts there."""
    cluster.exchange(rank, free_addresses(1)[0])
    cluster.start(rank)


class Load:
    """Writes and reads back, one after the other, over and over."""

    def __init__(self, client: Client) -> None:
        self.longest_s = 0.0
        self.done = 0
        self._client = client

    async def run(self) -> None:
        while True:
            sector, content = self.done % SECTORS, stamp(self.done)
            began = time.monotonic()
            await self._client.write(sector, content)
            assert await self._client.read(sector) == content
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.done += 1

    async def goes_on(self) -> None:
        """By as many as there are sectors."""
        enough = self.done + SECTORS
        await in_thread(until, lambda: self.done >= enough, "the load goes on")


async def in_thread(call: Callable[..., object], *args: object) -> None:
    await trio.to_thread.run_sync(call, *args)


async def connected(client: Client, *ranks: int) -> None:
    await in_thread(until, lambda: set(ranks) <= set(client.connected_ranks), f"the client has found {ranks}")


@pytest.mark.parametrize("attach", [None, Attach()], ids=["shared", "attached"])
async def test_a_node_moves_and_whoever_runs_follows(
    make_cluster: Callable[..., Cluster], attach: Attach | None
) -> None:
    cluster = make_cluster()
    old = cluster.config
    cluster.start()
    await in_thread(all_are_known, cluster)
    async with Client(old, attach=attach) as client, trio.open_nursery() as nursery:
        load = Load(client)
        nursery.start_soon(load.run)
        await load.goes_on()
        await in_thread(cluster.terminate, 2)
        await in_thread(move, cluster, 2)
        await connected(client, 2)
        await load.goes_on()
        print(f"longest write and read while node 2 moved: {1000 * load.longest_s:.1f} ms of {load.done}")
        await in_thread(all_are_known, cluster)
        await in_thread(cluster.kill, 3)  # now node 2 is needed
        await load.goes_on()
        await in_thread(cluster.kill, 1)
        await in_thread(cluster.start, 1)  # with the old file
        await load.goes_on()
        nursery.cancel_scope.cancel()
    async with Client(load_config(cluster.path), timeout_s=TIMEOUT_S) as late:  # with the old file, node 3 being down
        assert await late.read(0, SECTORS)
        await connected(late, 1, 2)
    said = await trio.to_thread.run_sync(dsreg, "status", cluster.path)
    assert "2 of 3 nodes answer" in said.stdout


def test_a_node_that_was_away_finds_the_others_where_they_are_now(make_cluster: Callable[..., Cluster]) -> None:
    """One of them is down, the other one has moved, and it comes to that one: the moved one connects to it."""
    cluster = make_cluster()
    cluster.start()
    all_are_known(cluster)
    cluster.kill(1, 2, 3)
    move(cluster, 2)
    cluster.start(1)
    all_are_known(cluster, 1, 2)
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.write(7, stamp(7))
    cluster.kill(2)
    cluster.start(3)  # from node 1
    all_are_known(cluster, 3)


def test_after_all_files_were_edited_what_was_learned_gives_way(make_cluster: Callable[..., Cluster]) -> None:
    """All nodes get new addresses while none runs, as it was done before nodes told theirs."""
    cluster = make_cluster()
    cluster.start()
    all_are_known(cluster)
    cluster.kill()
    text = cluster.path.read_text()
    for node, address in zip(cluster.config.nodes, free_addresses(3), strict=True):
        text = text.replace(f'"{node.address}"', f'"{format_address(*address)}"')
    cluster.path.write_text(text)
    cluster.config = load_config(cluster.path)
    cluster.start()
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.write(7, stamp(7))
    all_are_known(cluster)


def test_an_impostor_draws_nobody_to_itself(make_cluster: Callable[..., Cluster]) -> None:
    """While node 2 is down, an empty directory with its rank is started elsewhere."""
    cluster = make_cluster()
    cluster.start()
    all_know_all(cluster)
    all_are_known(cluster)
    cluster.terminate(2)
    before, config = told(cluster, 1), cluster.config
    cluster.exchange(2, free_addresses(1)[0])
    cluster.processes[2] = cluster.spawn(2, cluster.directory / "impostor")
    assert "this is not the directory" in ended(cluster, 2)
    cluster.config = config
    del cluster.files[2]
    assert told(cluster, 1) == told(cluster, 3) == before
    cluster.start(2)
    all_are_known(cluster)


def test_after_an_impostor_beside_it_a_node_is_compared_with_again(make_cluster: Callable[..., Cluster]) -> None:
    """The others neither ask nor count it for a moment, while their links to it stay."""
    cluster = make_cluster()
    cluster.start(options=("-v",))  # it is too short for a warning
    all_know_all(cluster)
    all_are_known(cluster)
    config, real = cluster.config, cluster.processes.pop(2)
    cluster.exchange(2, free_addresses(1)[0])
    cluster.processes[2] = cluster.spawn(2, cluster.directory / "impostor")
    assert "this is not the directory" in ended(cluster, 2)
    cluster.config, cluster.processes[2] = config, real
    del cluster.files[2]
    until(lambda: "is used again" in cluster.log(1).read_text() + cluster.log(3).read_text(), "the others use node 2")
    healed(cluster)


def test_who_is_told_to_keeps_to_its_file(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.path.write_text(cluster.path.read_text().replace("[cluster]", "[cluster]\nlearn_addresses = false"))
    cluster.start()
    all_are_known(cluster)
    cluster.terminate(2)
    move(cluster, 2)
    all_are_known(cluster, 1, 3)
    found = status(cluster)
    assert not found[2]["answers"], "a client does not follow"
    assert found[1]["peers"]["2"] == found[3]["peers"]["2"] == "down", "nor do nodes"  # type: ignore[index]


# --- dsreg replace --------------------------------------------------------------------------------
def replaced(cluster: Cluster, rank: int, address: Address, *options: str) -> subprocess.CompletedProcess[str]:
    where = format_address(*address)
    return dsreg("replace", cluster.path, "--rank", rank, "--address", where, *options)


async def test_a_new_machine_without_the_directory_rejoins_at_its_address(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    await in_thread(all_are_known, cluster)
    async with Client(cluster.config) as client:
        await client.write(0, stamp(5))
        await in_thread(healed, cluster)
        cluster.kill(2)
        shutil.rmtree(cluster.storage(2))
        assert replaced(cluster, 2, address := free_addresses(1)[0]).returncode == 0
        cluster.config = load_config(cluster.path)
        assert cluster.address(2) == address
        cluster.start(2, options=("--rejoin",))
        await in_thread(healed, cluster)
        cluster.kill(1)
        assert await client.read(0) == stamp(5), "the client has the old file, and finds it"


def test_the_file_is_changed_once_the_node_is_down_and_the_others_are_in_sync(
    make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster()
    cluster.start()
    all_are_known(cluster)
    text, address = cluster.path.read_text(), free_addresses(1)[0]
    runs = replaced(cluster, 2, address)
    assert runs.returncode == 1 and "node 2 runs" in runs.stderr and "stop it first" in runs.stderr
    taken = replaced(cluster, 2, cluster.address(3))
    assert taken.returncode == 2 and "is that of node 3" in taken.stderr
    cluster.terminate(2)
    cluster.pause(3)
    no_quorum = replaced(cluster, 2, address, "--force", "--timeout", "1")
    assert no_quorum.returncode == 3 and "nothing is changed" in no_quorum.stderr
    cluster.resume(3)
    assert cluster.path.read_text() == text, "refused, all of them"
    done = replaced(cluster, 2, address)
    assert done.returncode == 0, done.stderr
    assert cluster.path.read_text() == text.replace(cluster.config.nodes[1].address, format_address(*address))
    assert f"dsreg wait {cluster.path} --healed" in done.stdout and "--rank 2" in done.stdout
    assert "If that directory is lost: the same with an empty one and --rejoin" in done.stdout
    assert replaced(cluster, 2, address).stdout == done.stdout, "again: the same"
    cluster.config = load_config(cluster.path)
    cluster.start(2)
    healed(cluster)
    all_are_known(cluster)


def test_while_another_node_is_behind_it_is_refused_unless_forced(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=5)
    cluster.start()
    all_are_known(cluster)
    cluster.terminate(2)
    cluster.terminate(3)
    text, address = cluster.path.read_text(), free_addresses(1)[0]
    refused = replaced(cluster, 2, address)
    assert refused.returncode == 1 and "node 3 does not answer" in refused.stderr and "--force" in refused.stderr
    assert cluster.path.read_text() == text
    forced = replaced(cluster, 2, address, "--force")
    assert forced.returncode == 0 and "warning: node 3 does not answer" in forced.stderr, forced.stderr
    assert cluster.path.read_text() != text


def test_a_file_with_the_ends_of_lines_of_windows_keeps_them(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    content = cluster.path.read_bytes().replace(b"\n", b"\r\n")
    cluster.path.write_bytes(content)
    cluster.start()
    all_are_known(cluster)
    cluster.terminate(2)
    old, address = cluster.config.nodes[1].address, free_addresses(1)[0]
    done = replaced(cluster, 2, address)
    assert done.returncode == 0, done.stderr
    assert cluster.path.read_bytes() == content.replace(old.encode(), format_address(*address).encode())
