"""The file `configuration`: which nodes there are and how large the disk is, as far as this node has heard, and how it
has promised and voted about what follows (dsreg.register.configuration).

    magic[8] | version u16 | flags u16 | pad[4] | configuration[112] | promised[24] | voted in[24] | voted for[112]
    | keep[32] | crc32 u32

Layouts of configurations, ballots and sets of ranks: dsreg.protocol.configuration. Flag 1: the node has voted; else
what stands for its vote is zeros. `keep`: the nodes that were seen to keep configurations. The checksum is of the
node's salt (Identity.salt) and all before it. The file is replaced as a whole: after a crash there is the old one or
the new one.

A directory begins with the configuration of number 1, which is what identity.toml says, or, if it was made to join,
with none, number 0. As long as that is so, and the node has promised nothing, the file has nothing but `keep` to tell,
and may be lost, or left over from what was not finished. Then identity.toml is made to say that the rest counts, after
the file is durable: from then on one that is gone is not taken for one that never was.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final, NamedTuple

from dsreg.constants import CRC_SIZE, SECTOR_SIZE
from dsreg.errors import DamagedStorage, NoSpace
from dsreg.protocol.configuration import (
    NO_BALLOT,
    RECORD_SIZE,
    Configuration,
    Record,
    pack_record,
    unpack_record,
)
from dsreg.register.configuration import is_sound
from dsreg.register.quorum import bit, mask
from dsreg.storage import identity as identity_file
from dsreg.storage.checksum import salted_crc
from dsreg.storage.directory import Directory
from dsreg.storage.failure import Failure
from dsreg.storage.files import Files, replace
from dsreg.storage.identity import Recorded
from dsreg.storage.layout import CONFIGURATION as NAME
from dsreg.storage.layout import CONFIGURATION_TMP, RESTORE_ADVICE

MAGIC: Final = b"dsregCFG"
VERSION: Final = 2
_HEAD: Final = struct.Struct(">8sHH4x")
_VOTED: Final = 1
_KEEP_SIZE: Final = 32
_SIZE: Final = _HEAD.size + RECORD_SIZE + _KEEP_SIZE + CRC_SIZE


class Kept(NamedTuple):
    """What the file has. `keep`: a mask of ranks."""

    record: Record
    keep: int = 0


def first_of(recorded: Recorded) -> Configuration:
    """What the directory was made for: number 1, or, if it was made to join, number 0, without members."""
    identity = recorded.identity
    if recorded.joining:
        return Configuration(0, identity.sectors, 0, 0, 0)
    ranks = mask(identity.ranks)
    return Configuration(1, identity.sectors, ranks, 0, ranks)


def encode(kept: Kept, salt: int) -> bytes:
    record = kept.record
    body = _HEAD.pack(MAGIC, VERSION, _VOTED if record.voted is not None else 0)
    body += pack_record(record) + kept.keep.to_bytes(_KEEP_SIZE)
    return body + salted_crc(body, salt)


def decode(raw: bytes, salt: int) -> Kept:
    """Raises DamagedStorage for what is not as written."""
    body, check = raw[:-CRC_SIZE], raw[-CRC_SIZE:]
    if len(raw) != _SIZE or check != salted_crc(body, salt):
        raise DamagedStorage(f"the file {NAME} is damaged (its checksum does not match): {RESTORE_ADVICE}")
    magic, version, flags = _HEAD.unpack_from(body)
    if magic != MAGIC or version != VERSION or flags & ~_VOTED:
        raise DamagedStorage(f"the file {NAME} has a layout that this version does not know: {RESTORE_ADVICE}")
    record = unpack_record(body[_HEAD.size:-_KEEP_SIZE])
    if record is None or not is_sound(record) or bool(flags & _VOTED) != (record.voted is not None):
        raise DamagedStorage(f"the file {NAME} has what this version never writes: {RESTORE_ADVICE}")
    return Kept(record, int.from_bytes(body[-_KEEP_SIZE:]))


def _read(files: Files, salt: int) -> Kept:
    try:
        file = files.open(NAME)
    except FileNotFoundError as error:
        raise DamagedStorage(f"the file {NAME} is gone: {RESTORE_ADVICE}") from error
    try:
        return decode(file.pread(_SIZE + 1, 0), salt)
    finally:
        file.close()


def kept_in(files: Files, recorded: Recorded) -> Kept:
    """What the directory says, of which identity.toml says `recorded`. Raises DamagedStorage."""
    salt = recorded.identity.salt
    if recorded.configured:
        return _read(files, salt)
    return Kept(Record(first_of(recorded), NO_BALLOT), _keep_in(files, salt))


def _keep_in(files: Files, salt: int) -> int:
    """As far as it can be read, while nothing rests on it."""
    try:
        return _read(files, salt).keep
    except DamagedStorage:
        return 0


class ConfigurationFile:
    """Of an open directory. `record`: what is durable. `keep`: likewise, the mask of the nodes that were seen to keep
    configurations."""

    def __init__(self, directory: Directory, failure: Failure) -> None:
        """Reads the file, if there is to be one. `failure`: that of the storage. Raises DamagedStorage."""
        self._directory = directory
        self._failure = failure
        self.record, self.keep = kept_in(directory.files, directory.recorded)

    @property
    def largest(self) -> int:
        """Sectors of the largest disk that the directory can hold: its file system, or ulimit -f, allows no longer
        file."""
        return self._directory.home.largest() // SECTOR_SIZE

    def remember(self, record: Record) -> None:
        """Durable when this returns. It blocks for two syncs, the first time for four. Raises NoSpace, also where the
        disk would be too large for the directory: nothing may be answered that rests on it, and after a crash there is
        what was there before or, as harmless, this; SyncFailed, which is final."""
        if record == self.record:
            return
        if fault := self.why_not(record.current.sectors):
            raise NoSpace(fault)
        directory = self._directory
        with self._failure.writing(f"writing {NAME}"):
            self._replace(Kept(record, self.keep))
            if not directory.recorded.configured:
                configured = dataclasses.replace(directory.recorded, configured=True, joining=False)
                identity_file.write(directory.files, configured)
                directory.recorded = configured
        self.record = record

    def why_not(self, sectors: int) -> str:
        """Why the directory cannot hold a disk of that size; "" if it can."""
        if sectors <= self.record.current.sectors or sectors <= (largest := self.largest):
            return ""
        return (f"a disk of {sectors} sectors needs a longer file than the file system (or ulimit -f) allows there, "
                f"which is {largest} sectors")

    def seen(self, rank: int, keeps: bool) -> None:
        """The node `rank` keeps configurations, or does not. Durable when this returns, which takes two syncs if it was
        not known. Raises as `remember`."""
        keep = self.keep | bit(rank) if keeps else self.keep & ~bit(rank)
        if keep == self.keep:
            return
        with self._failure.writing(f"writing {NAME}"):
            self._replace(Kept(self.record, keep))
        self.keep = keep

    def _replace(self, kept: Kept) -> None:
        replace(self._directory.files, CONFIGURATION_TMP, NAME, encode(kept, self._directory.salt))
