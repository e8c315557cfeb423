"""The last release: its code, taken from the history, which runs beside the code of this tree."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from dsreg.config.create import CONFIG_NAME
from tests.processes.cluster import ROOT

# Until there is a tag: the last commit whose nodes and clients know no zeros without data.
BEFORE_THE_FIRST = "89eaf2ff8e54336c09995b1f33d03e82b81ef853"
PACKAGES = ("dsreg", "fuse_frontend", "nbd_frontend")


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """In the repository of this tree; it may fail."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


def last_release() -> str:
    """The newest tag before HEAD, or the commit that stands for it. Raises LookupError with the reason if there is no
    history that has it: in a source distribution, a shallow clone, without git."""
    try:
        top = git("rev-parse", "--show-toplevel")
    except FileNotFoundError:
        raise LookupError("git is not installed") from None
    if top.returncode or Path(os.fsdecode(top.stdout.strip())).resolve() != ROOT.resolve():
        raise LookupError(f"{ROOT} is no repository of git")
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")
    found = tag.stdout.decode().strip() if tag.returncode == 0 else BEFORE_THE_FIRST
    if git("cat-file", "-e", f"{found}^{{commit}}").returncode:
        raise LookupError(f"the history that is here does not have {found}")
    return found


def tree_of(commit: str, directory: Path) -> Path:
    """Its packages, unpacked in `directory`."""
    archive = git("archive", "--format=tar", commit, *PACKAGES)
    assert archive.returncode == 0, archive.stderr
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(directory, filter="data")
    return directory


def environment(tree: Path) -> dict[str, str]:
    """In which Python imports the packages of `tree`."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def run(tree: Path, *arguments: object) -> str:
    """What Python prints; AssertionError if it fails."""
    command = [sys.executable, "-P", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tree), check=False)
    assert done.returncode == 0, done
    return done.stdout


def storage_format(tree: Path) -> int:
    """The one in which the version in `tree` keeps a directory."""
    return int(run(tree, "-c", "from dsreg.storage.identity import FORMAT; print(FORMAT)"))


def create_cluster(tree: Path, directory: Path, size: int, addresses: Sequence[str]) -> Path:
    """As dsreg.config.create_cluster; by that version."""
    hosts = [option for address in addresses for option in ("--host", address)]
    run(tree, "-m", "dsreg", "init", directory, "--size", f"{size >> 10}KiB", *hosts)
    return directory / CONFIG_NAME
