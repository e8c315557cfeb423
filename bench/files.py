"""The file system job: mkfs, mount, copy a tree, sync."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from bench.shell import BenchFailed, call, unmount
from scripts.demo.tree import collect, total_mb


def stage_tree(directory: Path, max_files: int) -> str:
    """Copy real files of this machine into `directory`, to be copied from there; says how many and how large."""
    files = collect(max_files)
    for file in files:
        target = directory / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, target)
    return f"{len(files)} files, {total_mb(files):.1f} MB"


def mkfs_copy_sync(device: str, tree: Path, mountpoint: Path) -> dict[str, float]:
    """Seconds for mkfs.ext4, mount, `cp -r` of `tree` and sync of that file system.

    Without discard: some of the systems have none, and the others would lose the blocks that were filled before.
    """
    mountpoint.mkdir(exist_ok=True)
    start_s = time.monotonic()
    try:
        call("mkfs.ext4", "-q", "-F", "-E", "nodiscard", device)
        made_s = time.monotonic()
        call("mount", "-t", "ext4", device, mountpoint)
        call("cp", "-r", tree, mountpoint)
        copied_s = time.monotonic()
        call("sync", "-f", mountpoint)
        end_s = time.monotonic()
    finally:
        unmount(mountpoint)
    return {"seconds": end_s - start_s, "mkfs_s": made_s - start_s, "copy_s": copied_s - made_s,
            "sync_s": end_s - copied_s}


def file_system_of(path: Path) -> str:
    """Its type and options, as findmnt names them; "unknown" where there is none."""
    try:
        return call("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "--target", path).strip().replace("\n", "; ")
    except (BenchFailed, subprocess.SubprocessError):
        return "unknown"
