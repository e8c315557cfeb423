"""Key files: one key in hex per file, readable by its owner alone.

`client_key` is 32 bytes, `system_key` 64 bytes (docs/protocol.md). No message of this module ever
contains what was read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path

# A key of 64 bytes takes 129 characters with its newline; far more than that is some other file.
_MAX_FILE_BYTES = 4096
# In the key file of the nodes of a recovered cluster: see dsreg.config.recovered.
RECOVERED_MARK = b"recovered"
_IDENTITY = b"dsreg cluster identity"


class KeyUnavailable(ValueError):
    """The key file does not exist or this user may not read it: on a client host that may be as it should."""


def derive_cluster_id(system_key: bytes) -> bytes:
    """The 16 bytes that tell this cluster from others where the configuration names no id."""
    return hmac.digest(system_key, _IDENTITY, hashlib.sha256)[:16]


def read_key(path: Path, size: int, *, recovered: bool = False) -> bytes:
    """The `size` bytes that `path` holds in hex. `recovered`: the configuration has a section [recovered], and the file
    has to say so in a line of its own: without the section the key is of no use.

    Raises KeyUnavailable if it is missing or not readable, ValueError if it is not a key of that size or
    if others may read it, both with the path and a hint in one line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyUnavailable(f"{path} does not exist; copy it from where `dsreg init` created it") from None
    except OSError as error:
        raise KeyUnavailable(f"{path} cannot be read: {error.strerror}; run as the user that owns it") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file; name the file that holds the key")
        content = os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    if status.st_mode & 0o077 and not _is_credential(path):
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"{path} may be used by group or others (mode {mode:04o}); run: chmod 600 {path}")
    text = content.removeprefix(b"\xef\xbb\xbf").strip()  # some editors begin a file with a BOM
    key, marked, _ = text.partition(RECOVERED_MARK)
    if bool(marked) != recovered:
        what = "of a cluster that was recovered, and there is no" if marked else "not of the cluster in the"
        raise ValueError(f"{path} is {what} section [recovered]; copy configuration and keys from another host")
    text = key.strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]*", text):
        raise ValueError(f"{path} is not hexadecimal; it must hold {2 * size} hex digits")
    if len(text) != 2 * size:
        raise ValueError(f"{path} holds {len(text)} hex digits; it must hold {2 * size} ({size} bytes)")
    return bytes.fromhex(text.decode("ascii"))


def write_key(path: Path, key: bytes) -> None:
    """Create `path` with mode 0600 and `key` in it, synced; raises OSError as write_new does."""
    write_new(path, key.hex().encode("ascii") + b"\n", 0o600)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Create `path`, synced. Raises OSError and leaves nothing behind; FileExistsError for whatever exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _is_credential(path: Path) -> bool:
    """systemd keeps credentials as 0440 in a directory that only the service can enter."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.resolve().is_relative_to(Path(str(directory)).resolve())
