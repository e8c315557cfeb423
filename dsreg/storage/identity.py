"""identity.toml: what a storage directory belongs to. Static, readable, written last at creation."""

from __future__ import annotations

import tomllib
import zlib
from dataclasses import dataclass

from dsreg.constants import MAX_JOURNAL_BYTES, MAX_RANK, MAX_SECTORS, MIN_JOURNAL_BYTES
from dsreg.errors import DamagedStorage, WrongDirectory
from dsreg.protocol.life import STORE_SIZE
from dsreg.storage.files import Files, replace
from dsreg.storage.layout import ATOMIC_BYTES, IDENTITY, IDENTITY_TMP
from dsreg.version import VERSION

# Since there is a file `zeros`: a version that does not know of it would take for a value what was zeroed.
FORMAT = 7
# What identity.toml said before in place of 3 while the directory learned (learning.py), and once there was a file
# `configuration` (configuration.py) or it was made to join, whether it learned or not. Now it has an entry for each.
_LEARNING_FORMAT = 4
_CONFIGURED_FORMAT = 5
# What upgrade.py can begin with: format 1 knew no epochs.
OLDEST_FORMAT = 2
# Far above what a file of 254 ranks has; a file beyond it is not ours.
MAX_IDENTITY_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Identity:
    """`cluster`: 16 bytes. `rank`: 1..254, one of `ranks` (ascending): the nodes that cluster.toml had when the
    directory was made, which are those of configuration 1 unless it was made to join. `sectors`: size of the disk then.

    Raises ValueError for anything else.
    """

    cluster: bytes
    rank: int
    ranks: tuple[int, ...]
    sectors: int

    def __post_init__(self) -> None:
        if len(self.cluster) != 16 or not 1 <= self.sectors <= MAX_SECTORS:
            raise ValueError(f"cluster of {len(self.cluster)} bytes, {self.sectors} sectors")
        if self.rank not in self.ranks or tuple(sorted(set(self.ranks))) != self.ranks:
            raise ValueError(f"rank {self.rank} of ranks {self.ranks}")
        if not (self.ranks[0] >= 1 and self.ranks[-1] <= MAX_RANK):
            raise ValueError(f"ranks {self.ranks}")

    @property
    def salt(self) -> int:
        """64 bits in every journal record: the journal of another node, stored as data on this very
        disk, must not pass for a record of this one."""
        return int.from_bytes(self.cluster[:8]) ^ self.rank


@dataclass(frozen=True, slots=True)
class Recorded:
    """The contents of identity.toml. `store`: the random id of this directory, 16 bytes, which the other nodes know it
    by; b"" in format 2, which had none. `learning`: the random id, 16 bytes, of the point from which every sector is
    unknown until it is learned; b"": there is none. `configured`: there is a file `configuration`. `joining`: it was
    made by a node that is to be told which nodes there are, and has not been."""

    identity: Identity
    journal_bytes: int
    store: bytes
    format: int = FORMAT
    learning: bytes = b""
    configured: bool = False
    joining: bool = False

    def __post_init__(self) -> None:
        if (self.configured or self.joining) and self.format < 3:
            raise ValueError(f"configured in format {self.format}")
        if self.configured and self.joining:
            raise ValueError("joining, and configured")
        if self.learning and (len(self.learning) != STORE_SIZE or self.format < 3):
            raise ValueError(f"learning = {self.learning.hex()} in format {self.format}")
        if len(self.store) != (STORE_SIZE if self.format > 2 else 0):
            raise ValueError(f"store id of {len(self.store)} bytes")
        if not MIN_JOURNAL_BYTES <= self.journal_bytes <= MAX_JOURNAL_BYTES or self.journal_bytes % ATOMIC_BYTES:
            raise ValueError(f"journal_bytes = {self.journal_bytes}")


def encode(recorded: Recorded) -> bytes:
    identity = recorded.identity
    text = (
        "# What this directory belongs to. Written by dsreg; do not edit.\n"
        f"format = {recorded.format}\n"
        f'written_by = "dsreg {VERSION}"\n'
        f'store = "{recorded.store.hex()}"\n'
        f'cluster = "{identity.cluster.hex()}"\n'
        f"rank = {identity.rank}\n"
        f"ranks = [{', '.join(map(str, identity.ranks))}]\n"
        f"sectors = {identity.sectors}\n"
        f"journal_bytes = {recorded.journal_bytes}\n"
    )
    if recorded.learning:
        text += f'learning = "{recorded.learning.hex()}"\n'
    if recorded.configured:
        text += "configured = true\n"
    if recorded.joining:
        text += "joining = true\n"
    return (text + f'check = "{zlib.crc32(text.encode()):08x}"\n').encode()


def decode(raw: bytes) -> Recorded:
    """Raises WrongDirectory for another format, DamagedStorage for anything that is not as written."""
    try:
        values = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # the latter from many brackets
        raise DamagedStorage(f"{IDENTITY} cannot be read ({error}): restore it; the data is in the other files"
                             ) from error
    if "format" not in values:
        raise DamagedStorage(f"{IDENTITY} has no format entry: restore it from a copy; the data is in the other files")
    if values["format"] not in range(OLDEST_FORMAT, FORMAT + 1):
        raise WrongDirectory(_other_format(values))
    text, _, check = raw.rpartition(b"check = ")
    if check.strip() != f'"{zlib.crc32(text):08x}"'.encode():
        raise DamagedStorage(f"{IDENTITY} is damaged (its checksum does not match): restore it from a copy")
    try:
        identity = Identity(
            bytes.fromhex(values["cluster"]), values["rank"], tuple(values["ranks"]), values["sectors"]
        )
        store = bytes.fromhex(values["store"]) if values["format"] > 2 else b""
        format_, learning = values["format"], b""
        if format_ == _LEARNING_FORMAT or format_ > _LEARNING_FORMAT and "learning" in values:
            learning = bytes.fromhex(values["learning"])
            if not learning:
                raise ValueError("learning is empty")
        joining = values.get("joining", False)
        configured = values.get("configured", format_ == _CONFIGURED_FORMAT and not joining)
        if joining not in (True, False) or configured not in (True, False):
            raise ValueError(f"joining = {joining!r}, configured = {configured!r}")
        if format_ in (_LEARNING_FORMAT, _CONFIGURED_FORMAT):
            format_ = 3  # but for what was said by the number
        return Recorded(identity, values["journal_bytes"], store, format_, learning, configured, joining)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedStorage(f"{IDENTITY} has invalid values ({error!r}): restore it from a copy") from error


def _other_format(values: dict[str, object]) -> str:
    wrote = values.get("written_by", "another version of dsreg")
    return (
        f"{IDENTITY} has format {values['format']!r}, written by {wrote}; dsreg {VERSION} knows the formats "
        f"{OLDEST_FORMAT} to {FORMAT}: start this node with the version that wrote it, or a later one"
    )


def read(files: Files) -> Recorded:
    file = files.open(IDENTITY)
    try:
        return decode(file.pread(MAX_IDENTITY_BYTES, 0))
    finally:
        file.close()


def write(files: Files, recorded: Recorded) -> None:
    """Replace identity.toml durably: after a crash there is the old one or the new one."""
    replace(files, IDENTITY_TMP, IDENTITY, encode(recorded))


def check(recorded: Identity, wanted: Identity) -> None:
    """Raise WrongDirectory, naming every difference, unless `wanted` may use what `recorded` left. Which other nodes
    cluster.toml lists, and which size, is none: it is where to begin, and the directory says who decides, and how large
    the disk is (docs/configurations.md)."""
    faults = []
    if recorded.cluster != wanted.cluster:
        faults.append(f"it belongs to cluster {recorded.cluster.hex()}, not {wanted.cluster.hex()}")
    if recorded.rank != wanted.rank:
        faults.append(f"it belongs to rank {recorded.rank}, not {wanted.rank}")
    if faults:
        raise WrongDirectory("the storage directory does not fit: " + "; ".join(faults))
