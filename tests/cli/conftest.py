"""How the tests call the command line as a process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import dsreg as package


@pytest.fixture
def dsreg(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments that begin a `dsreg` command, run from the tree under test in any directory."""
    monkeypatch.setenv("PYTHONPATH", str(Path(package.__file__).resolve().parents[1]))
    return [sys.executable, "-P", "-m", "dsreg"]
