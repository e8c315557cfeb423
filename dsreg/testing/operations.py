"""Operations on files as values, what power loss makes of them, and the bytes of one file in memory."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dsreg.storage.files import Buffer

ATOMIC_BYTES = 512
PAGE = 4096
_ZERO_PAGE = bytes(PAGE)


class Kind(enum.Enum):
    CREATE = "create"
    WRITE = "write"
    TRUNCATE = "truncate"
    ALLOCATE = "allocate"
    PUNCH = "punch"
    SYNC = "sync"
    RENAME = "rename"
    REMOVE = "remove"
    SYNC_DIR = "sync_dir"


@dataclass(frozen=True, slots=True)
class Operation:
    """`offset`: also the new size for TRUNCATE. `length`: for ALLOCATE and PUNCH. `new`: for RENAME."""

    kind: Kind
    name: str = ""
    offset: int = 0
    data: bytes = b""
    length: int = 0
    new: str = ""

    @property
    def pieces(self) -> int:
        """Into how many parts power loss can break it: a write into its 512-byte sectors, a punch into pages."""
        if self.kind is Kind.PUNCH:
            return (self.offset + self.length - 1) // PAGE - self.offset // PAGE + 1
        if self.kind is not Kind.WRITE or not self.data:
            return 1
        return (self.offset + len(self.data) - 1) // ATOMIC_BYTES - self.offset // ATOMIC_BYTES + 1


# Given an operation that was not synced: a bit mask of the pieces of it that reached the disk.
Chooser = Callable[[Operation], int]


def keep_all(operation: Operation) -> int:
    return (1 << operation.pieces) - 1


def drop_all(operation: Operation) -> int:
    return 0


def random_chooser(rng: random.Random) -> Chooser:
    """Keeps, drops and tears, a third each."""

    def choose(operation: Operation) -> int:
        return rng.choice((keep_all(operation), 0, rng.getrandbits(operation.pieces)))

    return choose


class Content:
    """Bytes of a file, as pages; what has no page reads as zeros. Copies share their pages, which never change."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.size = 0

    def copy(self) -> Content:
        other = Content()
        other.pages = self.pages.copy()
        other.size = self.size
        return other

    def read(self, length: int, offset: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        out = bytearray(length)
        for number, start, stop, at in pages_of(offset, length):
            page = self.pages.get(number)
            if page is not None:
                out[at:at + stop - start] = page[start:stop]
        return bytes(out)

    def write(self, data: Buffer, offset: int) -> None:
        for number, start, stop, at in pages_of(offset, len(data)):
            new = bytes(data[at:at + stop - start])
            if len(new) < PAGE:
                old = self.pages.get(number, _ZERO_PAGE)
                new = b"".join((old[:start], new, old[stop:]))
            self.pages[number] = new
        if data:
            self.size = max(self.size, offset + len(data))

    def allocate(self, offset: int, length: int) -> None:
        for number, *_ in pages_of(offset, length):
            self.pages.setdefault(number, _ZERO_PAGE)
        self.size = max(self.size, offset + length)

    def punch(self, offset: int, length: int) -> None:
        for number, start, stop, _ in pages_of(offset, length):
            if stop - start == PAGE:
                self.pages.pop(number, None)
            elif (old := self.pages.get(number)) is not None:
                self.pages[number] = b"".join((old[:start], bytes(stop - start), old[stop:]))

    def truncate(self, size: int) -> None:
        for number in [number for number in self.pages if number * PAGE >= size]:
            del self.pages[number]
        if size % PAGE and size // PAGE in self.pages:
            self.pages[size // PAGE] = self.pages[size // PAGE][:size % PAGE].ljust(PAGE, b"\0")
        self.size = size

    def apply(self, operation: Operation, mask: int) -> None:
        """Carry out those pieces of an operation that `mask` has."""
        if operation.kind is Kind.WRITE:
            if mask == keep_all(operation):
                self.write(operation.data, operation.offset)
                return
            start = operation.offset
            end = start + len(operation.data)
            for piece in range(operation.pieces):
                low = max(start, (start // ATOMIC_BYTES + piece) * ATOMIC_BYTES)
                high = min(end, (start // ATOMIC_BYTES + piece + 1) * ATOMIC_BYTES)
                if mask >> piece & 1:
                    self.write(operation.data[low - start:high - start], low)
        elif mask and operation.kind is Kind.TRUNCATE:
            self.truncate(operation.offset)
        elif mask and operation.kind is Kind.ALLOCATE:
            self.allocate(operation.offset, operation.length)
        elif mask and operation.kind is Kind.PUNCH:
            for piece, (number, start, stop, _) in enumerate(pages_of(operation.offset, operation.length)):
                if mask >> piece & 1:
                    self.punch(number * PAGE + start, stop - start)


def pages_of(offset: int, length: int) -> Iterable[tuple[int, int, int, int]]:
    """(page, start and stop within it, position within the run) for a run of bytes."""
    at = 0
    while at < length:
        number, start = divmod(offset + at, PAGE)
        stop = min(PAGE, start + length - at)
        yield number, start, stop, at
        at += stop - start
