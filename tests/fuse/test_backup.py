"""A backup of a file system that is mounted: frozen meanwhile, and going on afterwards. Real nodes, a loop device."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.test_cluster import NO_HANG, mount
from tests.fuse.test_loop import files, need
from tests.fuse.tools import Server, run
from tests.node_processes import Nodes, running_nodes

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("loop_devices")]
__all__ = ["files", "mount"]

MIB = 1 << 20


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, 64 * MIB) as nodes:
        yield nodes


def backup(nodes: Nodes, *words: object) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "dsreg", "backup", "--config", nodes.config.path, *map(str, words), check=False)


@pytest.mark.parametrize("options", [(), ("--cache=writeback",)], ids=["none", "writeback"])
def test_a_frozen_file_system(
    nodes: Nodes, mount: Callable[..., Server], files: Path, tmp_path: Path, rng: random.Random,
    options: tuple[str, ...],
) -> None:
    """The copy needs no journal: it is as after an unmount. Two writers go on meanwhile, as far as they may."""
    need("mkfs.ext4", "fsck.ext4", "fsfreeze")
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--attach", *options)
    device, content, target = server.line(), rng.randbytes(5 * MIB), tmp_path / "backup"
    run("mkfs.ext4", "-q", "-E", "nodiscard", device)
    run("mount", device, files)
    (files / "content").write_bytes(content)  # nobody syncs it

    refused = backup(nodes, target)
    assert refused.returncode == 1 and "--freeze" in refused.stderr and not target.exists(), refused
    inside = backup(nodes, files / "backup", "--freeze", files)
    assert inside.returncode == 2 and "to be frozen" in inside.stderr, inside
    elsewhere = backup(nodes, target, "--freeze", tmp_path / "cluster" / "nowhere")
    assert elsewhere.returncode == 2 and not target.exists(), elsewhere

    writer = f"i=0; while test ! -e {files}/stop; do echo $i > {files}/running; i=$((i+1)); done"
    with subprocess.Popen(["sh", "-c", writer]) as running:
        try:
            done = backup(nodes, target, "--freeze", files)
            assert done.returncode == 0, done
        finally:
            (files / "stop").touch()  # so it is not frozen any more
            running.wait(60)

    copy = Path(run("losetup", "-r", "-f", "--show", target).stdout.strip())
    try:
        run("fsck.ext4", "-fn", copy)
        run("umount", files)
        run("mount", "-o", "ro,noload", copy, files)
        assert (files / "content").read_bytes() == content and not (files / "stop").exists()
        run("umount", files)
    finally:
        run("losetup", "-d", copy)
    run("fsck.ext4", "-fn", device)


def test_a_freeze_ends_whatever_the_copy_comes_to(
    nodes: Nodes, mount: Callable[..., Server], files: Path, tmp_path: Path
) -> None:
    need("mkfs.ext4", "fsfreeze")
    device = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--attach").line()
    run("mkfs.ext4", "-q", "-E", "nodiscard", device)
    run("mount", device, files)
    (tmp_path / "backup.part").mkdir()  # where the copy is to be written
    failed = backup(nodes, tmp_path / "backup", "--freeze", files)
    assert failed.returncode == 1 and "backup.part" in failed.stderr, failed
    (files / "written").write_bytes(b"x")
    run("fsfreeze", "--freeze", files)
    try:
        again = backup(nodes, tmp_path / "backup", "--freeze", files)
        assert again.returncode == 1 and "fsfreeze" in again.stderr, again
    finally:
        run("fsfreeze", "--unfreeze", files)
    run("umount", files)
