"""`dsreg-fuse --cache=writeback` on real nodes: killed, stopped, taken down."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuse_frontend.mounts import mount_at
from tests.fuse.fsx import Fsx
from tests.fuse.test_cluster import NO_HANG, Nodes, fuse, mount, nodes  # noqa: F401
from tests.fuse.tools import Server, run, wait_until

pytestmark = pytest.mark.fuse

Mount = Callable[..., Server]
SECTOR = 4096
SECTORS = 2048


class Writer:
    """Writes numbers to random sectors and syncs now and then, until that fails; knows what each sector may hold."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.may_hold: defaultdict[int, list[int]] = defaultdict(lambda: [0])  # by age
        self.number = self.syncs = 0

    def run(self, image: Path) -> None:
        descriptor = os.open(image, os.O_RDWR)
        try:
            while True:
                if self._rng.random() < 0.02:
                    os.fsync(descriptor)
                    self.syncs += 1
                    for values in self.may_hold.values():
                        del values[:-1]
                else:
                    self._write(descriptor)
        except OSError:
            pass  # the end of the frontend
        finally:
            with contextlib.suppress(OSError):  # the close has nobody to tell
                os.close(descriptor)

    def _write(self, descriptor: int) -> None:
        self.number += 1
        count = self._rng.choice([1, 1, 1, 2, 8, 40])
        first = self._rng.randrange(SECTORS - count + 1)
        for sector in range(first, first + count):
            self.may_hold[sector].append(self.number)
        content = self.number.to_bytes(8, "big") * (SECTOR // 8) * count
        assert os.pwrite(descriptor, content, first * SECTOR) == len(content)

    def check(self, image: Path) -> None:
        with image.open("rb") as stream:
            for sector in range(SECTORS):
                content = stream.read(SECTOR)
                assert content == content[:8] * (SECTOR // 8), f"sector {sector} is mixed"
                number = int.from_bytes(content[:8], "big")
                assert number in self.may_hold[sector], f"sector {sector}: {number}, not {self.may_hold[sector]}"
                self.may_hold[sector] = [number]


def test_what_a_killed_frontend_has_synced_is_there(
    nodes: Nodes, mount: Mount, rng: random.Random  # noqa: F811
) -> None:
    """And every other sector is as it was before, or as something written since."""
    writer = Writer(rng.getrandbits(64))
    for turn in range(2):
        server = mount(f"cached{turn}", "--config", str(nodes.config.path), *NO_HANG, "--cache=writeback")
        killer = threading.Thread(target=kill_at_work, args=(server, writer, rng.uniform(0, 2)))
        killer.start()
        writer.run(server.image)
        killer.join()
        server.wait()
        assert fuse("--detach", server.mountpoint).returncode == 0
        plain = mount(f"plain{turn}", "--config", str(nodes.config.path), *NO_HANG)
        writer.check(plain.image)
        assert fuse("--detach", plain.mountpoint).returncode == 0


def kill_at_work(server: Server, writer: Writer, later_s: float) -> None:
    """As soon as it has synced and written some more, and at a moment that nobody knows."""
    number, syncs = writer.number + 100, writer.syncs
    try:
        wait_until(lambda: writer.number > number and writer.syncs > syncs, "writes, and a sync among them")
        time.sleep(later_s)
    finally:
        server.process.kill()


def test_random_io_while_nodes_die(
    nodes: Nodes, mount: Mount, tmp_path: Path, rng: random.Random  # noqa: F811
) -> None:
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--cache=writeback")
    part = 4 << 20
    seeds = [rng.getrandbits(64) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        parts = [
            pool.submit(Fsx(server.image, tmp_path / f"plain{n}", n * part, part, seeds[n]).run, 60) for n in range(3)
        ]
        for rank in (1, 2, 3):
            nodes.kill(rank)
            nodes.start(rank)
            with server.image.open("r+b") as image:
                image.seek(-SECTOR, os.SEEK_END)
                image.write(bytes([rank]) * SECTOR)
                os.fsync(image.fileno())
        for running in parts:
            running.result()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    plain = mount("plain", "--config", str(nodes.config.path), *NO_HANG)
    with plain.image.open("rb") as image:
        for number in range(3):
            assert image.read(part) == (tmp_path / f"plain{number}").read_bytes()


def test_without_a_majority_it_stays_until_it_can_be_written_back(nodes: Nodes, mount: Mount) -> None:  # noqa: F811
    server = mount("disk", "--config", str(nodes.config.path), "--on-quorum-loss=eio", "--io-timeout=1",
                   "--cache=writeback")
    nodes.kill(1, 2)
    descriptor = os.open(server.image, os.O_RDWR)
    assert os.pwrite(descriptor, b"x" * SECTOR, 0) == SECTOR
    with pytest.raises(OSError, match="Input/output"):
        os.fsync(descriptor)
    os.close(descriptor)
    refused = fuse("--detach", server.mountpoint)
    assert refused.returncode == 1 and "cannot be written to the nodes" in refused.stderr
    server.signal(signal.SIGTERM)
    server.wait_for_log("stays mounted: ")
    assert mount_at(server.mountpoint) is not None
    nodes.start(1, 2)
    server.wait_for_log("writing back works again")
    done = fuse("--detach", server.mountpoint)
    assert (done.returncode, server.wait()) == (0, 0), done.stderr
    plain = mount("plain", "--config", str(nodes.config.path), *NO_HANG)
    assert plain.image.open("rb").read(SECTOR) == b"x" * SECTOR


def test_a_signal_does_not_end_the_writing_back(nodes: Nodes, mount: Mount) -> None:  # noqa: F811
    """After an unmount by hand."""
    server = mount("disk", "--config", str(nodes.config.path), "--cache=writeback")
    nodes.kill(1, 2)
    with server.image.open("r+b") as image:
        image.write(b"x" * SECTOR)
    run("fusermount3", "-u", server.mountpoint)
    server.wait_for_log("writing back the last 4096 bytes")
    server.signal(signal.SIGTERM)
    server.wait_for_log("4096 bytes are not written back yet")
    nodes.start(1, 2)
    assert server.wait() == 0
    plain = mount("plain", "--config", str(nodes.config.path), *NO_HANG)
    assert plain.image.open("rb").read(SECTOR) == b"x" * SECTOR
