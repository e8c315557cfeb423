"""Room that fstrim, `mount -o discard` and mkfs give back at the nodes. Real node processes, real mounts."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.holes import allocated
from tests.fuse.test_cluster import NO_HANG, mount
from tests.fuse.test_loop import files, need
from tests.fuse.tools import Server, run, wait_until
from tests.node_processes import Nodes, running_nodes

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("loop_devices")]
__all__ = ["files", "mount"]

MIB = 1 << 20
SIZE = 256 * MIB
# What is written and deleted, and what of it may stay: the file system's own blocks beside it.
DELETED = 60 * MIB
REST = DELETED // 20
# A node that was away keeps as data what it learns in runs of which only a part is zeros: docs/storage.md.
LEARNED = DELETED // 4

# A node that was killed has to start, and to learn what it has missed, on a machine with a lot to do.
HEALED_S = 120.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, SIZE) as nodes:
        yield nodes


def rooms(nodes: Nodes) -> list[int]:
    """Bytes that the values take at each node."""
    return [allocated(node.storage / "sectors") for node in nodes.config.nodes]


def wait_until_below(nodes: Nodes, limit: int, when: str) -> None:
    try:
        wait_until(lambda: max(rooms(nodes)) <= limit, f"the room at each node below {limit} {when}", HEALED_S)
    except AssertionError:
        print(f"{when}: {rooms(nodes)}")
        raise


def write_files(directory: Path, rng: random.Random) -> None:
    """DELETED bytes in files of up to 4 MiB, on disk."""
    directory.mkdir()
    left, number = DELETED, 0
    while left:
        size = min(left, rng.randrange(1, 4 * MIB))
        (directory / f"f{number}").write_bytes(rng.randbytes(size))
        left, number = left - size, number + 1
    os.sync()


def test_trim_gives_room_back_at_every_node(
    nodes: Nodes, mount: Callable[..., Server], files: Path, rng: random.Random
) -> None:
    """By fstrim, while a node is down, which follows; by the file system itself; and by mkfs."""
    need("mkfs.ext4", "fsck.ext4", "fstrim")
    server = mount("disk", "--config", str(nodes.config.path), *NO_HANG, "--attach")
    device = server.line()
    kept = rng.randbytes(8 * MIB)
    # Not lazily, which would write zeros among the file system's own blocks while a node is down.
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
    run("mount", device, files)
    (files / "kept").write_bytes(kept)
    write_files(files / "first", rng)
    wait_until(lambda: min(rooms(nodes)) >= DELETED + len(kept), "the files at every node", HEALED_S)

    victim = rng.choice((1, 2, 3))
    nodes.kill(victim)
    run("rm", "-r", files / "first")
    run("sync", "-f", files / "kept")  # only then are the blocks free for fstrim
    assert "trimmed" in run("fstrim", "-v", files).stdout
    nodes.start(victim)
    wait_until_below(nodes, len(kept) + LEARNED, f"after fstrim without node {victim}")

    run("mount", "-o", "remount,discard", files)
    write_files(files / "second", rng)
    wait_until(lambda: min(rooms(nodes)) >= DELETED, "the new files at every node", HEALED_S)
    run("rm", "-r", files / "second")
    run("sync", "-f", files / "kept")
    wait_until_below(nodes, len(kept) + LEARNED, "after the deletion with -o discard")

    assert (files / "kept").read_bytes() == kept
    run("umount", files)
    run("fsck.ext4", "-fn", device)
    run("mount", device, files)
    assert (files / "kept").read_bytes() == kept
    run("umount", files)
    run("mkfs.ext4", "-q", "-F", device)
    wait_until_below(nodes, REST, "after mkfs.ext4")
