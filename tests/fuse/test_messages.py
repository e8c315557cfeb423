"""What `dsreg-fuse` says to those who call it wrongly, and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse.tools import ROOT

pytestmark = pytest.mark.fuse


def fuse(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuse_frontend.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_messages_and_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    mountpoint = tmp_path / "disk"
    missing = fuse(mountpoint)
    assert missing.returncode == 1 and f"mkdir -p {mountpoint}" in missing.stderr
    mountpoint.mkdir()
    config = tmp_path / "cluster.toml"
    for content in (None, "[cluster]\nsectors = -1\n"):
        if content is not None:
            config.write_text(content)
        bad = fuse("--config", config, mountpoint)
        assert bad.returncode == 2 and "Traceback" not in bad.stderr
    assert len(bad.stderr.splitlines()) > 1  # every fault has a line
    assert fuse("--detach", mountpoint).returncode == 1
    both = fuse("--attach", "--detach", mountpoint)
    assert both.returncode == 2 and "exclude each other" in both.stderr
    assert fuse("--size", "5", mountpoint).returncode == 2
    assert fuse("--help").returncode == 0
