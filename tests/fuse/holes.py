"""fallocate(2) with flags, which Python's `os` does not have, and what a file system says is allocated."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from fuse_frontend.requests import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

PUNCH, ZERO = PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Raises OSError."""
    if _libc.fallocate64(descriptor, mode, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def allocated(path: Path) -> int:
    """Bytes of the file that take room."""
    return path.stat().st_blocks * 512
