"""The Debian that the tests of whole systems start from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.machine import ROOT, make_debian

# What a command makes in the working tree.
MADE = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh from the mirror; with this working tree in /src, as a repository to clone."""
    base = tmp_path_factory.mktemp("debian") / "root"
    if ready := os.environ.get("DSREG_TEST_DEBIAN"):  # a directory that `make_debian` has made: saves its minutes
        subprocess.run(["cp", "-a", ready, str(base)], check=True)
    else:
        make_debian(base)
    shutil.copytree(ROOT, base / "src", ignore=MADE)
    git = ["git", "-C", str(base / "src"), "-c", "user.name=test", "-c", "user.email=test"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "the working tree"]):
        subprocess.run([*git, *command], check=True)
    return base
