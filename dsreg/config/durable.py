"""Files that are there whole or not at all after a crash."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def put_file(path: Path, content: bytes, like: Path, part: Path) -> None:
    """Write `content` at `path`, with mode and owner of `like`: after a crash there is what was there before, or all of
    it. It is written to `part` first, in the same directory, which a crash may leave behind. Raises OSError."""
    before = like.stat()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            if os.geteuid() == 0:
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.flush()
            os.fsync(descriptor)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """What was created, renamed or removed in it is so after a crash. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
