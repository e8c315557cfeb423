"""Values that are all zeros, of runs of 1..256 sectors: all that stand for one share one piece of memory. And zeros
over many whole chunks, which have none."""

from __future__ import annotations

from typing import Final

from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS, MAX_ZERO_CHUNKS, SECTOR_SIZE
from dsreg.protocol.messages import Buffer, Command, CommandKind

_ZEROS: Final = bytes(MAX_RUN_BYTES)
# Up to this size a copy is made: what is small is of type bytes, as what a frame has.
_COPIED_BYTES: Final = 64 * 1024


def zeros(count: int) -> Buffer:
    """Of `count` sectors."""
    size = count * SECTOR_SIZE
    return _ZEROS[:size] if size < _COPIED_BYTES or size == MAX_RUN_BYTES else memoryview(_ZEROS)[:size]


def is_zeros(data: Buffer) -> bool:
    """Whether all bytes are 0."""
    if data is _ZEROS or isinstance(data, memoryview) and data.obj is _ZEROS:
        return True
    return _ZEROS.startswith(data)  # memcmp, and nothing is copied


def are_chunks(first: int, count: int) -> bool:
    """Whether these sectors can be zeroed by one command for whole chunks, if the disk has them."""
    chunks, rest = divmod(count, MAX_RUN_SECTORS)
    return not rest and not first % MAX_RUN_SECTORS and 2 <= chunks <= MAX_ZERO_CHUNKS


def zero_command(request: int, first: int, count: int, tag: bytes, epoch: int) -> Command:
    """`first`, `count`: sectors, see `are_chunks`."""
    return Command(CommandKind.ZERO, request, first, count, tag, b"", True, epoch)
