"""The disk is made larger, by `dsreg resize`, while everything runs: docs/configurations.md."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dsreg.client import Attach, BlockingClient, Client
from dsreg.config import format_size, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import OutOfRange
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg, until
from tests.processes.contract_node import ContractNode, until_known
from tests.processes.history import stamp
from tests.processes.raw import INVALID, OK, READ_ANSWER, RawClient
from tests.processes.test_lives import all_know_all, spawn
from tests.processes.test_members import Grown, finish, run_command, start_command
from tests.processes.test_members_change import Load, check, in_thread, run_healed

# Of a disk that does not end with a chunk of 256 sectors, nor with a group of 8.
SMALL, LARGE = 2043, 4999


def resize(cluster: Cluster, sectors: int, *options: str, code: int = 0) -> str:
    said = run_command(str(cluster.path), str(sectors * SECTOR_SIZE), *options, code=code, verb="resize")
    cluster.config = load_config(cluster.path)
    return said


def small(make_cluster: Callable[..., Cluster], **options: int) -> Cluster:
    """It runs."""
    cluster = make_cluster(sectors=SMALL, **options)
    cluster.start()
    all_know_all(cluster)
    return cluster


def sizes(cluster: Cluster, *ranks: int) -> list[int]:
    return [cluster.report(rank)["sectors"] for rank in ranks or cluster.ranks]


async def holds(path: Path, contents: dict[int, bytes]) -> None:
    """A client that begins now reads that."""
    async with Client(load_config(path), timeout_s=TIMEOUT_S) as client:
        for sector, content in contents.items():
            assert await client.read(sector) == content


# --- under load -------------------------------------------------------------------------------------
async def test_clients_go_on_and_use_what_is_new(make_cluster: Callable[..., Cluster]) -> None:
    """An attached one, a plain one and a blocking one, with the file that they began with."""
    cluster = await in_thread(small, make_cluster)
    old = cluster.path.with_name("old.toml")
    shutil.copy(cluster.path, old)
    config = cluster.config
    async with Client(config, attach=Attach()) as attached, Client(config, force=True) as plain:
        with BlockingClient(config, TIMEOUT_S, force=True) as blocking:
            async with trio.open_nursery() as nursery:
                loads = [Load(attached, 0), Load(plain, 64)]
                for load in loads:
                    nursery.start_soon(load.run)
                await loads[0].goes_on()
                for client in (attached, plain):
                    with pytest.raises(OutOfRange):
                        await client.read(SMALL)
                said = await in_thread(resize, cluster, LARGE)
                assert f"configuration 2: nodes 1 2 3, {format_size(LARGE * SECTOR_SIZE)}" in said, said
                for client in (attached, plain):
                    assert await client.told_size(other_than=SMALL) == LARGE
                    assert await client.read(SMALL - 1, 3) == await client.read(SMALL - 1) + bytes(2 * SECTOR_SIZE)
                await attached.write(SMALL - 300, b"".join(map(stamp, range(600))))
                await plain.write(LARGE - 1, stamp(1))
                await in_thread(until, lambda: blocking.sectors == LARGE, "the blocking client has heard of it")
                await in_thread(blocking.write, LARGE - 2, stamp(2))
                with pytest.raises(OutOfRange):
                    await attached.read(LARGE)
                for load in loads:
                    await load.goes_on()
                    load.stops = True
                print("longest write and read, ms:", [1000 * load.longest_s for load in loads])
    await check(old, loads)
    for path in (old, cluster.path):
        await holds(path, {SMALL: stamp(300), LARGE - 1: stamp(1), LARGE - 2: stamp(2), LARGE - 3: bytes(SECTOR_SIZE)})
    grown = load_config(cluster.path)
    assert (grown.sectors, grown.created_sectors) == (LARGE, SMALL)
    for path in (old, cluster.path):
        assert f"{LARGE} sectors" in (await in_thread(dsreg, "status", str(path))).stdout
        assert (await in_thread(dsreg, "read", str(LARGE - 1), "-c", str(path))).returncode == 0
        assert (await in_thread(dsreg, "read", str(LARGE), "-c", str(path))).returncode == 2


def test_all_nodes_keep_it_and_more_may_follow(make_cluster: Callable[..., Cluster]) -> None:
    """Also by the old file; and twice the same."""
    cluster = small(make_cluster)
    old = cluster.path.read_bytes()
    resize(cluster, LARGE)
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.write(LARGE - 1, stamp(7))
    cluster.path.write_bytes(old)
    cluster.kill()
    cluster.config = load_config(cluster.path)
    cluster.start()
    assert sizes(cluster) == [LARGE] * 3
    assert "nothing is to be changed" in resize(cluster, LARGE)
    assert load_config(cluster.path).sectors == LARGE
    assert "configuration 3" in resize(cluster, 3 * LARGE)
    trio.run(holds, cluster.path, {LARGE - 1: stamp(7), 3 * LARGE - 1: bytes(SECTOR_SIZE)})
    assert load_config(cluster.path).created_sectors == SMALL


def test_a_client_of_the_contract(make_cluster: Callable[..., Cluster]) -> None:
    """It knows of no sizes: what is in the disk is there for it, and what is not is refused, over one connection."""
    cluster = small(make_cluster)
    with RawClient(cluster.address(2), cluster.config.client_key) as client:
        client.send(client.read_frame(1, LARGE - 1))
        assert client.response().status == INVALID
        client.write(5, stamp(5))
        resize(cluster, LARGE)
        until(lambda: sizes(cluster, 2) == [LARGE], "node 2 has heard of it")
        client.write(LARGE - 1, stamp(6))
        client.send(client.read_frame(2, LARGE - 1))
        answer = client.response()
        assert (answer.status, answer.content) == (OK, stamp(6))
        client.send(client.read_frame(3, LARGE))
        answer = client.response()
        assert (answer.status, answer.type) == (INVALID, READ_ANSWER)


# --- nodes that were away ----------------------------------------------------------------------------
async def test_a_node_that_was_away(make_cluster: Callable[..., Cluster]) -> None:
    """It is told, and takes what it lacks, in the new sectors as well."""
    cluster = await in_thread(small, make_cluster)
    await in_thread(cluster.kill, 3)
    said = await in_thread(lambda: resize(cluster, LARGE, code=1))
    assert "nothing is changed: node 3 does not answer" in said and "give --force" in said
    await in_thread(lambda: resize(cluster, LARGE, "--force"))
    contents = {sector: stamp(sector) for sector in (SMALL - 1, SMALL, SMALL + 1, 4000, LARGE - 1)}
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        for sector, content in contents.items():
            await client.write(sector, content)
    await in_thread(cluster.start, 3)
    await in_thread(run_healed, cluster.path)
    await in_thread(cluster.kill, 1)
    await holds(cluster.path, contents)


@pytest.mark.parametrize("when", ["before", "after", "meanwhile"])
async def test_a_node_that_rejoins(make_cluster: Callable[..., Cluster], when: str) -> None:
    """With a file of now or of before, with an empty directory: it takes the size that is in force, and learns all that
    was written, in what is new as well. `meanwhile`: it learns when the disk grows."""
    cluster = await in_thread(small, make_cluster)
    old = cluster.path.read_bytes()
    contents = {sector: stamp(sector) for sector in (0, SMALL - 1)}
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        for sector, content in contents.items():
            await client.write(sector, content)
        if when != "meanwhile":
            await in_thread(resize, cluster, LARGE)
            contents |= {sector: stamp(sector) for sector in (SMALL, LARGE - 1)}
            for sector in (SMALL, LARGE - 1):
                await client.write(sector, contents[sector])
        await in_thread(cluster.kill, 3)
        shutil.rmtree(cluster.storage(3))
        if when == "before":
            cluster.path.write_bytes(old)
        slowly = ("--heal-rate", "4KiB") if when == "meanwhile" else ()
        await in_thread(lambda: cluster.processes.update({3: spawn(cluster, 3, "--rejoin", *slowly)}))
        if when == "meanwhile":
            await in_thread(until, lambda: cluster.report(3)["lives"]["stage"] == "started", "node 3 serves")
            await in_thread(resize, cluster, LARGE)
            contents |= {sector: stamp(sector) for sector in (SMALL, LARGE - 1)}
            for sector in (SMALL, LARGE - 1):
                await client.write(sector, contents[sector])
    await in_thread(run_healed, cluster.path)
    assert await in_thread(sizes, cluster, 3) == [LARGE]
    await in_thread(cluster.kill, 1)
    await holds(cluster.path, contents)


async def test_a_node_that_joins_later(make_cluster: Callable[..., Cluster]) -> None:
    cluster = await in_thread(small, make_cluster)
    await in_thread(resize, cluster, LARGE)
    async with Client(cluster.config, timeout_s=TIMEOUT_S) as client:
        await client.write(LARGE - 1, stamp(1))
    grown = Grown(cluster, 2)
    process = await in_thread(grown.add)
    await in_thread(grown.start, 4, 5)
    await in_thread(finish, process)
    assert "configuration 5" in await in_thread(resize, cluster, 2 * LARGE)
    await in_thread(run_healed, cluster.path)
    assert await in_thread(sizes, cluster) == [2 * LARGE] * 5
    await in_thread(cluster.kill, 1, 2)
    await holds(cluster.path, {LARGE - 1: stamp(1), 2 * LARGE - 1: bytes(SECTOR_SIZE)})


# --- interrupted, twice at once ----------------------------------------------------------------------
def test_two_at_once(make_cluster: Callable[..., Cluster]) -> None:
    """One of them is done, or both one after the other."""
    cluster = small(make_cluster)
    commands = [start_command(str(cluster.path), str(size * SECTOR_SIZE), verb="resize") for size in (LARGE, 2 * LARGE)]
    said = [command.communicate(timeout=4 * TIMEOUT_S)[0] for command in commands]
    done = [size for size, command in zip((LARGE, 2 * LARGE), commands, strict=True) if command.returncode == 0]
    assert done, said
    for command, text in zip(commands, said, strict=True):
        why = r"somebody else has changed the size meanwhile: configuration \d has nodes 1 2 3|a disk cannot shrink"
        assert command.returncode == 0 or re.search(why, text), text
    until(lambda: sizes(cluster) == [max(done)] * 3, "all have the largest that was done")
    resize(cluster, 3 * LARGE)
    assert sizes(cluster) == [3 * LARGE] * 3 and load_config(cluster.path).created_sectors == SMALL


def test_a_command_that_was_killed_is_given_again(make_cluster: Callable[..., Cluster], rng: random.Random) -> None:
    """Wherever it was; a node is killed with it."""
    cluster = small(make_cluster)
    for number, seconds in enumerate((rng.uniform(0.2, 0.8), rng.uniform(0.8, 2.0)), 1):
        command = start_command(str(cluster.path), str(number * LARGE * SECTOR_SIZE), verb="resize")
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(seconds)
        cluster.kill(number)
        command.kill()
        command.communicate()
        cluster.start(number)
        resize(cluster, number * LARGE)
        until(lambda size=number * LARGE: sizes(cluster) == [size] * 3, "all nodes have it")
    cluster.kill()
    cluster.start()
    assert sizes(cluster) == [2 * LARGE] * 3


# --- what is refused -----------------------------------------------------------------------------------
def test_what_is_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster = small(make_cluster)
    before = cluster.path.read_bytes()
    assert f"a disk cannot shrink, from {SMALL} sectors to 2" in resize(cluster, 2, code=1)
    odd = run_command(str(cluster.path), "5000", verb="resize", code=2)
    assert "not a multiple of 4096; the next larger is 8192" in odd
    assert "is not a size" in run_command(str(cluster.path), "5GB", verb="resize", code=2)
    cluster.kill(2, 3)
    assert "the disk would stop at once. Start" in resize(cluster, LARGE, "--force", code=1)
    assert cluster.path.read_bytes() == before and sizes(cluster, 1) == [SMALL]


def test_not_beside_a_node_of_the_contract(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sectors=SMALL)
    peer = ContractNode(
        3, cluster.address(3), cluster.address(1), cluster.config.system_key, client_key=cluster.config.client_key
    )
    try:
        cluster.start(1, 2)
        until_known(cluster, 3)
        assert "node 3 speaks the contract alone" in resize(cluster, LARGE, "--force", code=1)
    finally:
        peer.close()
        cluster.kill()
        peer.join()


def test_not_while_members_are_changed(make_cluster: Callable[..., Cluster]) -> None:
    """The new nodes learn slowly."""
    cluster = small(make_cluster)
    trio.run(_fill, cluster)
    grown = Grown(cluster, 2)
    process = grown.add()
    grown.start(4, 5, options=("--heal-rate", "4KiB"))
    grown.all_know(2, 1, 2, 3)
    process.kill()
    process.communicate()
    assert "the nodes are being changed from 1 2 3 to 1 2 3 4 5: finish that" in resize(cluster, LARGE, code=1)


async def _fill(cluster: Cluster) -> None:
    async with Client(cluster.config) as client:
        await client.write(0, b"".join(map(stamp, range(1024))))


def test_a_node_that_cannot_have_so_long_a_file(make_cluster: Callable[..., Cluster]) -> None:
    """It says so before anything is chosen; and asked for its vote behind the command's back, it has none."""
    cluster = small(make_cluster)
    largest = (LARGE - 1) * SECTOR_SIZE
    resource.prlimit(cluster.pid(3), resource.RLIMIT_FSIZE, (largest, largest))
    said = resize(cluster, LARGE, "--force", code=1)
    assert f"node 3 can have a disk of {LARGE - 1} sectors at most" in said and "ulimit -f" in said
    assert sizes(cluster) == [SMALL] * 3
    resize(cluster, LARGE - 1)
    assert sizes(cluster, 3) == [LARGE - 1]
