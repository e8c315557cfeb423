"""The file `configuration`: which nodes there are and how large the disk is, as far as this node has heard, and how it
has promised and voted about what follows (dsreg.register.configuration).

    magic[8] | version u16 | flags u16 | pad[4] | configuration[112] | promised[24] | voted in[24] | voted for[112]
    | crc32 u32

Layouts of configurations and ballots: dsreg.protocol.configuration. Flag 1: the node has voted; else what stands for
its vote is zeros. The checksum is of the node's salt (Identity.salt) and all before it. The file is replaced as a
whole: after a crash there is the old one or the new one.

A directory has none as long as it is at number 1, which is what identity.toml says, and has promised nothing. The first
time identity.toml is made to say that there is one, after the file is durable: from then on one that is gone is not
taken for one that never was.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from dsreg.constants import CRC_SIZE
from dsreg.errors import DamagedStorage
from dsreg.protocol.configuration import (
    BALLOT,
    CONFIGURATION,
    NO_BALLOT,
    Ballot,
    Configuration,
    Vote,
    pack_configuration,
    unpack_configuration,
)
from dsreg.register.configuration import Record, objection
from dsreg.register.quorum import mask
from dsreg.storage import identity as identity_file
from dsreg.storage.checksum import salted_crc
from dsreg.storage.directory import Directory
from dsreg.storage.failure import Failure
from dsreg.storage.files import Files, replace
from dsreg.storage.identity import Identity
from dsreg.storage.layout import CONFIGURATION as NAME
from dsreg.storage.layout import CONFIGURATION_TMP, RESTORE_ADVICE

MAGIC: Final = b"dsregCFG"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sHH4x")
_VOTED: Final = 1
_SIZE: Final = _HEAD.size + 2 * CONFIGURATION.size + 2 * BALLOT.size + CRC_SIZE


def first_of(identity: Identity) -> Configuration:
    """Number 1: what the directory was made for."""
    ranks = mask(identity.ranks)
    return Configuration(1, identity.sectors, ranks, 0, ranks)


def encode(record: Record, salt: int) -> bytes:
    body = _HEAD.pack(MAGIC, VERSION, _VOTED if record.voted is not None else 0)
    body += pack_configuration(record.current) + BALLOT.pack(*record.promised)
    if record.voted is not None:
        body += BALLOT.pack(*record.voted.ballot) + pack_configuration(record.voted.configuration)
    else:
        body += bytes(BALLOT.size + CONFIGURATION.size)
    return body + salted_crc(body, salt)


def decode(raw: bytes, salt: int) -> Record:
    """Raises DamagedStorage for what is not as written."""
    body, check = raw[:-CRC_SIZE], raw[-CRC_SIZE:]
    if len(raw) != _SIZE or check != salted_crc(body, salt):
        raise DamagedStorage(f"the file {NAME} is damaged (its checksum does not match): {RESTORE_ADVICE}")
    magic, version, flags = _HEAD.unpack_from(body)
    if magic != MAGIC or version != VERSION or flags & ~_VOTED:
        raise DamagedStorage(f"the file {NAME} has a layout that this version does not know: {RESTORE_ADVICE}")
    at = _HEAD.size
    current = unpack_configuration(body[at:at + CONFIGURATION.size])
    at += CONFIGURATION.size
    promised = Ballot(*BALLOT.unpack_from(body, at))
    at += BALLOT.size
    voted = None
    if flags & _VOTED:
        following = unpack_configuration(body[at + BALLOT.size:])
        if following is not None and current is not None and not objection(current, following):
            voted = Vote(Ballot(*BALLOT.unpack_from(body, at)), following)
    if current is None or bool(flags & _VOTED) != (voted is not None):
        raise DamagedStorage(f"the file {NAME} has what this version never writes: {RESTORE_ADVICE}")
    return Record(current, promised, voted)


def _read(files: Files, salt: int) -> Record:
    try:
        file = files.open(NAME)
    except FileNotFoundError as error:
        raise DamagedStorage(f"the file {NAME} is gone: {RESTORE_ADVICE}") from error
    try:
        return decode(file.pread(_SIZE + 1, 0), salt)
    finally:
        file.close()


class ConfigurationFile:
    """Of an open directory. `record`: what is durable."""

    def __init__(self, directory: Directory, failure: Failure) -> None:
        """Reads the file, if there is to be one. `failure`: that of the storage. Raises DamagedStorage."""
        self._directory = directory
        self._failure = failure
        recorded = directory.recorded
        self.record = Record(first_of(recorded.identity), NO_BALLOT)
        if recorded.configured:
            self.record = _read(directory.files, directory.salt)

    def remember(self, record: Record) -> None:
        """Durable when this returns. It blocks for two syncs, the first time for four. Raises NoSpace: nothing may be
        answered that rests on it, and after a crash there is what was there before or, as harmless, this; SyncFailed,
        which is final."""
        if record == self.record:
            return
        directory = self._directory
        with self._failure.writing(f"writing {NAME}"):
            replace(directory.files, CONFIGURATION_TMP, NAME, encode(record, directory.salt))
            if not directory.recorded.configured:
                configured = dataclasses.replace(directory.recorded, configured=True)
                identity_file.write(directory.files, configured)
                directory.recorded = configured
        self.record = record
