"""Chunks: the disk in pieces of 256 sectors, the last one perhaps shorter, by which nodes compare, learn and verify."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS


def number_of_chunks(sectors: int) -> int:
    """Of a disk of so many sectors."""
    return -(-sectors // MAX_RUN_SECTORS)


def run_of(chunk: int, sectors: int) -> tuple[int, int]:
    """First sector, and number of sectors, of the chunk of a disk of so many sectors."""
    first = chunk * MAX_RUN_SECTORS
    return first, min(MAX_RUN_SECTORS, sectors - first)


def chunks_of(first: int, count: int) -> range:
    """Those that the run of `count` sectors from `first` on touches."""
    return range(first // MAX_RUN_SECTORS, (first + count - 1) // MAX_RUN_SECTORS + 1)
