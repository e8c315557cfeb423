"""Makes the directory of a stopped node one of another cluster, with all its values: docs/recover.md.

    identity.toml   the new cluster with its nodes and its size, a new id of the directory, and whether it has to learn;
                    in one step
    configuration   is gone: number 1 of the new cluster is what identity.toml says
    lives           nobody is known yet, nor has the node begun
    state           the epoch from which on the new cluster goes on
    (what is damaged is given up)
    lives           the node has begun

A crash leaves a directory that no node starts with: before the first step it is of another cluster, after it another
directory than `lives` says, then one that has not begun, with which a node that was left does not start. All steps are
gone through again then.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import MAX_RUN_SECTORS, NO_OWNER, SECTOR_SIZE
from dsreg.errors import WrongDirectory
from dsreg.protocol.configuration import Record
from dsreg.protocol.names import name_bits
from dsreg.protocol.tags import iter_tags, pack_tag, successors
from dsreg.register.damage import pieces
from dsreg.storage import identity as identity_file
from dsreg.storage import lives as lives_file
from dsreg.storage.configuration import kept_in
from dsreg.storage.draining import drain
from dsreg.storage.files import Files
from dsreg.storage.identity import Identity, Recorded
from dsreg.storage.layout import CONFIGURATION, IDENTITY, LOCK
from dsreg.storage.opening import random_store
from dsreg.storage.stable import StableStorage


def recorded_in(files: Files) -> Recorded:
    """What the directory belongs to. Raises WrongDirectory, DamagedStorage."""
    if not files.exists(IDENTITY):
        raise WrongDirectory(f"this is not a storage directory: it has no {IDENTITY}")
    return identity_file.read(files)


def known_to(files: Files, recorded: Recorded) -> Record:
    """The latest configuration that the directory knows, which is number 0 without members if it is yet to be told of
    one, and how it has voted for what follows. Raises DamagedStorage."""
    return kept_in(files, recorded).record


def move(
    files: Files, before: bytes, identity: Identity, *, learns: bool, new_store: Callable[[], bytes] = random_store
) -> None:
    """The first three steps. `before`: the id of the cluster that it was of. `learns`: others have to tell what they
    have before this node answers for it. Raises StorageLocked, WrongDirectory, DamagedStorage, OSError."""
    lock = files.lock(LOCK)
    try:
        recorded = recorded_in(files)
        if recorded.identity.cluster == before:
            store = new_store()
            recorded = Recorded(identity, recorded.journal_bytes, store, learning=new_store() if learns else b"")
            identity_file.write(files, recorded)
        identity_file.check(recorded.identity, identity)
        if not recorded.configured and files.exists(CONFIGURATION):
            files.remove(CONFIGURATION)
            files.sync_dir()
        lives = lives_file.read(files, identity.salt).lives
        if lives and (identity.rank not in lives or lives[identity.rank].store != recorded.store):
            lives_file.write(files, {}, identity.salt)
    finally:
        lock.close()


def settle(storage: StableStorage, epoch: int, damaged: list[int]) -> None:
    """The last steps. `damaged`: sectors that are given up; they read as zeros, as if this node had written them last:
    the tag of a value that is lost stays the name of that value alone, which another directory may still have."""
    if storage.epoch < epoch:
        storage.fence(epoch, NO_OWNER)
    epoch = max(epoch, storage.epoch)
    life = name_bits(storage.lives.own.number, storage.incarnation)
    for first, count in runs_of(damaged):
        tags, unknown = storage.tags(first, count), storage.unknown(first, count)
        for sector, tag in enumerate(iter_tags(tags), first):
            if sector in unknown:
                new = pack_tag(0, 0, 0, epoch)  # as one that was never written
            else:
                new = successors(tag, storage.lives.rank, epoch=epoch, life=life)
            storage.persist(sector, 1, new, bytes(SECTOR_SIZE), repair=True)
        drain(storage, idle=False)
    drain(storage, idle=False)
    storage.lives.begin()


def runs_of(sectors: list[int]) -> list[tuple[int, int]]:
    """(first, count) of what lies together, of at most 256. `sectors` ascend."""
    runs: list[tuple[int, int]] = []
    for sector in sectors:
        first, count = runs[-1] if runs else (0, 0)
        if runs and sector == first + count and count < MAX_RUN_SECTORS:
            runs[-1] = first, count + 1
        else:
            runs.append((sector, 1))
    return runs


def damaged_sectors(storage: StableStorage, on_read: Callable[[int], None] = lambda size: None) -> list[int]:
    """All sectors whose value or tag is lost here, by reading everything. `on_read` is told how many bytes were read.
    Blocks. Ascending."""
    found: list[int] = []
    for first, count in pieces(0, storage.sectors):
        if any(storage.tags(first, count)):
            assert storage.load(first, count, wait=True) is not None, "nothing is being stored"
            on_read(count * SECTOR_SIZE)
        found += storage.damaged_of(first, count)
    return found
