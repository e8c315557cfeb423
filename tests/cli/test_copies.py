"""Raw images to the disk and from it, sparse, interrupted, of one moment; against real node processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from dsreg.cli.backup import BackupFailed, _back_up
from dsreg.cli.faults import leaves
from dsreg.client import Attach, Client
from dsreg.config import ClusterConfig
from dsreg.errors import AlreadyAttached
from tests.cli.test_holes import allocated, mixture
from tests.cli.test_real_cluster import _HOLDER
from tests.fuse.tools import wait_until
from tests.node_processes import Nodes, running_nodes

MIB = 1 << 20
SIZE = 64 * MIB
SECTORS = SIZE // 4096
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _slow_starts(allow_logs: Callable[[str], None]) -> None:
    """See tests/processes/conftest.py."""
    allow_logs("does not answer the HELLO")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, SIZE) as nodes:
        yield nodes


class Copies:
    """Commands on the disk of `nodes`."""

    def __init__(self, nodes: Nodes, dsreg: list[str]) -> None:
        self.config = ("--config", str(nodes.config.path))
        self._dsreg = dsreg

    def run(self, *words: object, source: Path | None = None, target: Path | None = None, code: int = 0) -> str:
        """What it says on stderr."""
        with (source or Path("/dev/null")).open("rb") as stdin, (target or Path("/dev/null")).open("wb") as stdout:
            done = subprocess.run([*self._dsreg, *map(str, words), *self.config], stdin=stdin, stdout=stdout,
                                  stderr=subprocess.PIPE, check=False, timeout=WAIT_S)
        said = done.stderr.decode()
        assert done.returncode == code and "Traceback" not in said, (done.returncode, said)
        return said

    def start(self, *words: object, source: Path | None = None) -> subprocess.Popen[bytes]:
        with (source or Path("/dev/null")).open("rb") as stdin:
            return subprocess.Popen([*self._dsreg, *map(str, words), *self.config], stdin=stdin,
                                    stderr=subprocess.PIPE)


@pytest.fixture
def copies(nodes: Nodes, dsreg: list[str]) -> Copies:
    return Copies(nodes, dsreg)


def image(path: Path, rng: random.Random) -> bytes:
    """A raw image of the size of the disk, with holes."""
    data = mixture(rng, 3000)
    with path.open("wb") as stream:
        stream.seek(10 * MIB)
        stream.write(data)
        stream.truncate(SIZE)
    return bytes(10 * MIB) + data + bytes(SIZE - 10 * MIB - len(data))


def test_an_image_there_and_back(copies: Copies, tmp_path: Path, rng: random.Random) -> None:
    """Over what was on the disk before: a hole is zeros there."""
    (tmp_path / "before").write_bytes(b"\xff" * SIZE)
    copies.run("write", 0, source=tmp_path / "before")
    content = image(tmp_path / "image", rng)
    copies.run("write", 0, source=tmp_path / "image")
    copies.run("read", 0, "all", target=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    copies.run("read", 0, "all", "--output", tmp_path / "named")
    copies.run("read", SECTORS - 5, "all", target=tmp_path / "tail")
    assert (tmp_path / "tail").read_bytes() == content[-5 * 4096:]
    assert (tmp_path / "named").read_bytes() == content
    for name in ("back", "named"):
        assert allocated(tmp_path / name) < 13 * MIB


def test_a_write_that_was_killed_goes_on(nodes: Nodes, copies: Copies, tmp_path: Path, rng: random.Random) -> None:
    """It waits for a majority in the middle; with --resume the rest is written, and nothing twice."""
    content = rng.randbytes(SIZE)
    (tmp_path / "image").write_bytes(content)
    writing = copies.start("write", 0, source=tmp_path / "image")
    try:
        homes = [node.storage / "sectors" for node in nodes.config.nodes]
        # The nodes may not have come to making their directories yet.
        wait_until(lambda: all(home.exists() and allocated(home) for home in homes), "the first sectors")
        nodes.signal(signal.SIGSTOP, 1, 2)
    finally:
        writing.kill()
        writing.communicate()
        nodes.signal(signal.SIGCONT, 1, 2)
    copies.run("write", 0, "--resume", source=tmp_path / "image")
    copies.run("read", 0, "all", target=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_resume_is_for_a_file(copies: Copies) -> None:
    assert "--output" in copies.run("read", 0, 5, "--resume", code=2)
    assert "COUNT" in copies.run("read", 0, "some", code=2)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_backup(copies: Copies, tmp_path: Path, rng: random.Random, kind: str) -> None:
    if kind == "qcow2" and shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    content = image(tmp_path / "image", rng)
    copies.run("write", 0, source=tmp_path / "image")
    target = tmp_path / "backup"
    target.write_bytes(b"an older one")
    copies.run("backup", target, "--format", kind)
    assert allocated(target) < 13 * MIB
    if kind == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(target)], check=True, timeout=WAIT_S)
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(target), str(tmp_path / "raw")],
                       check=True, timeout=WAIT_S)
        target = tmp_path / "raw"
    assert target.read_bytes() == content
    assert not list(tmp_path.glob("*.part"))


def test_no_backup_of_a_disk_that_somebody_has(nodes: Nodes, copies: Copies, tmp_path: Path, dsreg: list[str]) -> None:
    """It says what to do."""
    with subprocess.Popen([dsreg[0], "-c", _HOLDER, str(nodes.config.path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        said = copies.run("backup", tmp_path / "backup", code=1)
        assert "attached by [b]the holder[/b], which is alive" in said and "--freeze MOUNTPOINT" in said
        holder.communicate(timeout=WAIT_S)
    assert not (tmp_path / "backup").exists()


async def back_up(config: ClusterConfig, copy: Callable[[], Awaitable[None]]) -> str:
    """Why there is no backup, "" if there is one."""
    why = ""
    try:
        await _back_up(config, WAIT_S, None, copy)
    except* BackupFailed as group:
        [failure] = leaves(group)
        why = str(failure)
    return why


async def test_nobody_changes_the_disk_while_it_is_copied(nodes: Nodes) -> None:
    async def copy() -> None:
        async with Client(nodes.config, WAIT_S) as other, Client(nodes.config, WAIT_S, Attach(name="rival")) as rival:
            for attempt in (other.write(0, bytes(4096)), rival.attached()):
                with pytest.raises(AlreadyAttached, match="dsreg backup, process .*, which is alive"):
                    await attempt
            assert await other.read(0) == bytes(4096)

    assert await back_up(nodes.config, copy) == ""
    async with Client(nodes.config, WAIT_S) as other:
        await other.write(0, b"x" * 4096)


@pytest.mark.allow_logs("taken the disk over")
@pytest.mark.parametrize("lasts", [False, True])
async def test_a_copy_of_a_disk_that_was_taken_over_is_none(nodes: Nodes, lasts: bool) -> None:
    async def copy() -> None:
        async with Client(nodes.config, WAIT_S, Attach(name="thief", take_over=True)) as thief:
            await thief.attached()
            if lasts:
                await trio.sleep_forever()

    assert "of no single moment" in await back_up(nodes.config, copy)


async def test_a_signal_ends_it_in_order(nodes: Nodes) -> None:
    async def copy() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    assert await back_up(nodes.config, copy) == "ended by SIGTERM"
    async with Client(nodes.config, WAIT_S) as other:
        await other.write(0, b"x" * 4096)
