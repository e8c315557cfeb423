"""Key files: a key in hex, readable by its owner alone; a second one while the first is being changed (docs/keys.md).

`client_key` is 32 bytes, `system_key` 64 bytes (docs/protocol.md). No message of this module ever
contains what was read.

    <key>               what this host uses, and accepts
    next <key>          accepted as well; will be used
    previous <key>      accepted as well; was used. At most one of the two
    cluster <id>        the id of the cluster, which was derived from the first key of the nodes that it had
    recovered           see read_keys
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

# A key of 64 bytes takes 129 characters with its newline; far more than that is some other file.
_MAX_FILE_BYTES = 4096
# In the key file of the nodes of a recovered cluster: see dsreg.config.recovered.
RECOVERED_MARK = b"recovered"
_IDENTITY = b"dsreg cluster identity"
_FINGERPRINT = b"dsreg key fingerprint"
_CLUSTER = "cluster"
_NEXT, _PREVIOUS, _CLUSTER_WORD = b"next", b"previous", _CLUSTER.encode()


class KeyUnavailable(ValueError):
    """The key file does not exist or this user may not read it: on a client host that may be as it should."""


def derive_cluster_id(system_key: bytes) -> bytes:
    """The 16 bytes that tell this cluster from others where the configuration names no id."""
    return hmac.digest(system_key, _IDENTITY, hashlib.sha256)[:16]


class Step(enum.Enum):
    """How far the change of a key has come; the value is the keyword of the line with the other key."""

    ONE = ""
    NEXT = "next"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file holds. `other`: accepted beside `key`, b"" in Step.ONE. `cluster`: 16 bytes, or b""."""

    key: bytes = field(repr=False)
    step: Step = Step.ONE
    other: bytes = field(default=b"", repr=False)
    cluster: bytes = b""
    recovered: bool = False

    @property
    def content(self) -> bytes:
        """As it is written."""
        lines = [self.key.hex()]
        if self.step is not Step.ONE:
            lines.append(f"{self.step.value} {self.other.hex()}")
        if self.cluster:
            lines.append(f"{_CLUSTER} {self.cluster.hex()}")
        if self.recovered:
            lines.append(RECOVERED_MARK.decode())
        return "".join(f"{line}\n" for line in lines).encode("ascii")

    def begun(self, new: bytes, cluster: bytes = b"") -> KeyFile:
        """With a new key, which is not used yet. `cluster`: the id that stays."""
        assert self.step is Step.ONE and len(new) == len(self.key)
        return replace(self, step=Step.NEXT, other=new, cluster=cluster or self.cluster)

    def advanced(self) -> KeyFile:
        """One step further: the new key is used, then the old one is gone."""
        assert self.step is not Step.ONE
        if self.step is Step.NEXT:
            return replace(self, key=self.other, step=Step.PREVIOUS, other=self.key)
        return replace(self, step=Step.ONE, other=b"")


def fingerprint(key: bytes) -> str:
    """What tells this key from others and says nothing else of it: 16 hex digits; "" of no key."""
    return hmac.digest(key, _FINGERPRINT, hashlib.sha256)[:8].hex() if key else ""


def read_keys(path: Path, size: int, *, recovered: bool = False) -> KeyFile:
    """What `path` holds; its keys have `size` bytes. `recovered`: the configuration has a section [recovered], and the
    file has to say so in a line of its own: without the section the key is of no use.

    Raises as `read_private`, and ValueError if it is not as it must be.
    """
    first, *lines = read_private(path).split(b"\n")
    marked = False
    found: dict[bytes, bytes] = {}
    for line in lines:
        word, _, value = line.strip().partition(b" ")
        if word == RECOVERED_MARK:
            marked = True
        elif word in (_NEXT, _PREVIOUS) and not found.keys() & {_NEXT, _PREVIOUS}:
            found[word] = _hex_of(path, value.strip(), size)
        elif word == _CLUSTER_WORD and word not in found:
            found[word] = _hex_of(path, value.strip(), 16)
        elif word:
            raise ValueError(f"{path} is not hexadecimal; it must hold {2 * size} hex digits")
    if marked != recovered:
        what = "of a cluster that was recovered, and there is no" if marked else "not of the cluster in the"
        raise ValueError(f"{path} is {what} section [recovered]; copy configuration and keys from another host")
    key = _hex_of(path, first.strip(), size)
    step = Step.NEXT if _NEXT in found else Step.PREVIOUS if _PREVIOUS in found else Step.ONE
    other = found.get(step.value.encode(), b"")
    if other == key:
        raise ValueError(f"{path} names the same key twice; copy it from another host")
    return KeyFile(key, step, other, found.get(_CLUSTER_WORD, b""), marked)


def _hex_of(path: Path, text: bytes, size: int) -> bytes:
    if not re.fullmatch(rb"[0-9A-Fa-f]*", text):
        raise ValueError(f"{path} is not hexadecimal; it must hold {2 * size} hex digits")
    if len(text) != 2 * size:
        raise ValueError(f"{path} holds {len(text)} hex digits; it must hold {2 * size} ({size} bytes)")
    return bytes.fromhex(text.decode("ascii"))


class KeyWatch:
    """Whether files may hold something else than when they were looked at last."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._seen = self._look()

    def changed(self) -> bool:
        """Since the last call, or since this was made."""
        seen, self._seen = self._seen, self._look()
        return seen != self._seen

    def _look(self) -> list[tuple[int, int, int] | None]:
        seen: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                status = os.stat(file)
                seen.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                seen.append(None)
        return seen


def read_private(path: Path, missing: str = "copy it from where `dsreg init` created it") -> bytes:
    """What a file for its owner alone holds, without blanks around it. `missing`: what to do if it does not exist.

    Raises KeyUnavailable if it is missing or not readable, ValueError if others may read it, both with the path and a
    hint in one line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyUnavailable(f"{path} does not exist; {missing}") from None
    except OSError as error:
        raise KeyUnavailable(f"{path} cannot be read: {error.strerror}; run as the user that owns it") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file; name the file that holds it")
        content = os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    if status.st_mode & 0o077 and not _is_credential(path):
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"{path} may be used by group or others (mode {mode:04o}); run: chmod 600 {path}")
    return content.removeprefix(b"\xef\xbb\xbf").strip()  # some editors begin a file with a BOM


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
