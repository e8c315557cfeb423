"""Open a storage directory: lock it, create or upgrade it, recover what a crash left."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dsreg.chunks import number_of_chunks
from dsreg.constants import MAX_RANK
from dsreg.errors import NoSpace, StorageError, WrongDirectory
from dsreg.protocol.life import STORE_SIZE, Life
from dsreg.storage import identity as identity_file
from dsreg.storage import lives as lives_file
from dsreg.storage.configuration import ConfigurationFile
from dsreg.storage.directory import Directory, Start, check_limit, open_directory, record_joining
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Files
from dsreg.storage.identity import Identity
from dsreg.storage.layout import IDENTITY, LOCK
from dsreg.storage.learning import Learning
from dsreg.storage.lives import LivesFile
from dsreg.storage.marks import MarksFile
from dsreg.storage.older import give_up
from dsreg.storage.recovery import Recovered, recover
from dsreg.storage.tags import TagTable

log = logging.getLogger("dsreg.storage")

# What tells this directory from any other that was ever made.
random_store: Callable[[], bytes] = functools.partial(secrets.token_bytes, STORE_SIZE)


class Opened(NamedTuple):
    directory: Directory
    recovered: Recovered
    lives: LivesFile
    failure: Failure
    learning: Learning
    configuration: ConfigurationFile
    marks: MarksFile


def open_and_recover(
    files: Files, identity: Identity, journal_bytes: int, new_store: Callable[[], bytes], start: Start
) -> Opened:
    """See StableStorage.open."""
    try:
        directory = open_directory(files, identity, journal_bytes, new_store, start)
        try:
            failure = Failure()
            give_up(directory, new_store, anew=start.older)
            recorded = directory.recorded
            lives = LivesFile(files, recorded.identity, recorded.store, failure)
            if start.joins and not (lives.begun or lives.claimed or recorded.configured or recorded.joining):
                record_joining(directory)
            configuration = ConfigurationFile(directory, failure)
            sectors = configuration.record.current.sectors
            check_limit(directory.home, sectors)
            recovered = recover(directory, max(sectors, recorded.identity.sectors))
            _clip(recovered.table, sectors)
            learning = Learning(directory, recovered.table, failure, new_store)
            marks = MarksFile(files, recorded.identity.salt, failure)
        except BaseException:
            directory.close()
            raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpace(f"no space to open the storage directory; free some and start again: {error}") from error
        raise StorageError(f"the storage directory cannot be used: {error}") from error
    return Opened(directory, recovered, lives, failure, learning, configuration, marks)


def _clip(table: TagTable, sectors: int) -> None:
    """The disk has so many sectors, of perhaps more that the table has. Before the size was that of a configuration a
    larger one in cluster.toml made it larger, also where a configuration was recorded that did not. What was stored
    there is kept: it is part of the disk again once a configuration has it."""
    beyond = table.next_chunk(number_of_chunks(sectors))
    table.sectors = sectors
    if beyond is not None:
        log.warning("there is data beyond the %d sectors of the disk, as an older version had made that larger by "
                    "cluster.toml alone. It is kept, and not served: give `dsreg resize` that size", sectors)


class Seen(NamedTuple):
    """What a directory says from outside. `known`: by which directory its node knows each rank, its own included once
    it has begun to serve with it."""

    rank: int
    store: bytes
    known: Mapping[int, Life]

    @property
    def begun(self) -> bool:
        return self.rank in self.known


def look(files: Files) -> Seen | None:
    """None for no directory of a node, or one that cannot be read. Nothing is changed; a process may be using it."""
    try:
        if not files.exists(IDENTITY):
            return None
        recorded = identity_file.read(files)
        rank = recorded.identity.rank
        if not recorded.store:  # of a format that knew no lives: it was in use
            return Seen(rank, b"", {rank: Life(1, b"")})
        return Seen(rank, recorded.store, lives_file.read(files, recorded.identity.salt).lives)
    except (OSError, StorageError):
        return None


def forget(files: Files, rank: int) -> Life | None:
    """Take the directory of the node `rank` out of what a stopped node knows; gives it, None if it was not known.

    Raises StorageLocked if the node runs; WrongDirectory, DamagedStorage, StorageError.
    """
    if not files.exists(IDENTITY):
        raise WrongDirectory(f"this is not a storage directory: it has no {IDENTITY}")
    lock = files.lock(LOCK)
    try:
        recorded = identity_file.read(files)
        own, ranks = recorded.identity.rank, set(recorded.identity.ranks)
        if recorded.store:
            known = lives_file.read(files, recorded.identity.salt).lives
            ranks |= {each for each in known if 1 <= each <= MAX_RANK}  # with those that became members since
        if rank == own or rank not in ranks:
            raise WrongDirectory(
                f"this is the directory of node {own}, of a cluster of the nodes {sorted(ranks)}: it keeps nothing "
                f"about a node {rank}"
            )
        return lives_file.forget(files, recorded.identity, rank) if recorded.store else None
    finally:
        lock.close()
