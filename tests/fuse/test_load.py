"""Many at once on one mount: overlapping writes, killed writers, several mounts. The disk is in memory."""

from __future__ import annotations

import os
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from dsreg.block_device import BlockDevice
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume
from fuse_frontend import bindings, session
from fuse_frontend.direct import DirectBinding
from fuse_frontend.files import DiskFiles
from fuse_frontend.mount import unmount
from fuse_frontend.mounts import IMAGE_NAME, MountError, mount_at
from tests.fuse.conftest import SIZE
from tests.fuse.tools import Server, clean_up, connection_of, wait_until

pytestmark = pytest.mark.fuse

THREADS = 16
# A program that writes and reads all over the file with eight threads until it is killed.
WRITER = """
import os, random, sys, threading
def load():
    fd, rng = os.open(sys.argv[1], os.O_RDWR), random.Random()
    while True:
        length = rng.choice((4096, 4096, 65536, 1 << 20, 5000))
        offset = rng.randrange(0, int(sys.argv[2]) - length)
        os.pwrite(fd, bytes(length), offset // 4096 * 4096 if length != 5000 else offset)
        os.pread(fd, length, offset)
for _ in range(7):
    threading.Thread(target=load).start()
load()
"""


def test_overlapping_writes_of_many_threads(mounted: Server, rng: random.Random) -> None:
    """What threads write beside each other in the same sectors is all there, and of what they write to the same place
    one write is left as a whole."""
    piece, length, end = 4096 // THREADS, 64 * 4096, 1 << 20
    descriptor = os.open(mounted.image, os.O_RDWR)

    def stripes(thread: int, seed: int) -> None:
        """A piece of its own of each of 64 sectors, in an order of its own."""
        sectors = list(range(64))
        random.Random(seed).shuffle(sectors)
        for sector in sectors:
            assert os.pwrite(descriptor, bytes([thread + 1]) * piece, sector * 4096 + thread * piece) == piece

    def whole(thread: int, seed: int) -> None:
        for _ in range(10):
            assert os.pwrite(descriptor, bytes([thread + 1]) * length, end) == length

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for load in (stripes, whole):
                for part in [pool.submit(load, thread, rng.getrandbits(32)) for thread in range(THREADS)]:
                    part.result()
        expected = b"".join(bytes([thread + 1]) * piece for thread in range(THREADS))
        assert os.pread(descriptor, length, 0) == expected * 64
        content = os.pread(descriptor, length, end)
        assert content == content[:1] * length and 1 <= content[0] <= THREADS
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("binding", [bindings.DIRECT], indirect=True)  # pyfuse3 cannot allow it to the kernel
def test_writes_of_one_file_are_under_way_at_once(mounted: Server, fault: Path) -> None:
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 2):
        pytest.skip("before Linux 6.2 the kernel sends one write to a file after the other")
    waiting = connection_of(mounted) / "waiting"
    descriptor = os.open(mounted.image, os.O_RDWR)
    try:
        fault.write_text("hang")
        with ThreadPoolExecutor(4) as pool:
            writes = [pool.submit(os.pwrite, descriptor, bytes(4096), 4096 * number) for number in range(4)]
            try:
                wait_until(lambda: int(waiting.read_text()) >= 4, "four writes wait for the disk")
            finally:
                fault.write_text("")
            assert [write.result() for write in writes] == [4096] * 4
    finally:
        os.close(descriptor)


def test_killed_writers_hang_nothing(mounted: Server, rng: random.Random) -> None:
    with mounted.image.open("r+b", buffering=0) as image:
        for number in range(12):
            command = [sys.executable, "-c", WRITER, str(mounted.image), str(SIZE // 2)]
            with subprocess.Popen(command) as writer:
                try:
                    writer.wait(rng.uniform(0.1, 0.4))
                except subprocess.TimeoutExpired:
                    writer.send_signal(signal.SIGKILL)
                assert writer.wait(20) == -signal.SIGKILL
            data = rng.randbytes(70_000)
            image.seek(SIZE - 100_000 + number)
            image.write(data)
            os.fsync(image.fileno())
            image.seek(SIZE - 100_000 + number)
            assert image.read(len(data)) == data
    waiting = connection_of(mounted) / "waiting"
    wait_until(lambda: int(waiting.read_text()) == 0, "every request has been answered")
    assert "Traceback" not in mounted.log and "kernel refused the answer" not in mounted.log


def test_a_connection_that_is_ended_by_force_leaves_no_mount(mounted: Server) -> None:
    (connection_of(mounted) / "abort").write_text("1")
    assert mounted.wait() == 0
    assert mount_at(mounted.mountpoint) is None
    assert "the kernel has ended the connection" in mounted.log


async def test_two_mounts_in_one_process(tmp_path: Path, rng: random.Random) -> None:
    contents = [rng.randbytes(1 << 20) for _ in range(2)]
    mountpoints = [tmp_path / name for name in ("one", "two")]

    def use(number: int) -> None:
        image = mountpoints[number] / IMAGE_NAME
        with image.open("r+b", buffering=0) as stream:
            stream.write(contents[number])
        assert image.read_bytes() == contents[number]

    async def serve(fd: int) -> None:
        served = DirectBinding(DiskFiles(Volume(BlockDevice(MemoryStore(256))), os.getuid(), os.getgid()), fd)
        try:
            await served.run()
        finally:
            served.close()

    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for mountpoint in mountpoints:
                    mountpoint.mkdir()
                    nursery.start_soon(serve, await session.mount(mountpoint, {"fsname=dsreg", "subtype=dsreg"}))
                async with trio.open_nursery() as using:
                    for number in range(2):
                        using.start_soon(trio.to_thread.run_sync, use, number)
                for mountpoint in mountpoints:
                    await unmount(mountpoint)
    finally:
        for mountpoint in mountpoints:
            clean_up(mountpoint)


async def test_a_mount_that_fails_says_what_fusermount_said(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=f"{tmp_path}/nowhere"):
        await session.mount(tmp_path / "nowhere", {"fsname=dsreg"})


def test_a_program_reads_while_another_writes_one_sector(memory: Callable[..., Server], rng: random.Random) -> None:
    """A sector is old or new, and a reader never goes back."""
    server = memory(size=1 << 20)
    assert server.line() == "up", server.log
    descriptor = os.open(server.image, os.O_RDWR)
    failed = False

    def write() -> None:
        for number in range(1, 256):
            os.pwrite(descriptor, bytes([number]) * 4096, 8192)

    def read() -> int:
        last = 0
        while last < 255 and not failed:
            content = os.pread(descriptor, 4096, 8192)
            assert content == content[:1] * 4096 and content[0] >= last
            last = content[0]
        return last

    try:
        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            try:
                pool.submit(write).result()
            except OSError:
                failed = True
                raise
            assert [reader.result() for reader in readers] == [255] * 3
    finally:
        os.close(descriptor)
