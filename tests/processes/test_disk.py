"""A node whose disk is full, and one whose disk has damaged a byte."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from dsreg.client import Attach, Client
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg, until
from tests.processes.fake_peer import FakePeer
from tests.processes.history import stamp
from tests.processes.raw import OK, READ_ANSWER, READ_PROC, VALUE, PeerMessage, RawClient, Response

DISK_MIB = 24
# Sectors: more than a journal holds, and with those that a test looks at.
JOURNALED = 1536
WRITTEN = 3 + JOURNALED


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=TIMEOUT_S)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of DISK_MIB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a loop device needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    image, where = tmp_path / "image", tmp_path / "small"
    where.mkdir()
    with open(image, "wb") as file:
        file.truncate(DISK_MIB << 20)
    run("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image)
    try:
        run("mount", "-o", "loop", image, where)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a loop device cannot be mounted: {error.stderr.decode().strip()}")
    try:
        yield where
    finally:
        run("umount", "--lazy", where)


def leave_free(where: Path, size: int) -> Path:
    """A new file that takes all but `size` bytes of the file system."""
    filler = where / "filler"
    with open(filler, "wb") as file:
        taken = 0
        while (free := room(where) - size) > 0:
            try:
                os.posix_fallocate(file.fileno(), taken, free)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                if room(where) - size >= free:
                    break  # what is left is not for files; else a node has taken some of it meanwhile
            taken = os.fstat(file.fileno()).st_blocks * 512
    return filler


def room(where: Path) -> int:
    """Free bytes of the file system."""
    return os.statvfs(where).f_bavail * os.statvfs(where).f_bsize


async def status(cluster: Cluster, rank: int) -> dict[str, object]:
    async with Client(cluster.only(rank)) as client:
        return await client.status(rank, TIMEOUT_S)


async def test_a_full_disk_on_one_node(small_disk: Path, make_cluster: Callable[..., Cluster], seed: int) -> None:
    """The cluster goes on; the node answers what it can; with space again it takes part again."""
    cluster = make_cluster(sectors=8192)
    cluster.storage(3).symlink_to(small_disk / "node-3")
    (small_disk / "node-3").mkdir()
    cluster.start()
    filler = leave_free(small_disk, 4 << 20)
    data = [random.Random(seed + index).randbytes(1 << 20) for index in range(12)]
    async with Client(cluster.config) as client:
        with trio.fail_after(TIMEOUT_S):
            for index, part in enumerate(data):
                await client.write(index * 256, part)
    async with Client(cluster.only(3)) as client:
        with trio.fail_after(TIMEOUT_S):
            while not (await client.status(3, TIMEOUT_S))["counters"].get("refused"):
                continue  # it may be behind the two others
            for index, part in enumerate(data):
                assert await client.read(index * 256, 256) == part

    filler.unlink()
    cluster.kill(1)  # from now on every write needs node 3
    async with Client(cluster.config) as client:
        with trio.fail_after(TIMEOUT_S):
            for index, part in enumerate(data):
                assert await client.read(index * 256, 256) == part
                await client.write(index * 256, part[::-1])
    cluster.kill(3)
    cluster.start(1, 3)
    cluster.kill(2)
    async with Client(cluster.config) as client:
        with trio.fail_after(TIMEOUT_S):
            for index, part in enumerate(data):
                assert await client.read(index * 256, 256) == part[::-1]


def used(cluster: Cluster, rank: int) -> int:
    return sum(path.stat().st_blocks * 512 for path in cluster.storage(rank).iterdir())


@pytest.mark.parametrize("piece", [256, 32])
async def test_what_was_never_written_takes_no_room_when_it_is_read(cluster: Cluster, piece: int) -> None:
    """One node is down, so an attachment has to restamp what it reads; each new one restamps it again."""
    cluster.kill(3)
    before = used(cluster, 1), used(cluster, 2)
    for _ in range(3):
        async with Client(cluster.config, attach=Attach(name="reader")) as client:
            await client.attached()
            for first in range(0, cluster.config.sectors, piece):
                with trio.fail_after(TIMEOUT_S):
                    assert await client.read(first, piece) == bytes(piece * 4096)
            assert (await client.status(1, TIMEOUT_S))["sectors_written"] == 0
    assert max(used(cluster, 1) - before[0], used(cluster, 2) - before[1]) <= 128 * 1024
    assert [os.stat(cluster.storage(rank) / "sectors").st_blocks for rank in (1, 2)] == [0, 0]


async def test_an_attachment_reads_on_full_nodes(small_disk: Path, make_cluster: Callable[..., Cluster]) -> None:
    """What was never written, and what was; one node is down, and there is no room on the others."""
    cluster = make_cluster(sectors=65536)
    for rank in (1, 2):
        (small_disk / f"node-{rank}").mkdir()
        cluster.storage(rank).symlink_to(small_disk / f"node-{rank}")
    cluster.start()
    data = random.Random(1).randbytes(1 << 20)
    async with Client(cluster.config, attach=Attach(name="writer")) as client:
        await client.write(512, data)
        for rank in (1, 2):  # written is what a majority has; which one it is that node 3 does not leave behind
            while (await client.status(rank, TIMEOUT_S))["sectors_written"] < 256:  # noqa: ASYNC110
                await trio.sleep(0.05)
    cluster.kill(3)
    leave_free(small_disk, 0)
    for name in ("first", "second"):
        async with Client(cluster.config, attach=Attach(name=name)) as client:
            for first in range(0, cluster.config.sectors, 256):
                with trio.fail_after(TIMEOUT_S):
                    assert await client.read(first, 256) == (data if first == 512 else bytes(1 << 20))


def fill_journal(cluster: Cluster) -> None:
    """Write more than both segments of a node's journal hold, so that nothing older is replayed from it."""
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        for start in range(0, JOURNALED, 128):
            numbers = range(start, start + 128)
            client.send(*(client.write_frame(number, 512 + number, stamp(number + 1)) for number in numbers))
            client.responses(len(numbers))


def damage(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 0x40]), at)


@pytest.fixture
def damaged(cluster: Cluster) -> Cluster:
    """Sectors 100..102 hold stamps; a byte of sector 101 at node 3 is wrong. Node 3 runs, and so does node 2."""
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        for sector in (100, 101, 102):
            client.write(sector, stamp(sector))
    with RawClient(cluster.address(3), cluster.config.client_key) as client:
        for sector in (100, 101, 102):  # whichever node missed the write has it from here on
            client.read(sector)
    fill_journal(cluster)
    wait_for_all(cluster)
    # If it was not linked to the others at first, heal brings it what it has missed.
    until(lambda: trio.run(status, cluster, 3)["sectors_written"] == WRITTEN, "node 3 has all")
    assert cluster.terminate(3) == 0
    home = cluster.storage(3) / "sectors"
    assert home.read_bytes()[101 * 4096:102 * 4096] == stamp(101)
    damage(home, 101 * 4096 + 1234)
    cluster.start(3)
    return cluster


def wait_for_all(cluster: Cluster) -> None:
    """Until node 3 has written everything home, too: its last sector stands in the file."""
    home = cluster.storage(3) / "sectors"

    def there() -> bool:
        with open(home, "rb") as file:
            return os.pread(file.fileno(), 4096, 2047 * 4096) == stamp(JOURNALED)

    until(there, "node 3 has the last sector")


async def test_a_damaged_sector_is_served_right_and_repaired(damaged: Cluster) -> None:
    async with Client(damaged.only(3)) as client:
        with trio.fail_after(TIMEOUT_S):
            assert await client.read(100, 3) == stamp(100) + stamp(101) + stamp(102)
            while (report := await client.status(3, TIMEOUT_S))["damaged"]:
                await trio.lowlevel.checkpoint()
        assert report["sectors_written"] == WRITTEN
    damaged.kill(1)
    with RawClient(damaged.address(3), damaged.config.client_key) as contract:
        assert contract.read(101) == stamp(101)
    assert damaged.terminate(3) == 0
    assert (damaged.storage(3) / "sectors").read_bytes()[101 * 4096:102 * 4096] == stamp(101)


async def test_a_damaged_sector_is_no_vote(damaged: Cluster) -> None:
    """Without the others the node waits: it answers with neither zeros nor what it has."""
    damaged.kill(1)
    damaged.pause(2)
    with RawClient(damaged.address(3), damaged.config.client_key) as contract:
        contract.send(contract.read_frame(1, 101))
        contract.nothing_more()
        while not (await status(damaged, 3))["damaged"]:
            await trio.lowlevel.checkpoint()
        contract.nothing_more()
        damaged.resume(2)
        await trio.to_thread.run_sync(damaged.start, 1)
        assert contract.response() == Response(OK, READ_ANSWER, 1, stamp(101))


def test_a_damaged_sector_is_not_told_to_others(damaged: Cluster) -> None:
    """Node 1 (a fake that has lost all it had) asks for it: node 3 says nothing before it has repaired it."""
    damaged.kill()
    for rank in (2, 3):  # else a node 1 that shows no directory would not be heeded
        done = dsreg("forget", "--storage", str(damaged.storage(rank)), "--rank", "1")
        assert done.returncode == 0, done.stderr
    damaged.start(2, 3)
    with FakePeer(1, damaged.address(1), damaged.address(3), damaged.config.system_key) as fake:
        fake.send(fake.read_proc(5, 101))

        def is_repaired() -> bool:
            """The repair asks for tags first and for values then; a contract-only node tells both each time."""
            for message in fake.so_far():
                assert (message.type, message.rank, message.sector) == (READ_PROC, 3, 101), "nobody else is to store it"
                fake.send(fake.value(message))
            return not trio.run(status, damaged, 3)["damaged"]

        until(is_repaired, "node 3 has repaired it")
        answers: list[PeerMessage] = []

        def is_answered() -> bool:
            """A node of the contract asks until it is answered: one that repairs a sector at that moment does not."""
            fake.send(fake.read_proc(6, 101))
            for message in fake.so_far():
                assert message.type in (VALUE, READ_PROC) and message.sector == 101  # what the repair asked, once more
                answers.extend([message] if message.type == VALUE else [])
            return bool(answers)

        until(is_answered, "node 3 answers")
        assert (answers[0].rid, answers[0].data) == (6, stamp(101)) and answers[0].ts > 0


async def test_zeros_over_data_give_its_room_back_at_every_node(cluster: Cluster) -> None:
    """And what was read as zeros before all nodes are killed is read so by the next ones."""
    def homes() -> list[int]:
        os.sync()
        return [os.stat(cluster.storage(rank) / "sectors").st_blocks * 512 for rank in cluster.ranks]

    async def all_have(client: Client, sectors: int) -> None:
        with trio.fail_after(TIMEOUT_S):
            for rank in cluster.ranks:
                while (await client.status(rank, TIMEOUT_S))["sectors_written"] != sectors:  # noqa: ASYNC110
                    await trio.sleep(0.05)

    size = cluster.config.sectors // 256 * 256
    async with Client(cluster.config, attach=Attach(name="writer")) as client:
        for first in range(0, size, 256):
            await client.write(first, random.Random(first).randbytes(1 << 20))
        await all_have(client, size)
        assert min(homes()) >= size * 4096
        for first in range(0, size, 256):
            await client.write(first, bytes(1 << 20))
        await all_have(client, 0)
    assert max(homes()) <= 64 * 1024
    for rank in cluster.ranks:
        cluster.kill(rank)
        cluster.start(rank)
    async with Client(cluster.config, attach=Attach(name="reader")) as client:
        for first in range(0, size, 256):
            with trio.fail_after(TIMEOUT_S):
                assert await client.read(first, 256) == bytes(1 << 20)
