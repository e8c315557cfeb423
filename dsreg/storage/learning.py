"""What a directory knows that began with every sector unknown: docs/lives.md, rules 14 and 18.

identity.toml says with a random id, `learning`, that the directory began so; the file `learned` says what was learned
since. It belongs to that id: one of an earlier beginning, or a damaged one, or none, means that nothing was learned. So
whatever a crash leaves errs on the side of unknown. When all is learned `learning` is taken out of identity.toml, in
one step, after all that was learned is durable.

    learned = magic[8] | version u16 | 0[6] | learning[16] | count u64 | start u64 x count | stop u64 x count |
              crc32 u32

All big-endian. The runs [start, stop) of sectors are known; they are ascending and do not touch. The checksum is of the
node's salt (Identity.salt) and all before it. The file is replaced as a whole.
"""

from __future__ import annotations

import dataclasses
import logging
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from dsreg.constants import CRC_SIZE
from dsreg.protocol.life import STORE_SIZE
from dsreg.runs import Runs
from dsreg.storage import identity as identity_file
from dsreg.storage.checksum import salted_crc
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Files, replace
from dsreg.storage.layout import LEARNED, LEARNED_TMP
from dsreg.storage.learned import Learned
from dsreg.storage.numbers import from_bytes, to_bytes
from dsreg.storage.tags import TagTable

MAGIC: Final = b"dsregLRN"
VERSION: Final = 1
_HEAD: Final = struct.Struct(f">8sH6x{STORE_SIZE}sQ")
_RUN_SIZE: Final = 16

log = logging.getLogger("dsreg.storage")


def encode(learning: bytes, known: Runs, salt: int) -> bytes:
    body = _HEAD.pack(MAGIC, VERSION, learning, len(known.starts)) + to_bytes(known.starts, "big")
    body += to_bytes(known.stops, "big")
    return body + salted_crc(body, salt)


def decode(raw: bytes, learning: bytes, salt: int) -> Runs | None:
    """None if this is not as written for that id."""
    body, check = raw[:-CRC_SIZE], raw[-CRC_SIZE:]
    if len(raw) < _HEAD.size + CRC_SIZE or check != salted_crc(body, salt):
        return None
    magic, version, its_learning, count = _HEAD.unpack_from(body)
    if (magic, version, its_learning) != (MAGIC, VERSION, learning) or len(body) != _HEAD.size + count * _RUN_SIZE:
        return None
    middle = _HEAD.size + count * _RUN_SIZE // 2
    known = Runs()
    starts, stops = (from_bytes("Q", raw, "big") for raw in (body[_HEAD.size:middle], body[middle:]))
    for start, stop in zip(starts, stops, strict=True):
        known.add(start, stop)
    return known


def read(files: Files, learning: bytes, salt: int) -> Runs:
    """What was learned since the beginning of this id."""
    try:
        file = files.open(LEARNED)
    except FileNotFoundError:
        return Runs()
    try:
        known = decode(file.pread(file.size(), 0), learning, salt)
    except OSError:  # it cannot be read
        known = None
    finally:
        file.close()
    if known is None:
        log.info("the file %s is damaged, or of an earlier beginning: all is to be learned", LEARNED)
    return known or Runs()


class Progress(NamedTuple):
    """For the files. `raw`: of the file `learned`; b"": all is learned."""

    learning: bytes
    raw: bytes


def write(directory: Directory, progress: Progress) -> bool:
    """Durably. May be called in any thread, while nobody else changes identity.toml. False: there is no room, and
    things are as before."""
    files = directory.files
    try:
        if not progress.raw:
            identity_file.write(files, dataclasses.replace(directory.recorded, learning=b""))
            if files.exists(LEARNED):
                files.remove(LEARNED)  # to whoever finds it later it says nothing
            return True
        replace(files, LEARNED_TMP, LEARNED, progress.raw)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True


class Learning(Learned):
    """Of an open directory. A crash takes back what was learned, until a checkpoint has written it. `is_unsaid`:
    whether the files lack something that was learned."""

    def __init__(
        self, directory: Directory, table: TagTable, failure: Failure, new_learning: Callable[[], bytes]
    ) -> None:
        """`new_learning` gives an id that no other has. Reads the file `learned`."""
        super().__init__(table.sectors, table.tags)
        self._directory = directory
        self._failure = failure
        self._new_learning = new_learning
        self.is_unsaid = False
        id_ = directory.recorded.learning
        if id_:
            self.know(read(directory.files, id_, directory.salt))
            self.is_unsaid = not self.left

    @property
    def is_recorded(self) -> bool:
        """Whether the directory says of itself that something is left."""
        return bool(self._directory.recorded.learning)

    def begin(self) -> None:
        """From now on every sector of the disk is to be learned, whatever was before. What is stored stays, as a
        source. Durable when this returns, in one step. Blocks; nothing else may be under way. Raises NoSpace, and
        nothing has changed; SyncFailed, which is final."""
        recorded = dataclasses.replace(self._directory.recorded, learning=self._new_learning())
        with self._failure.writing("recording that every sector is unknown"):
            identity_file.write(self._directory.files, recorded)
        self._directory.recorded = recorded
        self.know(Runs())
        self.is_unsaid = False

    def learned(self, first: int, count: int, told: bytes = b"") -> bool:
        before = self.left
        known = super().learned(first, count, told)
        self.is_unsaid |= self.left < before
        return known

    # --- checkpoints ------------------------------------------------------------------------------
    def progress(self) -> Progress | None:
        """What a checkpoint is to write: all of it is durable."""
        if not self.is_unsaid:
            return None
        self.is_unsaid = False
        id_ = self._directory.recorded.learning
        return Progress(id_, encode(id_, self._known, self._directory.salt) if self.left else b"")

    def written(self, progress: Progress, ok: bool) -> None:
        """What became of it."""
        if not ok:
            self.is_unsaid = True
        elif not progress.raw:
            self._directory.recorded = dataclasses.replace(self._directory.recorded, learning=b"")
            self._known = Runs()
