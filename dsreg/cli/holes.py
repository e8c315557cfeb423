"""Files with holes: zeros of the disk take no room in a file, and the holes of a file are not read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from dsreg.cli.transfer import Sink, Source
from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.zeros import is_zeros


def parts(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether all of it is zeros) of up to 1 MiB in whole sectors, each as long as it can be."""
    if is_zeros(data):
        yield 0, len(data), True
        return
    begin, is_zero = 0, is_zeros(data[:SECTOR_SIZE])
    for at in range(SECTOR_SIZE, len(data), SECTOR_SIZE):
        if is_zeros(data[at : at + SECTOR_SIZE]) is not is_zero:
            yield begin, at, is_zero
            begin, is_zero = at, not is_zero
    yield begin, len(data), is_zero


def source_of(descriptor: int, name: str) -> Source:
    """Reads from a file descriptor that may block, a terminal or a pipe as well as a file, whose holes are skipped.
    OSErrors have `name`."""
    with _naming(name):
        reads = _read_file if stat.S_ISREG(os.fstat(descriptor).st_mode) else _read_fully

    def read(size: int) -> bytes:
        with _naming(name):
            return reads(descriptor, size)

    async def source(size: int) -> bytes:
        # Abandoned on Ctrl-C: nothing else ends a read from a pipe on which nothing comes.
        return await trio.to_thread.run_sync(read, size, abandon_on_cancel=True)

    return source


def sink_of(descriptor: int, name: str) -> Sink:
    """Writes whole sectors to a file descriptor that may block. At the end of a file zeros become a hole: it is made
    longer. So a file is at any moment as long as what was written to it. OSErrors have `name`."""
    with _naming(name):
        status = os.fstat(descriptor)
        at_the_end = stat.S_ISREG(status.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) >= status.st_size

    def write(data: bytes, times: int) -> None:
        with _naming(name):
            if at_the_end and is_zeros(data):
                _add_hole(descriptor, times * len(data))
                return
            for _ in range(times):
                if at_the_end:
                    _write_sparsely(descriptor, data)
                else:
                    _write_fully(descriptor, data)

    async def sink(data: bytes, times: int = 1) -> None:
        await trio.to_thread.run_sync(write, data, times, abandon_on_cancel=True)

    return sink


def _read_file(descriptor: int, size: int) -> bytes:
    begin = os.lseek(descriptor, 0, os.SEEK_CUR)
    end = min(begin + size, os.fstat(descriptor).st_size)
    if end <= begin:
        return b""
    try:
        data = os.lseek(descriptor, begin, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        data = end  # a hole up to the end of the file
    if data >= end:
        os.lseek(descriptor, end, os.SEEK_SET)
        return bytes(end - begin)
    os.lseek(descriptor, begin, os.SEEK_SET)
    return _read_fully(descriptor, size)


def _read_fully(descriptor: int, size: int) -> bytes:
    found, missing = [], size
    while missing and (part := os.read(descriptor, missing)):
        found.append(part)
        missing -= len(part)
    return b"".join(found)


def _write_sparsely(descriptor: int, data: bytes) -> None:
    """At the end of a file."""
    for begin, end, is_zero in parts(data):
        if is_zero:
            _add_hole(descriptor, end - begin)
        else:
            _write_fully(descriptor, data[begin:end])


def _add_hole(descriptor: int, size: int) -> None:
    """At the end of a file."""
    os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR) + size)
    os.lseek(descriptor, 0, os.SEEK_END)


def _write_fully(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """The system names the file of an error only where it was opened by name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
