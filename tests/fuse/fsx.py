"""Random I/O on a range of a file, against a plain file: the idea of fsx."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

from tests.fuse.holes import PUNCH, ZERO, fallocate

MAX_LENGTH = 300_000
ALIGNMENT = 4096


class Fsx:
    """Reads, writes, syncs and re-opens `target` within [start, start + length), and compares all that comes back.

    `plain` is an ordinary file of `length` bytes that gets the same writes; zeros at first, as `target` must
    be. With `direct`, descriptors are opened with O_DIRECT and everything is aligned to 4096 bytes. With `holes`,
    ranges are zeroed and punched as well.
    """

    def __init__(self, target: Path, plain: Path, start: int, length: int, seed: int, direct: bool = False,
                 holes: bool = False) -> None:
        self._target, self._plain, self._start, self._length = target, plain, start, length
        self._rng = random.Random(seed)
        self._unit = ALIGNMENT if direct else 1
        self._flags = os.O_RDWR | (os.O_DIRECT if direct else 0)
        self._weights = {"write": 10, "read": 10, "fsync": 2, "reopen": 1, "hole": 6 if holes else 0}
        self._buffer = mmap.mmap(-1, 1 << 20)  # page-aligned, as O_DIRECT wants it
        with plain.open("wb") as stream:
            stream.truncate(length)

    def adopt(self) -> None:
        """Begin with what is in `target` now."""
        with self._target.open("rb") as stream:
            stream.seek(self._start)
            self._plain.write_bytes(stream.read(self._length))

    def run(self, steps: int) -> None:
        target, plain = os.open(self._target, self._flags), os.open(self._plain, os.O_RDWR)
        try:
            for _ in range(steps):
                action = self._rng.choices(list(self._weights), list(self._weights.values()))[0]
                offset, length = self._range()
                if action == "write":
                    self._write(target, plain, offset, length)
                elif action == "read":
                    self._compare(target, plain, offset, length)
                elif action == "hole":
                    fallocate(target, self._rng.choice((PUNCH, ZERO)), self._start + offset, length)
                    os.pwrite(plain, bytes(length), offset)
                elif action == "fsync":
                    os.fsync(target)
                else:
                    os.close(target)
                    target = os.open(self._target, self._flags)
            for offset in range(0, self._length, 1 << 20):
                self._compare(target, plain, offset, min(1 << 20, self._length - offset))
        finally:
            os.close(target)
            os.close(plain)

    def _range(self) -> tuple[int, int]:
        """Offset and length in bytes; short and long ones about equally often."""
        longest = int(2 ** self._rng.uniform(0, MAX_LENGTH.bit_length()))
        length = min(-(-min(longest, MAX_LENGTH) // self._unit) * self._unit, self._length)
        offset = self._rng.randrange(0, self._length - length + 1) // self._unit * self._unit
        return offset, length

    def _write(self, target: int, plain: int, offset: int, length: int) -> None:
        data = self._rng.randbytes(length)
        self._buffer[:length] = data
        with memoryview(self._buffer) as whole, whole[:length] as view:
            written = os.pwrite(target, view, self._start + offset)
        assert written == length
        os.pwrite(plain, data, offset)

    def _compare(self, target: int, plain: int, offset: int, length: int) -> None:
        with memoryview(self._buffer) as whole, whole[:length] as view:
            count = os.preadv(target, [view], self._start + offset)
        assert count == length
        expected = os.pread(plain, length, offset)
        if self._buffer[:length] != expected:
            wrong = next(n for n in range(length) if self._buffer[n] != expected[n])
            raise AssertionError(f"byte {self._start + offset + wrong} differs (read of {length} at {offset})")
