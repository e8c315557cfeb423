"""Open a storage directory: lock it, create or upgrade it, recover what a crash left."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from typing import NamedTuple

from dsreg.core.lives import STORE_SIZE
from dsreg.errors import NoSpace, StorageError
from dsreg.storage.directory import Directory, open_directory, record_growth
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.files import Files
from dsreg.storage.identity import Identity
from dsreg.storage.lives import LivesFile
from dsreg.storage.recovery import Recovered, recover

# What tells this directory from any other that was ever made.
random_store: Callable[[], bytes] = functools.partial(secrets.token_bytes, STORE_SIZE)


class Opened(NamedTuple):
    directory: Directory
    recovered: Recovered
    lives: LivesFile
    failure: Failure


def open_and_recover(
    files: Files, identity: Identity, journal_bytes: int, new_store: Callable[[], bytes]
) -> Opened:
    """See StableStorage.open."""
    try:
        directory = open_directory(files, identity, journal_bytes, new_store)
        try:
            failure = Failure()
            recorded = directory.recorded
            lives = LivesFile(files, recorded.identity, recorded.store, failure)
            recovered = recover(directory, identity.sectors)
            record_growth(directory, identity)
        except BaseException:
            directory.close()
            raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise NoSpace(f"no room to open the storage directory; make some, start again: {error}") from error
        raise StorageError(f"the storage directory cannot be used: {error}") from error
    return Opened(directory, recovered, lives, failure)
