"""A directory after so many operations of a log, what of it is not synced, and what a power cut may leave.

The disk keeps no order between what no sync has ordered: of the unsynced changes any subset may survive. A
write breaks at every 512 bytes, and the new size of a file survives with or without the data; of the changes
of names (a file created, renamed, removed) any subset survives as well, each for itself.

A sector that the disk is writing when the power fails may also be left with garbage in it, or unreadable: 512 bytes or
4096. That is modelled where the storage has two copies: the file `state`, and the headers of the journal's segments.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dsreg.storage.journal import RECORDS_AT
from dsreg.storage.layout import JOURNALS, STATE
from dsreg.testing.memory_files import ATOMIC_BYTES, PAGE, Content, Kind, Operation

ZERO_PAGE = bytes(PAGE)
# So many independent bits are enumerated in full (64 states); of more a sample is taken.
FULL_BITS = 6
# Of the pending changes, the newest so many get the extremes one by one. Each was the newest once.
EXTREMES = 4

# Of the copies that are being written, this share is damaged.
DAMAGED_SHARE = 0.4

# Per pending change, in order, which of its parts survive, as a bit mask.
Choice = tuple[int, ...]
State = Mapping[str, Content]


class Damage(NamedTuple):
    """What a power cut has left of a sector of so many bytes: garbage, which may not be `readable`."""

    name: str
    offset: int
    size: int
    readable: bool


def has_copy(operation: Operation) -> bool:
    """Whether this writes one of two copies."""
    if operation.kind is not Kind.WRITE or len(operation.data) > PAGE:
        return False
    return operation.name == STATE or operation.name in JOURNALS and operation.offset < RECORDS_AT


@dataclass(slots=True)
class _Inode:
    durable: Content = field(default_factory=Content)
    number: int = 0


@dataclass(slots=True)
class Change:
    """A change that is not synced. `inode`: of contents; None: `names` is what becomes of some names."""

    operation: Operation
    inode: _Inode | None
    names: dict[str, _Inode | None]
    parts: int

    @property
    def everything(self) -> int:
        return (1 << self.parts) - 1

    def apply(self, content: Content, mask: int) -> None:
        """The surviving parts. The last bit of a write is the size that it gives the file."""
        operation = self.operation
        if operation.kind is not Kind.WRITE:
            content.apply(operation, mask)
            return
        start, data = operation.offset, operation.data
        size = max(content.size, start + len(data)) if mask >> operation.pieces else content.size
        base = start // ATOMIC_BYTES * ATOMIC_BYTES
        for low, high in _runs(mask & (1 << operation.pieces) - 1):
            first = max(start, base + low * ATOMIC_BYTES)
            content.write(data[first - start:base + high * ATOMIC_BYTES - start], first)
        content.size = max(content.size, size)


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """The runs of ones in `mask`: (first, one after the last)."""
    at = 0
    while mask:
        zeros = (mask & -mask).bit_length() - 1
        mask >>= zeros
        ones = (~mask & -~mask).bit_length() - 1
        yield at + zeros, at + zeros + ones
        mask >>= ones
        at += zeros + ones


def torn(parts: int, rng: random.Random) -> int:
    """A mask of some of so many parts: each for itself, or in a few runs, as disks write them."""
    if parts <= 64 and rng.random() < 0.5:
        return rng.getrandbits(parts)
    mask = 0
    for _ in range(rng.randint(1, 3)):
        mask ^= (1 << rng.randint(0, parts)) - 1
    return mask


class Image:
    """The directory. `do` takes the operations of a log one by one, from what `base` was durable."""

    def __init__(self, base: State) -> None:
        self._inodes = 0
        self._seen: dict[str, _Inode] = {}
        for name, content in base.items():
            self._seen[name] = self._inode(content.copy())
        self._durable: dict[str, _Inode | None] = dict(self._seen)
        self.pending: list[Change] = []

    def _inode(self, content: Content) -> _Inode:
        self._inodes += 1
        return _Inode(content, self._inodes)

    def do(self, operation: Operation) -> None:
        kind, name = operation.kind, operation.name
        if kind is Kind.CREATE:
            self._seen[name] = self._inode(Content())
            self.pending.append(Change(operation, None, {name: self._seen[name]}, 1))
        elif kind is Kind.RENAME:
            self._seen[operation.new] = inode = self._seen.pop(name)
            self.pending.append(Change(operation, None, {name: None, operation.new: inode}, 1))
        elif kind is Kind.REMOVE:
            del self._seen[name]
            self.pending.append(Change(operation, None, {name: None}, 1))
        elif kind is Kind.SYNC_DIR:
            self._durable = dict(self._seen)
            self.pending = [change for change in self.pending if change.inode is not None]
        elif kind is Kind.SYNC:
            self._sync(self._seen[name])
        else:
            parts = operation.pieces + (kind is Kind.WRITE)
            self.pending.append(Change(operation, self._seen[name], {}, parts))

    def _sync(self, inode: _Inode) -> None:
        for change in self.pending:
            if change.inode is inode:
                change.apply(inode.durable, change.everything)
        self.pending = [change for change in self.pending if change.inode is not inode]

    def choose(self, choice: Choice) -> dict[str, Content]:
        """What is left if of each pending change these parts survive."""
        names = dict(self._durable)
        touched: dict[int, Content] = {}
        for change, mask in zip(self.pending, choice, strict=True):
            if not mask:
                continue
            if change.inode is None:
                names.update(change.names)
                continue
            content = touched.get(change.inode.number)
            if content is None:
                content = touched[change.inode.number] = change.inode.durable.copy()
            change.apply(content, mask)
        return {
            name: touched.get(inode.number, inode.durable) for name, inode in names.items() if inode is not None
        }

    def damage(self, rng: random.Random) -> list[Damage]:
        """What becomes of the copies that are not synced, and so may be under way to the disk."""
        found = []
        for change in self.pending:
            if not has_copy(change.operation) or rng.random() > DAMAGED_SHARE:
                continue
            readable = rng.random() < 0.5
            size = rng.choice((ATOMIC_BYTES, PAGE)) if readable else PAGE
            offset = change.operation.offset // size * size
            found.append(Damage(change.operation.name, offset, size, readable))
        return found

    def choices(self, rng: random.Random, limit: int) -> Iterator[Choice]:
        """All choices where there are few bits; else the extremes and a sample, `limit` in all."""
        bits = sum(change.parts for change in self.pending)
        if bits <= FULL_BITS:
            everything = list(self._every(bits))
            yield from everything if len(everything) <= limit else rng.sample(everything, limit)
            return
        extremes = list(self._extremes(rng))
        if len(extremes) > limit // 2:
            extremes = rng.sample(extremes, limit // 2)
        yield from extremes
        for _ in range(limit - len(extremes)):
            yield self._random(rng)

    def _every(self, bits: int) -> Iterator[Choice]:
        for number in range(1 << bits):
            choice = []
            for change in self.pending:
                choice.append(number & change.everything)
                number >>= change.parts
            yield tuple(choice)

    def _extremes(self, rng: random.Random) -> Iterator[Choice]:
        """None, all; each alone, all but it, it torn with none and with all of the others."""
        nothing = [0] * len(self.pending)
        everything = [change.everything for change in self.pending]
        yield tuple(nothing)
        yield tuple(everything)
        for index in range(max(0, len(self.pending) - EXTREMES), len(self.pending)):
            some = torn(self.pending[index].parts, rng)
            for others, mask in ((nothing, everything[index]), (everything, 0), (nothing, some), (everything, some)):
                yield (*others[:index], mask, *others[index + 1:])

    def _random(self, rng: random.Random) -> Choice:
        """Kept, lost and torn, in shares that differ from state to state."""
        whole, broken = rng.random(), rng.random()
        return tuple(
            torn(change.parts, rng) if rng.random() < broken else change.everything * (rng.random() < whole)
            for change in self.pending
        )


class Fingerprints:
    """Numbers that differ for states that differ. Pages are shared between states, so each is hashed once."""

    # A page stays in memory as long as its hash is kept: 64 MiB of them.
    _LIMIT = 16384

    def __init__(self) -> None:
        self._pages: dict[int, tuple[bytes, bytes]] = {}

    def of(self, state: State) -> int:
        total = 0
        for name, content in state.items():
            total += _number(f"{name} {content.size}".encode())
            for number, page in content.pages.items():
                if page is not ZERO_PAGE and page != ZERO_PAGE:
                    total += _number(b"%s %d " % (name.encode(), number) + self._page(page))
        return total % (1 << 128)

    def _page(self, page: bytes) -> bytes:
        known = self._pages.get(id(page))
        if known is None:
            if len(self._pages) >= self._LIMIT:
                self._pages.clear()
            known = self._pages[id(page)] = (page, hashlib.blake2b(page, digest_size=16).digest())
        return known[1]


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest())
