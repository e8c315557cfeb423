"""The version of the package, and which build of it runs."""

from __future__ import annotations

import importlib.util

VERSION = "0.1.0"


def is_compiled() -> bool:
    """Whether this is the compiled build: see setup.py."""
    spec = importlib.util.find_spec("dsreg.register.replica")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def described_version() -> str:
    """What `--version` prints and a node reports in STATUS."""
    return f"{VERSION} compiled" if is_compiled() else VERSION
