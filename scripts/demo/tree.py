"""Real files to copy: the standard library of this interpreter, then /usr/share."""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAX_FILES = 5000
MAX_BYTES = 150 << 20
# One large file would make the copy a single write; many small ones are what file systems find hard.
MAX_FILE_BYTES = 8 << 20


class Source(NamedTuple):
    """One file: where it is, and its name in the copy."""

    path: Path
    name: str
    size: int


def _files_below(top: Path) -> Iterator[tuple[Path, int]]:
    for directory, subdirectories, names in os.walk(top):
        # Bytecode may be rewritten while we copy; installed packages may be of any size.
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", "site-packages", "dist-packages"})
        for name in sorted(names):
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
                yield path, status.st_size


def collect(max_files: int = MAX_FILES) -> list[Source]:
    """At most `max_files` files of together at most MAX_BYTES, always the same ones on one machine."""
    found: list[Source] = []
    left = MAX_BYTES
    tops = (Path(sysconfig.get_path("stdlib")), Path("/usr/share/doc"), Path("/usr/share"))
    seen: set[Path] = set()
    for top in tops:
        for path, size in _files_below(top):
            if len(found) == max_files:
                return found
            if path in seen or size > min(left, MAX_FILE_BYTES):
                continue
            seen.add(path)
            found.append(Source(path, str(path.relative_to(path.anchor)), size))
            left -= size
    return found


def digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def total_mb(files: list[Source]) -> float:
    return sum(file.size for file in files) / 1e6
