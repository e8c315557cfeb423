"""Chunks: the disk in pieces of 256 sectors, the last one perhaps shorter, by which nodes compare, learn and verify."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS


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


def extents_of(holes: bytes, offset: int, length: int) -> list[tuple[int, bool]]:
    """(bytes, whether they are a hole) from `offset` on, `length` bytes or as far as `holes` tells: that has a byte for
    each chunk from the one of `offset` on, other than 0 for a hole (dsreg.store.Map). No two that follow are alike."""
    first, stop = offset // MAX_RUN_BYTES, offset + length
    extents = []
    index = 0
    while offset < stop and index < len(holes):
        is_hole = holes[index] != 0
        index = holes.find(b"\0" if is_hole else b"\1", index)
        if index < 0:
            index = len(holes)
        end = min((first + index) * MAX_RUN_BYTES, stop)
        extents.append((end - offset, is_hole))
        offset = end
    return extents
