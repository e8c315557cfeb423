"""A file system on a mounted disk that becomes larger under load. Real node processes, real mounts."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.test_cluster import NO_HANG, mount
from tests.fuse.test_loop import attribute, files, need
from tests.fuse.tools import Server, run, wait_until
from tests.node_processes import Nodes, running_nodes

pytestmark = pytest.mark.fuse
__all__ = ["files", "mount"]

MIB = 1 << 20
SMALL, LARGE = 320 * MIB, 640 * MIB  # mkfs.xfs makes none below 300 MiB
FILE = MIB
SETTLES_S = 60.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, SMALL) as nodes:
        yield nodes


def resize(nodes: Nodes, size: int) -> None:
    run(sys.executable, "-m", "dsreg", "resize", nodes.config.path, str(size))


class Writer:
    """Writes one file after the other, each with other contents, over and over."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.contents: dict[Path, bytes] = {}
        self.fault: BaseException | None = None
        self.rounds = 0
        self._directory = directory
        self._rng = rng
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                path = self._directory / f"f{self.rounds % 16}"
                self.contents[path] = self._rng.randbytes(FILE)
                path.write_bytes(self.contents[path])
                run("sync", "-f", path)
                self.rounds += 1
        except BaseException as fault:  # noqa: BLE001 - for the test's own thread
            self.fault = fault

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        assert self.fault is None, self.fault


def grow_xfs(device: str, directory: Path) -> None:
    run("xfs_growfs", directory)


def grow_ext4(device: str, directory: Path) -> None:
    """While it is mounted, if this process may do that (CAP_SYS_RESOURCE)."""
    if run("resize2fs", device, check=False).returncode:
        run("umount", directory)
        run("e2fsck", "-fp", device)
        run("resize2fs", device)
        run("mount", device, directory)


@pytest.mark.usefixtures("loop_devices")
@pytest.mark.parametrize(("kind", "grow", "checks"), [
    ("xfs", grow_xfs, ("xfs_repair", "-n")), ("ext4", grow_ext4, ("fsck.ext4", "-fn")),
])
def test_a_mounted_file_system_becomes_larger(
    nodes: Nodes, mount: Callable[..., Server], files: Path, rng: random.Random, kind: str,
    grow: Callable[[str, Path], None], checks: tuple[str, str],
) -> None:
    need(f"mkfs.{kind}", checks[0])
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--attach")
    device = server.line()
    run(f"mkfs.{kind}", "-q", device)
    run("mount", device, files)
    writer = Writer(files, rng)
    try:
        wait_until(lambda: writer.rounds > 3 or writer.fault is not None, "files are written", SETTLES_S)
        resize(nodes, LARGE)
        wait_until(lambda: int(attribute(device, "size")) * 512 == LARGE, f"{device} has {LARGE} bytes", SETTLES_S)
        assert server.image.stat().st_size == LARGE
        if kind == "xfs":
            grow(device, files)
        rounds = writer.rounds
        wait_until(lambda: writer.rounds > rounds + 3 or writer.fault is not None, "files are written on", SETTLES_S)
    finally:
        writer.stop()
    if kind == "ext4":
        grow(device, files)
    statistics = os.statvfs(files)
    assert statistics.f_blocks * statistics.f_frsize > SMALL, "df shows what is new"
    beyond = rng.randbytes(8 * MIB) * (SMALL // MIB // 8)
    (files / "beyond").write_bytes(beyond)
    run("umount", files)
    run(*checks, device)
    run("mount", device, files)
    assert (files / "beyond").read_bytes() == beyond
    for path, content in writer.contents.items():
        assert path.read_bytes() == content
    assert server.log.count("has the new size of the disk") == 1


def test_the_file_becomes_larger(nodes: Nodes, mount: Callable[..., Server], binding: str) -> None:
    """Whoever has it open sees that, and writes behind the old end."""
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, f"--binding={binding}")
    with open(server.image, "r+b", buffering=0) as image:
        assert image.seek(0, 2) == SMALL
        resize(nodes, LARGE)
        wait_until(lambda: server.image.stat().st_size == LARGE, f"the file has {LARGE} bytes", SETTLES_S)
        content = b"b" * 4096
        image.seek(SMALL - 2048)
        image.write(content)
        image.seek(LARGE - 4096)
        image.write(content)
        image.seek(SMALL - 2048)
        assert image.read(4097) == content + b"\0" and image.seek(0, 2) == LARGE
