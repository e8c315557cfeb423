"""Nodes are added and removed under load, by `dsreg members`: docs/configurations.md."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from dsreg.client import Attach, Client
from dsreg.config import load_config
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg, until
from tests.processes.history import stamp
from tests.processes.test_lives import all_know_all, spawn
from tests.processes.test_members import LONG_S, Grown, finish, reads, run_command, start_command, written

# That each load writes to, over and over.
SECTORS = 64
# So slow that a new node learns for as long as a test wants it to.
SLOWLY = ("--heal-rate", "4KiB")


class Load:
    """Writes and reads back, and knows what was acknowledged last of each sector: those from `first` on are its own."""

    def __init__(self, client: Client, first: int) -> None:
        self.done = 0
        self.longest_s = 0.0
        self.acknowledged: dict[int, bytes] = {}
        self.stops = False
        self._client = client
        self._first = first

    async def run(self) -> None:
        """Until it `stops`, with nothing under way."""
        while not self.stops:
            sector, content = self._first + self.done % SECTORS, stamp(self.done)
            began = time.monotonic()
            await self._client.write(sector, content)
            self.acknowledged[sector] = content
            assert await self._client.read(sector) == content
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.done += 1

    async def goes_on(self) -> None:
        enough = self.done + SECTORS
        await in_thread(until, lambda: self.done >= enough, "the load goes on")


async def in_thread(call: Callable[..., Any], *args: object) -> Any:
    return await trio.to_thread.run_sync(call, *args)


async def check(config_path: Path, loads: Sequence[Load]) -> None:
    """By a client that begins now."""
    async with Client(load_config(config_path), timeout_s=TIMEOUT_S) as client:
        for load in loads:
            for sector, content in load.acknowledged.items():
                assert await client.read(sector) == content


def shows(path: Path, text: str) -> bool:
    """Whether status says it, to somebody with that file."""
    return text in dsreg("status", "--timeout", "5", str(path)).stdout


def run_healed(path: Path) -> None:
    done = dsreg("wait", "--healed", "--timeout", str(LONG_S), str(path))
    assert done.returncode == 0, done.stderr


# --- 3 to 5 to 3 ----------------------------------------------------------------------------------
async def test_three_to_five_to_three_under_load(make_cluster: Callable[..., Cluster]) -> None:
    """An attached client and a plain one go on all the while, with the file that they began with; nothing is restarted,
    but one node is killed and comes back meanwhile."""
    cluster = make_cluster()
    old = cluster.path.with_name("old.toml")
    shutil.copy(cluster.path, old)
    config = cluster.config
    cluster.start()
    await in_thread(all_know_all, cluster)
    grown = Grown(cluster)
    async with Client(config, attach=Attach()) as attached, Client(config, force=True) as plain:
        async with trio.open_nursery() as nursery:
            loads = [Load(attached, 0), Load(plain, SECTORS)]
            for load in loads:
                nursery.start_soon(load.run)
            await loads[0].goes_on()
            process = await in_thread(grown.add)
            await in_thread(grown.start, 4, 5)
            said = await in_thread(finish, process)
            assert "configuration 2: nodes 1 2 3 together with 1 2 3 4 5" in said, said
            assert "configuration 3: nodes 1 2 3 4 5" in said, said
            for load in loads:
                await load.goes_on()
            print("longest write and read while nodes were added, ms:", [1000 * load.longest_s for load in loads])
            await in_thread(until, lambda: shows(old, "5 of 5 nodes answer, 3 are needed"), "the old file finds all")
            await in_thread(run_healed, old)
            assert await in_thread(shows, old, "can lose 2 more nodes now")
            await in_thread(cluster.kill, 1, 3)  # now both new ones are needed
            for load in loads:
                await load.goes_on()
            # By the only one of that file that is left.
            assert await in_thread(shows, old, "3 of 5 nodes answer, 3 are needed")
            assert await in_thread(shows, old, "can lose 0 more nodes now")
            await in_thread(cluster.start, 1, 3)
            await in_thread(run_command, "remove", grown.file, "--rank", "4", "--rank", "5")
            for rank in (4, 5):
                await in_thread(cluster.terminate, rank)
            for load in loads:
                await load.goes_on()
            for load in loads:
                load.stops = True
    for path in (cluster.path, old):
        await check(path, loads)
    assert load_config(cluster.path).ranks == (1, 2, 3)


async def test_a_node_that_is_killed_while_members_change(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    await in_thread(all_know_all, cluster)
    grown = Grown(cluster)
    async with Client(cluster.config) as client, trio.open_nursery() as nursery:
        load = Load(client, 0)
        nursery.start_soon(load.run)
        await load.goes_on()
        process = await in_thread(grown.add)
        await in_thread(grown.start, 4)
        await in_thread(cluster.kill, 2)
        await in_thread(grown.start, 5)
        await load.goes_on()
        await in_thread(cluster.start, 2)
        await in_thread(finish, process)
        await load.goes_on()
        load.stops = True
    await check(cluster.path, [load])


async def test_all_nodes_are_exchanged_and_a_client_that_runs_goes_on(make_cluster: Callable[..., Cluster]) -> None:
    """1 2 3 become 1 2 3 4 5 6, then 4 5 6: of the client's own file none is left."""
    cluster = make_cluster()
    config = cluster.config
    cluster.start()
    await in_thread(all_know_all, cluster)
    grown = Grown(cluster, 3)
    async with Client(config, attach=Attach()) as client, trio.open_nursery() as nursery:
        load = Load(client, 0)
        nursery.start_soon(load.run)
        process = await in_thread(grown.add)
        await in_thread(grown.start, 4, 5, 6)
        await in_thread(finish, process)
        await in_thread(run_command, "remove", grown.file, "--rank", "1", "--rank", "2", "--rank", "3")
        await in_thread(cluster.kill, 1, 2, 3)
        await load.goes_on()
        await in_thread(cluster.kill, 5)
        await load.goes_on()
        load.stops = True
    assert load_config(cluster.path).ranks == (4, 5, 6)
    await check(cluster.path, [load])


async def test_a_node_that_loses_its_directory_after_members_changed_rejoins(
    make_cluster: Callable[..., Cluster]
) -> None:
    """With a file of now, and with one of before: it takes over what is in force from those that accept its claim."""
    cluster = make_cluster()
    old = cluster.path.with_name("old.toml")
    shutil.copy(cluster.path, old)
    await in_thread(written, cluster)
    grown = Grown(cluster)
    process = await in_thread(grown.add)
    await in_thread(grown.start, 4, 5)
    await in_thread(finish, process)
    await in_thread(run_healed, cluster.path)
    cluster.files[2] = old
    for rank in (4, 2):
        await in_thread(cluster.kill, rank)
        shutil.rmtree(cluster.storage(rank))
        await in_thread(lambda rank=rank: cluster.start(rank, options=("--rejoin",)))
        await in_thread(run_healed, cluster.path)
        assert (await in_thread(grown.configuration, rank))["members"] == [1, 2, 3, 4, 5]
    await in_thread(cluster.kill, 1, 3)
    await reads(cluster.path)


def test_a_command_that_is_killed_anywhere_gets_there_in_the_end(
    make_cluster: Callable[..., Cluster], rng: random.Random
) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster)
    process = grown.add()
    grown.start(4, 5)
    process.kill()
    process.wait()
    options = [text for address in grown.addresses for text in ("--address", address)]
    for arguments, members in (
        (["add", *options], [1, 2, 3, 4, 5]), (["remove", "--rank", "2", "--rank", "4"], [1, 3, 5]),
    ):
        command, *rest = arguments
        for _ in range(4):
            process = start_command(command, grown.file, *rest)
            time.sleep(rng.uniform(0.2, 2))  # how far it comes is what is varied
            process.kill()
            process.wait()
            load_config(cluster.path)  # whole, whatever has happened
        run_command(command, grown.file, *rest)
        assert grown.configuration(5)["members"] == members
        trio.run(reads, cluster.path)
    assert load_config(cluster.path).ranks == (1, 3, 5)


# --- interrupted, taken back, two at once ---------------------------------------------------------
def begun(grown: Grown) -> subprocess.Popen[str]:
    """It has come as far as the joint configuration. As node 3 is down one of the new nodes has to learn before more
    follows."""
    grown.cluster.kill(3)
    process = grown.add("--force")
    grown.start(4, 5, options=SLOWLY)
    until(lambda: grown.configuration(1)["number"] == 2, "the joint configuration is in force")
    return process


def test_a_command_that_was_killed_goes_on_when_it_is_given_again(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster)
    process = begun(grown)
    process.kill()
    process.wait()
    file = cluster.path.read_text()
    said = run_command("remove", grown.file, "--rank", "3", code=1)
    assert "the nodes are being changed from 1 2 3 to 1 2 3 4 5" in said
    assert "not done within 1 s" in finish(grown.add("--timeout", "1"), code=1)
    cluster.kill(4, 5)
    cluster.start(3, 4, 5)  # the new ones know that they are members, and learn as fast as they can
    said = finish(grown.add())
    assert "configuration 3: nodes 1 2 3 4 5" in said and "start each" not in said
    assert cluster.path.read_text() == file
    cluster.kill(1, 2)
    trio.run(reads, cluster.path)
    assert "nothing is to be changed" in finish(grown.add())


def test_a_change_is_taken_back_and_its_ranks_are_not_used_again(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster)
    process = begun(grown)
    assert "configuration 3: nodes 1 2 3" in run_command("cancel", grown.file)
    assert "somebody else has changed the members meanwhile" in finish(process, code=1)
    cluster.kill(4, 5)
    cluster.start(3)
    assert load_config(cluster.path).ranks == (1, 2, 3)
    trio.run(reads, cluster.path)
    grown = Grown(cluster, 1)
    process = grown.add()
    assert cluster.config.ranks == (1, 2, 3, 6)
    grown.start(6)
    assert "configuration 5: nodes 1 2 3 6" in finish(process)
    cluster.kill(1)
    trio.run(reads, cluster.path)


def test_of_two_who_change_members_at_once_one_gives_way(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster, 1)
    process = grown.add()
    other = cluster.path.with_name("other.toml")
    shutil.copy(cluster.path, other)
    before = other.read_text()
    removing = start_command("remove", str(other), "--rank", "3")
    grown.start(4)
    outcomes = [(each, each.communicate(timeout=LONG_S)[0]) for each in (process, removing)]
    codes = [each.returncode for each, _ in outcomes]
    said = "".join(text for _, text in outcomes)
    assert sorted(codes) == [0, 1] or codes == [0, 0], said
    members = grown.configuration(1)
    assert members["joining"] == []
    expected = {(0, 1): [1, 2, 3, 4], (1, 0): [1, 2], (0, 0): [1, 2, 4]}[codes[0], codes[1]]
    assert members["members"] == expected, said
    if codes[1]:
        assert other.read_text() == before
    trio.run(reads, cluster.path)


# --- nodes that are down --------------------------------------------------------------------------
def test_a_node_that_is_down_is_removed(make_cluster: Callable[..., Cluster]) -> None:
    """Also after the others were started anew: they know that it keeps configurations."""
    cluster = make_cluster()
    written(cluster)
    cluster.kill()
    cluster.start(1, 2)
    grown = Grown(cluster)
    said = run_command("remove", grown.file, "--rank", "3")
    assert "configuration 3: nodes 1 2" in said and "2 nodes survive the loss of 0" in said
    assert load_config(cluster.path).ranks == (1, 2)
    trio.run(reads, cluster.path)


def test_nodes_are_added_while_one_is_down_if_it_is_forced(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    cluster.kill(3)
    grown = Grown(cluster, 1)
    process = grown.add("--force")
    grown.start(4)
    assert "configuration 3: nodes 1 2 3 4" in finish(process)
    trio.run(reads, cluster.path)


def test_a_new_node_with_a_list_of_its_own_is_refused_until_it_joins(make_cluster: Callable[..., Cluster]) -> None:
    """Its file was written by hand, and lists it among the first ones."""
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster, 1)
    before = cluster.path.read_bytes()
    process = grown.add()
    by_hand = cluster.files[4] = cluster.directory / "by-hand.toml"
    by_hand.write_text(re.sub("first_nodes = 3", "", cluster.path.read_text()))
    spawn(cluster, 4, "--new")
    assert "node 4 has taken the nodes 1 2 3 4, of its cluster.toml" in finish(process, code=1)
    assert grown.configuration(1)["number"] == 1 and cluster.path.read_bytes() == before
    cluster.kill(4)
    del cluster.files[4]
    process = grown.add()
    grown.start(4)
    assert "configuration 3: nodes 1 2 3 4" in finish(process)
