"""The file `marks`: the highest mark that this node has heard of each other one, and of which life.

    magic[8] | version u16 | count u16 | pad[4] | count x (rank u8 | mark u56 | life u64 | store id[16]) | crc32 u32

See docs/lives.md, rule 18. All big-endian. The checksum is of the node's salt (Identity.salt) and all before it. The
file is replaced as a whole, now and then: what it lacks, or a damaged one, is not missed until the node is started
again.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from typing import Final

from dsreg.constants import CRC_SIZE, MAX_RANK
from dsreg.errors import NoSpace
from dsreg.protocol.life import STORE_SIZE, Life
from dsreg.storage.checksum import salted_crc
from dsreg.storage.failure import Failure
from dsreg.storage.files import Files, replace
from dsreg.storage.layout import MARKS, MARKS_TMP

MAGIC: Final = b"dsregMRK"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sHH4x")
_ENTRY: Final = struct.Struct(f">QQ{STORE_SIZE}s")
_RANK_SHIFT: Final = 56
_MARK: Final = (1 << _RANK_SHIFT) - 1
_MAX_BYTES: Final = _HEAD.size + MAX_RANK * _ENTRY.size + CRC_SIZE

Heard = Mapping[int, tuple[Life, int]]

log = logging.getLogger("dsreg.storage")


def encode(heard: Heard, salt: int) -> bytes:
    body = _HEAD.pack(MAGIC, VERSION, len(heard))
    for rank, (life, mark) in sorted(heard.items()):
        body += _ENTRY.pack(rank << _RANK_SHIFT | mark, *life)
    return body + salted_crc(body, salt)


def decode(raw: bytes, salt: int) -> dict[int, tuple[Life, int]] | None:
    """None for what is not as written."""
    body, check = raw[:-CRC_SIZE], raw[-CRC_SIZE:]
    if len(raw) < _HEAD.size + CRC_SIZE or check != salted_crc(body, salt):
        return None
    magic, version, count = _HEAD.unpack_from(body)
    if (magic, version) != (MAGIC, VERSION) or len(body) != _HEAD.size + count * _ENTRY.size:
        return None
    return {head >> _RANK_SHIFT: (Life(number, store), head & _MARK)
            for head, number, store in _ENTRY.iter_unpack(body[_HEAD.size:])}


class MarksFile:
    """Of an open directory. `heard`: what the file has."""

    def __init__(self, files: Files, salt: int, failure: Failure) -> None:
        """Reads the file. `failure`: that of the storage."""
        self._files = files
        self._salt = salt
        self._failure = failure
        self.heard: Heard = self._read()

    def _read(self) -> Heard:
        try:
            file = self._files.open(MARKS)
        except FileNotFoundError:
            return {}
        try:
            heard = decode(file.pread(_MAX_BYTES, 0), self._salt)
        except OSError:  # it cannot be read
            heard = None
        finally:
            file.close()
        if heard is None:
            log.warning("the file %s is damaged: the others have to say again what they have heard of each other",
                        MARKS)
        return heard or {}

    def write(self, heard: Heard) -> bool:
        """Durable when this returns; False: there is no room, and the file is as before. Blocks; may be called in any
        thread, by one caller at a time. Raises SyncFailed, which is final."""
        try:
            with self._failure.writing(f"writing {MARKS}"):
                replace(self._files, MARKS_TMP, MARKS, encode(heard, self._salt))
        except NoSpace:
            return False
        return True
