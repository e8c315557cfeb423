"""Which of pyfuse3's tasks reads the next request: each is read, by a task that does not block, many in one pass."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
import trio.testing

from dsreg.volume import Volume
from fuse_frontend import library
from fuse_frontend.files import DiskFiles
from fuse_frontend.library import FUSE_CONNECTIONS
from fuse_frontend.mounts import IMAGE_NAME
from fuse_frontend.readers import MAX_PER_PASS, Readers
from tests.fuse.test_operations import SIZE, Disk
from tests.fuse.tools import WAIT_S, wait_until

TASKS = 64


class Requests:
    """What stands for the kernel: four bytes in a pipe are a request. A read that would block is an error here."""

    def __init__(self) -> None:
        self._here, self._there = os.pipe()
        os.set_blocking(self._here, False)
        self.read: list[int] = []
        self.made = 0

    def make(self, count: int) -> None:
        for _ in range(count):
            os.write(self._there, self.made.to_bytes(4, "big"))
            self.made += 1

    async def serve(self, readers: Readers, answer: Callable[[], Awaitable[None]]) -> None:
        """As a task of pyfuse3 does it. A request is under way until `answer` returns."""
        while True:
            await readers.wait_readable(self._here)
            self.read.append(int.from_bytes(os.read(self._here, 4), "big"))
            await answer()

    def close(self) -> None:
        os.close(self._here)
        os.close(self._there)


@pytest.fixture
def requests() -> Iterator[Requests]:
    made = Requests()
    yield made
    made.close()


class Passes(trio.abc.Instrument):
    """How often the scheduler has looked for I/O."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_as_long_as_a_task_is_idle_a_request_is_read(requests: Requests, nursery: trio.Nursery) -> None:
    """Whatever the others wait for: who asks for the attributes must not wait until the nodes answer."""
    readers, release = Readers(), trio.Semaphore(0)
    for _ in range(5):
        nursery.start_soon(requests.serve, readers, release.acquire)
    for made, read in ((1, 1), (3, 4), (1, 5), (2, 5)):
        requests.make(made)
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.read) == read
    for read in (6, 7, 7):
        release.release()
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.read) == read
    assert requests.read == sorted(requests.read)


@pytest.mark.parametrize("is_first", [True, False], ids=["after silence", "after as many"])
async def test_what_has_arrived_is_read_in_few_passes(
    requests: Requests, nursery: trio.Nursery, is_first: bool
) -> None:
    readers, release = Readers(), trio.Semaphore(0)
    for _ in range(TASKS + 1):
        nursery.start_soon(requests.serve, readers, release.acquire)
    await trio.testing.wait_all_tasks_blocked()
    if not is_first:
        requests.make(TASKS)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(TASKS):
            release.release()
        await trio.testing.wait_all_tasks_blocked()
    before = len(requests.read)
    requests.make(TASKS)
    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    with trio.fail_after(WAIT_S):
        while len(requests.read) < before + TASKS:
            await trio.lowlevel.checkpoint()
    assert passes.count <= (10 if is_first else 4)  # it doubles; or, as the last time, it is all of them


async def test_who_finds_one_after_the_other_lets_others_run(requests: Requests, nursery: trio.Nursery) -> None:
    async def make_another() -> None:
        if requests.made < 100 * MAX_PER_PASS:
            requests.make(1)

    nursery.start_soon(requests.serve, Readers(), make_another)
    requests.make(1)
    for _ in range(10):
        before = len(requests.read)
        await trio.lowlevel.checkpoint()
        assert len(requests.read) - before <= 2 * MAX_PER_PASS


async def test_each_request_is_read_once_whoever_leaves(requests: Requests, rng: random.Random) -> None:
    readers, release = Readers(), trio.Semaphore(0)
    scopes: list[trio.CancelScope] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await requests.serve(readers, release.acquire)

    async with trio.open_nursery() as nursery:
        for _ in range(400):
            what = rng.random()
            if what < 0.35:
                nursery.start_soon(serve)
            elif what < 0.5 and scopes:
                scopes.pop(rng.randrange(len(scopes))).cancel()
            elif what < 0.8:
                if requests.made - len(requests.read) < 8:  # a socket holds few
                    requests.make(rng.randint(1, 3))
            else:
                release.release()
            for _ in range(rng.randint(0, 2)):
                await trio.lowlevel.checkpoint()
        nursery.start_soon(serve)
        while len(requests.read) < requests.made:
            release.release()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert requests.read == list(range(requests.made))


class CountingDisk(Disk):
    turns = 0

    def end_turn(self) -> None:
        self.turns += 1
        super().end_turn()


@pytest.mark.fuse
async def test_pyfuse3_reads_in_one_turn_what_has_arrived(tmp_path: Path) -> None:
    """On a real mount: this is how pyfuse3 waits."""
    disk, mountpoint, count = CountingDisk(holds=True), tmp_path / "disk", SIZE // 4096
    mountpoint.mkdir()
    files = DiskFiles(Volume(disk), os.getuid(), os.getgid())
    binding = await library.mount(files, mountpoint, {"fsname=dsreg", "default_permissions"})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(binding.run)
            image = await trio.to_thread.run_sync(os.open, mountpoint / IMAGE_NAME, os.O_RDWR)
            try:
                await binding.on_up()
                device = (await trio.to_thread.run_sync(os.fstat, image)).st_dev
                waiting = FUSE_CONNECTIONS / str(os.minor(device)) / "waiting"
                if not waiting.exists():
                    pytest.skip(f"the fusectl file system is not mounted at {FUSE_CONNECTIONS}")
                with ThreadPoolExecutor(count) as pool:
                    answers = [pool.submit(os.pread, image, 4096, 4096 * index) for index in range(count)]
                    # In trio's thread, so that nothing is read before all have arrived.
                    wait_until(lambda: int(waiting.read_text()) == count, f"{count} requests have arrived")
                    before = disk.turns
                    found = [await trio.to_thread.run_sync(answer.result, WAIT_S) for answer in answers]
                assert b"".join(found) == disk.content
                assert disk.turns - before <= count // 2
            finally:
                await trio.to_thread.run_sync(os.close, image)
                await trio.run_process(["fusermount3", "-u", str(mountpoint)], stdin=subprocess.DEVNULL)
    finally:
        binding.close()
