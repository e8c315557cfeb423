"""The file `lives`: by which directory this node knows each rank, and whether it has begun to serve itself.

    magic[8] | version u16 | count u16 | pad[4] | count x (rank u8 | pad[7] | life u64 | store id[16]) | crc32 u32

The checksum is of the node's salt (Identity.salt) and all before it. The file is replaced as a whole: after a crash
there is the old one or the new one. An entry for the own rank says that the node has begun to serve with this
directory. A directory without one is empty: created, and never used.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from dsreg.constants import MAX_RANK
from dsreg.errors import DamagedStorage, NoSpace, StorageError
from dsreg.protocol.life import STORE_SIZE, Life
from dsreg.storage.checksum import crc32
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Files
from dsreg.storage.identity import Identity
from dsreg.storage.layout import LIVES, LIVES_TMP

MAGIC: Final = b"dsregLIV"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sHH4x")
_ENTRY: Final = struct.Struct(f">B7xQ{STORE_SIZE}s")
_CRC: Final = struct.Struct(">I")
_MAX_BYTES: Final = _HEAD.size + MAX_RANK * _ENTRY.size + _CRC.size
_ADVICE: Final = 'restore it from its disk; else treat the directory as lost (runbook, "A node\'s directory is lost")'


def encode(known: Mapping[int, Life], salt: int) -> bytes:
    body = _HEAD.pack(MAGIC, VERSION, len(known))
    body += b"".join(_ENTRY.pack(rank, *life) for rank, life in sorted(known.items()))
    return body + _crc(body, salt)


def decode(raw: bytes, salt: int) -> dict[int, Life]:
    """Raises DamagedStorage for what is not as written."""
    body, check = raw[:-_CRC.size], raw[-_CRC.size:]
    if len(raw) < _HEAD.size + _CRC.size or check != _crc(body, salt):
        raise DamagedStorage(f"the file {LIVES} is damaged (its checksum does not match): {_ADVICE}")
    magic, version, count = _HEAD.unpack_from(body)
    if magic != MAGIC or version != VERSION or len(body) != _HEAD.size + count * _ENTRY.size:
        raise DamagedStorage(f"the file {LIVES} has a layout that this version does not know: {_ADVICE}")
    entries = _ENTRY.iter_unpack(body[_HEAD.size:])
    return {rank: Life(number, store) for rank, number, store in entries}


def _crc(body: bytes, salt: int) -> bytes:
    return _CRC.pack(crc32(body, crc32(salt.to_bytes(8))))


def read(files: Files, salt: int) -> dict[int, Life]:
    """Raises DamagedStorage."""
    try:
        file = files.open(LIVES)
    except FileNotFoundError as error:
        raise DamagedStorage(f"the file {LIVES} is gone: {_ADVICE}") from error
    try:
        return decode(file.pread(_MAX_BYTES, 0), salt)
    finally:
        file.close()


def write(files: Files, known: Mapping[int, Life], salt: int) -> None:
    """Replace the file durably. Blocks."""
    file = files.open(LIVES_TMP, create=True)
    try:
        file.truncate(0)
        file.pwritev([encode(known, salt)], 0)
        file.fdatasync()
    finally:
        file.close()
    files.rename(LIVES_TMP, LIVES)
    files.sync_dir()


class LivesFile:
    """Of an open directory. `own`: its life. `known`: rank -> life, the own rank included once the node has begun to
    serve."""

    def __init__(self, files: Files, identity: Identity, store: bytes, failure: Failure) -> None:
        """Reads the file. `failure`: that of the storage. Raises DamagedStorage."""
        self._files = files
        self._identity = identity
        self._failure = failure
        self.known: Mapping[int, Life] = read(files, identity.salt)
        self.own = self.known.get(identity.rank, Life(1, store))
        if self.own.store != store:
            raise DamagedStorage(f"the file {LIVES} is of another directory of this node: {_ADVICE}")

    @property
    def begun(self) -> bool:
        """Whether the node has ever served with this directory."""
        return self._identity.rank in self.known

    def begin(self) -> None:
        """The node begins to serve. Durable when this returns."""
        if not self.begun:
            self.remember({self._identity.rank: self.own})

    def remember(self, lives: Mapping[int, Life]) -> None:
        """Durable when this returns. It blocks for two syncs, once for each new directory of a peer. Raises NoSpace,
        and nothing has changed; SyncFailed, which is final."""
        known = {**self.known, **lives}
        if known == self.known:
            return
        self._failure.check()
        try:
            write(self._files, known, self._identity.salt)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise NoSpace(f"writing {LIVES}: {error}") from error
            raise self._failure.fail(f"writing {LIVES}", error) from error
        self.known = known


def forget(files: Files, identity: Identity, rank: int) -> Life | None:
    """Take the life of another rank out of the file; gives it, None if it was not known. Its node must be stopped,
    the lock held by the caller. Raises StorageError."""
    assert rank != identity.rank
    known = read(files, identity.salt)
    life = known.pop(rank, None)
    if life is not None:
        try:
            write(files, known, identity.salt)
        except OSError as error:
            raise StorageError(f"writing {LIVES}: {error}") from error
    return life
