"""The file `lives`: by which directory this node knows each rank, and whether it has begun to serve itself.

    magic[8] | version u16 | count u16 | addresses u16 | pad[2]
    | count x (rank u8 | starts u56 | life u64 | store id[16]) | addresses x (see dsreg.protocol.address) | crc32 u32

The checksum is of the node's salt (Identity.salt) and all before it. The file is replaced as a whole: after a crash
there is the old one or the new one. An entry for the own rank says that the node has begun to serve with this
directory. A directory without one is empty: created, and never used. An entry for the rank 0 is the life that it
claims, and has not begun yet; one for the rank 255 has the number of a life that was given up, as the directory was an
older state of itself, and the id that the directory has from then on (dsreg.storage.older). `starts`: no incarnation of
that rank above it was heard of; 0: none was.
In version 1 there are no addresses, and zeros in place of their number.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from dsreg.constants import CRC_SIZE, MAX_RANK
from dsreg.errors import DamagedStorage, NoSpace, StorageError
from dsreg.protocol.address import MAX_ADDRESSES_BYTES, Address, pack_addresses, unpack_addresses
from dsreg.protocol.life import STORE_SIZE, Life
from dsreg.storage.checksum import salted_crc
from dsreg.storage.failure import Failure
from dsreg.storage.files import Files, replace
from dsreg.storage.identity import Identity
from dsreg.storage.layout import LIVES, LIVES_TMP, RESTORE_ADVICE

MAGIC: Final = b"dsregLIV"
VERSION: Final = 2
_VERSIONS: Final = (1, VERSION)
_HEAD: Final = struct.Struct(">8sHHH2x")
_ENTRY: Final = struct.Struct(f">QQ{STORE_SIZE}s")
_RANK_SHIFT: Final = 56
_STARTS: Final = (1 << _RANK_SHIFT) - 1
# The rank of the entry for a life that is claimed.
_CLAIMED: Final = 0
# The rank of the entry for a life that is given up.
GIVEN_UP: Final = 255
# Starts of a peer are recorded in such steps: a sync for each would be felt where a node dies again and again.
_STEP: Final = 64
_MAX_BYTES: Final = _HEAD.size + (MAX_RANK + 1) * _ENTRY.size + MAX_ADDRESSES_BYTES + CRC_SIZE
_NONE: Final[Mapping[int, int]] = MappingProxyType({})
_NOWHERE: Final[Mapping[int, Address]] = MappingProxyType({})


class Kept(NamedTuple):
    """What the file has, by rank."""

    lives: dict[int, Life]
    starts: dict[int, int]
    addresses: dict[int, Address]


def encode(
    lives: Mapping[int, Life], salt: int, starts: Mapping[int, int] = _NONE,
    addresses: Mapping[int, Address] = _NOWHERE,
) -> bytes:
    body = _HEAD.pack(MAGIC, VERSION, len(lives), len(addresses))
    for rank, life in sorted(lives.items()):
        body += _ENTRY.pack(rank << _RANK_SHIFT | min(starts.get(rank, 0), _STARTS), *life)
    body += pack_addresses(addresses)
    return body + salted_crc(body, salt)


def decode(raw: bytes, salt: int) -> Kept:
    """Raises DamagedStorage for what is not as written."""
    body, check = raw[:-CRC_SIZE], raw[-CRC_SIZE:]
    if len(raw) < _HEAD.size + CRC_SIZE or check != salted_crc(body, salt):
        raise DamagedStorage(f"the file {LIVES} is damaged (its checksum does not match): {RESTORE_ADVICE}")
    magic, version, count, places = _HEAD.unpack_from(body)
    middle = _HEAD.size + count * _ENTRY.size
    addresses = unpack_addresses(body[middle:])
    is_known = magic == MAGIC and version in _VERSIONS and len(body) >= middle
    if not is_known or addresses is None or len(addresses) != places:
        raise DamagedStorage(f"the file {LIVES} has a layout that this version does not know: {RESTORE_ADVICE}")
    entries = [(head >> _RANK_SHIFT, head & _STARTS, Life(number, store))
               for head, number, store in _ENTRY.iter_unpack(body[_HEAD.size:middle])]
    starts = {rank: starts for rank, starts, _ in entries if starts}
    return Kept({rank: life for rank, _, life in entries}, starts, addresses)


def read(files: Files, salt: int) -> Kept:
    """Raises DamagedStorage."""
    try:
        file = files.open(LIVES)
    except FileNotFoundError as error:
        raise DamagedStorage(f"the file {LIVES} is gone: {RESTORE_ADVICE}") from error
    try:
        return decode(file.pread(_MAX_BYTES, 0), salt)
    finally:
        file.close()


def write(
    files: Files, lives: Mapping[int, Life], salt: int, starts: Mapping[int, int] = _NONE,
    addresses: Mapping[int, Address] = _NOWHERE,
) -> None:
    """Replace the file durably. Blocks."""
    replace(files, LIVES_TMP, LIVES, encode(lives, salt, starts, addresses))


@contextlib.contextmanager
def _needed(what: str) -> Iterator[None]:
    """Without that the node has nothing to do: where there is no space for it, it ends, and goes on at its next start,
    as at any other moment."""
    try:
        yield
    except NoSpace as error:
        raise NoSpace(f"there is no space to record {what}, so it ends. Free some on the file system of its directory, "
                      f"and start it again: it goes on where it was ({error})") from error


class LivesFile:
    """Of an open directory. `own`: its life. `known`: rank -> life, the own rank included once the node has begun to
    serve. `starts`: rank -> incarnation, of others; none above that was heard of, but what was heard may be less.
    `claimed`: the node has claimed its life, and not begun yet. `given_up`: it has to claim the next one. `addresses`:
    where each node is, this one among them, as far as is known."""

    def __init__(self, files: Files, identity: Identity, store: bytes, failure: Failure) -> None:
        """Reads the file. `failure`: that of the storage. Raises DamagedStorage."""
        self._files = files
        self._identity = identity
        self._failure = failure
        self.addresses: Mapping[int, Address]
        self._has_unwritten = False  # an address
        lives, self.starts, self.addresses = read(files, identity.salt)
        claimed = lives.pop(_CLAIMED, None)
        given_up = lives.pop(GIVEN_UP, None)
        self.known: Mapping[int, Life] = lives
        self.own = self.known.get(identity.rank, claimed or given_up or Life(1, store))
        self.claimed = claimed is not None and not self.begun
        self.given_up = given_up is not None
        if self.own.store != store:
            raise DamagedStorage(f"the file {LIVES} is of another directory of this node: {RESTORE_ADVICE}")

    @property
    def rank(self) -> int:
        """Of this node."""
        return self._identity.rank

    @property
    def begun(self) -> bool:
        """Whether the node has ever served with this directory."""
        return self._identity.rank in self.known

    def begin(self) -> None:
        """The node begins to serve. Durable when this returns. Raises as `remember`."""
        if not self.begun:
            with _needed("that this node has begun"):
                self.remember({self._identity.rank: self.own})
            self.claimed = False

    def claim(self, number: int) -> None:
        """The node claims this life. Durable when this returns. Raises as `remember`."""
        assert not self.begun
        life = Life(number, self.own.store)
        with _needed("that this node claims the next life of its rank"):
            self._write({**self.known, _CLAIMED: life}, self.starts)
        self.own, self.claimed, self.given_up = life, True, False

    def heard(self, rank: int, incarnation: int) -> None:
        """Durable when this returns, which takes two syncs now and then. Raises as `remember`."""
        starts = self._later(rank, incarnation, self.known)
        if starts != self.starts:
            self._write(self._kept(self.known), starts)
            self.starts = starts

    def _later(self, rank: int, incarnation: int, known: Mapping[int, Life]) -> dict[int, int]:
        """`starts`, with what was heard of this rank."""
        if rank in known and incarnation > self.starts.get(rank, 0):
            return {**self.starts, rank: incarnation + -incarnation % _STEP}
        return self.starts

    def locate(self, addresses: Mapping[int, Address]) -> None:
        """Durable when this returns, which takes two syncs if there is something new. Raises NoSpace: they are written
        with what is kept next; SyncFailed, which is final."""
        self.locate_later(addresses)
        if self._has_unwritten:
            self._write(self._kept(self.known), self.starts)

    def locate_later(self, addresses: Mapping[int, Address]) -> None:
        """They are written with what is kept next, or located, next."""
        if addresses != self.addresses:
            self.addresses, self._has_unwritten = dict(addresses), True

    def _kept(self, known: Mapping[int, Life]) -> Mapping[int, Life]:
        if self.given_up:
            return {**known, GIVEN_UP: self.own}
        return {**known, _CLAIMED: self.own} if self.claimed and self._identity.rank not in known else known

    def remember(self, lives: Mapping[int, Life], rank: int = 0, incarnation: int = 0) -> None:
        """As `heard` besides, of the node `rank`, if it is one of them. Durable when this returns. It blocks for two
        syncs, once for each new directory of a peer. Raises NoSpace, and nothing has changed; SyncFailed, which is
        final."""
        known = {**self.known, **lives}
        if known == self.known:
            return
        starts = self._later(rank, incarnation, known)
        self._write(self._kept(known), starts)
        self.known, self.starts = known, starts

    def _write(self, lives: Mapping[int, Life], starts: Mapping[int, int]) -> None:
        with self._failure.writing(f"writing {LIVES}"):
            write(self._files, lives, self._identity.salt, starts, self.addresses)
        self._has_unwritten = False


def give_up(files: Files, identity: Identity, store: bytes) -> None:
    """The life that the directory has is to be followed by another one, with the id `store`. Durable when this
    returns. Raises OSError, DamagedStorage."""
    lives, starts, addresses = read(files, identity.salt)
    entries = [lives.pop(rank, None) for rank in (identity.rank, _CLAIMED, GIVEN_UP)]
    number = next((life.number for life in entries if life is not None), 1)
    write(files, {**lives, GIVEN_UP: Life(number, store)}, identity.salt, starts, addresses)


def forget(files: Files, identity: Identity, rank: int) -> Life | None:
    """Take the life of another rank out of the file; gives it, None if it was not known. Its node must be stopped,
    the lock held by the caller. Raises StorageError."""
    assert rank != identity.rank
    lives, starts, addresses = read(files, identity.salt)
    life = lives.pop(rank, None)
    addresses.pop(rank, None)
    if life is not None:
        try:
            write(files, lives, identity.salt, starts, addresses)
        except OSError as error:
            raise StorageError(f"writing {LIVES}: {error}") from error
    return life
